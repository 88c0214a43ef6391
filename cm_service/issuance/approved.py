"""What an officer approved, as the CM takes it: the officer's own word, never the RM's."""

from __future__ import annotations

from typing import Final

from keyark.clock import SECONDS_PER_DAY
from keyark.service.checks.evidence import ReceiptChecks
from keyark.statements.approvals import Approval, OfficerTrust
from keyark.statements.enrollment import Statement
from keyark.v1.ceremony_pb2 import SignedStatement

OLDEST_APPROVAL_SECONDS: Final = 60 * SECONDS_PER_DAY
"""Longer ago no officer approved what is issued now: requests wait 30 days at most, and as long again once approved."""


def apply_approval(
    signed: SignedStatement | None, statement: Statement, checks: ReceiptChecks
) -> tuple[Approval | None, Statement]:
    """Return the verified approval, None where no officer had to, and the statement with the approved name.

    Trust anchors, revoked identities and clock are those of ``checks``. Raises as ``OfficerTrust.verify``.
    """
    if signed is None:
        return None, statement
    trust = OfficerTrust(
        trust_domain=statement.trust_domain,
        anchors=checks.trust.anchors,
        revoked=checks.revoked,
        max_age_seconds=OLDEST_APPROVAL_SECONDS,
    )
    approval = trust.verify(signed, statement, now=checks.clock.now_us() // 1_000_000)
    return approval, approval.applied_to(statement)
