"""The rule type of the stage "renew"."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from keyark.clock import SECONDS_PER_DAY
from keyark.policy.engine import ACCEPT, Outcome, Reject
from keyark.policy.requests import RENEW, PolicyRequest
from keyark.policy.rules.enrollment import RuleSettings


class RenewalRule(RuleSettings):
    """Says how many days before expiry a pair may be renewed; expired certificates never are."""

    stages: ClassVar[frozenset[str]] = RENEW

    type: Literal["Renewal"]
    days_before_expiry: Annotated[int, Field(ge=1)]

    def evaluate(self, request: PolicyRequest) -> Outcome:
        """Reject what is renewed too early."""
        if request.renewed_not_after is None or request.now is None:
            return Reject("which certificates are renewed is not known")
        left = (request.renewed_not_after - request.now) / SECONDS_PER_DAY
        if left > self.days_before_expiry:
            return Reject(
                f"the certificates are valid for {left:.0f} more days; renew them within {self.days_before_expiry}"
            )
        return ACCEPT
