"""Guards signed calls: whose they are, which statements they name, and when they count (P5, P9)."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.contexts import context
from keyark.errors import InvalidInputError, KeyarkError
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType
from keyark.keys.signatures import sign_message
from keyark.statements import calls
from keyark.statements.calls import LABEL, CallSigner, CallTrust, SignedCall
from keyark.statements.enrollment import new_request_id, parse_statement
from keyark.statements.signed import CLOCK_SKEW_SECONDS
from keyark.v1.statement_pb2 import CallStatement
from keyark.x509.certificates import Validity
from tests.support.keys.pki import DAY, NOW, TRUST_DOMAIN, private_key, root_ca, statement_bytes
from tests.support.running.calls import call_signer, call_trust
from tests.support.running.rpc import current_ca, identity, identity_list, revoked_identities, serial_of

AGE = 900
CLIENT = "client/enroller"


@pytest.fixture
def trust() -> CallTrust:
    return call_trust()


@pytest.fixture(scope="module")
def statements() -> list[bytes]:
    return [statement_bytes(request_id=new_request_id()) for _ in range(3)]


def refusal(trust: CallTrust, signed: SignedCall, now: int = NOW) -> KeyarkError:
    with pytest.raises(KeyarkError) as caught:
        trust.verify(signed, now=now, max_age_seconds=AGE)
    return caught.value


def resigned(signed: SignedCall, by: CallSigner, **fields: Any) -> SignedCall:
    """The same call with other fields, and a signature over them."""
    message = CallStatement.FromString(signed.statement)
    for name, value in fields.items():
        if name == "statement_sha256":
            message.statement_sha256[:] = value
        else:
            setattr(message, name, value)
    raw = message.SerializeToString(deterministic=True)
    signature = sign_message(by.private_key, context(LABEL, raw))
    return signed._replace(statement=raw, signature=signature)


def test_a_call_names_its_statements_and_no_other(trust: CallTrust, statements: list[bytes]) -> None:
    call = trust.verify(call_signer().sign(statements[:2], time=NOW), now=NOW, max_age_seconds=AGE)
    assert str(call.caller) == f"spiffe://{TRUST_DOMAIN}/{CLIENT}"
    for raw in statements[:2]:
        call.check_names(parse_statement(raw))
    with pytest.raises(calls.CallMismatchError):
        call.check_names(parse_statement(statements[2]))


def test_a_client_signs_for_itself_only(trust: CallTrust, statements: list[bytes]) -> None:
    """Bob's call may list the hash of Alice's statement; it does not make the statement his to send."""
    call = trust.verify(call_signer("client/bob").sign(statements, time=NOW), now=NOW, max_age_seconds=AGE)
    with pytest.raises(calls.CallMismatchError):
        call.check_names(parse_statement(statements[0]))


def test_the_rm_takes_a_call_for_exactly_what_is_sent(trust: CallTrust, statements: list[bytes]) -> None:
    call = trust.verify(call_signer().sign(statements, time=NOW), now=NOW, max_age_seconds=AGE)
    me = SpiffeId(TRUST_DOMAIN, CLIENT)
    call.check_sends(me, statements)
    for sent in (statements[:2], statements[::-1], [*statements, statements[0]]):
        with pytest.raises(calls.CallMismatchError):
            call.check_sends(me, sent)
    with pytest.raises(calls.CallMismatchError):
        call.check_sends(SpiffeId(TRUST_DOMAIN, "client/bob"), statements)


@pytest.mark.parametrize(
    "path", ["officer/officer", "agent/alice", "auditor/auditor", "rm", "drm", "drm/transport"]
)
def test_nobody_but_a_client_signs_calls(trust: CallTrust, statements: list[bytes], path: str) -> None:
    assert refusal(trust, call_signer(path).sign(statements, time=NOW)).reason == "UNAUTHENTICATED"


def test_a_certificate_of_another_ca_is_refused(trust: CallTrust, statements: list[bytes]) -> None:
    signed = call_signer(authority=root_ca()).sign(statements, time=NOW)
    assert refusal(trust, signed).reason == "CERTIFICATE_CHAIN"


def test_the_certificate_is_valid_when_the_call_was_signed(trust: CallTrust, statements: list[bytes]) -> None:
    """The signed time counts: an expired certificate does not sign, one that expires afterwards did."""
    ends = NOW - 600
    short = call_signer(validity=Validity(ends - 3600, ends))
    trust.verify(short.sign(statements, time=ends - 1), now=NOW, max_age_seconds=AGE)
    assert refusal(trust, short.sign(statements, time=ends + 1)).reason == "CERTIFICATE_EXPIRED"
    early = call_signer(validity=Validity(NOW + 1, NOW + DAY))
    assert refusal(trust, early.sign(statements, time=NOW)).reason == "CERTIFICATE_NOT_YET_VALID"


def test_a_remembered_call_grows_old_all_the_same(trust: CallTrust, statements: list[bytes]) -> None:
    signed = call_signer().sign(statements, time=NOW)
    trust.verify(signed, now=NOW + AGE, max_age_seconds=AGE)
    assert refusal(trust, signed, now=NOW + AGE + 1).reason == "CALL_TIME"
    assert refusal(trust, signed, now=NOW - CLOCK_SKEW_SECONDS - 1).reason == "CALL_TIME"


@pytest.mark.parametrize(
    "change",
    [
        lambda hashes: hashes[:-1],
        lambda hashes: hashes[::-1],
        lambda hashes: [*hashes, bytes(32)],
        lambda hashes: [bytes(32), *hashes[1:]],
    ],
    ids=["truncated", "reordered", "added", "replaced"],
)
def test_another_list_is_another_call(trust: CallTrust, statements: list[bytes], change: Any) -> None:
    signed = call_signer().sign(statements, time=NOW)
    trust.verify(signed, now=NOW, max_age_seconds=AGE)
    message = CallStatement.FromString(signed.statement)
    message.statement_sha256[:] = change(list(message.statement_sha256))
    changed = signed._replace(statement=message.SerializeToString(deterministic=True))
    assert refusal(trust, changed).reason == "CALL_SIGNATURE"


def test_signature_and_certificate_belong_together(trust: CallTrust, statements: list[bytes]) -> None:
    mine, other = (call_signer(number=number).sign(statements, time=NOW) for number in (903, 905))
    for signature in (other.signature, bytes(9000), b""):
        assert refusal(trust, mine._replace(signature=signature)).reason == "CALL_SIGNATURE"


def test_the_label_keeps_calls_apart_from_what_else_the_key_signs(trust: CallTrust, statements) -> None:
    signed = call_signer().sign(statements, time=NOW)
    key, other = private_key(KeyType.EC_P256, 903), context("keyark/v1/enrollment-approval", signed.statement)
    assert refusal(trust, signed._replace(signature=sign_message(key, other))).reason == "CALL_SIGNATURE"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"caller": f"spiffe://{TRUST_DOMAIN}/client/bob"}, "CALL_SIGNATURE"),
        ({"trust_domain": "example.com"}, "CALL_MISMATCH"),
        ({"version": 2}, "INVALID_INPUT"),
        ({"time": 0}, "INVALID_INPUT"),
        ({"time": -1}, "INVALID_INPUT"),
        ({"statement_sha256": []}, "INVALID_INPUT"),
        ({"statement_sha256": [bytes(31)]}, "INVALID_INPUT"),
        ({"statement_sha256": [bytes(32)] * 257}, "INVALID_INPUT"),
        ({"statement_sha256": [bytes(32)] * 400}, "INVALID_INPUT"),
    ],
)
def test_what_a_call_says_is_checked(trust: CallTrust, statements, fields, reason) -> None:
    by = call_signer()
    assert refusal(trust, resigned(by.sign(statements, time=NOW), by, **fields)).reason == reason


def test_a_call_of_as_many_statements_as_there_may_be_is_taken(trust: CallTrust, statements) -> None:
    by = call_signer()
    largest = resigned(by.sign(statements, time=NOW), by, statement_sha256=[bytes(32)] * 256)
    assert len(trust.verify(largest, now=NOW, max_age_seconds=AGE).statement_sha256) == 256


@pytest.mark.parametrize("certificate", [b"", b"garbage", bytes(5000)])
def test_a_certificate_that_is_none_is_refused(trust: CallTrust, statements, certificate: bytes) -> None:
    signed = call_signer().sign(statements, time=NOW)
    assert refusal(trust, signed._replace(certificate=certificate)).reason == "CERTIFICATE_FORMAT"


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused_with_a_typed_error(raw: bytes) -> None:
    trust = call_trust()
    with pytest.raises(InvalidInputError):
        trust.verify(SignedCall(raw, b"", b""), now=NOW, max_age_seconds=AGE)


def test_a_revoked_certificate_signs_no_calls_whenever_it_did(statements: list[bytes]) -> None:
    """Also a call that was verified, and remembered, before the revocation."""
    alice, bob = identity("client/alice"), identity("client/bob")
    revoked = revoked_identities()
    trust = CallTrust(trust_domain=TRUST_DOMAIN, anchors=[current_ca().certificate], revoked=revoked)
    now = int(time.time())
    by_alice, by_bob = (
        CallSigner(certificate=who.leaf, private_key=who.signing_key).sign(statements, time=now)
        for who in (alice, bob)
    )
    trust.verify(by_alice, now=now, max_age_seconds=AGE)
    revoked.take(revoked.newer(identity_list(serial_of(alice))))
    assert refusal(trust, by_alice, now).reason == "IDENTITY_REVOKED"
    trust.verify(by_bob, now=now, max_age_seconds=AGE)


def test_what_is_remembered_is_bounded(trust: CallTrust, statements, monkeypatch) -> None:
    monkeypatch.setattr(calls, "_REMEMBERED_CALLS", 3)
    for age in range(5):
        trust.verify(call_signer().sign(statements, time=NOW - age), now=NOW, max_age_seconds=AGE)
    assert len(trust._calls) == 3
