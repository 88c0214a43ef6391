"""Guards step 6: the client takes no certificates but those for its keys, its names and its trust anchor."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES, KeyType
from keyark.statements.enrollment import parse_statement
from keyark.statements.pairs import (
    CertificateMismatchError,
    check_encryption_certificate,
    check_signing_certificate,
    verify_pair,
)
from keyark.v1.common_pb2 import CertificatePair
from keyark.x509.certificates import CertificateFormatError, encode_certificate, load_certificate
from keyark.x509.chains import CertificateChainError, CertificateExpiredError
from keyark.x509.end_entity_profile import EndEntityProfile, user_principal_name
from keyark.x509.key_usages import SIGNING_USAGES, usage_extension
from tests.support.keys.pki import (
    NOW,
    VALIDITY,
    internal_ca,
    issue_pair,
    issuing_ca,
    root_ca,
    spki,
    statement_bytes,
)

ANCHORS = [root_ca().certificate]
CHAIN = [encode_certificate(issuing_ca().certificate), encode_certificate(root_ca().certificate)]


def message(authority=None, **asked):
    pair = issue_pair(authority or issuing_ca(), **asked)
    return CertificatePair(
        signing_certificate=pair.signing, encryption_certificate=pair.encryption, chain=CHAIN
    )


def verify(pair, *, anchors=ANCHORS, at=NOW, **fields):
    return verify_pair(pair, parse_statement(statement_bytes(**fields)), anchors=anchors, at=at)


@pytest.mark.parametrize("key_type", SIGNING_KEY_TYPES)
def test_the_right_pair_is_taken_for_every_signing_key(key_type):
    verify(message(signing_spki=spki(key_type)), signing=key_type)


@pytest.mark.parametrize("key_type", ENCRYPTION_KEY_TYPES)
def test_the_right_pair_is_taken_for_every_encryption_key(key_type):
    verify(message(encryption_spki=spki(key_type, 1)), encryption=key_type)


def test_what_was_verified_is_returned():
    pair = message()
    verified = verify(pair)
    assert verified.signing == load_certificate(pair.signing_certificate)
    assert verified.encryption == load_certificate(pair.encryption_certificate)
    assert verified.chain == (issuing_ca().certificate, root_ca().certificate)


@pytest.mark.parametrize("name", ["Zoë " + "Ü" * 60, "Константин Константинович Константинопольский"])
def test_long_names_in_other_scripts_are_taken(name):
    verify(message(common_name=name), common_name=name)


@pytest.mark.parametrize(
    "asked",
    [
        {"signing_spki": spki(KeyType.EC_P256, 2)},
        {"encryption_spki": spki(KeyType.EC_P256, 2)},
        {"common_name": "Mallory"},
        {"email": "mallory@example.org"},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_certificates_for_other_keys_or_names_are_refused(asked):
    with pytest.raises(CertificateMismatchError):
        verify(message(**asked))


RICH = EndEntityProfile(
    subject=("C=DE", "O=Beispiel GmbH", "CN={email}", "emailAddress={email}"),
    alternative_names=("email", "upn"),
)


def test_what_a_profile_adds_to_a_persons_names_is_taken():
    verify(message(profile=RICH))


@pytest.mark.parametrize("asked", [{"email": "mallory@example.org"}, {"common_name": "Mallory"}], ids=str)
def test_other_names_are_refused_wherever_a_profile_puts_them(asked):
    profile = EndEntityProfile(subject=("CN={common_name}",), alternative_names=("upn", "email"))
    with pytest.raises(CertificateMismatchError):
        verify(message(profile=profile, **asked))
    with pytest.raises(
        CertificateMismatchError,
        match=r"address(es)? in the certificate|certificate's (addresses|common name)",
    ):
        verify(message(profile=RICH, **{"email": "mallory@example.org"} | asked))


def altered(names=None, subject=None, usage=None) -> x509.Certificate:
    """A signing certificate that no profile makes."""
    template = load_certificate(issue_pair(issuing_ca()).signing)
    builder = x509.CertificateBuilder(
        issuer_name=template.issuer,
        subject_name=subject or template.subject,
        public_key=template.public_key(),
        serial_number=7,
        not_valid_before=template.not_valid_before_utc,
        not_valid_after=template.not_valid_after_utc,
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usage is not None:
        builder = builder.add_extension(usage, critical=True)
    return builder.sign(issuing_ca().private_key, hashes.SHA256())


ADDRESS = x509.RFC822Name("alice@example.org")
MALLORY = x509.RFC822Name("mallory@example.org")
SIGNS = usage_extension(SIGNING_USAGES)


@pytest.mark.parametrize(
    "changes",
    [
        {"names": None, "usage": SIGNS},
        {"names": [ADDRESS, MALLORY], "usage": SIGNS},
        {"names": [MALLORY], "usage": SIGNS},
        {"names": [ADDRESS, ADDRESS], "usage": SIGNS},
        {"names": [ADDRESS, user_principal_name("mallory@example.org")], "usage": SIGNS},
        {"names": [user_principal_name("alice@example.org")], "usage": SIGNS},
        {"names": [ADDRESS, x509.DNSName("example.org")], "usage": SIGNS},
        {"names": [ADDRESS], "usage": None},
        {"names": [ADDRESS], "usage": usage_extension(("digitalSignature", "keyEncipherment"))},
        {"names": [ADDRESS], "usage": usage_extension(("keyAgreement",))},
        {
            "names": [ADDRESS],
            "usage": SIGNS,
            "subject": x509.Name([x509.NameAttribute(NameOID.SURNAME, "Example")]),
        },
    ],
)
def test_certificates_that_no_profile_makes_are_refused(changes):
    statement = parse_statement(statement_bytes())
    check_signing_certificate(altered(names=[ADDRESS], usage=SIGNS), statement)
    with pytest.raises(CertificateMismatchError):
        check_signing_certificate(altered(**changes), statement)


def test_exchanged_certificates_are_refused():
    pair = message()
    pair.signing_certificate, pair.encryption_certificate = (
        pair.encryption_certificate,
        pair.signing_certificate,
    )
    with pytest.raises(CertificateMismatchError):
        verify(pair)


def test_a_certificate_for_the_other_role_is_refused():
    """The same key, certified as the other kind of key."""
    swapped = issue_pair(
        issuing_ca(), signing_spki=spki(KeyType.EC_P256, 1), encryption_spki=spki(KeyType.EC_P256)
    )
    statement = parse_statement(statement_bytes())
    with pytest.raises(CertificateMismatchError, match="key usage"):
        check_signing_certificate(load_certificate(swapped.encryption), statement)
    with pytest.raises(CertificateMismatchError, match="key usage"):
        check_encryption_certificate(load_certificate(swapped.signing), statement)


def test_a_pair_of_two_issuers_is_refused():
    pair = message()
    other = issue_pair(issuing_ca(KeyType.EC_P384))
    pair.encryption_certificate = other.encryption
    pair.chain.append(encode_certificate(issuing_ca(KeyType.EC_P384).certificate))
    with pytest.raises(CertificateMismatchError, match="different issuers"):
        verify(pair)


def test_another_trust_anchor_is_refused():
    with pytest.raises(CertificateChainError):
        verify(message(), anchors=[internal_ca().certificate])


def test_a_pair_of_another_ca_of_the_same_name_is_refused():
    forged = issue_pair(root_ca(name="Issuing CA"))
    pair = message()
    pair.signing_certificate, pair.encryption_certificate = forged.signing, forged.encryption
    with pytest.raises(CertificateChainError):
        verify(pair)


@pytest.mark.parametrize("at", [VALIDITY.not_before - 1, VALIDITY.not_after + 1])
def test_an_expired_pair_is_refused(at):
    with pytest.raises(CertificateExpiredError):
        verify(message(), at=at)


@pytest.mark.parametrize("field", ["signing_certificate", "encryption_certificate"])
@pytest.mark.parametrize("value", [b"", b"\x30\x03\x02\x01\x00"])
def test_a_missing_or_malformed_certificate_is_refused(field, value):
    pair = message()
    setattr(pair, field, value)
    with pytest.raises(CertificateFormatError):
        verify(pair)


def test_a_changed_certificate_is_refused():
    pair = message()
    pair.encryption_certificate = pair.encryption_certificate[:-1] + bytes(
        (pair.encryption_certificate[-1] ^ 1,)
    )
    with pytest.raises((CertificateChainError, CertificateFormatError)):
        verify(pair)
