"""Trust in transport certificates: they name the DRM's transport key, to which clients wrap private keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from keyark.errors import InvalidInputError, KeyarkError, Kind, UnauthenticatedError
from keyark.identity.certificates import identity_of
from keyark.identity.spiffe import TRANSPORT_ROLE, SpiffeId
from keyark.keys.key_types import TRANSPORT_KEY_TYPES, check_key_type, key_type_of
from keyark.keys.spki import encode_spki
from keyark.v1.common_pb2 import TransportCertificate
from keyark.x509.certificates import Validity, load_certificate
from keyark.x509.chains import verify_chain
from keyark.x509.key_usages import encryption_attribute

_MAX_REMEMBERED: Final = 16
_TLS_PURPOSES: Final = (
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
)


class TransportCertificateError(KeyarkError):
    """The certificate is not one of this deployment's transport key."""

    reason = "TRANSPORT_CERTIFICATE"
    kind = Kind.PRECONDITION


@dataclass(kw_only=True)
class TransportTrust:
    """Which transport certificates this deployment believes: those below its trust anchors.

    Verified ones are remembered for as long as their chain is valid, for they come with every batch.
    """

    anchors: Sequence[x509.Certificate]
    trust_domain: str
    _remembered: dict[tuple[bytes, ...], tuple[bytes, Validity]] = field(
        default_factory=dict, init=False, repr=False
    )

    def verify(self, transport: TransportCertificate, at: int) -> bytes:
        """Return the transport key's SPKI (DER) if its certificate is good at ``at`` (seconds UTC).

        Raises CertificateChainError, TransportCertificateError, CertificateFormatError and
        UnsupportedKeyError.
        """
        encoded = (transport.certificate, *transport.chain)
        if remembered := self._remembered.get(encoded):
            spki, validity = remembered
            if validity.not_before <= at <= validity.not_after:
                return spki
        certificate, *chain = [load_certificate(der) for der in encoded]
        path = verify_chain(certificate, intermediates=chain, anchors=self.anchors, at=at)
        spki = transport_spki(certificate, self.trust_domain)
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[encoded] = (spki, _common_validity(path))
        return spki


def transport_spki(certificate: x509.Certificate, trust_domain: str) -> bytes:
    """Return the SPKI (DER) of a certificate that is one of a deployment's transport key, whoever signed it.

    Raises TransportCertificateError for a certificate of any other identity or use, and UnsupportedKeyError.
    """
    expected = SpiffeId(trust_domain, TRANSPORT_ROLE)
    try:
        named = identity_of(certificate)
    except (UnauthenticatedError, InvalidInputError):
        named = None
    if named != expected:
        raise TransportCertificateError(
            f"The certificate is not for the transport key {expected}; do not trust its sender."
        )
    key_type = key_type_of(certificate.public_key())
    check_key_type(key_type, TRANSPORT_KEY_TYPES)
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise TransportCertificateError(
            "The transport certificate does not limit the use of its key."
        ) from None
    wraps = getattr(usage, encryption_attribute(key_type))
    if not (usage.digital_signature and wraps) or any(p in purposes for p in _TLS_PURPOSES):
        raise TransportCertificateError(
            "The transport certificate permits other uses than wrapping keys and signing receipts."
        )
    return encode_spki(certificate.public_key())


def _common_validity(path: Sequence[x509.Certificate]) -> Validity:
    validities = [Validity.of(certificate) for certificate in path]
    return Validity(max(v.not_before for v in validities), min(v.not_after for v in validities))
