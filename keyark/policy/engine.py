"""The rule engine: all rules of a stage run, any reject rejects, a rule that errs rejects."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from keyark.errors import PolicyRejectedError, Violation
from keyark.identity.spiffe import SpiffeId
from keyark.policy.disclosure import Disclosure, disclosed_to
from keyark.policy.requests import AnyRequest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Accept:
    """The rule has nothing against the request."""


@dataclass(frozen=True)
class Reject:
    """The rule refuses the request; ``message`` says what to change."""

    message: str


@dataclass(frozen=True)
class Defer:
    """A registration officer should decide; ``message`` says why."""

    message: str


Outcome = Accept | Reject | Defer
ACCEPT = Accept()


class Rule(Protocol):
    """One configured rule."""

    @property
    def name(self) -> str:
        """The rule's name in the configuration."""

    def applies(self, request: Any) -> bool:
        """Whether the rule has a say in this request."""

    def evaluate(self, request: Any) -> Outcome:
        """Judge the request, which is of the kind that the rule's stage has."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a stage came to, with every rule that did not accept: rejections, or else deferrals."""

    rejections: tuple[Violation, ...] = ()
    deferrals: tuple[Violation, ...] = ()

    @property
    def is_deferred(self) -> bool:
        """Whether an officer has to decide."""
        return bool(self.deferrals) and not self.rejections


@dataclass(kw_only=True)
class PolicyEngine:
    """The rules of one subsystem ("rm", "cm", "drm") by stage, in the order of the configuration.

    ``details`` says who sees the details of log entries. Another policy comes into force with ``replace``, for whatever
    is judged after that.
    """

    subsystem: str
    rules: Mapping[str, Sequence[Rule]]
    details: Sequence[Disclosure] = ()

    def replace(self, other: PolicyEngine) -> None:
        """Judge by the policy of another engine from here on."""
        self.rules, self.details = other.rules, other.details

    def discloses(self, reader: SpiffeId) -> frozenset[int]:
        """Return the types (EventType) of the log entries whose details a reader sees."""
        return disclosed_to(reader, self.details)

    def evaluate(self, stage: str, request: AnyRequest) -> Decision:
        """Run every rule of the stage that applies, in order, and collect all that do not accept."""
        rejections, deferrals = [], []
        for rule in self.rules.get(stage, ()):
            outcome = self._judge(rule, request)
            if isinstance(outcome, Reject):
                rejections.append(
                    Violation(rule=rule.name, subsystem=self.subsystem, message=outcome.message)
                )
            elif isinstance(outcome, Defer):
                deferrals.append(Violation(rule=rule.name, subsystem=self.subsystem, message=outcome.message))
        return Decision(rejections=tuple(rejections), deferrals=tuple(deferrals))

    def _judge(self, rule: Rule, request: AnyRequest) -> Outcome:
        try:
            return rule.evaluate(request) if rule.applies(request) else ACCEPT
        except Exception:
            logger.exception("policy rule %s of %s failed and therefore rejects", rule.name, self.subsystem)
            return Reject("the rule itself failed; its operator finds the cause in the service's log")

    def enforce(self, stage: str, request: AnyRequest) -> None:
        """Return if every rule accepts; raises PolicyRejectedError with every violation otherwise.

        A deferral is a rejection here: where nobody waits for an officer, nothing goes on without one.
        """
        if deferrals := self.judge(stage, request):
            raise self._rejection(deferrals)

    def judge(self, stage: str, request: AnyRequest) -> tuple[Violation, ...]:
        """Return every deferral, none where all rules accept; raises PolicyRejectedError where any rule rejects."""
        decision = self.evaluate(stage, request)
        if decision.rejections:
            raise self._rejection(decision.rejections)
        return decision.deferrals

    def _rejection(self, violations: Sequence[Violation]) -> PolicyRejectedError:
        names = ", ".join(violation.rule for violation in violations)
        sentences = "; ".join(violation.message for violation in violations)
        return PolicyRejectedError(
            f"Policy of the {self.subsystem.upper()} rejects the request ({names}): {sentences}.",
            violations=violations,
        )
