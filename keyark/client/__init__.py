"""The SDK: enroll users of a keyark deployment, and recover their keys as its agents.

from keyark.client import EnrollmentClient

async with EnrollmentClient.open("deployment") as client:
    alice = await client.enroll(common_name="Alice Example", email="alice@example.org")

async with RecoveryClient.open("deployment", identity="agent/bob") as bob:
    await bob.approve(await bob.review(ceremony_id))
"""

from keyark.client.enrollment import EnrollmentClient, KeyDelivery, PreparedEnrollment
from keyark.client.pending import PendingApprovalError
from keyark.client.recipients import RecoveredKey
from keyark.client.recovery import RecoveryClient
from keyark.client.verification import Enrolled
from keyark.errors import KeyarkError

__all__ = [
    "Enrolled",
    "EnrollmentClient",
    "KeyDelivery",
    "KeyarkError",
    "PendingApprovalError",
    "PreparedEnrollment",
    "RecoveredKey",
    "RecoveryClient",
]
