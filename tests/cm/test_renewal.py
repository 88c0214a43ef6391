"""A pair is renewed once, in its own name, by who holds its signing key, and while it is in force."""

from __future__ import annotations

from typing import Any

import pytest

from cm_service.issuance.steps import PairRequest
from cm_service.records import PAIRS, find_certificate
from keyark.errors import InvalidInputError, PolicyRejectedError
from keyark.keys.key_types import KeyType
from keyark.policy.engine import Reject
from keyark.policy.requests import sample_of
from keyark.policy.rules.enrollment import UniqueSubjectName
from keyark.policy.rules.renewal import RenewalRule
from keyark.records.v1.cm_pb2 import PairRecord, Revocation
from keyark.statements.enrollment import (
    PresentCertificate,
    RenewalSignatureError,
    new_request_id,
    parse_statement,
    sign_statement,
    verify_renewal,
)
from keyark.v1.common_pb2 import CertificatePair
from keyark.v1.revocation_pb2 import RevocationReason
from keyark.v1.statement_pb2 import EnrollmentStatement
from keyark.x509.certificates import load_certificate
from keyark.x509.serials import encode_serial
from tests.support.keys.pki import private_key
from tests.support.stories.issuance import Ca, request

DAY = 86_400


def key_of(number: int) -> Any:
    """The signing key of ``request(number)``."""
    return private_key(KeyType.EC_P256, 100 + 2 * number)


def serial_of(pair: CertificatePair, role: str = "signing") -> bytes:
    return encode_serial(load_certificate(getattr(pair, f"{role}_certificate")).serial_number)


def renewal(pair: CertificatePair, number: int = 1, *, key: Any = None, **changes: Any) -> PairRequest:
    present = PresentCertificate(serial=serial_of(pair), private_key=key or key_of(0))
    return request(number, present=changes.pop("present", present), **changes)


@pytest.fixture
async def old(ca: Ca) -> CertificatePair:
    """Alice's pair, whose signing key is ``key_of(0)``."""
    profiles = ca.issuance.profiles
    profiles["person"] = profiles["person"].model_copy(update={"validity_days": 10})
    (pair,) = await ca.issue(request(0))
    assert isinstance(pair, CertificatePair)
    return pair


async def refusal(ca: Ca, asked: PairRequest) -> str:
    (outcome,) = await ca.issue(asked)
    assert not isinstance(outcome, CertificatePair)
    assert len(ca.issued()) == 1, "nothing was issued"
    return outcome.reason


async def test_a_renewed_pair_and_its_successor_name_each_other(ca: Ca, old: CertificatePair) -> None:
    asked = renewal(old)
    (new,) = await ca.issue(asked)
    assert isinstance(new, CertificatePair)
    now = ca.clock.now_us() // 1_000_000
    before, after = (ca.store.read(lambda t, p=p: find_certificate(t, serial_of(p), now)) for p in (old, new))
    assert before.renewed_by == after.enrollment_id
    assert after.renews == before.enrollment_id
    assert (before.renews, after.renewed_by) == (b"", b"")
    assert await ca.issue(asked) == [new], "the same request gets the same outcome"


async def test_a_pair_is_renewed_once_even_when_two_ask_at_once(ca: Ca, old: CertificatePair) -> None:
    outcomes = await ca.issue(renewal(old, 1), renewal(old, 2))
    assert [type(outcome) is CertificatePair for outcome in outcomes] == [True, False]
    assert outcomes[1].reason == "ALREADY_RENEWED"
    (third,) = await ca.issue(renewal(old, 3))
    assert third.reason == "ALREADY_RENEWED"
    (fourth,) = await ca.issue(renewal(outcomes[0], 4, key=key_of(1)))
    assert isinstance(fourth, CertificatePair), "its successor is renewed in turn"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": private_key(KeyType.EC_P256, 900)}, "RENEWAL_SIGNATURE"),
        ({"common_name": "Mallory"}, "RENEWAL_REFUSED"),
        ({"email": "mallory@example.org"}, "RENEWAL_REFUSED"),
    ],
)
async def test_another_key_or_name_renews_nothing(
    ca: Ca, old: CertificatePair, changes: Any, reason: str
) -> None:
    assert await refusal(ca, renewal(old, **changes)) == reason


async def test_only_a_signing_certificate_of_this_ca_is_renewed(ca: Ca, old: CertificatePair) -> None:
    for serial in (serial_of(old, "encryption"), b"\x01"):
        present = PresentCertificate(serial=serial, private_key=key_of(0))
        assert await refusal(ca, renewal(old, present=present)) == "RENEWAL_REFUSED"


async def test_who_has_not_the_key_does_not_learn_the_state(ca: Ca, old: CertificatePair) -> None:
    await change(ca, signing_revocation=Revocation(reason=RevocationReason.REVOCATION_REASON_SUPERSEDED))
    other = private_key(KeyType.EC_P256, 900)
    assert await refusal(ca, renewal(old, key=other)) == "RENEWAL_SIGNATURE"


async def change(ca: Ca, **fields: Any) -> None:
    ((key, value),) = ca.store.read(lambda txn: txn.scan(PAIRS, limit=2))
    pair = PairRecord.FromString(value)
    pair.MergeFrom(PairRecord(**fields))
    await ca.store.update(lambda txn: txn.put(PAIRS, key, pair.SerializeToString()))


@pytest.mark.parametrize(
    ("reason", "refused"), [("SUPERSEDED", "RENEWAL_REFUSED"), ("CERTIFICATE_HOLD", "RENEWAL_ON_HOLD")]
)
async def test_what_is_not_in_force_is_not_renewed(
    ca: Ca, old: CertificatePair, reason: str, refused: str
) -> None:
    number = RevocationReason.Value(f"REVOCATION_REASON_{reason}")
    await change(ca, signing_revocation=Revocation(reason=number))
    assert await refusal(ca, renewal(old)) == refused


async def test_a_certificate_is_renewed_until_its_last_second(ca: Ca, old: CertificatePair) -> None:
    end = int(load_certificate(old.signing_certificate).not_valid_after_utc.timestamp())
    ca.clock.advance(end + 1 - ca.clock.now_us() // 1_000_000)
    signed = len(ca.pool.asked)
    assert await refusal(ca, renewal(old)) == "RENEWAL_REFUSED"
    assert len(ca.pool.asked) == signed, "it is refused before anything is signed"
    ca.clock.advance(-1)
    assert isinstance((await ca.issue(renewal(old)))[0], CertificatePair)


async def test_what_ends_while_its_successor_is_signed_is_not_renewed(ca: Ca, old: CertificatePair) -> None:
    end = int(load_certificate(old.signing_certificate).not_valid_after_utc.timestamp())
    ca.clock.advance(end - ca.clock.now_us() // 1_000_000)

    def slowly(results: list[bytes]) -> list[bytes]:
        ca.clock.advance(1)
        return results

    ca.pool.alter = slowly
    assert await refusal(ca, renewal(old)) == "RENEWAL_REFUSED"


async def test_the_rule_says_from_when_on(ca: Ca, old: CertificatePair) -> None:
    rule = RenewalRule(name="window", type="Renewal", stage="renew", days_before_expiry=4)
    ca.issuance.policy.rules = {"renew": [rule]}
    (outcome,) = await ca.issue(renewal(old))
    assert isinstance(outcome, PolicyRejectedError)
    assert "renew them within 4" in outcome.message
    ca.clock.advance(7 * DAY)
    assert isinstance((await ca.issue(renewal(old)))[0], CertificatePair)
    assert isinstance((await ca.issue(request(5)))[0], CertificatePair), "enrollments are no renewals"
    assert isinstance(rule.evaluate(sample_of("issue")), Reject)


async def test_a_renewal_may_keep_a_name_that_is_its_own(ca: Ca, old: CertificatePair) -> None:
    rule = UniqueSubjectName(name="unique", type="UniqueSubjectName", stage="issue", same_address="rejected")
    ca.issuance.policy.rules = {"issue": [rule]}
    assert isinstance((await ca.issue(request(5)))[0], PolicyRejectedError)
    assert isinstance((await ca.issue(renewal(old)))[0], CertificatePair)


async def test_the_old_signing_key_is_not_taken_again(ca: Ca, old: CertificatePair) -> None:
    present = PresentCertificate(serial=serial_of(old), private_key=key_of(0))
    assert await refusal(ca, request(0, present=present)) == "PUBLIC_KEY_IN_USE"


def test_both_keys_sign_every_byte_of_a_renewal() -> None:
    """The new key signs what the present one signed; a changed field breaks both."""
    present = PresentCertificate(serial=b"\x05", private_key=key_of(0))
    raw = request(1, present=present).statement
    statement = parse_statement(raw)
    assert statement.renews == b"\x05"
    verify_renewal(statement, key_of(0).public_key())
    message = EnrollmentStatement.FromString(raw)
    for name, value in (("email", "b@example.org"), ("request_id", new_request_id()), ("renews", b"\x06")):
        altered = EnrollmentStatement.FromString(raw)
        setattr(altered, name, value)
        with pytest.raises(RenewalSignatureError):
            verify_renewal(
                parse_statement(altered.SerializeToString(deterministic=True)), key_of(0).public_key()
            )
    with pytest.raises(RenewalSignatureError):  # the signature of the new key is not that of the present one
        other = EnrollmentStatement.FromString(raw)
        other.renewal_signature = sign_statement(raw, key_of(1))
        verify_renewal(parse_statement(other.SerializeToString(deterministic=True)), key_of(0).public_key())
    assert message.renewal_signature


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"renews": b"\x05"}, "renewal_signature"),
        ({"renewal_signature": b"s"}, "renews"),
        ({"renews": b"\x00\x05", "renewal_signature": b"s"}, "renews"),
        ({"renews": b"\x05" * 21, "renewal_signature": b"s"}, "renews"),
        ({"renews": b"\x05", "renewal_signature": b"s" * (8 * 1024 + 1)}, "renewal_signature"),
    ],
)
def test_half_a_renewal_is_refused(fields: Any, field: str) -> None:
    message = EnrollmentStatement.FromString(request(1).statement)
    for name, value in fields.items():
        setattr(message, name, value)
    with pytest.raises(InvalidInputError) as refused:
        parse_statement(message.SerializeToString(deterministic=True))
    assert refused.value.field == field
