"""The engine: every rule that applies runs in order, any reject rejects, a rule that errs rejects and leaks nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from keyark.errors import PolicyRejectedError
from keyark.policy.engine import ACCEPT, Defer, Outcome, PolicyEngine, Reject
from keyark.policy.requests import Archival, PolicyRequest, Receipt

REQUEST = PolicyRequest(
    caller="spiffe://example.org/client/enroller",
    profile="user",
    common_name="Alice Example",
    email="alice@example.org",
    signing_key_type="ec-p256",
    encryption_key_type="rsa-2048",
    archival=Archival.REQUESTED,
    receipt=Receipt.PRESENT,
    not_before=0,
    not_after=86_400 * 100,
)


@dataclass
class Scripted:
    """A rule that does as it is told, and remembers that it ran."""

    name: str
    outcome: Outcome | Exception = ACCEPT
    applying: bool = True
    ran: list[str] = field(default_factory=list)

    def applies(self, request: PolicyRequest) -> bool:
        return self.applying

    def evaluate(self, request: PolicyRequest) -> Outcome:
        self.ran.append(self.name)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def engine(*rules: Scripted) -> PolicyEngine:
    return PolicyEngine(subsystem="rm", rules={"submit": rules})


def test_a_stage_without_rules_accepts() -> None:
    engine().enforce("submit", REQUEST)


def test_all_rules_run_in_order_and_every_rejection_is_told() -> None:
    ran: list[str] = []
    rules = [
        Scripted("a", Reject("no a"), ran=ran),
        Scripted("b", ran=ran),
        Scripted("c", Reject("no c"), ran=ran),
    ]
    with pytest.raises(PolicyRejectedError) as caught:
        engine(*rules).enforce("submit", REQUEST)
    assert ran == ["a", "b", "c"]
    assert [(v.rule, v.subsystem, v.message) for v in caught.value.violations] == [
        ("a", "rm", "no a"), ("c", "rm", "no c")
    ]  # fmt: skip


def test_rules_that_do_not_apply_do_not_run() -> None:
    rule = Scripted("a", Reject("no"), applying=False)
    engine(rule).enforce("submit", REQUEST)
    assert rule.ran == []


def test_rejecting_beats_deferring() -> None:
    decision = engine(Scripted("a", Defer("ask")), Scripted("b", Reject("no"))).evaluate("submit", REQUEST)
    assert not decision.is_deferred
    assert [v.rule for v in decision.rejections] == ["b"]


def test_a_deferral_never_goes_on_by_itself() -> None:
    deferring = engine(Scripted("a", Defer("ask an officer")))
    assert deferring.evaluate("submit", REQUEST).is_deferred
    with pytest.raises(PolicyRejectedError, match="ask an officer"):
        deferring.enforce("submit", REQUEST)


def test_a_rule_that_errs_rejects_and_tells_nothing_of_the_cause(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(PolicyRejectedError) as caught:
        engine(Scripted("a", ZeroDivisionError("secret cause"))).enforce("submit", REQUEST)
    assert [v.rule for v in caught.value.violations] == ["a"]
    assert "secret cause" not in str(caught.value)
    assert "policy rule a of rm failed" in caplog.text


def test_other_stages_are_not_touched() -> None:
    engine(Scripted("a", Reject("no"))).enforce("issue", REQUEST)
