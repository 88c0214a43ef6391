"""Guards step 1: a client wraps its key to the transport key of its own trust anchor and no other."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from keyark.errors import KeyarkError
from keyark.identity.certificates import PRIVATE_KEY_ARCHIVAL
from keyark.identity.transport import TransportCertificateError, TransportTrust
from keyark.keys.key_types import KeyType, UnsupportedKeyError
from keyark.keys.spki import encode_spki
from keyark.v1.common_pb2 import TransportCertificate
from keyark.x509.authority import certificate_builder, key_usage
from keyark.x509.certificates import CertificateFormatError, Validity, encode_certificate
from keyark.x509.chains import CertificateChainError, CertificateExpiredError
from tests.support.keys.pki import (
    CA_VALIDITY,
    DAY,
    NOW,
    TRUST_DOMAIN,
    VALIDITY,
    identity_certificate,
    internal_ca,
    issue_pair,
    issuing_ca,
    private_key,
    root_ca,
)

URI = "spiffe://example.org/drm/transport"


def trust(*anchors):
    return TransportTrust(anchors=anchors or (internal_ca().certificate,), trust_domain=TRUST_DOMAIN)


def message(certificate, *chain):
    return TransportCertificate(
        certificate=encode_certificate(certificate), chain=[encode_certificate(c) for c in chain]
    )


def transport(key_type=KeyType.EC_P256, **fields):
    return identity_certificate("drm/transport", key=private_key(key_type, 906), **fields)


def handmade(
    *,
    uri=URI,
    usages=("digital_signature", "key_agreement"),
    purposes=(PRIVATE_KEY_ARCHIVAL,),
    key_type=KeyType.EC_P256,
    validity=VALIDITY,
):
    """A certificate of the internal CA that it would not make by its own rules."""
    builder = certificate_builder(private_key(key_type, 906).public_key(), x509.Name([]), validity)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
    )
    if usages:
        builder = builder.add_extension(key_usage(*usages), critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    builder = builder.issuer_name(internal_ca().certificate.subject)
    return builder.sign(internal_ca().private_key, hashes.SHA256())


@pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.RSA_3072])
@pytest.mark.parametrize("chain", [(), (internal_ca().certificate,)])
def test_the_transport_key_is_believed(key_type, chain):
    certificate = transport(key_type)
    assert trust().verify(message(certificate, *chain), NOW) == encode_spki(certificate.public_key())


def test_a_handmade_one_like_it_is_believed():
    trust().verify(message(handmade()), NOW)


@pytest.mark.parametrize("path", ["rm", "drm", "client/alice"])
def test_another_identity_is_not_the_transport_key(path):
    with pytest.raises(TransportCertificateError, match="drm/transport"):
        trust().verify(message(identity_certificate(path)), NOW)


def test_another_trust_domain_is_not_believed():
    other = TransportTrust(anchors=[internal_ca().certificate], trust_domain="example.com")
    with pytest.raises(TransportCertificateError):
        other.verify(message(transport()), NOW)


def test_another_authority_is_not_believed_even_if_it_comes_along():
    forged = identity_certificate("drm/transport", authority=root_ca(path_length=0, name="Mallory CA"))
    with pytest.raises(CertificateChainError):
        trust().verify(message(forged, root_ca(path_length=0, name="Mallory CA").certificate), NOW)


@pytest.mark.parametrize(
    "fields",
    [
        {"usages": ()},
        {"usages": ("digital_signature",)},
        {"usages": ("key_agreement",)},
        {"usages": ("digital_signature", "key_encipherment")},
        {"purposes": ()},
        {"purposes": (PRIVATE_KEY_ARCHIVAL, ExtendedKeyUsageOID.CLIENT_AUTH)},
        {"purposes": (PRIVATE_KEY_ARCHIVAL, ExtendedKeyUsageOID.SERVER_AUTH)},
        {"purposes": (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)},
    ],
    ids=str,
)
def test_other_uses_are_refused(fields):
    with pytest.raises(TransportCertificateError):
        trust().verify(message(handmade(**fields)), NOW)


def test_other_key_types_are_refused():
    with pytest.raises(UnsupportedKeyError):
        trust().verify(message(handmade(key_type=KeyType.EC_P384)), NOW)


def test_a_persons_certificate_is_refused():
    certificate = issue_pair(issuing_ca()).encryption
    both = trust(internal_ca().certificate, issuing_ca().certificate)
    with pytest.raises(TransportCertificateError):
        both.verify(TransportCertificate(certificate=certificate), NOW)


@pytest.mark.parametrize("der", [b"", b"\x30\x00", bytes(100)])
def test_what_is_no_certificate_is_refused(der):
    with pytest.raises(CertificateFormatError):
        trust().verify(TransportCertificate(certificate=der), NOW)
    with pytest.raises(CertificateFormatError):
        trust().verify(TransportCertificate(certificate=encode_certificate(transport()), chain=[der]), NOW)


def test_a_remembered_certificate_expires_all_the_same():
    certificate = message(transport())
    trusting = trust()
    spki = trusting.verify(certificate, NOW)
    assert trusting.verify(certificate, VALIDITY.not_after) == spki
    with pytest.raises(CertificateExpiredError):
        trusting.verify(certificate, VALIDITY.not_after + 1)
    with pytest.raises(CertificateExpiredError):
        trusting.verify(certificate, VALIDITY.not_before - 1)


def test_a_remembered_certificate_expires_with_its_issuer():
    certificate = message(handmade(validity=Validity(NOW, CA_VALIDITY.not_after + DAY)))
    trusting = trust()
    trusting.verify(certificate, NOW)
    with pytest.raises(CertificateExpiredError, match="Internal CA"):
        trusting.verify(certificate, CA_VALIDITY.not_after + 1)


def test_remembering_one_lets_no_other_in():
    trusting = trust()
    for _ in range(40):
        trusting.verify(message(transport()), NOW)
    with pytest.raises(KeyarkError):
        trusting.verify(message(identity_certificate("rm")), NOW)
