"""Guards identities (P7): a certificate stands for one SPIFFE ID, the one that was asked for and expected."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from keyark.errors import InvalidInputError, UnauthenticatedError
from keyark.identity.certificates import PRIVATE_KEY_ARCHIVAL, identity_of, issue_identity, request_identity
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType, UnsupportedKeyError
from keyark.x509.authority import CertificateRequestError
from keyark.x509.certificates import IssuerValidityError, Validity, load_certificate
from tests.support.keys.pki import (
    CA_VALIDITY,
    NOW,
    TRUST_DOMAIN,
    VALIDITY,
    identity_certificate,
    internal_ca,
    issue_pair,
    issuing_ca,
    private_key,
)

SERVICES = ("rm", "cm", "drm")
PEOPLE = ("client/alice", "officer/olga", "agent/ann", "auditor/aud")
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


def value(certificate, extension_type):
    return certificate.extensions.get_extension_for_class(extension_type).value


def names(certificate):
    return [name.value for name in value(certificate, x509.SubjectAlternativeName)]


def bits(certificate):
    usage = value(certificate, x509.KeyUsage)
    known = ("digital_signature", "content_commitment", "key_encipherment", "key_agreement", "key_cert_sign")
    return {name for name in known if getattr(usage, name)}


@pytest.mark.parametrize("path", SERVICES)
def test_services_have_one_uri_and_one_dns_name(path):
    certificate = identity_certificate(path)
    assert names(certificate) == [f"spiffe://example.org/{path}", f"{path}.example.org"]
    assert list(value(certificate, x509.ExtendedKeyUsage)) == [SERVER, CLIENT]
    assert bits(certificate) == {"digital_signature"}


@pytest.mark.parametrize("path", PEOPLE)
def test_people_are_clients_and_no_servers(path):
    certificate = identity_certificate(path)
    assert names(certificate) == [f"spiffe://example.org/{path}"]
    assert list(value(certificate, x509.ExtendedKeyUsage)) == [CLIENT]
    assert bits(certificate) == {"digital_signature"}


@pytest.mark.parametrize(
    ("key_type", "wraps"), [(KeyType.EC_P256, "key_agreement"), (KeyType.RSA_3072, "key_encipherment")]
)
def test_the_transport_key_wraps_and_signs_and_speaks_no_tls(key_type, wraps):
    certificate = identity_certificate("drm/transport", key=private_key(key_type, 906))
    assert names(certificate) == ["spiffe://example.org/drm/transport"]
    assert list(value(certificate, x509.ExtendedKeyUsage)) == [PRIVATE_KEY_ARCHIVAL]
    assert bits(certificate) == {"digital_signature", wraps}


@pytest.mark.parametrize("path", [*SERVICES, *PEOPLE, "drm/transport"])
def test_the_identity_is_read_back(path):
    assert identity_of(identity_certificate(path)) == SpiffeId(TRUST_DOMAIN, path)


@pytest.mark.parametrize("path", [*SERVICES, *PEOPLE, "drm/transport"])
def test_no_identity_is_a_ca(path):
    with pytest.raises(x509.ExtensionNotFound):
        value(identity_certificate(path), x509.BasicConstraints)


@pytest.mark.parametrize("key_type", [KeyType.EC_P384, KeyType.RSA_3072, KeyType.ED25519])
@pytest.mark.parametrize("path", ["rm", "client/alice"])
def test_identity_keys_are_p256(path, key_type):
    with pytest.raises(UnsupportedKeyError):
        request_identity(private_key(key_type, 906), SpiffeId(TRUST_DOMAIN, path))


@pytest.mark.parametrize("key_type", [KeyType.EC_P384, KeyType.RSA_2048, KeyType.RSA_4096, KeyType.ML_DSA_65])
def test_transport_keys_are_p256_or_rsa_3072(key_type):
    with pytest.raises(UnsupportedKeyError):
        request_identity(private_key(key_type, 906), SpiffeId(TRUST_DOMAIN, "drm/transport"))


def issue(request, path="rm"):
    return issue_identity(internal_ca(), request, identity=SpiffeId(TRUST_DOMAIN, path), validity=VALIDITY)


def handmade(*extensions, key=None):
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key or private_key(KeyType.EC_P256, 906), hashes.SHA256())


def uri(*texts):
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(text) for text in texts])


RM = "spiffe://example.org/rm"


def test_a_request_made_elsewhere_that_asks_for_the_identity_is_fine():
    assert identity_of(issue(handmade(uri(RM)))) == SpiffeId(TRUST_DOMAIN, "rm")


@pytest.mark.parametrize(
    "extensions",
    [
        (),
        (uri("spiffe://example.org/cm"),),
        (uri("spiffe://example.com/rm"),),
        (uri(RM, "spiffe://example.org/cm"),),
        (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(RM), x509.DNSName("rm.example.org")]),),
        (uri(RM), x509.BasicConstraints(ca=True, path_length=None)),
        (x509.SubjectAlternativeName([x509.DNSName("rm.example.org")]),),
    ],
)
def test_a_request_for_anything_else_is_refused(extensions):
    with pytest.raises(CertificateRequestError, match=RM):
        issue(handmade(*extensions))


def test_an_officers_request_gives_no_service():
    request = request_identity(private_key(KeyType.EC_P256, 906), SpiffeId(TRUST_DOMAIN, "officer/olga"))
    with pytest.raises(CertificateRequestError):
        issue(request)


def test_a_request_without_proof_of_possession_is_refused():
    der = bytearray(handmade(uri(RM)).public_bytes(Encoding.DER))
    der[-1] ^= 1
    with pytest.raises(CertificateRequestError, match="signature"):
        issue(x509.load_der_x509_csr(bytes(der)))


def test_a_request_with_another_key_type_is_refused():
    with pytest.raises(UnsupportedKeyError):
        issue(handmade(uri(RM), key=private_key(KeyType.RSA_3072, 906)))


def test_no_identity_outlives_the_internal_ca():
    validity = Validity(NOW, CA_VALIDITY.not_after + 1)
    with pytest.raises(IssuerValidityError):
        identity_certificate("rm", validity=validity)


def certificate_with(*names):
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(private_key(KeyType.EC_P256).public_key())
        .serial_number(1)
        .not_valid_before(VALIDITY.dates()[0])
        .not_valid_after(VALIDITY.dates()[1])
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(private_key(KeyType.EC_P256), hashes.SHA256())


@pytest.mark.parametrize(
    "certificate",
    [
        certificate_with(),
        certificate_with(x509.DNSName("rm.example.org")),
        certificate_with(x509.UniformResourceIdentifier(RM), x509.UniformResourceIdentifier(RM)),
        load_certificate(issue_pair(issuing_ca()).signing),
    ],
    ids=["no names", "no uri", "two uris", "end entity"],
)
def test_a_certificate_without_exactly_one_uri_is_nobody(certificate):
    with pytest.raises(UnauthenticatedError):
        identity_of(certificate)


def test_a_uri_of_another_kind_is_nobody():
    with pytest.raises(InvalidInputError):
        identity_of(certificate_with(x509.UniformResourceIdentifier("https://example.org/rm")))
