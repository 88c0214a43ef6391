"""Policy at the stages "issue" and, for what renews another pair, "renew"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from cm_service.issuance.renewals import RenewedPair
from cm_service.issuance.subject_names import NameHolders
from keyark.policy.engine import PolicyEngine
from keyark.policy.requests import Archival, PolicyRequest, Receipt
from keyark.service.checks.policy_requests import policy_request
from keyark.statements.approvals import Approval
from keyark.statements.enrollment import Statement
from keyark.store import ReadTransaction
from keyark.x509.certificates import Validity

STAGE: Final = "issue"
RENEW: Final = "renew"

Read = Callable[[Callable[[ReadTransaction], set[str]]], set[str]]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What is to be issued: the statement as it was approved, for how long, and which pair it renews, if any."""

    statement: Statement
    validity: Validity
    approval: Approval | None
    has_receipt: bool
    renewed: RenewedPair | None

    def request(self, *, now: int, issuer_key_type: str) -> PolicyRequest:
        """Return what rules look at; ``now`` is in seconds UTC."""
        attributes = policy_request(
            self.statement,
            archival=Archival.REQUESTED if self.has_receipt else Archival.ABSENT,
            receipt=Receipt.PRESENT if self.has_receipt else Receipt.ABSENT,
        )
        return replace(
            attributes,
            now=now,
            not_before=self.validity.not_before,
            not_after=self.validity.not_after,
            issuer_key_type=issuer_key_type,
            approver=str(self.approval.officer) if self.approval else "",
            renewed_not_after=self.renewed.pair.not_after if self.renewed else None,
        )


def apply_policy(
    policy: PolicyEngine, judged: Judged, request: PolicyRequest, read: Read
) -> PolicyRequest | None:
    """Raise what policy rejects; returns what to judge again when it is issued, if a rule's verdict may change."""
    holders = NameHolders(
        read=read,
        statement=judged.statement,
        now=request.now or 0,
        renewed=judged.renewed.enrollment_id if judged.renewed else b"",
    )
    policy.enforce(STAGE, replace(request, renewed_not_after=None, name_holders=holders))
    if judged.renewed is not None:
        policy.enforce(RENEW, request)
    return replace(request, name_holders=holders) if holders.was_asked else None


def judge_again(
    policy: PolicyEngine, txn: ReadTransaction, request: PolicyRequest, statement: Statement
) -> None:
    """Ask policy again about what others may have been issued since it was asked first."""
    earlier = request.name_holders
    renewed = earlier.renewed if isinstance(earlier, NameHolders) else b""
    holders = NameHolders(
        read=lambda look: look(txn), statement=statement, now=request.now or 0, renewed=renewed
    )
    policy.enforce(STAGE, replace(request, renewed_not_after=None, name_holders=holders))
