"""OCSP (RFC 6960, RFC 5019, RFC 9654): reads requests, and signs answers with a responder's own certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, OCSPExtensionOID

from keyark.errors import InvalidInputError
from keyark.keys.library import PARSING_ERRORS
from keyark.x509.authority import Authority, certificate_builder, key_usage, sign_certificate
from keyark.x509.certificates import Validity
from keyark.x509.crl_entries import REASONS
from keyark.x509.serials import decode_serial, encode_serial

MAX_NONCE_SIZE: Final = 128  # RFC 9654 §2.1
RESPONDER_NAME: Final = "OCSP responder"

MALFORMED: Final = ocsp.OCSPResponseStatus.MALFORMED_REQUEST
TRY_LATER: Final = ocsp.OCSPResponseStatus.TRY_LATER
UNAUTHORIZED: Final = ocsp.OCSPResponseStatus.UNAUTHORIZED

_HASHES: Final[Mapping[str, hashes.HashAlgorithm]] = {
    algorithm.name: algorithm
    for algorithm in (hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512())  # noqa: S303 — names, no security
}
_REASONS: Final[Mapping[int, x509.ReasonFlags]] = {
    number: x509.ReasonFlags(name) for name, number in REASONS.items() if number
}


@dataclass(frozen=True, kw_only=True)
class CertificateId:
    """Which certificate is asked about: hashes of its issuer's name and key by one algorithm, and its serial number."""

    hash_name: str
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial: bytes


@dataclass(frozen=True, kw_only=True)
class OcspQuery:
    """A request: one certificate, and the nonce (1 to 128 bytes) that the answer must repeat, where there is one."""

    certificate: CertificateId
    nonce: bytes | None


@dataclass(frozen=True, kw_only=True)
class OcspStanding:
    """How a certificate stands; None for ``known`` that there is none. ``reason`` is a CRLReason, times seconds UTC."""

    known: bool
    revocation_time: int | None = None
    reason: int = 0


@dataclass(frozen=True, kw_only=True)
class OcspStatement:
    """What an answer says, and for which time (seconds UTC)."""

    certificate: CertificateId
    standing: OcspStanding
    this_update: int
    next_update: int
    nonce: bytes | None = None


def parse_ocsp_request(der: bytes) -> OcspQuery:
    """Read an OCSPRequest for one certificate, as RFC 5019 §2.1.1 has it; a signature on it is not looked at.

    ``hash_name`` is empty where the algorithm is not known. Raises InvalidInputError for what is no such request, for
    a nonce of 0 or more than 128 bytes, and for critical extensions that are not known.
    """
    try:
        request = ocsp.load_der_ocsp_request(der)
        return OcspQuery(
            certificate=CertificateId(
                hash_name=_hash_name(request),
                issuer_name_hash=request.issuer_name_hash,
                issuer_key_hash=request.issuer_key_hash,
                serial=encode_serial(request.serial_number),
            ),
            nonce=_nonce(request.extensions),
        )
    except PARSING_ERRORS:
        raise InvalidInputError(
            "This is not an OCSP request for one certificate in DER.", field="request"
        ) from None


def _hash_name(request: ocsp.OCSPRequest) -> str:
    try:
        name = request.hash_algorithm.name
    except UnsupportedAlgorithm:
        return ""
    return name if name in _HASHES else ""


def _nonce(extensions: x509.Extensions) -> bytes | None:
    nonce = None
    for extension in extensions:
        if isinstance(extension.value, x509.OCSPNonce):
            nonce = extension.value.nonce
        elif extension.critical and extension.oid != OCSPExtensionOID.ACCEPTABLE_RESPONSES:
            raise ValueError("a critical extension is not known")
    if nonce is not None and not 1 <= len(nonce) <= MAX_NONCE_SIZE:
        raise ValueError("the nonce is too short or too long")
    return nonce


class OcspIssuer:
    """Recognizes requests about the certificates of one CA."""

    def __init__(self, certificate: x509.Certificate) -> None:
        self._hashes = {name: _issuer_hashes(certificate, hashing) for name, hashing in _HASHES.items()}

    def issued(self, asked: CertificateId) -> bool:
        """Whether the certificate that is asked about would be this CA's."""
        return self._hashes.get(asked.hash_name) == (asked.issuer_name_hash, asked.issuer_key_hash)


def _issuer_hashes(certificate: x509.Certificate, hashing: hashes.HashAlgorithm) -> tuple[bytes, bytes]:
    request = ocsp.OCSPRequestBuilder().add_certificate(certificate, certificate, hashing).build()
    name = hashes.Hash(hashing)  # the library hashes the name of who issued the issuer
    name.update(certificate.subject.public_bytes())
    return name.finalize(), request.issuer_key_hash


def issue_responder(
    authority: Authority, public_key: ec.EllipticCurvePublicKey, *, validity: Validity
) -> x509.Certificate:
    """Issue a responder's certificate: it signs OCSP answers and nothing else, and is not asked about itself.

    Raises IssuerValidityError.
    """
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, RESPONDER_NAME)])
    builder = (
        certificate_builder(public_key, subject, validity)
        .add_extension(key_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), critical=False)
    )
    return sign_certificate(authority, builder, validity=validity, extensions=[x509.OCSPNoCheck()])


@dataclass(frozen=True, kw_only=True)
class OcspSigner:
    """Signs answers with a responder's key, ECDSA P-256; its certificate comes with each."""

    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey = field(repr=False)

    def sign(self, statement: OcspStatement) -> bytes:
        """Return the signed OCSPResponse, DER; the time when it was produced is the system's."""
        asked, standing = statement.certificate, statement.standing
        revoked = standing.revocation_time is not None
        status = ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response_by_hash(
                asked.issuer_name_hash,
                asked.issuer_key_hash,
                decode_serial(asked.serial),
                _HASHES[asked.hash_name],
                status if standing.known else ocsp.OCSPCertStatus.UNKNOWN,
                _datetime(statement.this_update),
                _datetime(statement.next_update),
                None if standing.revocation_time is None else _datetime(standing.revocation_time),
                _REASONS.get(standing.reason) if revoked else None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, self.certificate)
            .certificates([self.certificate])
        )
        if statement.nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(statement.nonce), critical=False)
        return builder.sign(self.private_key, hashes.SHA256()).public_bytes(Encoding.DER)


def refuse_ocsp(status: ocsp.OCSPResponseStatus) -> bytes:
    """Return an OCSPResponse that only says why there is no answer, DER; nothing signs it."""
    return ocsp.OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER)


def _datetime(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
