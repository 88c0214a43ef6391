"""Bad input, through the whole stack: a clear typed error, nothing issued, nothing archived, an entry in the log.

P1, P5, P8, P9. The requests are made by hand, for the SDK would refuse most of them before they are sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyark.custody.envelopes import TransportPublicKey
from keyark.errors import KeyarkError, PolicyRejectedError
from keyark.keys.key_types import KeyType, generate
from keyark.keys.spki import encode_spki
from keyark.rpc.errors import MessageTooLargeError
from keyark.v1 import registration_pb2 as pb
from keyark.v1.statement_pb2 import EnrollmentStatement
from tests.support.keys.crypto import rsa_numbers, rsa_pkcs8
from tests.support.keys.pki import private_key
from tests.support.running.deployment import Deployment, copy_deployment, running
from tests.support.stories.enrolling import Enroller, enrolling, holdings, pkcs8

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(deployment_template, tmp_path_factory) -> AsyncIterator[Deployment]:
    """One running deployment for all refusals: none may leave a trace but in the log."""
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("refusals") / "deployment")
    async with running(folder) as deployment:
        yield deployment


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def enroller(deployment: Deployment) -> AsyncIterator[Enroller]:
    async with enrolling(deployment.home()) as enroller:
        yield enroller


async def refused(deployment: Deployment, enroller: Enroller, request: pb.EnrollmentRequest) -> KeyarkError:
    """Send one request; it has to be refused, and to change nothing but the RM's log."""
    before = await holdings(deployment.home())
    outcome = (await enroller.send(request))[0]
    after = await holdings(deployment.home())
    assert isinstance(outcome, KeyarkError)
    assert (after.certificates, after.keys) == (before.certificates, before.keys)
    assert after.rejections == [*before.rejections, outcome.reason]
    assert outcome.message.endswith(".")
    return outcome


def ec_spki(curve: ec.EllipticCurve) -> bytes:
    key = ec.generate_private_key(curve)
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def compressed(key: ec.EllipticCurvePrivateKey) -> bytes:
    """An SPKI with a compressed point, which loads as the same key."""
    spki = encode_spki(key.public_key())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    bits = b"\x00" + point
    body = spki[2:-68] + b"\x03" + bytes([len(bits)]) + bits
    return b"\x30" + bytes([len(body)]) + body


STATEMENTS: dict[str, tuple[Callable[[Enroller], dict[str, Any]], str]] = {
    "another version": (lambda e: {"version": 2}, "INVALID_INPUT"),
    "another trust domain": (lambda e: {"trust_domain": "example.com"}, "INVALID_INPUT"),
    "a caller of another trust domain": (
        lambda e: {"trust_domain": "example.com", "caller": "spiffe://example.com/client/enroller"},
        "WRONG_TRUST_DOMAIN",
    ),
    "another caller": (lambda e: {"caller": "spiffe://example.org/client/other"}, "PERMISSION_DENIED"),
    "a caller that is no client": (lambda e: {"caller": "spiffe://example.org/rm"}, "INVALID_INPUT"),
    "a request id that is no UUIDv7": (lambda e: {"request_id": bytes(16)}, "INVALID_INPUT"),
    "a short request id": (lambda e: {"request_id": b"abc"}, "INVALID_INPUT"),
    "an unknown profile": (lambda e: {"profile": "no-such"}, "UNKNOWN_PROFILE"),
    "a malformed profile": (lambda e: {"profile": "../user"}, "INVALID_INPUT"),
    "an empty name": (lambda e: {"common_name": ""}, "INVALID_INPUT"),
    "a name of 10 kB": (lambda e: {"common_name": "x" * 10_000}, "INVALID_INPUT"),
    "control characters in the name": (lambda e: {"common_name": "Alice\x00\x1b[31m"}, "INVALID_INPUT"),
    "a name that runs backwards": (lambda e: {"common_name": "Alice\u202eelpmaxE"}, "INVALID_INPUT"),
    "no e-mail": (lambda e: {"email": ""}, "INVALID_INPUT"),
    "an e-mail without a domain": (lambda e: {"email": "alice"}, "INVALID_INPUT"),
    "an e-mail with a newline": (
        lambda e: {"email": "alice@example.org\nBcc: x@example.org"},
        "INVALID_INPUT",
    ),
    "two e-mails": (lambda e: {"email": "alice@example.org,bob@example.org"}, "INVALID_INPUT"),
    "an RSA-1024 signing key": (
        lambda e: {"signing_spki": encode_spki(rsa.generate_private_key(65537, 1024).public_key())},
        "UNSUPPORTED_KEY",
    ),
    "an RSA key with exponent 3": (
        lambda e: {"encryption_spki": encode_spki(rsa.generate_private_key(3, 2048).public_key())},
        "UNSUPPORTED_KEY",
    ),
    "a key on another curve": (lambda e: {"encryption_spki": ec_spki(ec.SECP256K1())}, "UNSUPPORTED_KEY"),
    "an encryption key that only signs": (
        lambda e: {"encryption_spki": encode_spki(generate(KeyType.ED25519).public_key())},
        "UNSUPPORTED_KEY",
    ),
    "a compressed point": (
        lambda e: {"encryption_spki": compressed(generate(KeyType.EC_P256))},
        "SPKI_NOT_CANONICAL",
    ),
    "an SPKI that is none": (lambda e: {"encryption_spki": b"\x30\x03\x02\x01\x00"}, "UNSUPPORTED_KEY"),
    "an SPKI with a byte more": (
        lambda e: {"encryption_spki": encode_spki(generate(KeyType.EC_P256).public_key()) + b"\x00"},
        "SPKI_NOT_CANONICAL",
    ),
}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_wrong_statement_is_refused(deployment: Deployment, enroller: Enroller, name: str) -> None:
    fields, reason = STATEMENTS[name]
    error = await refused(deployment, enroller, enroller.request(fields=fields(enroller)))
    if reason == "UNSUPPORTED_KEY":
        assert error.reason in ("UNSUPPORTED_KEY", "SPKI_NOT_CANONICAL")
    else:
        assert error.reason == reason


async def test_a_statement_that_is_no_message_is_refused(deployment: Deployment, enroller: Enroller) -> None:
    error = await refused(deployment, enroller, enroller.request(statement=b"\xff\xff\xff"))
    assert error.reason == "INVALID_INPUT"


async def test_unknown_fields_in_a_statement_are_refused(deployment: Deployment, enroller: Enroller) -> None:
    signing, encryption = generate(KeyType.EC_P256), generate(KeyType.EC_P256)
    statement = enroller.statement(signing, encryption) + b"\xa2\x06\x03abc"  # field 100
    request = enroller.request(signing_key=signing, encryption_key=encryption, statement=statement)
    assert (await refused(deployment, enroller, request)).reason == "INVALID_INPUT"


async def test_a_statement_of_20_kb_is_refused(deployment: Deployment, enroller: Enroller) -> None:
    error = await refused(deployment, enroller, enroller.request(fields={"common_name": "x" * 20_000}))
    assert error.reason == "INVALID_INPUT"


@pytest.mark.parametrize("signature", [b"", b"garbage", bytes(64), bytes(100_000)])
async def test_a_broken_signature_is_refused(
    deployment: Deployment, enroller: Enroller, signature: bytes
) -> None:
    error = await refused(deployment, enroller, enroller.request(signature=signature))
    assert error.reason == "STATEMENT_SIGNATURE"


async def test_a_signature_of_another_key_is_refused(deployment: Deployment, enroller: Enroller) -> None:
    good, other = enroller.request(), enroller.request()
    good.signature = other.signature
    assert (await refused(deployment, enroller, good)).reason == "STATEMENT_SIGNATURE"


def altered(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


ENVELOPES: dict[str, tuple[Callable[[Enroller, pb.EnrollmentRequest], bytes], str]] = {
    "a flipped bit": (
        lambda e, r: altered(r.wrapped_private_key, len(r.wrapped_private_key) - 1),
        "ENVELOPE",
    ),
    "a flipped bit in the encapsulated key": (lambda e, r: altered(r.wrapped_private_key, 60), "ENVELOPE"),
    "a truncated ciphertext": (lambda e, r: r.wrapped_private_key[:-9], "ENVELOPE"),
    "garbage": (lambda e, r: b"\xff" * 200, "ENVELOPE"),
    "an envelope of 40 kB": (lambda e, r: r.wrapped_private_key + bytes(40_000), "ENVELOPE"),
    "one of another request": (lambda e, r: e.request().wrapped_private_key, "ENVELOPE"),
    "one to another transport key": (
        lambda e, r: e.envelope(b"x", r.statement, key=_another_transport_key()),
        "UNKNOWN_TRANSPORT_KEY",
    ),
}


def _another_transport_key() -> TransportPublicKey:
    return TransportPublicKey.from_spki(encode_spki(generate(KeyType.EC_P256).public_key()))


@pytest.mark.parametrize("name", ENVELOPES)
async def test_a_wrong_envelope_is_refused(deployment: Deployment, enroller: Enroller, name: str) -> None:
    make, reason = ENVELOPES[name]
    request = enroller.request()
    request.wrapped_private_key = make(enroller, request)
    assert (await refused(deployment, enroller, request)).reason == reason


async def test_another_persons_envelope_does_not_fit_ones_own_statement(
    deployment: Deployment, enroller: Enroller
) -> None:
    """P5: the same key, sealed for Bob's statement, cannot be filed under Alice's name."""
    signing, encryption = generate(KeyType.EC_P256), generate(KeyType.EC_P256)
    bobs = enroller.statement(signing, encryption, common_name="Bob Example", email="bob@example.org")
    request = enroller.request(signing_key=signing, encryption_key=encryption, sealed_for=bobs)
    assert (await refused(deployment, enroller, request)).reason == "ENVELOPE"


RSA = private_key(KeyType.RSA_2048)


def rsa_with(**wrong: int) -> bytes:
    """The private key of RSA with numbers replaced."""
    return rsa_pkcs8(rsa_numbers() | wrong)


KEYS: dict[str, tuple[KeyType, Callable[[Any], bytes], str]] = {
    "another key of the type": (KeyType.EC_P256, lambda k: pkcs8(generate(KeyType.EC_P256)), "KEY_MISMATCH"),
    "a key of another type": (KeyType.EC_P256, lambda k: pkcs8(generate(KeyType.X25519)), "KEY_MISMATCH"),
    "another X25519 key": (KeyType.X25519, lambda k: pkcs8(generate(KeyType.X25519)), "KEY_MISMATCH"),
    "another ML-KEM key": (KeyType.ML_KEM_768, lambda k: pkcs8(generate(KeyType.ML_KEM_768)), "KEY_MISMATCH"),
    "no DER": (KeyType.EC_P256, lambda k: b"not a key", "INVALID_PRIVATE_KEY"),
    "trailing bytes": (KeyType.EC_P256, lambda k: pkcs8(k) + b"\x00", "INVALID_PRIVATE_KEY"),
}


@pytest.mark.parametrize("name", KEYS)
async def test_a_private_key_that_is_not_the_one_is_refused(
    deployment: Deployment, enroller: Enroller, name: str
) -> None:
    """P1: well sealed, and not the key of the certificate."""
    key_type, make, reason = KEYS[name]
    encryption = generate(key_type)
    request = enroller.request(encryption_key=encryption, private_key=make(encryption))
    assert (await refused(deployment, enroller, request)).reason == reason


async def test_inconsistent_rsa_numbers_are_refused(deployment: Deployment, enroller: Enroller) -> None:
    numbers = rsa_numbers()
    for wrong in (
        {"d": numbers["d"] + 2},
        {"p": 1},
        {"qinv": numbers["qinv"] + 1},
        {"dp": numbers["dp"] + 2},
    ):
        request = enroller.request(encryption_key=RSA, private_key=rsa_with(**wrong))
        assert (await refused(deployment, enroller, request)).reason == "INVALID_PRIVATE_KEY"


async def test_a_refused_item_does_not_hurt_its_neighbours(
    deployment: Deployment, enroller: Enroller
) -> None:
    bad = enroller.request(private_key=pkcs8(generate(KeyType.EC_P256)))
    outcomes = await enroller.send(enroller.request(), bad, enroller.request())
    assert [isinstance(outcome, KeyarkError) for outcome in outcomes] == [False, True, False]


async def test_a_signing_key_is_never_archived_and_an_encryption_key_never_signs(
    deployment: Deployment, enroller: Enroller
) -> None:
    """P8, in either order, and in one request."""
    signing, encryption = generate(KeyType.EC_P256), generate(KeyType.EC_P256)
    assert not isinstance(
        (await enroller.send(enroller.request(signing_key=signing, encryption_key=encryption)))[0],
        KeyarkError,
    )
    for request in (enroller.request(encryption_key=signing), enroller.request(signing_key=encryption)):
        assert (await refused(deployment, enroller, request)).reason == "KEY_ROLE_CONFLICT"
    both = generate(KeyType.EC_P256)
    request = enroller.request(signing_key=both, encryption_key=both)
    assert (await refused(deployment, enroller, request)).reason == "INVALID_INPUT"


async def test_a_public_key_that_is_enrolled_is_refused(deployment: Deployment, enroller: Enroller) -> None:
    signing, encryption = generate(KeyType.EC_P256), generate(KeyType.EC_P256)
    await enroller.send(enroller.request(signing_key=signing, encryption_key=encryption))
    for request in (enroller.request(signing_key=signing), enroller.request(encryption_key=encryption)):
        assert (await refused(deployment, enroller, request)).reason == "PUBLIC_KEY_IN_USE"


async def test_a_request_id_with_other_content_is_refused(deployment: Deployment, enroller: Enroller) -> None:
    first = enroller.request()
    await enroller.send(first)
    request_id = _request_id(first)
    request = enroller.request(fields={"request_id": request_id})
    assert (await refused(deployment, enroller, request)).reason == "REQUEST_ID_REUSED"


def _request_id(request: pb.EnrollmentRequest) -> bytes:
    return EnrollmentStatement.FromString(request.statement).request_id


async def test_policy_refuses_who_may_not_be_enrolled(deployment: Deployment, enroller: Enroller) -> None:
    error = await refused(deployment, enroller, enroller.request(fields={"email": "alice@example.com"}))
    assert isinstance(error, PolicyRejectedError)
    assert [(v.subsystem, v.rule) for v in error.violations] == [("rm", "who-enrolls-whom")]


async def test_an_oversized_message_is_refused(enroller: Enroller) -> None:
    with pytest.raises(MessageTooLargeError):
        await enroller.send(enroller.request(envelope=bytes(5 << 20)))


@pytest.mark.parametrize("count", [0, 257])
async def test_a_batch_of_the_wrong_size_is_refused(enroller: Enroller, count: int) -> None:
    with pytest.raises(KeyarkError) as caught:
        await enroller.send(*[pb.EnrollmentRequest()] * count)
    assert caught.value.reason == "INVALID_INPUT"
    assert caught.value.field == "items"
