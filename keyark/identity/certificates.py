"""Certificates of the deployment's own identities and of the transport key, all from the internal CA.

The subsystem or person makes key and request and keeps the key; the internal CA signs it if it asks for the
identity that the operator expects. Who a certificate stands for is its one URI SAN (SPIFFE X509-SVID §2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keyark.errors import UnauthenticatedError
from keyark.identity.spiffe import SERVICE_ROLES, TRANSPORT_ROLE, SpiffeId
from keyark.keys.key_types import (
    IDENTITY_KEY_TYPES,
    TRANSPORT_KEY_TYPES,
    KeyType,
    SigningPrivateKey,
    SigningPublicKey,
    check_key_type,
    key_type_of,
)
from keyark.keys.library import PARSING_ERRORS
from keyark.keys.signatures import signature_scheme
from keyark.keys.spki import encode_spki
from keyark.x509.authority import (
    Authority,
    CertificateRequestError,
    certificate_builder,
    check_request,
    key_usage,
    sign_certificate,
)
from keyark.x509.certificates import Validity
from keyark.x509.key_usages import encryption_attribute

# "Private Key Archival" of the CA exchange certificates that [MS-WCCE] §3.2.1.4.2.3 describes, which have the
# same purpose. With any extended key usage but those of TLS, TLS stacks refuse the transport certificate.
PRIVATE_KEY_ARCHIVAL: Final = x509.ObjectIdentifier("1.3.6.1.4.1.311.21.5")


def request_identity(private_key: SigningPrivateKey, identity: SpiffeId) -> x509.CertificateSigningRequest:
    """Make the request for an identity's or the transport key's certificate.

    Raises UnsupportedKeyError: identities have P-256 keys, the transport key is P-256 or RSA-3072.
    """
    check_key_type(key_type_of(private_key.public_key()), _permitted(identity))
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_subject(identity))
        .add_extension(_uri_name(identity), critical=False)
    )
    return builder.sign(private_key, signature_scheme(private_key).hash_algorithm)


def issue_identity(
    authority: Authority,
    request: x509.CertificateSigningRequest,
    *,
    identity: SpiffeId,
    validity: Validity,
) -> x509.Certificate:
    """Issue the certificate of an identity or of the transport key, if the request asks for exactly it.

    Services get one URI and one DNS SAN, serverAuth and clientAuth; people a URI SAN and clientAuth; the
    transport key a URI SAN and no TLS usage. Raises CertificateRequestError, UnsupportedKeyError and
    IssuerValidityError.
    """
    check_request(request, _permitted(identity))
    _check_asked_identity(request, identity)
    return _certify(authority, request.public_key(), identity, validity)


def renew_identity(
    authority: Authority,
    certificate: x509.Certificate,
    *,
    validity: Validity,
    new_key: SigningPublicKey | None = None,
) -> x509.Certificate:
    """Issue a certificate for the identity of one that the same authority issued, for its key or a new one.

    The transport key is not renewed but rotated. Raises CertificateRequestError for another's certificate,
    UnauthenticatedError for one of no identity, UnsupportedKeyError for a new key that is not P-256, and
    IssuerValidityError.
    """
    identity = identity_of(check_own(authority, certificate))
    if identity.role == TRANSPORT_ROLE:
        raise CertificateRequestError("A transport key is not renewed; use `keyark transport-key rotate`.")
    if new_key is not None:
        check_key_type(key_type_of(new_key), _permitted(identity))
    return _certify(authority, new_key or certificate.public_key(), identity, validity)


def check_own(authority: Authority, certificate: x509.Certificate) -> x509.Certificate:
    """Return a certificate that this authority issued; raises CertificateRequestError for another's."""
    check_issuer(certificate, [authority.certificate])
    return certificate


def check_issuer(certificate: x509.Certificate, anchors: Sequence[x509.Certificate]) -> None:
    """Raise CertificateRequestError for a certificate that none of these internal CAs issued."""
    for anchor in anchors:
        with contextlib.suppress(ValueError, TypeError, InvalidSignature):
            certificate.verify_directly_issued_by(anchor)
            return
    raise CertificateRequestError(
        "The certificate is not from this internal CA; have a request signed with `keyark identities issue`."
    )


def _certify(
    authority: Authority, public_key: CertificatePublicKeyTypes, identity: SpiffeId, validity: Validity
) -> x509.Certificate:
    key_type = key_type_of(public_key)
    builder = (
        certificate_builder(public_key, _subject(identity), validity)
        .add_extension(key_usage(*_usages(identity, key_type)), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_purposes(identity)), critical=False)
        .add_extension(_alternative_names(identity), critical=False)
    )
    return sign_certificate(authority, builder, validity=validity)


def identity_of(certificate: x509.Certificate) -> SpiffeId:
    """Return whom a certificate stands for; the chain is not looked at.

    Raises UnauthenticatedError unless it has exactly one URI SAN, and that is a SPIFFE ID of a known role.
    """
    uris = _uris(certificate.extensions)
    if len(uris) != 1:
        raise UnauthenticatedError(
            f"The certificate has {len(uris)} URI names, but exactly one must name its owner; use a "
            "certificate of this deployment."
        )
    return SpiffeId.parse(uris[0], field="certificate")


def fingerprint(anchor: x509.Certificate) -> str:
    """Return the SHA-256 of an internal CA's key, 64 hexadecimal digits; renewing its certificate leaves it alone."""
    return sha256(encode_spki(anchor.public_key())).hexdigest()


def asked_identity(request: x509.CertificateSigningRequest) -> SpiffeId:
    """Return whom a request asks for; raises CertificateRequestError where that is not one identity."""
    uris = _uris(request.extensions)
    if len(uris) != 1:
        raise CertificateRequestError("The request does not ask for one identity; make it again.")
    return SpiffeId.parse(uris[0], field="request")


def encode_request(request: x509.CertificateSigningRequest) -> bytes:
    """Return a request as PEM."""
    return request.public_bytes(Encoding.PEM)


def _check_asked_identity(request: x509.CertificateSigningRequest, identity: SpiffeId) -> None:
    try:
        asked = list(request.extensions)
    except PARSING_ERRORS:
        raise CertificateRequestError("The request is malformed; make it again.") from None
    if [extension.value for extension in asked] != [_uri_name(identity)]:
        raise CertificateRequestError(
            f"The request does not ask for {identity} and nothing else; check the file, or make it again."
        )


def _uris(extensions: x509.Extensions) -> list[str]:
    try:
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _permitted(identity: SpiffeId) -> tuple[KeyType, ...]:
    return TRANSPORT_KEY_TYPES if identity.role == TRANSPORT_ROLE else IDENTITY_KEY_TYPES


def _subject(identity: SpiffeId) -> x509.Name:
    """The common name is for people; no one decides by it."""
    common_name = identity.name or identity.role
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _uri_name(identity: SpiffeId) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity))])


def _alternative_names(identity: SpiffeId) -> x509.SubjectAlternativeName:
    if not identity.dns_name:
        return _uri_name(identity)
    return x509.SubjectAlternativeName([*_uri_name(identity), x509.DNSName(identity.dns_name)])


def _usages(identity: SpiffeId, key_type: KeyType) -> tuple[str, ...]:
    if identity.role != TRANSPORT_ROLE:
        return ("digital_signature",)
    return ("digital_signature", encryption_attribute(key_type))


def _purposes(identity: SpiffeId) -> list[x509.ObjectIdentifier]:
    if identity.role == TRANSPORT_ROLE:
        return [PRIVATE_KEY_ARCHIVAL]
    if identity.role in SERVICE_ROLES:
        return [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return [ExtendedKeyUsageOID.CLIENT_AUTH]
