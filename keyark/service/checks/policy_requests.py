"""What policy sees of a statement, in every subsystem."""

from __future__ import annotations

from keyark.policy.requests import Archival, PolicyRequest, Receipt
from keyark.statements.enrollment import Statement


def policy_request(statement: Statement, *, archival: Archival, receipt: Receipt) -> PolicyRequest:
    """Return the attributes of a statement that policy rules look at."""
    return PolicyRequest(
        caller=str(statement.caller),
        profile=statement.profile,
        common_name=statement.common_name,
        email=statement.email,
        signing_key_type=statement.signing_key_type.value,
        encryption_key_type=statement.encryption_key_type.value if statement.encryption_key_type else "",
        archival=archival,
        receipt=receipt,
    )
