"""Guards reading certificates: what does not parse to its last extension is refused where it comes in."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from keyark.files import UnreadableFileError
from keyark.keys.key_types import KeyType, UnsupportedKeyError
from keyark.x509.certificates import (
    CertificateFormatError,
    Validity,
    encode_certificate,
    encode_pem_certificates,
    load_certificate,
    load_certificates,
    load_pem_certificates,
    save_certificates,
)
from tests.support.keys.pki import NOW, VALIDITY, issue_pair, issuing_ca, private_key, root_ca

CHAIN = [issuing_ca().certificate, root_ca().certificate]


def self_signed(key, *extensions):
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(VALIDITY.dates()[0])
        .not_valid_after(VALIDITY.dates()[1])
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_der_and_pem_come_back(tmp_path):
    assert load_certificate(encode_certificate(CHAIN[0])) == CHAIN[0]
    assert load_pem_certificates(encode_pem_certificates(CHAIN)) == CHAIN
    path = tmp_path / "chain.pem"
    save_certificates(path, CHAIN)
    assert load_certificates(path) == CHAIN


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"hello", bytes(70_000)])
def test_what_is_no_certificate_is_refused(der):
    with pytest.raises(CertificateFormatError):
        load_certificate(der)


def test_trailing_bytes_are_refused():
    with pytest.raises(CertificateFormatError):
        load_certificate(encode_certificate(CHAIN[0]) + b"\x00")


@pytest.mark.parametrize(
    "text", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_holds_no_certificates_is_refused(tmp_path, text):
    with pytest.raises(CertificateFormatError):
        load_pem_certificates(text)
    path = tmp_path / "chain.pem"
    path.write_bytes(text)
    with pytest.raises(CertificateFormatError, match=r"chain\.pem"):
        load_certificates(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(UnreadableFileError, match="No such file"):
        load_certificates(tmp_path / "chain.pem")


@pytest.mark.parametrize(
    "key",
    [rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256K1())],
    ids=["rsa-1024", "k1"],
)
def test_unsupported_keys_are_refused(key):
    with pytest.raises(UnsupportedKeyError):
        load_certificate(self_signed(key))


@pytest.mark.parametrize(
    "extension",
    [
        x509.UnrecognizedExtension(x509.oid.ExtensionOID.BASIC_CONSTRAINTS, b"\x05\x00"),
        x509.UnrecognizedExtension(x509.oid.ExtensionOID.KEY_USAGE, b""),
        x509.UnrecognizedExtension(x509.oid.ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x02\xff\x00"),
    ],
)
def test_malformed_extensions_are_refused_here_and_not_later(extension):
    with pytest.raises(CertificateFormatError):
        load_certificate(self_signed(private_key(KeyType.EC_P256), extension))


def test_an_extension_that_stands_twice_is_refused():
    first = x509.SubjectKeyIdentifier(bytes(20))
    der = self_signed(
        private_key(KeyType.EC_P256), first, x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH])
    )
    repeated = der.replace(bytes.fromhex("0603551d25"), bytes.fromhex("0603551d0e"))
    with pytest.raises(CertificateFormatError):
        load_certificate(repeated)


def test_validity_is_read_in_seconds():
    assert Validity.of(load_certificate(issue_pair(issuing_ca()).signing)) == VALIDITY


@pytest.mark.parametrize(
    ("outer", "inner", "inside"),
    [
        ((1, 9), (1, 9), True),
        ((1, 9), (5, 5), True),
        ((1, 9), (0, 9), False),
        ((1, 9), (1, 10), False),
        ((1, 9), (6, 5), False),
    ],
)
def test_containing(outer, inner, inside):
    assert Validity(*outer).contains(Validity(*inner)) is inside


def test_now_is_not_in_the_way():
    assert Validity.starting(NOW, lifetime_seconds=1, backdate_seconds=0) == Validity(NOW, NOW + 1)
