"""The SDK: enroll users of a keyark deployment.

from keyark.client import EnrollmentClient

async with EnrollmentClient.open("deployment") as client:
    alice = await client.enroll(common_name="Alice Example", email="alice@example.org")
"""

from keyark.client.enrollment import EnrollmentClient, KeyDelivery, PreparedEnrollment
from keyark.client.verification import Enrolled
from keyark.errors import KeyarkError

__all__ = ["Enrolled", "EnrollmentClient", "KeyDelivery", "KeyarkError", "PreparedEnrollment"]
