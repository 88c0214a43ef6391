"""Guards the fast path of issuance: byte for byte what CertificateBuilder makes, and only what may be."""

import json
from dataclasses import asdict

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyark.errors import ConfigurationError, InvalidInputError
from keyark.keys.key_types import (
    CA_KEY_TYPES,
    ENCRYPTION_KEY_TYPES,
    SIGNING_KEY_TYPES,
    KeyType,
    UnsupportedKeyError,
    key_type_of,
)
from keyark.keys.signatures import IssuerKeyMismatchError, signature_scheme
from keyark.keys.spki import SpkiNotCanonicalError, key_identifier, load_spki
from keyark.x509.authority import Authority, ca_name, create_root
from keyark.x509.certificates import IssuerValidityError, Validity, load_certificate
from keyark.x509.distribution import Distribution
from keyark.x509.end_entity import EndEntityIssuer
from keyark.x509.end_entity_profile import EndEntityProfile, RoleProfile, user_principal_name
from keyark.x509.key_usages import encryption_usages, usage_extension
from keyark.x509.serials import encode_serial
from tests.support.keys.pki import (
    CA_VALIDITY,
    DAY,
    NOW,
    VALIDITY,
    issue_pair,
    issuing_ca,
    private_key,
    root_ca,
    spki,
)

FULL = EndEntityProfile(
    subject=("C=DE", "O=Beispiel GmbH", "OU=Mail", "CN={common_name}", "emailAddress={email}"),
    distribution=Distribution(
        crl_urls=("http://crl.example.org/ca.crl", "http://crl2.example.org/ca.crl"),
        ca_issuer_urls=("http://example.org/ca.cer",),
        ocsp_urls=("http://ocsp.example.org/",),
        policy_oids=("1.3.6.1.4.1.99999.1.2", "2.23.140.1.5.1.3"),
    ),
)
BARE = EndEntityProfile()
UNUSUAL = EndEntityProfile(
    subject=(),
    alternative_names=("upn", "email"),
    signing=RoleProfile(
        key_types=("ec-p256",),
        key_usage=("digitalSignature",),
        extended_key_usage=("emailProtection", "clientAuth", "1.3.6.1.4.1.99999.7"),
    ),
    encryption=RoleProfile(
        key_types=("ec-p256",),
        key_usage=("keyAgreement", "encipherOnly"),
        extended_key_usage=("emailProtection", "msEFS"),
    ),
    critical=("keyUsage", "subjectAltName", "extendedKeyUsage", "certificatePolicies"),
    distribution=Distribution(policy_oids=("1.3.6.1.4.1.99999.1.2",)),
)
_NAMES = {
    "C": NameOID.COUNTRY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
    "emailAddress": NameOID.EMAIL_ADDRESS,
}
_USAGES = {
    "emailProtection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "msEFS": x509.ObjectIdentifier("1.3.6.1.4.1.311.10.3.4"),
}
_CRITICAL = {
    "keyUsage": x509.KeyUsage,
    "subjectAltName": x509.SubjectAlternativeName,
    "extendedKeyUsage": x509.ExtendedKeyUsage,
    "certificatePolicies": x509.CertificatePolicies,
}


def reference_subject(profile: EndEntityProfile, *, common_name: str, email: str) -> x509.Name:
    attributes = []
    for attribute in profile.subject:
        name, _, value = attribute.partition("=")
        text = value.format(common_name=common_name, email=email)
        attributes.append(x509.NameAttribute(_NAMES[name], text))
    return x509.Name(attributes)


def reference_extensions(profile: EndEntityProfile, *, role: RoleProfile, usage, email: str):
    names = {"email": x509.RFC822Name(email), "upn": user_principal_name(email)}
    yield x509.SubjectAlternativeName([names[name] for name in profile.alternative_names])
    yield usage
    yield x509.ExtendedKeyUsage(
        [_USAGES.get(name) or x509.ObjectIdentifier(name) for name in role.extended_key_usage]
    )
    yield from profile.distribution.extensions()


def reference(
    authority: Authority, profile: EndEntityProfile, *, role, key, serial, usage, common_name, email, validity
):
    """The same certificate by the library's builder."""
    issuer = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    not_before, not_after = validity.dates()
    builder = (
        x509.CertificateBuilder()
        .subject_name(reference_subject(profile, common_name=common_name, email=email))
        .issuer_name(authority.certificate.subject)
        .public_key(load_spki(key))
        .serial_number(int.from_bytes(serial, "big"))
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
        .add_extension(x509.SubjectKeyIdentifier(key_identifier(key)), critical=False)
    )
    critical = tuple(_CRITICAL[name] for name in profile.critical)
    for extension in reference_extensions(profile, role=role, usage=usage, email=email):
        builder = builder.add_extension(extension, critical=isinstance(extension, critical))
    return builder.sign(authority.private_key, signature_scheme(authority.private_key).hash_algorithm)


def check_against_reference(
    authority, profile=BARE, *, signing=KeyType.EC_P256, encryption=KeyType.EC_P256, **asked
):
    serials = asked.pop("serials", (b"\x7f" * 20, b"\x01"))
    common = {"common_name": "Alice Example", "email": "alice@example.org", "validity": VALIDITY} | asked
    pair = issue_pair(
        authority,
        profile=profile,
        signing_spki=spki(signing),
        encryption_spki=spki(encryption, 1),
        signing_serial=serials[0],
        encryption_serial=serials[1],
        **common,
    )
    usual = encryption_usages(encryption)[:1]
    for der, serial, key, role, usages in (
        (pair.signing, serials[0], spki(signing), profile.signing, profile.signing.key_usage),
        (
            pair.encryption,
            serials[1],
            spki(encryption, 1),
            profile.encryption,
            profile.encryption.key_usage or usual,
        ),
    ):
        usage = usage_extension(usages)
        expected = reference(authority, profile, role=role, key=key, serial=serial, usage=usage, **common)
        made = x509.load_der_x509_certificate(der)
        assert made.tbs_certificate_bytes == expected.tbs_certificate_bytes
        assert made.signature_algorithm_oid == expected.signature_algorithm_oid
        assert len(der) - len(made.signature) == len(expected.public_bytes(Encoding.DER)) - len(
            expected.signature
        )
        made.verify_directly_issued_by(authority.certificate)


@pytest.mark.parametrize("profile", [BARE, FULL, UNUSUAL], ids=["bare", "full", "unusual"])
@pytest.mark.parametrize("ca_key_type", CA_KEY_TYPES)
def test_every_ca_key_type_makes_what_the_builder_makes(ca_key_type, profile):
    check_against_reference(issuing_ca(ca_key_type), profile)


@pytest.mark.parametrize("key_type", SIGNING_KEY_TYPES)
def test_every_signing_key_type_makes_what_the_builder_makes(key_type):
    check_against_reference(issuing_ca(), FULL, signing=key_type)


@pytest.mark.parametrize("key_type", ENCRYPTION_KEY_TYPES)
def test_every_encryption_key_type_makes_what_the_builder_makes(key_type):
    check_against_reference(issuing_ca(), FULL, encryption=key_type)


@pytest.mark.parametrize(
    "serials",
    [(b"\x80", b"\x7f"), (b"\xff" * 19, b"\x01\x00"), (b"\x7f" + bytes(19), b"\x7f" + b"\xff" * 19)],
)
def test_serial_numbers_of_all_shapes_make_what_the_builder_makes(serials):
    check_against_reference(issuing_ca(), serials=serials)


@pytest.mark.parametrize("common_name", ["x", "x" * 64, "Zoë Ünal", "山田太郎"], ids=len)
@pytest.mark.parametrize("email", ["a@b.de", "x" * 64 + "@" + ("y" * 60 + ".") * 3 + "org"], ids=len)
def test_names_of_all_lengths_make_what_the_builder_makes(common_name, email):
    check_against_reference(issuing_ca(), common_name=common_name, email=email)


@pytest.mark.parametrize("common_name", ["Константин Константинович Константинопольский", "😀" * 64], ids=len)
def test_names_have_64_characters_not_bytes(common_name):
    """The builder does not make these: it counts bytes, where X.520 counts characters."""
    certificate = load_certificate(issue_pair(issuing_ca(), common_name=common_name).signing)
    assert [name.value for name in certificate.subject] == [common_name]


@pytest.mark.parametrize(
    ("not_before", "not_after"),
    [
        (946_684_800, 2_524_607_999),  # 2000-01-01T00:00:00Z to 2049-12-31T23:59:59Z
        (NOW, 2_524_608_000),  # to 2050-01-01T00:00:00Z
        (2_524_608_000, 4_102_444_800),
    ],
)
def test_times_around_2050_make_what_the_builder_makes(not_before, not_after):
    """UTCTime through 2049, GeneralizedTime after (RFC 5280 §4.1.2.5)."""
    authority = create_root(
        private_key(KeyType.EC_P256, 900),
        subject=ca_name("Old CA"),
        validity=Validity(900_000_000, 4_200_000_000),
    )
    check_against_reference(authority, validity=Validity(not_before, not_after))


def set_bits(der: bytes) -> set[str]:
    """The bits of a certificate's critical key usage, as OpenSSL and RFC 5280 name them."""
    extension = load_certificate(der).extensions.get_extension_for_class(x509.KeyUsage)
    assert extension.critical
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
    )
    return {name for name in (*names, "key_cert_sign", "crl_sign") if getattr(extension.value, name)}


def test_roles_have_their_key_usage():
    rsa = issue_pair(
        issuing_ca(), signing_spki=spki(KeyType.RSA_2048), encryption_spki=spki(KeyType.RSA_2048, 1)
    )
    assert set_bits(rsa.signing) == {"digital_signature", "content_commitment"}
    assert set_bits(rsa.encryption) == {"key_encipherment"}
    assert set_bits(issue_pair(issuing_ca()).encryption) == {"key_agreement"}


@pytest.mark.parametrize("key_type", ENCRYPTION_KEY_TYPES)
def test_encryption_usage_follows_the_algorithm(key_type):
    """RSA and ML-KEM (RFC 9935 §5) encipher keys; EC and X25519 (RFC 8410 §5) agree on them."""
    usage = usage_extension(encryption_usages(key_type)[:1])
    enciphers = key_type.value.startswith(("rsa", "ml-kem"))
    assert (usage.key_encipherment, usage.key_agreement) == (enciphers, not enciphers)


def test_the_key_identifier_of_the_issuer_is_named():
    certificate = load_certificate(issue_pair(issuing_ca()).signing)
    named = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    issuer = (
        issuing_ca().certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    )
    assert named == issuer


@pytest.mark.parametrize("key_type", [KeyType.X25519, KeyType.ML_KEM_768])
def test_keys_that_cannot_sign_get_no_signing_certificate(key_type):
    with pytest.raises(UnsupportedKeyError):
        issue_pair(issuing_ca(), signing_spki=spki(key_type))


@pytest.mark.parametrize(
    "key_type", [KeyType.ED25519, KeyType.ML_DSA_44, KeyType.ML_DSA_65, KeyType.ML_DSA_87]
)
def test_keys_that_cannot_encrypt_get_no_encryption_certificate(key_type):
    with pytest.raises(UnsupportedKeyError):
        issue_pair(issuing_ca(), encryption_spki=spki(key_type))


@pytest.mark.parametrize(
    "data", [b"", b"\x30\x00", spki(KeyType.EC_P256) + b"\x00"], ids=["empty", "sequence", "trailing"]
)
def test_other_encodings_of_keys_get_no_certificate(data):
    with pytest.raises((SpkiNotCanonicalError, UnsupportedKeyError, InvalidInputError)):
        issue_pair(issuing_ca(), encryption_spki=data)


def test_a_signing_certificate_can_be_had_alone():
    pair = issue_pair(issuing_ca(), encryption_spki=b"", encryption_serial=b"")
    assert load_certificate(pair.signing).verify_directly_issued_by(issuing_ca().certificate) is None
    assert pair.encryption == b""
    with pytest.raises(InvalidInputError):
        issue_pair(issuing_ca(), encryption_serial=b"")


@pytest.mark.parametrize("serial", [b"", b"\x00", b"\x00\x01", b"\x80" + bytes(19), bytes(21)])
def test_malformed_serial_numbers_are_refused(serial):
    with pytest.raises(InvalidInputError):
        issue_pair(issuing_ca(), encryption_serial=serial)


def test_one_serial_number_or_key_for_both_is_refused():
    with pytest.raises(InvalidInputError):
        issue_pair(issuing_ca(), signing_serial=b"\x01", encryption_serial=b"\x01")
    with pytest.raises(InvalidInputError):
        issue_pair(issuing_ca(), encryption_spki=spki(KeyType.EC_P256))


@pytest.mark.parametrize(
    "validity",
    [
        Validity(CA_VALIDITY.not_before - 1, NOW),
        Validity(NOW, CA_VALIDITY.not_after + 1),
        Validity(NOW + 1, NOW),
    ],
)
def test_no_certificate_outlives_its_issuer(validity):
    with pytest.raises(IssuerValidityError):
        issue_pair(issuing_ca(), validity=validity)


def test_the_key_must_be_that_of_the_ca_certificate():
    with pytest.raises(IssuerKeyMismatchError):
        EndEntityIssuer(
            certificate=issuing_ca().certificate, private_key=private_key(KeyType.EC_P256, 900), profile=BARE
        )


def test_an_end_entity_does_not_issue():
    certificate = load_certificate(issue_pair(root_ca()).signing)
    with pytest.raises(IssuerKeyMismatchError):
        EndEntityIssuer(certificate=certificate, private_key=private_key(KeyType.EC_P256), profile=BARE)


def test_the_private_key_shows_nowhere():
    assert "EllipticCurve" not in repr(issuing_ca())
    assert "ECPrivate" not in repr(issuing_ca())


@pytest.mark.parametrize(
    "fields",
    [
        {"crl_urls": ("ftp://example.org/ca.crl",)},
        {"crl_urls": ("http://exämple.org/ca.crl",)},
        {"ocsp_urls": ("http://example.org/ x",)},
        {"ca_issuer_urls": ("",)},
        {"policy_oids": ("1.2.x",)},
        {"policy_oids": ("9.9.9",)},
    ],
)
def test_malformed_urls_and_policies_stop_the_start(fields):
    with pytest.raises(ConfigurationError):
        Distribution(**fields)


def test_a_key_type_that_the_profile_does_not_permit_gets_no_certificate():
    with pytest.raises(UnsupportedKeyError):
        issue_pair(issuing_ca(), profile=UNUSUAL, encryption_spki=spki(KeyType.X25519))


def test_a_profile_goes_through_json_unchanged():
    assert EndEntityProfile.restore(json.loads(json.dumps(asdict(UNUSUAL)))) == UNUSUAL


def test_validity_is_backdated_and_clipped():
    issuer = Validity(NOW - 100, NOW + 500)
    assert Validity.starting(NOW, lifetime_seconds=DAY) == Validity(NOW - 300, NOW + DAY)
    assert Validity.starting(NOW, lifetime_seconds=DAY, within=issuer) == issuer
    assert Validity.starting(NOW, lifetime_seconds=10, backdate_seconds=5, within=issuer) == Validity(
        NOW - 5, NOW + 10
    )


@pytest.mark.parametrize("now", [NOW - 101, NOW + 501])
def test_an_issuer_out_of_its_time_gives_no_validity(now):
    with pytest.raises(IssuerValidityError):
        Validity.starting(now, lifetime_seconds=DAY, within=Validity(NOW - 100, NOW + 500))


def test_the_serial_number_stands_in_the_certificate_as_it_was_reserved():
    serial = encode_serial(1 << 158)
    pair = issue_pair(issuing_ca(), signing_serial=serial)
    assert load_certificate(pair.signing).serial_number == 1 << 158
    assert key_type_of(load_certificate(pair.encryption).public_key()) is KeyType.EC_P256
