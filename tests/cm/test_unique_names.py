"""A common name belongs to one address while certificates under it are in force, even when two ask at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cm_service.issuance.subject_names import MAX_PAIRS
from cm_service.records import PAIRS
from keyark.errors import PolicyRejectedError
from keyark.policy.engine import Reject
from keyark.policy.requests import sample_of
from keyark.policy.rules.enrollment import UniqueSubjectName
from keyark.records.v1.cm_pb2 import PairRecord, Revocation
from keyark.v1.common_pb2 import CertificatePair
from keyark.v1.revocation_pb2 import RevocationReason
from tests.support.stories.issuance import Ca, request

HELD = RevocationReason.REVOCATION_REASON_CERTIFICATE_HOLD
REVOKED = RevocationReason.REVOCATION_REASON_SUPERSEDED


@pytest.fixture
def ca(ca: Ca) -> Ca:
    demand(ca)
    return ca


def demand(ca: Ca, **parameters: Any) -> None:
    rule = UniqueSubjectName(name="unique-name", type="UniqueSubjectName", stage="issue", **parameters)
    ca.issuance.policy.rules = {"issue": [rule]}


def named(number: int, email: str, common_name: str = "Alice Example") -> Any:
    return request(number, common_name=common_name, email=email)


def verdicts(outcomes: list[Any]) -> list[type]:
    return [type(outcome) for outcome in outcomes]


async def revoke(ca: Ca, **reasons: Any) -> None:
    """Let the certificates of the only pair have these standings."""
    ((key, value),) = ca.store.read(lambda txn: txn.scan(PAIRS, limit=2))
    pair = PairRecord.FromString(value)
    for name, reason in reasons.items():
        getattr(pair, f"{name}_revocation").CopyFrom(Revocation(reason=reason))
    await ca.store.update(lambda txn: txn.put(PAIRS, key, pair.SerializeToString()))


async def test_a_name_that_is_taken_is_rejected_whatever_its_case(ca: Ca) -> None:
    await ca.issue(named(0, "alice@example.org"))
    for number, name in enumerate(("Alice Example", "ALICE example"), start=1):
        (outcome,) = await ca.issue(named(number, "other@example.org", name))
        assert isinstance(outcome, PolicyRejectedError)
        assert "another address" in outcome.message
    assert len(ca.issued()) == 1


async def test_another_name_and_the_same_person_are_accepted(ca: Ca) -> None:
    await ca.issue(named(0, "alice@example.org"))
    outcomes = await ca.issue(named(1, "bob@example.org", "Bob Example"), named(2, "Alice@example.org"))
    assert verdicts(outcomes) == [CertificatePair] * 2


async def test_one_pair_for_each_person_where_that_is_demanded(ca: Ca) -> None:
    demand(ca, same_address="rejected")
    asked = named(0, "alice@example.org")
    assert verdicts(await ca.issue(asked)) == [CertificatePair]
    assert verdicts(await ca.issue(named(1, "alice@example.org"))) == [PolicyRejectedError]
    assert verdicts(await ca.issue(asked)) == [CertificatePair], "its own pair is not in its way"


async def test_of_two_at_once_one_gets_the_name(ca: Ca) -> None:
    outcomes = await ca.issue(named(0, "alice@example.org"), named(1, "other@example.org"))
    assert verdicts(outcomes) == [CertificatePair, PolicyRejectedError]
    assert [pair.email for pair in ca.issued()] == ["alice@example.org"]


@pytest.mark.parametrize(
    ("reasons", "verdict"),
    [
        ({"signing": REVOKED, "encryption": REVOKED}, CertificatePair),
        ({"signing": REVOKED}, PolicyRejectedError),
        ({"signing": HELD, "encryption": HELD}, PolicyRejectedError),
    ],
)
async def test_a_name_is_free_again_when_nothing_under_it_is_in_force(
    ca: Ca, reasons: Any, verdict: type
) -> None:
    await ca.issue(named(0, "alice@example.org"))
    await revoke(ca, **reasons)
    assert verdicts(await ca.issue(named(1, "other@example.org"))) == [verdict]


async def test_a_name_is_free_again_after_the_last_second_of_its_certificates(ca: Ca) -> None:
    profiles = ca.issuance.profiles
    profiles["person"] = profiles["person"].model_copy(update={"validity_days": 1})
    await ca.issue(named(0, "alice@example.org"))
    (pair,) = ca.issued()
    ca.clock.advance(pair.not_after - ca.clock.now_us() // 1_000_000)
    assert verdicts(await ca.issue(named(1, "other@example.org"))) == [PolicyRejectedError]
    ca.clock.advance(1)
    assert verdicts(await ca.issue(named(2, "other@example.org"))) == [CertificatePair]


async def test_more_holders_than_are_looked_at_reject(ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PAIRS == 1000
    monkeypatch.setattr("cm_service.issuance.subject_names.MAX_PAIRS", 1)
    await ca.issue(named(0, "alice@example.org"))
    await ca.issue(named(1, "alice@example.org"))
    assert verdicts(await ca.issue(named(2, "alice@example.org"))) == [PolicyRejectedError]


async def test_what_the_rule_is_not_told_it_rejects(ca: Ca) -> None:
    (rule,) = ca.issuance.policy.rules["issue"]
    assert isinstance(rule.evaluate(replace(sample_of("issue"), name_holders=None)), Reject)
