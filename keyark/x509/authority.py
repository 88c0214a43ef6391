"""Certificate authorities: roots, the issuing CA, and the internal CA of the deployment's own identities.

Nothing here is on the path of an enrollment; end entities' certificates are made in ``end_entity``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from keyark.errors import InvalidInputError, KeyarkError, Kind
from keyark.keys.key_types import CA_KEY_TYPES, KeyType, SigningPrivateKey, check_key_type, key_type_of
from keyark.keys.library import PARSING_ERRORS
from keyark.keys.signatures import check_issuer, signature_scheme
from keyark.keys.spki import encode_spki, key_identifier
from keyark.x509.certificates import IssuerValidityError, Validity
from keyark.x509.distribution import Distribution
from keyark.x509.names import MAX_NAME_CHARACTERS, check_name
from keyark.x509.serials import decode_serial, new_serial

_CA_USAGE: Final = ("key_cert_sign", "crl_sign")
_ALL_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


class CertificateRequestError(KeyarkError):
    """A certificate signing request does not verify, or asks for something else than it should."""

    reason = "CERTIFICATE_REQUEST"
    kind = Kind.INVALID


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A CA certificate with its private key; raises IssuerKeyMismatchError where they do not fit."""

    certificate: x509.Certificate
    private_key: SigningPrivateKey = field(repr=False)

    def __post_init__(self) -> None:
        check_issuer(self.certificate, self.private_key)

    @property
    def validity(self) -> Validity:
        """The validity of the CA's certificate."""
        return Validity.of(self.certificate)


def ca_name(common_name: str, organization: str = "") -> x509.Name:
    """Return a CA's subject, whose names have at most 64 bytes of UTF-8; raises InvalidInputError."""
    attributes = [_attribute(NameOID.COMMON_NAME, common_name, "common_name")]
    if organization:
        attributes.insert(0, _attribute(NameOID.ORGANIZATION_NAME, organization, "organization"))
    return x509.Name(attributes)


def describe_name(name: x509.Name) -> str:
    """Return a name with the string type of each part: "CN=Issuing CA as UTF8String"."""
    return ", ".join(f"{part.rfc4514_string()} as {part._type.name}" for part in name)


def requested_key_id(request: x509.CertificateSigningRequest) -> bytes | None:
    """Return the subject key identifier that a request asks for, or None."""
    try:
        return request.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return None


def _attribute(oid: x509.ObjectIdentifier, value: str, field_name: str) -> x509.NameAttribute[str]:
    check_name(value, field=field_name)
    if len(value.encode()) > MAX_NAME_CHARACTERS:  # all that x509.NameAttribute takes
        raise InvalidInputError(
            f"The CA's name has more than {MAX_NAME_CHARACTERS} bytes in UTF-8; shorten it.", field=field_name
        )
    return x509.NameAttribute(oid, value)


def key_usage(*usages: str) -> x509.KeyUsage:
    """Return the key usage with these bits of RFC 5280 §4.2.1.3 set, named as in cryptography."""
    return x509.KeyUsage(**{usage: usage in usages for usage in _ALL_USAGES})


def create_root(
    private_key: SigningPrivateKey, *, subject: x509.Name, validity: Validity, path_length: int | None = 1
) -> Authority:
    """Make a self-signed CA; raises UnsupportedKeyError unless its key type is one of CA_KEY_TYPES."""
    builder = _ca_builder(private_key.public_key(), subject, validity, path_length).issuer_name(subject)
    certificate = builder.sign(private_key, signature_scheme(private_key).hash_algorithm)
    return Authority(certificate=certificate, private_key=private_key)


def create_internal_ca(
    private_key: SigningPrivateKey, *, subject: x509.Name, validity: Validity
) -> Authority:
    """Make the internal CA, which signs identities and transport keys only: ECDSA P-256, no CA below it.

    Raises UnsupportedKeyError for other key types: TLS 1.2 has no cipher left to it only while the CA is
    ECDSA.
    """
    check_key_type(key_type_of(private_key.public_key()), (KeyType.EC_P256,))
    return create_root(private_key, subject=subject, validity=validity, path_length=0)


def renew_internal_ca(present: Authority, *, not_after: int) -> Authority:
    """Issue another certificate for an internal CA, which ends at ``not_after`` (seconds UTC).

    Key, name, key identifier and beginning stay. So it verifies whatever the present one verifies, also at a time
    before, and whoever still has the present one verifies what is signed from now on.
    """
    validity = Validity(present.validity.not_before, not_after)
    extensions, public_key = present.certificate.extensions, present.private_key.public_key()
    identifier = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    subject = present.certificate.subject
    builder = _ca_builder(public_key, subject, validity, 0, identifier).issuer_name(subject)
    certificate = builder.sign(present.private_key, signature_scheme(present.private_key).hash_algorithm)
    return Authority(certificate=certificate, private_key=present.private_key)


def request_ca(
    private_key: SigningPrivateKey, *, subject: x509.Name, key_id: bytes | None = None
) -> x509.CertificateSigningRequest:
    """Make the request of a subordinate CA with no CA below it, which keeps its private key to itself.

    It asks for the extensions that the certificate needs. ``key_id`` is the subject key identifier, where not the
    usual one of the key: that which certificates of the CA name already.
    """
    identifier = key_id or key_identifier(encode_spki(private_key.public_key()))
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(*_CA_USAGE), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(identifier), critical=False)
    )
    return builder.sign(private_key, signature_scheme(private_key).hash_algorithm)


def issue_ca(
    authority: Authority,
    request: x509.CertificateSigningRequest,
    *,
    subject: x509.Name,
    validity: Validity,
    path_length: int = 0,
    distribution: Distribution | None = None,
) -> x509.Certificate:
    """Issue the certificate of a subordinate CA whose request asks for exactly this subject.

    Name and subject key identifier are as the request encodes them.
    Raises CertificateRequestError, UnsupportedKeyError and IssuerValidityError.
    """
    check_request(request, CA_KEY_TYPES)
    if request.subject != subject:
        raise CertificateRequestError(
            f"The request is for {request.subject.rfc4514_string()!r}, not {subject.rfc4514_string()!r}; "
            "check the file."
        )
    builder = _ca_builder(
        request.public_key(), request.subject, validity, path_length, requested_key_id(request)
    )
    extensions = distribution.extensions() if distribution else ()
    return sign_certificate(authority, builder, validity=validity, extensions=extensions)


def load_certificate_request(pem: bytes) -> x509.CertificateSigningRequest:
    """Load a certificate signing request (PEM) all of whose parts parse; raises CertificateRequestError."""
    try:
        request = x509.load_pem_x509_csr(pem)
        _ = request.public_key(), request.subject, request.extensions, request.is_signature_valid
    except PARSING_ERRORS:
        raise CertificateRequestError("This is not a certificate signing request; make it again.") from None
    return request


def check_request(request: x509.CertificateSigningRequest, permitted: Sequence[KeyType]) -> None:
    """Check proof of possession and key type; raises CertificateRequestError and UnsupportedKeyError."""
    check_key_type(key_type_of(request.public_key()), permitted)
    if not request.is_signature_valid:
        raise CertificateRequestError("The request's signature does not verify; make the request again.")


def sign_certificate(
    authority: Authority,
    builder: x509.CertificateBuilder,
    *,
    validity: Validity,
    extensions: Sequence[x509.ExtensionType] = (),
) -> x509.Certificate:
    """Complete a certificate with issuer, authority key identifier and further extensions, and sign it.

    Raises IssuerValidityError where its validity is not inside the issuer's.
    """
    if not authority.validity.contains(validity):
        raise IssuerValidityError(
            "The certificate would be valid outside the issuing certificate's validity; shorten it."
        )
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.issuer_name(authority.certificate.subject).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(authority.private_key, signature_scheme(authority.private_key).hash_algorithm)


def certificate_builder(
    public_key: CertificatePublicKeyTypes,
    subject: x509.Name,
    validity: Validity,
    key_id: bytes | None = None,
) -> x509.CertificateBuilder:
    """Start a certificate: subject, key, new serial number, validity, subject key identifier (the key's usual one)."""
    not_before, not_after = validity.dates()
    identifier = x509.SubjectKeyIdentifier(key_id or key_identifier(encode_spki(public_key)))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public_key)
        .serial_number(decode_serial(new_serial()))
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(identifier, critical=False)
    )


def _ca_builder(
    public_key: CertificatePublicKeyTypes,
    subject: x509.Name,
    validity: Validity,
    path_length: int | None,
    key_id: bytes | None = None,
) -> x509.CertificateBuilder:
    return (
        certificate_builder(public_key, subject, validity, key_id)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(*_CA_USAGE), critical=True)
    )
