"""Guards PKCS#12 files: the right key and certificate, today's encryption, and clear words elsewhere."""

import subprocess

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from keyark.errors import InvalidInputError
from keyark.pki.certificates import load_certificate
from keyark.pki.key_types import KeyType, UnsupportedKeyError
from keyark.pki.pkcs12 import build_pkcs12
from keyark.pki.spki import encode_spki
from tests.support.pki import issue_pair, issuing_ca, private_key, root_ca, spki

WRITTEN = (KeyType.RSA_2048, KeyType.EC_P256, KeyType.EC_P521)
NOT_WRITTEN = (KeyType.X25519, KeyType.ML_KEM_768, KeyType.ML_DSA_44)


def build(key_type, *, password=b"correct horse", key=None):
    certificate = load_certificate(issue_pair(issuing_ca(), encryption_spki=spki(key_type, 1)).encryption)
    return build_pkcs12(
        name="Alice Example, encryption",
        private_key=key or private_key(key_type, 1),
        certificate=certificate,
        chain=[issuing_ca().certificate, root_ca().certificate],
        password=password,
    )


@pytest.mark.parametrize("key_type", WRITTEN)
def test_key_certificate_and_chain_come_back(key_type):
    key, certificate, chain = pkcs12.load_key_and_certificates(build(key_type), b"correct horse")
    assert encode_spki(key.public_key()) == encode_spki(certificate.public_key()) == spki(key_type, 1)
    assert {c.subject for c in chain} == {issuing_ca().certificate.subject, root_ca().certificate.subject}


def test_ed25519_signing_keys_are_written():
    certificate = load_certificate(issue_pair(issuing_ca(), signing_spki=spki(KeyType.ED25519)).signing)
    data = build_pkcs12(
        name="x", private_key=private_key(KeyType.ED25519), certificate=certificate, chain=[], password=b"pw"
    )
    assert pkcs12.load_key_and_certificates(data, b"pw")[1] == certificate


def test_openssl_names_the_encryption(tmp_path):
    path = tmp_path / "key.p12"
    path.write_bytes(build(KeyType.EC_P256))
    command = ["openssl", "pkcs12", "-in", path, "-info", "-noout", "-passin", "pass:correct horse"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert "AES-256-CBC" in told
    assert "hmacWithSHA256" in told
    assert "MAC: sha256" in told
    assert "RC2" not in told


def test_another_password_does_not_open_it():
    with pytest.raises(ValueError, match="password"):
        pkcs12.load_key_and_certificates(build(KeyType.EC_P256), b"battery staple")


@pytest.mark.parametrize("key_type", NOT_WRITTEN)
def test_types_that_pkcs12_does_not_take_are_refused_with_a_way_out(key_type):
    with pytest.raises(UnsupportedKeyError, match=f"{key_type.value}.*encrypted PEM"):
        build(KeyType.EC_P256, key=private_key(key_type))


def test_a_certificate_of_another_key_is_refused():
    with pytest.raises(InvalidInputError, match="not the one"):
        build(KeyType.EC_P256, key=private_key(KeyType.EC_P256, 2))


def test_an_empty_password_is_refused():
    with pytest.raises(InvalidInputError, match="password"):
        build(KeyType.EC_P256, password=b"")
