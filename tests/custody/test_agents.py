"""Guards that an agent's share key is the agent's own: in its files, and in what its certificate key signed."""

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from keyark.contexts import context
from keyark.custody.agents import SHARE_KEY_LABEL, AgentShareKey, ShareKey, ShareKeyError
from keyark.errors import InvalidInputError, KeyarkError
from keyark.keys.key_types import KeyType
from keyark.keys.private_keys import (
    KeyFileError,
    PasswordRequiredError,
    WrongPasswordError,
    encode_private_key,
)
from keyark.x509.authority import ca_name, create_internal_ca
from keyark.x509.certificates import Validity
from keyark.x509.chains import CertificateChainError
from tests.support.keys.crypto import recovery_agent
from tests.support.keys.pki import DAY, NOW, identity_certificate, internal_ca, private_key, root_ca

ALICE, BOB = recovery_agent("alice"), recovery_agent("bob")
ANCHOR = internal_ca().certificate
PASSWORD = b"correct horse"


@pytest.mark.parametrize("password", [None, PASSWORD])
def test_a_share_key_survives_its_file(password):
    pem = ALICE.share_key.to_pem(password=password)
    loaded = ShareKey.from_pem(pem, password=password)
    assert loaded.to_bytes() == ALICE.share_key.to_bytes()
    assert ShareKey.from_pem(b"\n" + pem + b"\r\n", password=password).to_bytes() == loaded.to_bytes()


def test_the_file_is_two_standard_pem_blocks():
    mlkem, x25519, rest = ALICE.share_key.to_pem(password=None).split(b"-----END PRIVATE KEY-----\n")
    end = b"-----END PRIVATE KEY-----\n"
    raw = b"".join(load_pem_private_key(block + end, None).private_bytes_raw() for block in (mlkem, x25519))
    assert (raw, rest) == (ALICE.share_key.to_bytes(), b"")


def test_an_encrypted_share_key_needs_its_password():
    pem = ALICE.share_key.to_pem(password=PASSWORD)
    assert b"BEGIN PRIVATE KEY" not in pem
    with pytest.raises(PasswordRequiredError):
        ShareKey.from_pem(pem, password=None)
    with pytest.raises(PasswordRequiredError):
        ShareKey.from_pem(pem, password=b"")
    with pytest.raises(WrongPasswordError) as caught:
        ShareKey.from_pem(pem, password=b"wrong horse")
    assert "horse" not in caught.value.message


def test_an_empty_password_encrypts_nothing():
    with pytest.raises(PasswordRequiredError):
        ALICE.share_key.to_pem(password=b"")


def test_a_password_that_is_not_needed_does_no_harm():
    pem = ALICE.share_key.to_pem(password=None)
    assert ShareKey.from_pem(pem, password=PASSWORD).to_bytes() == ALICE.share_key.to_bytes()


def test_other_files_hold_no_share_key():
    mlkem, x25519 = (encode_private_key(part) for part in ALICE.share_key.parts)
    certificate_key = encode_private_key(ALICE.certificate_key)
    for data in (
        b"",
        b"junk",
        mlkem,
        x25519,
        x25519 + mlkem,
        mlkem + mlkem,
        mlkem + x25519 + x25519,
        mlkem + b"junk" + x25519,
        mlkem + certificate_key,
        mlkem[:100] + mlkem[101:] + x25519,
    ):
        with pytest.raises(KeyFileError):
            ShareKey.from_pem(data, password=None)


def test_what_an_agent_signed_is_verified():
    public_key = ALICE.public.verify(ANCHOR, at=NOW)
    assert public_key.to_bytes() == ALICE.share_key.public_key.to_bytes()


def test_the_signature_is_over_label_agent_and_public_key():
    message = context(SHARE_KEY_LABEL, ALICE.name.encode(), ALICE.public.public_key)
    ALICE.certificate_key.public_key().verify(ALICE.public.signature, message, ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize("field", ["agent", "certificate", "public_key", "signature"])
def test_what_another_agent_signed_does_not_stand_for_this_one(field):
    with pytest.raises(ShareKeyError):
        replace(ALICE.public, **{field: getattr(BOB.public, field)}).verify(ANCHOR, at=NOW)


@pytest.mark.parametrize("position", [0, 600, 1183, 1184, -1])
def test_a_changed_public_key_is_noticed(position):
    changed = bytearray(ALICE.public.public_key)
    changed[position] ^= 1
    with pytest.raises(ShareKeyError):
        replace(ALICE.public, public_key=bytes(changed)).verify(ANCHOR, at=NOW)


@pytest.mark.parametrize("signature", [b"", b"junk", bytes(72)])
def test_a_malformed_signature_is_refused(signature):
    with pytest.raises(ShareKeyError):
        replace(ALICE.public, signature=signature).verify(ANCHOR, at=NOW)


@pytest.mark.parametrize("certificate", [b"", b"junk"])
def test_a_malformed_certificate_is_refused(certificate):
    with pytest.raises(KeyarkError):
        replace(ALICE.public, certificate=certificate).verify(ANCHOR, at=NOW)


def test_a_signed_public_key_that_is_none_is_refused():
    message = context(SHARE_KEY_LABEL, ALICE.name.encode(), b"junk")
    signature = ALICE.certificate_key.sign(message, ec.ECDSA(hashes.SHA256()))
    with pytest.raises(InvalidInputError):
        replace(ALICE.public, public_key=b"junk", signature=signature).verify(ANCHOR, at=NOW)


def test_the_certificate_must_chain_to_the_anchor_and_be_valid():
    with pytest.raises(CertificateChainError):
        ALICE.public.verify(root_ca().certificate, at=NOW)
    for moment in (NOW - 10 * DAY, NOW + 400 * DAY):
        with pytest.raises(CertificateChainError):
            ALICE.public.verify(ANCHOR, at=moment)


def test_now_is_the_moment_unless_told_otherwise():
    then = 1_000_000_000  # in 2001
    validity = Validity.starting(then, lifetime_seconds=DAY)
    authority = create_internal_ca(ALICE.certificate_key, subject=ca_name("Old CA"), validity=validity)
    key = BOB.certificate_key
    certificate = identity_certificate("agent/bob", key=key, authority=authority, validity=validity)
    public = AgentShareKey.create(share_key=BOB.share_key, certificate=certificate, certificate_key=key)
    public.verify(authority.certificate, at=then + 1)
    with pytest.raises(CertificateChainError):
        public.verify(authority.certificate)


@pytest.mark.parametrize("path", ["client/alice", "officer/alice", "auditor/alice", "drm"])
def test_nobody_but_agents_holds_a_share(path):
    key = private_key(KeyType.EC_P256, 910)
    certificate = identity_certificate(path, key=key)
    with pytest.raises(ShareKeyError, match="not a recovery agent"):
        AgentShareKey.create(share_key=ALICE.share_key, certificate=certificate, certificate_key=key)


def test_a_certificate_of_another_key_is_refused():
    certificate = identity_certificate("agent/alice", key=ALICE.certificate_key)
    for key in (BOB.certificate_key, private_key(KeyType.RSA_2048), private_key(KeyType.EC_P384)):
        with pytest.raises(ShareKeyError, match="not belong to"):
            AgentShareKey.create(share_key=ALICE.share_key, certificate=certificate, certificate_key=key)


def test_the_public_file_is_read_back():
    text = ALICE.public.to_json()
    assert AgentShareKey.from_json(text) == ALICE.public
    assert set(json.loads(text)) == {"agent", "certificate", "public_key", "signature"}


def test_other_public_files_are_refused():
    values = json.loads(ALICE.public.to_json())
    without = {name: value for name, value in values.items() if name != "signature"}
    for text in (
        "",
        "junk",
        "[]",
        "null",
        '"text"',
        "{}",
        json.dumps(without),
        json.dumps(values | {"comment": "x"}),
        json.dumps(values | {"signature": 1}),
        json.dumps(values | {"agent": None}),
        json.dumps(values | {"signature": "not base64!"}),
        json.dumps(values | {"signature": "ä"}),
        json.dumps(values | {"signature": "AAA"}),
    ):
        with pytest.raises(InvalidInputError):
            AgentShareKey.from_json(text)


@pytest.mark.parametrize("agent", ["", "ä", "\ud800", "spiffe://example.org/agent/bob"])
def test_a_public_file_under_another_name_is_refused(agent):
    values = json.loads(ALICE.public.to_json()) | {"agent": agent}
    with pytest.raises(ShareKeyError):
        AgentShareKey.from_json(json.dumps(values)).verify(ANCHOR, at=NOW)
