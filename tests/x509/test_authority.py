"""Guards the CAs: each has its own key, signs requests that prove possession, and outlives no issuer."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from keyark.errors import InvalidInputError
from keyark.keys.key_types import CA_KEY_TYPES, KeyType, UnsupportedKeyError
from keyark.keys.signatures import IssuerKeyMismatchError
from keyark.x509.authority import (
    Authority,
    CertificateRequestError,
    ca_name,
    certificate_builder,
    create_internal_ca,
    create_root,
    issue_ca,
    key_usage,
    request_ca,
)
from keyark.x509.certificates import IssuerValidityError, Validity, load_certificate
from keyark.x509.distribution import Distribution
from tests.support.keys.pki import CA_VALIDITY, DAY, NOW, internal_ca, issuing_ca, private_key, root_ca

SUBJECT = ca_name("Sub CA")


def extension(certificate, extension_type):
    return certificate.extensions.get_extension_for_class(extension_type)


def make_request(key_type=KeyType.EC_P256, subject=SUBJECT):
    return request_ca(private_key(key_type, 905), subject=subject)


@pytest.mark.parametrize("key_type", CA_KEY_TYPES)
def test_roots_are_cas(key_type):
    certificate = root_ca(key_type).certificate
    basic, usage = extension(certificate, x509.BasicConstraints), extension(certificate, x509.KeyUsage)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 1)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    assert not usage.value.digital_signature
    certificate.verify_directly_issued_by(certificate)


@pytest.mark.parametrize("key_type", CA_KEY_TYPES)
def test_subordinates_come_from_requests(key_type):
    certificate = issuing_ca(key_type).certificate
    assert certificate.issuer == root_ca().certificate.subject
    assert extension(certificate, x509.BasicConstraints).value.path_length == 0
    certificate.verify_directly_issued_by(root_ca().certificate)


def test_subordinates_say_where_crls_are():
    urls = Distribution(crl_urls=("http://crl.example.org/root.crl",))
    certificate = issue_ca(
        root_ca(), make_request(), subject=SUBJECT, validity=CA_VALIDITY, distribution=urls
    )
    points = extension(certificate, x509.CRLDistributionPoints).value
    assert [name.value for point in points for name in point.full_name] == ["http://crl.example.org/root.crl"]


@pytest.mark.parametrize("key_type", sorted(set(KeyType) - set(CA_KEY_TYPES) - {KeyType.X25519}, key=str))
def test_other_key_types_are_no_cas(key_type):
    with pytest.raises(UnsupportedKeyError):
        create_root(private_key(key_type), subject=SUBJECT, validity=CA_VALIDITY)
    with pytest.raises(UnsupportedKeyError):
        request_ca(private_key(key_type), subject=SUBJECT)


@pytest.mark.parametrize("key_type", [t for t in CA_KEY_TYPES if t is not KeyType.EC_P256])
def test_the_internal_ca_is_p256(key_type):
    with pytest.raises(UnsupportedKeyError):
        create_internal_ca(private_key(key_type, 900), subject=SUBJECT, validity=CA_VALIDITY)


def test_the_internal_ca_has_no_ca_below():
    assert extension(internal_ca().certificate, x509.BasicConstraints).value.path_length == 0


def test_a_request_for_another_name_is_refused():
    with pytest.raises(CertificateRequestError, match=r"Sub CA.*Other CA"):
        issue_ca(root_ca(), make_request(), subject=ca_name("Other CA"), validity=CA_VALIDITY)


def test_a_request_without_proof_of_possession_is_refused():
    der = bytearray(make_request().public_bytes(Encoding.DER))
    der[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(der))
    with pytest.raises(CertificateRequestError, match="signature"):
        issue_ca(root_ca(), forged, subject=SUBJECT, validity=CA_VALIDITY)


def test_a_request_with_an_unfit_key_is_refused():
    key = private_key(KeyType.RSA_2048)
    request = x509.CertificateSigningRequestBuilder().subject_name(SUBJECT).sign(key, hashes.SHA256())
    with pytest.raises(UnsupportedKeyError):
        issue_ca(root_ca(), request, subject=SUBJECT, validity=CA_VALIDITY)


@pytest.mark.parametrize("validity", [Validity(NOW, CA_VALIDITY.not_after + 1), Validity(NOW - 2 * DAY, NOW)])
def test_no_ca_outlives_its_issuer(validity):
    with pytest.raises(IssuerValidityError):
        issue_ca(root_ca(), make_request(), subject=SUBJECT, validity=validity)


def test_key_and_certificate_of_an_authority_belong_together():
    with pytest.raises(IssuerKeyMismatchError):
        Authority(certificate=root_ca().certificate, private_key=private_key(KeyType.EC_P256, 901))


@pytest.mark.parametrize(("is_ca", "usages"), [(False, ("key_cert_sign",)), (True, ("crl_sign",))])
def test_a_certificate_that_may_not_issue_makes_no_authority(is_ca, usages):
    key = private_key(KeyType.EC_P256, 905)
    builder = (
        certificate_builder(key.public_key(), SUBJECT, CA_VALIDITY)
        .issuer_name(SUBJECT)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(key_usage(*usages), critical=True)
    )
    with pytest.raises(IssuerKeyMismatchError, match="may not issue"):
        Authority(certificate=builder.sign(key, hashes.SHA256()), private_key=key)


@pytest.mark.parametrize("name", ["", "x" * 65, "Al\u202eice", "б" * 33])
def test_unfit_names_are_refused(name):
    with pytest.raises(InvalidInputError):
        ca_name(name)
    if name:
        with pytest.raises(InvalidInputError) as caught:
            ca_name("CA", name)
        assert caught.value.field == "organization"


def test_authority_certificates_load():
    der = issuing_ca().certificate.public_bytes(Encoding.DER)
    assert load_certificate(der) == issuing_ca().certificate
