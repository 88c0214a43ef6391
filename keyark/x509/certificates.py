"""X.509 certificates: reading and writing them, and their validity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from keyark.errors import KeyarkError, Kind
from keyark.files import read_file, write_file
from keyark.keys.key_types import key_type_of
from keyark.keys.library import PARSING_ERRORS

MAX_CERTIFICATE_SIZE: Final = 64 * 1024
MAX_PEM_SIZE: Final = 1024 * 1024
DEFAULT_BACKDATE_SECONDS: Final = 300


class CertificateFormatError(KeyarkError):
    """The certificate, or a part of it, is malformed."""

    reason = "CERTIFICATE_FORMAT"
    kind = Kind.INVALID


class IssuerValidityError(KeyarkError):
    """The issuing certificate is not valid over the time that was asked for."""

    reason = "ISSUER_VALIDITY"
    kind = Kind.PRECONDITION
    is_final = True


class IssuerNotYetValidError(IssuerValidityError):
    """The issuing certificate is not valid yet, as this service's clock has it."""

    reason = "ISSUER_NOT_YET_VALID"
    is_final = False


@dataclass(frozen=True)
class Validity:
    """A certificate's validity, both ends inclusive, in seconds since 1970-01-01T00:00:00Z."""

    not_before: int
    not_after: int

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Validity:
        """Return the validity of a certificate."""
        return cls(
            int(certificate.not_valid_before_utc.timestamp()),
            int(certificate.not_valid_after_utc.timestamp()),
        )

    @classmethod
    def starting(
        cls,
        now: int,
        *,
        lifetime_seconds: int,
        backdate_seconds: int = DEFAULT_BACKDATE_SECONDS,
        within: Validity | None = None,
    ) -> Validity:
        """Return a validity from shortly before ``now`` (slow clocks), clipped to an issuer's.

        Raises IssuerValidityError where the issuer is not valid any more at ``now``, and IssuerNotYetValidError of it.
        """
        not_before, not_after = now - backdate_seconds, now + lifetime_seconds
        if within is not None:
            if now < within.not_before:
                raise IssuerNotYetValidError("The issuing certificate is not valid yet; check the clock.")
            if now > within.not_after:
                raise IssuerValidityError("The issuing certificate is expired; renew it or check the clock.")
            not_before, not_after = max(not_before, within.not_before), min(not_after, within.not_after)
        return cls(not_before, not_after)

    def contains(self, other: Validity) -> bool:
        """Whether the other validity is not empty and lies inside this one."""
        return self.not_before <= other.not_before <= other.not_after <= self.not_after

    def dates(self) -> tuple[datetime, datetime]:
        """Return both ends as aware datetimes in UTC."""
        return datetime.fromtimestamp(self.not_before, UTC), datetime.fromtimestamp(self.not_after, UTC)


def load_certificate(der: bytes) -> x509.Certificate:
    """Load a certificate (DER) whose extensions all parse and whose key type is supported.

    Raises CertificateFormatError, and UnsupportedKeyError for its public key.
    """
    if len(der) > MAX_CERTIFICATE_SIZE:
        raise CertificateFormatError(f"The certificate has more than {MAX_CERTIFICATE_SIZE} bytes.")
    try:
        certificate = x509.load_der_x509_certificate(der)
    except PARSING_ERRORS:
        raise CertificateFormatError("This is not an X.509 certificate in DER.") from None
    return _checked(certificate)


def _checked(certificate: x509.Certificate) -> x509.Certificate:
    """Parse now what the library parses when it is asked for, so that no later step meets its errors."""
    try:
        key_type_of(certificate.public_key())
        _ = certificate.extensions, certificate.serial_number, certificate.signature_hash_algorithm
        _ = certificate.subject, certificate.issuer
        _ = (
            certificate.not_valid_before_utc,
            certificate.not_valid_after_utc,
            certificate.signature_algorithm_oid,
        )
    except PARSING_ERRORS as error:
        raise CertificateFormatError("The certificate's key, names or extensions are malformed.") from error
    if certificate.serial_number <= 0:
        raise CertificateFormatError("The certificate's serial number is not positive (RFC 5280 §4.1.2.2).")
    return certificate


def encode_certificate(certificate: x509.Certificate) -> bytes:
    """Return a certificate as DER."""
    return certificate.public_bytes(Encoding.DER)


def load_pem_certificates(data: bytes) -> list[x509.Certificate]:
    """Load the certificates of a PEM text, at least one; raises as ``load_certificate`` does."""
    try:
        certificates = x509.load_pem_x509_certificates(data)
    except PARSING_ERRORS:
        raise CertificateFormatError("The text has no X.509 certificates in PEM.") from None
    return [_checked(certificate) for certificate in certificates]


def encode_pem_certificates(certificates: Sequence[x509.Certificate]) -> bytes:
    """Return certificates as one PEM text."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def load_certificates(path: Path) -> list[x509.Certificate]:
    """Load a PEM file's certificates; raises as ``load_pem_certificates`` does, and UnreadableFileError."""
    try:
        return load_pem_certificates(read_file(path, max_size=MAX_PEM_SIZE))
    except CertificateFormatError as error:
        raise CertificateFormatError(f"{path}: {error.message}") from None


def save_certificates(path: Path, certificates: Sequence[x509.Certificate]) -> None:
    """Write certificates to a PEM file (0644) that replaces an older one in one step."""
    write_file(path, encode_pem_certificates(certificates), mode=0o644)
