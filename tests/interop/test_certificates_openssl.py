"""Guards certificates against OpenSSL's command: it parses, prints and verifies what keyark issues.

Release 3.0 knows neither ML-DSA nor ML-KEM; those types are held against cryptography and the linter.
"""

import subprocess

import pytest

from keyark.keys.key_types import CA_KEY_TYPES, ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES, KeyType
from keyark.x509.authority import ca_name, create_root
from keyark.x509.certificates import Validity, encode_pem_certificates, load_certificate
from keyark.x509.end_entity_profile import EndEntityProfile
from tests.support.keys.pki import (
    NOW,
    VALIDITY,
    identity_certificate,
    internal_ca,
    issue_pair,
    issuing_ca,
    private_key,
    root_ca,
    spki,
)


def known(key_types):
    return [t for t in key_types if not t.value.startswith("ml-")]


@pytest.fixture
def openssl(tmp_path):
    """A function that runs openssl on certificates that it writes to files of their own."""

    def run(command, *arguments):
        words = [word if isinstance(word, str) else str(word) for word in arguments]
        return subprocess.run(
            ["openssl", command, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def written(tmp_path):
    def write(name, *certificates):
        path = tmp_path / name
        path.write_bytes(encode_pem_certificates(certificates))
        return path

    return write


def text_of(openssl, written, der):
    path = written("certificate.pem", load_certificate(der))
    told = openssl("x509", "-in", path, "-noout", "-text")
    assert told.returncode == 0, told.stderr
    assert "Unable to load" not in told.stdout
    return told.stdout


def verify(openssl, written, certificate, *, issuing, root, purpose, at=NOW):
    """What `openssl verify` says, with every strict check it has."""
    arguments = ["-x509_strict", "-attime", at, "-purpose", purpose, "-CAfile", written("root.pem", root)]
    if issuing:
        arguments += ["-untrusted", written("issuing.pem", issuing)]
    return openssl("verify", *arguments, written("leaf.pem", certificate))


def check(openssl, written, der, authority, *, purpose):
    certificate = load_certificate(der)
    told = verify(
        openssl,
        written,
        certificate,
        issuing=authority.certificate,
        root=root_ca().certificate,
        purpose=purpose,
    )
    assert told.returncode == 0, told.stderr + told.stdout


@pytest.mark.parametrize("key_type", known(SIGNING_KEY_TYPES))
def test_signing_certificates(openssl, written, key_type):
    der = issue_pair(issuing_ca(), signing_spki=spki(key_type)).signing
    text = text_of(openssl, written, der)
    assert "Digital Signature, Non Repudiation" in text
    assert "E-mail Protection" in text
    assert "email:alice@example.org" in text
    assert "X509v3 Key Usage: critical" in text
    check(openssl, written, der, issuing_ca(), purpose="smimesign")


@pytest.mark.parametrize("key_type", known(ENCRYPTION_KEY_TYPES))
def test_encryption_certificates(openssl, written, key_type):
    der = issue_pair(issuing_ca(), encryption_spki=spki(key_type, 1)).encryption
    text = text_of(openssl, written, der)
    enciphers = key_type.value.startswith("rsa")
    assert ("Key Encipherment" in text, "Key Agreement" in text) == (enciphers, not enciphers)
    # OpenSSL's purpose smimeencrypt knows RSA only (it asks for keyEncipherment).
    check(openssl, written, der, issuing_ca(), purpose="smimeencrypt" if enciphers else "any")


@pytest.mark.parametrize("key_type", known(CA_KEY_TYPES))
def test_every_ca_key_type(openssl, written, key_type):
    pair = issue_pair(issuing_ca(key_type))
    check(openssl, written, pair.signing, issuing_ca(key_type), purpose="smimesign")
    check(openssl, written, pair.encryption, issuing_ca(key_type), purpose="any")


@pytest.mark.parametrize("key_type", known(CA_KEY_TYPES))
def test_every_root_key_type(openssl, written, key_type):
    root = root_ca(key_type)
    certificate = load_certificate(issue_pair(root).signing)
    told = verify(openssl, written, certificate, issuing=None, root=root.certificate, purpose="smimesign")
    assert told.returncode == 0, told.stderr


def test_a_name_in_another_script_is_shown(openssl, written):
    profile = EndEntityProfile(subject=("O=Beispiel GmbH", "CN={common_name}"))
    path = written(
        "certificate.pem",
        load_certificate(issue_pair(issuing_ca(), profile=profile, common_name="Zoë").signing),
    )
    shown = openssl("x509", "-in", path, "-noout", "-subject", "-nameopt", "RFC2253,utf8,-esc_msb").stdout
    assert shown.strip() == "subject=CN=Zoë,O=Beispiel GmbH"


@pytest.mark.parametrize("at", [VALIDITY.not_before - 1, VALIDITY.not_after + 1])
def test_openssl_refuses_it_outside_its_time(openssl, written, at):
    certificate = load_certificate(issue_pair(issuing_ca()).signing)
    told = verify(
        openssl,
        written,
        certificate,
        issuing=issuing_ca().certificate,
        root=root_ca().certificate,
        purpose="smimesign",
        at=at,
    )
    assert told.returncode != 0


def test_openssl_refuses_a_changed_certificate(openssl, written):
    der = bytearray(issue_pair(issuing_ca()).signing)
    der[der.index(b"Alice")] ^= 1
    told = verify(
        openssl,
        written,
        load_certificate(bytes(der)),
        issuing=issuing_ca().certificate,
        root=root_ca().certificate,
        purpose="any",
    )
    assert told.returncode != 0


@pytest.mark.parametrize("role", ["signing", "encryption"])
@pytest.mark.parametrize("purpose", ["sslclient", "sslserver"])
def test_openssl_lets_no_pair_into_tls(openssl, written, role, purpose):
    der = getattr(issue_pair(issuing_ca()), role)
    told = verify(
        openssl,
        written,
        load_certificate(der),
        issuing=issuing_ca().certificate,
        root=root_ca().certificate,
        purpose=purpose,
    )
    assert told.returncode != 0


def verify_identity(openssl, written, certificate, purpose):
    return verify(
        openssl, written, certificate, issuing=None, root=internal_ca().certificate, purpose=purpose
    ).returncode


@pytest.mark.parametrize(
    ("path", "client", "server"),
    [("rm", True, True), ("cm", True, True), ("drm", True, True), ("client/alice", True, False)],
)
def test_identities_have_the_tls_roles_of_their_kind(openssl, written, path, client, server):
    certificate = identity_certificate(path)
    assert (verify_identity(openssl, written, certificate, "sslclient") == 0) is client
    assert (verify_identity(openssl, written, certificate, "sslserver") == 0) is server


@pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.RSA_3072])
def test_the_transport_key_speaks_no_tls(openssl, written, key_type):
    certificate = identity_certificate("drm/transport", key=private_key(key_type, 906))
    assert verify_identity(openssl, written, certificate, "any") == 0
    assert verify_identity(openssl, written, certificate, "sslclient") != 0
    assert verify_identity(openssl, written, certificate, "sslserver") != 0


@pytest.mark.parametrize(
    ("not_after", "shown"),
    [(2_524_607_999, "Dec 31 23:59:59 2049 GMT"), (2_524_608_000, "Jan  1 00:00:00 2050 GMT")],
)
def test_openssl_agrees_on_times_and_serial_number(openssl, written, not_after, shown):
    """The two encodings of time meet at 2050 (RFC 5280 §4.1.2.5)."""
    authority = create_root(
        private_key(KeyType.EC_P256, 900), subject=ca_name("Long CA"), validity=Validity(NOW, 2_600_000_000)
    )
    pair = issue_pair(authority, signing_serial=b"\xab\xcd", validity=Validity(NOW, not_after))
    path = written("certificate.pem", load_certificate(pair.signing))
    told = openssl("x509", "-in", path, "-noout", "-serial", "-enddate").stdout
    assert told.splitlines() == ["serial=ABCD", f"notAfter={shown}"]
