"""P1: a private key that is not the whole and only key of its certificate is refused, however well it is sealed.

Each goes through the whole stack in a good envelope; tests/custody/test_matching.py has the many other cases.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keyark.client.access.sessions import open_session
from keyark.client.administration.lists import get_key, list_certificates
from keyark.errors import KeyarkError, NotFoundError
from keyark.keys import der as _der
from keyark.keys.key_types import KeyType, generate
from keyark.keys.private_keys import load_private_key
from keyark.keys.spki import encode_spki, public_key_id
from keyark.rpc.calling.channels import call
from keyark.rpc.errors import error_from_status
from keyark.v1 import archive_pb2, audit_pb2, certificates_pb2
from keyark.v1 import registration_pb2 as pb
from keyark.v1.audit_pb2_grpc import AuditServiceStub
from keyark.v1.certificates_pb2 import CertificateFilter
from tests.e2e.test_direct_attacks import HostileRm
from tests.support.keys.crypto import RSA_ALGORITHM, private_key_info, rsa_numbers, rsa_pkcs8
from tests.support.keys.known import known_list
from tests.support.keys.pki import private_key, spki
from tests.support.keys.related import negated_ec, x25519_twin
from tests.support.keys.weak_rsa import COMPOSITE, FAR, NEAR, PRIME, ROCA, rsa_key
from tests.support.running.deployment import Deployment, copy_deployment, edit, running
from tests.support.stories.attacks import ec_pkcs8, expanded_ml_kem_pkcs8, refused
from tests.support.stories.enrolling import Enroller, enrolling, pkcs8

pytestmark = pytest.mark.asyncio(loop_scope="module")

NUMBER = 300
PUBLISHED = 310
"""Keys whose private half everybody has."""
RSA, EC, ML_KEM = KeyType.RSA_2048, KeyType.EC_P256, KeyType.ML_KEM_768
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(deployment_template, tmp_path_factory) -> AsyncIterator[Deployment]:
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("keys") / "deployment")
    for role in ("rm", "cm", "drm"):
        (folder / role / "known.dat").write_bytes(known_list([spki(EC, PUBLISHED), spki(RSA, PUBLISHED)]))
        edit(folder / role / f"{role}.toml", "known_keys = []", 'known_keys = ["known.dat"]')
    async with running(folder) as deployment:
        yield deployment


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def enroller(deployment: Deployment) -> AsyncIterator[Enroller]:
    async with enrolling(deployment.home()) as enroller:
        yield enroller


def content(key: Any) -> bytes:
    """What the OCTET STRING of an RSA key holds."""
    numbers = rsa_numbers(NUMBER)
    assert key.private_numbers().d == numbers["d"]
    return rsa_pkcs8(numbers).split(RSA_ALGORITHM, 1)[1][4:]


def altered(wrong: Callable[[dict[str, int]], dict[str, int]]) -> Callable[[Any], bytes]:
    """The RSA key with numbers replaced; ``wrong`` makes them from the right ones."""
    return lambda _: rsa_pkcs8(rsa_numbers(NUMBER) | wrong(rsa_numbers(NUMBER)))


def scalar(key: Any) -> int:
    return key.private_numbers().private_value


CASES: dict[str, tuple[KeyType, Callable[[Any], bytes], str]] = {
    "RSA with another modulus": (
        RSA,
        altered(lambda n: {"n": n["n"] + 2}),
        "KEY_MISMATCH",
    ),
    "RSA with n that is not p times q": (
        RSA,
        altered(lambda n: {"q": n["q"] + 2}),
        "INVALID_PRIVATE_KEY",
    ),
    "RSA with p = 1 and q = n": (
        RSA,
        altered(lambda n: {"p": 1, "q": n["n"], "dp": 0, "qinv": 0}),
        "INVALID_PRIVATE_KEY",
    ),
    "RSA with another exponent": (RSA, altered(lambda _: {"e": 3}), "INVALID_PRIVATE_KEY"),
    "RSA with d = 1": (RSA, altered(lambda _: {"d": 1}), "INVALID_PRIVATE_KEY"),
    "RSA with three primes": (RSA, altered(lambda _: {"version": 1}), "INVALID_PRIVATE_KEY"),
    "RSA with attributes": (
        RSA,
        lambda k: private_key_info(RSA_ALGORITHM, content(k), optional=[_der.explicit(0, b"")]),
        "INVALID_PRIVATE_KEY",
    ),
    "RSA in its traditional encoding": (RSA, content, "INVALID_PRIVATE_KEY"),
    "an EC scalar of 0": (EC, lambda _: ec_pkcs8(0), "INVALID_PRIVATE_KEY"),
    "an EC scalar of the order": (EC, lambda _: ec_pkcs8(P256_ORDER), "INVALID_PRIVATE_KEY"),
    "an EC scalar beyond the order": (EC, lambda _: ec_pkcs8(2**256 - 1), "INVALID_PRIVATE_KEY"),
    "the negated EC scalar": (EC, lambda k: ec_pkcs8(P256_ORDER - scalar(k)), "KEY_MISMATCH"),
    "an encrypted key": (EC, lambda k: b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "INVALID_PRIVATE_KEY"),
    "two keys": (EC, lambda k: pkcs8(k) * 2, "INVALID_PRIVATE_KEY"),
    "a key padded to 16 KiB": (EC, lambda k: pkcs8(k).ljust(16 * 1024, b"\x00"), "INVALID_PRIVATE_KEY"),
    "ML-KEM without its seed": (ML_KEM, lambda _: expanded_ml_kem_pkcs8(), "ML_KEM_SEED_REQUIRED"),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_private_key_that_is_not_good_is_refused_and_logged_twice(
    deployment: Deployment, enroller: Enroller, name: str
) -> None:
    key_type, make, reason = CASES[name]
    key = private_key(key_type, NUMBER)
    request = enroller.request(encryption_key=key, private_key=make(key))
    error = await refused(deployment.home(), enroller, request, also_by=["drm"])
    assert error.reason == reason


async def test_the_same_keys_are_taken_once_they_are_whole(
    deployment: Deployment, enroller: Enroller
) -> None:
    """The cases above were refused for what was wrong with them: the refusals claimed no key."""
    requests = [enroller.request(encryption_key=private_key(t, NUMBER)) for t in (RSA, EC, ML_KEM)]
    outcomes = await enroller.send(*requests)
    assert [bool(getattr(outcome, "receipt", b"")) for outcome in outcomes] == [True, True, True]


PUBLIC_KEYS: dict[str, Callable[[], Any]] = {
    "P-224": lambda: ec.generate_private_key(ec.SECP224R1()).public_key(),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()).public_key(),
    "brainpoolP256r1": lambda: ec.generate_private_key(ec.BrainpoolP256R1()).public_key(),
    "RSA-1024": lambda: rsa.generate_private_key(65537, 1024).public_key(),
    "RSA-2056": lambda: rsa.generate_private_key(65537, 2056).public_key(),
}


@pytest.mark.parametrize("role", ["signing_spki", "encryption_spki"])
@pytest.mark.parametrize("name", PUBLIC_KEYS)
async def test_a_public_key_of_no_supported_type_is_refused_in_either_role(
    deployment: Deployment, enroller: Enroller, name: str, role: str
) -> None:
    spki = PUBLIC_KEYS[name]().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    error = await refused(deployment.home(), enroller, enroller.request(fields={role: spki}))
    assert error.reason == "UNSUPPORTED_KEY"
    assert error.field == role


async def test_a_point_that_is_not_on_the_curve_is_refused(
    deployment: Deployment, enroller: Enroller
) -> None:
    spki = bytearray(encode_spki(private_key(EC, NUMBER + 1).public_key()))
    spki[-1] ^= 1
    request = enroller.request(fields={"encryption_spki": bytes(spki)})
    error = await refused(deployment.home(), enroller, request)
    assert error.reason in ("UNSUPPORTED_KEY", "SPKI_NOT_CANONICAL")


async def test_a_key_whose_archived_half_opens_every_second_message_is_refused_at_every_try(
    deployment: Deployment, enroller: Enroller
) -> None:
    """P1: its factors are composite and its equations hold, so that one random challenge passes now and then."""
    key = rsa_key(COMPOSITE, PRIME)
    for _ in range(6):
        error = await refused(
            deployment.home(), enroller, enroller.request(encryption_key=key), also_by=["drm"]
        )
        assert error.reason == "KEY_MISMATCH"


WEAK: dict[str, Callable[[], Any]] = {
    "ROCA": lambda: rsa_key(*ROCA),
    "close factors": lambda: rsa_key(PRIME, NEAR),
}


@pytest.mark.parametrize("role", ["signing_key", "encryption_key"])
@pytest.mark.parametrize("name", WEAK)
async def test_a_weak_rsa_key_is_refused_in_either_role(
    deployment: Deployment, enroller: Enroller, name: str, role: str
) -> None:
    error = await refused(deployment.home(), enroller, enroller.request(**{role: WEAK[name]()}))
    assert error.reason == "WEAK_KEY"


@pytest.mark.parametrize("role", ["signing_key", "encryption_key"])
@pytest.mark.parametrize("key_type", [EC, RSA])
async def test_a_key_that_everybody_has_is_refused_by_each_service(
    deployment: Deployment, enroller: Enroller, key_type: KeyType, role: str
) -> None:
    request = enroller.request(**{role: private_key(key_type, PUBLISHED)})
    assert (await refused(deployment.home(), enroller, request)).reason == "WEAK_KEY"
    rm = HostileRm(deployment, enroller.call)
    assert (await rm.archive(request)).reason == "WEAK_KEY"
    assert (await rm.issue(request, b"", None)).reason == "WEAK_KEY"
    await rm.close()


async def test_two_rsa_keys_with_a_common_factor_are_refused(
    deployment: Deployment, enroller: Enroller
) -> None:
    request = enroller.request(signing_key=rsa_key(PRIME, FAR), encryption_key=rsa_key(PRIME, ROCA[0]))
    assert (await refused(deployment.home(), enroller, request)).reason == "WEAK_KEY"


RELATED: dict[str, Callable[[], tuple[Any, Any]]] = {
    "P-256 d and n - d": lambda: _with(negated_ec, KeyType.EC_P256),
    "P-384 d and n - d": lambda: _with(negated_ec, KeyType.EC_P384),
    "Ed25519 and X25519": lambda: _with(x25519_twin, KeyType.ED25519),
}


def _with(relative: Callable[[Any], Any], key_type: KeyType) -> tuple[Any, Any]:
    key = generate(key_type)
    return key, relative(key)


@pytest.mark.parametrize("name", RELATED)
@pytest.mark.parametrize("first", ["signing_key", "encryption_key"])
async def test_a_key_that_reveals_a_signing_key_is_never_archived_in_either_order(
    deployment: Deployment, enroller: Enroller, name: str, first: str
) -> None:
    """P8: the keys differ, and whoever has the private half of one has that of the other."""
    signing, encryption = RELATED[name]()
    requests = {
        "signing_key": enroller.request(signing_key=signing),
        "encryption_key": enroller.request(encryption_key=encryption),
    }
    outcome = (await enroller.send(requests.pop(first)))[0]
    assert not isinstance(outcome, KeyarkError)
    error = await refused(deployment.home(), enroller, requests.popitem()[1])
    assert error.reason == "KEY_ROLE_CONFLICT"
    both = enroller.request(signing_key=signing, encryption_key=encryption)
    assert (await refused(deployment.home(), enroller, both)).reason == "INVALID_INPUT"


def signing_only(enroller: Enroller, key: Any) -> pb.EnrollmentRequest:
    fields = {"encryption_spki": b"", "profile": "signing-only"}
    return enroller.request(signing_key=key, fields=fields, envelope=b"")


async def signs_and_is_archived(deployment: Deployment, key: Any) -> tuple[bool, bool]:
    """Whether the CM certified a key and whether the DRM holds it."""
    key_id = public_key_id(key.public_key())
    async with open_session(deployment.home(), "cm", identity="officer/officer") as session:
        certified = [c async for c in list_certificates(session, CertificateFilter(spki_sha256=key_id))]
    async with open_session(deployment.home(), "drm", identity="agent/alice") as session:
        try:
            await get_key(session, key_id)
        except NotFoundError:
            return bool(certified), False
    return bool(certified), True


@pytest.mark.parametrize("signing_first", [True, False])
@pytest.mark.parametrize("calls", ["one call", "two calls at once"])
async def test_two_requests_at_once_never_make_one_key_both_signing_and_archived(
    deployment: Deployment, enroller: Enroller, calls: str, signing_first: bool
) -> None:
    """P8: the one goes to the CM without the archive, the other to the archive first."""
    for _ in range(3):
        key = generate(EC)
        requests = [signing_only(enroller, key), enroller.request(encryption_key=key)]
        if not signing_first:
            requests.reverse()
        if calls == "one call":
            outcomes = await enroller.send(*requests)
        else:
            outcomes = [o for (o,) in await asyncio.gather(*(enroller.send(r) for r in requests))]
        refusals = [o.reason for o in outcomes if isinstance(o, KeyarkError)]
        assert refusals == ["KEY_ROLE_CONFLICT"]
        again = await enroller.send(*requests)  # P9: each has its first outcome
        assert [isinstance(o, KeyarkError) for o in again] == [isinstance(o, KeyarkError) for o in outcomes]
        signs = isinstance(outcomes[0], pb.Enrollment) == signing_first
        assert await signs_and_is_archived(deployment, key) == (True, not signs)


async def test_a_key_that_signs_alone_is_known_to_the_archive(
    deployment: Deployment, enroller: Enroller
) -> None:
    """P8 with a hostile RM, which has its own register: the DRM refuses what it was told signs."""
    key = generate(EC)
    assert isinstance((await enroller.send(signing_only(enroller, key)))[0], pb.Enrollment)
    rm = HostileRm(deployment, enroller.call)
    for secret in (key, negated_ec(key)):
        assert (await rm.archive(enroller.request(encryption_key=secret))).reason == "KEY_ROLE_CONFLICT"
    await rm.close()
    assert await signs_and_is_archived(deployment, key) == (True, False)


@pytest.mark.parametrize("signing_first", [True, False])
async def test_a_key_that_a_receipt_says_is_archived_is_not_certified_to_sign_by_the_cm(
    deployment: Deployment, enroller: Enroller, signing_first: bool
) -> None:
    """P8 with a hostile RM that asks for both at once, and tells the DRM of neither signing key."""
    key, rm = generate(EC), HostileRm(deployment, enroller.call)
    archived, signs = enroller.request(encryption_key=key), signing_only(enroller, key)
    receipt, newest = await rm.archived(archived)
    async with open_session(deployment.home(), "cm", identity="auditor/auditor") as session:
        stub = AuditServiceStub(session.channel)
        followed = (
            await call(stub.GetCheckpoint, audit_pb2.GetCheckpointRequest(), timeout=30)
        ).followed_size
    proof = audit_pb2.GetConsistencyProofRequest(first_size=followed, second_size=newest.second_size)
    link = (await call(AuditServiceStub(rm.drm).GetConsistencyProof, proof, timeout=30)).link
    items = [
        certificates_pb2.PairRequest(statement=r.statement, signature=r.signature, receipt=receipt, call=1)
        for r, receipt in ((signs, b""), (archived, receipt))
    ]
    asked = archive_pb2.GetTransportCertificateRequest()
    transport = await call(rm.archive_service.GetTransportCertificate, asked, timeout=30)
    message = certificates_pb2.IssueCertificatePairsRequest(
        items=items if signing_first else reversed(items),
        calls=[enroller.call(signs, archived)],
        links=[link],
        transport_certificates=[transport.transport_certificate],
    )
    response = await call(rm.certificates.IssueCertificatePairs, message, timeout=30)
    outcomes = list(response.outcomes) if signing_first else list(reversed(response.outcomes))
    assert error_from_status(outcomes[0].error).reason == "KEY_ROLE_CONFLICT"
    assert outcomes[1].HasField("pair"), outcomes[1].error
    await rm.close()


async def test_the_key_of_an_identity_is_never_archived(deployment: Deployment, enroller: Enroller) -> None:
    """P8: it signs every call of the client, and recovery agents could call in its name."""
    identity = load_private_key(deployment.folder / "identities" / "client" / "enroller" / "key.pem")
    for secret in (identity, negated_ec(identity)):
        request = enroller.request(encryption_key=secret)
        error = await refused(deployment.home(), enroller, request, also_by=["drm"])
        assert (error.reason, error.field) == ("INVALID_INPUT", "encryption_spki")


async def test_keys_that_did_not_match_once_are_refused_for_good(
    deployment: Deployment, enroller: Enroller
) -> None:
    """P1: whatever the match check leaves to chance, there is one try for each pair of public keys."""
    keys = {"signing_key": generate(EC), "encryption_key": generate(EC)}
    wrong = enroller.request(**keys, private_key=pkcs8(generate(EC)))
    error = await refused(deployment.home(), enroller, wrong, also_by=["drm"])
    assert error.reason == "KEY_MISMATCH"
    for request in (wrong, enroller.request(**keys)):
        error = await refused(deployment.home(), enroller, request, also_by=["drm"])
        assert error.reason == "KEY_PAIR_REFUSED"
    other = enroller.request(signing_key=generate(EC), encryption_key=keys["encryption_key"])
    assert isinstance((await enroller.send(other))[0], pb.Enrollment)
