"""The rule type of the stage "revoke"."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, get_args

from pydantic import AfterValidator

from keyark.policy.engine import ACCEPT, Outcome, Reject
from keyark.policy.people import check_identity
from keyark.policy.requests import REVOKE, RevocationRequest
from keyark.policy.rules.enrollment import RuleSettings

Reason = Literal[
    "unspecified",
    "keyCompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
]
REASONS: Final[list[Reason]] = list(get_args(Reason))
HOLD: Final = "certificateHold"


def _officer(path: str) -> str:
    return check_identity(path, role="officer")


class RevocationRule(RuleSettings):
    """Says which officers may revoke, suspend and release certificates (empty: all), and which reasons officers
    and holders may give.
    """

    stages: ClassVar[frozenset[str]] = REVOKE

    type: Literal["Revocation"]
    officers: list[Annotated[str, AfterValidator(_officer)]] = []
    officer_reasons: list[Reason] = REASONS
    holder_reasons: list[Reason] = [
        reason for reason in REASONS if reason not in {HOLD, "privilegeWithdrawn"}
    ]

    def evaluate(self, request: RevocationRequest) -> Outcome:
        """Reject an officer or a reason that is not listed; who may hold may release."""
        requester = request.requester.removeprefix("spiffe://").partition("/")[2]
        if not request.by_holder and self.officers and requester not in self.officers:
            return Reject(
                f"{requester} may not {request.change} certificates; ask {', '.join(self.officers)}"
            )
        reasons = self.holder_reasons if request.by_holder else self.officer_reasons
        if (request.reason or HOLD) in reasons:
            return ACCEPT
        who = "holders" if request.by_holder else "officers"
        given = f"{who} do not {request.change} for the reason {request.reason or HOLD}"
        return Reject(f"{given}; they may for {', '.join(reasons)}" if reasons else given)
