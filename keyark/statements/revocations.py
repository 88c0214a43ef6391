"""Revocation statements: how the holder of a pair's signing key revokes certificates of that pair.

Only the canonical encoding is read. The signature is over ``context("keyark/v1/revocation-statement", statement)``.
A statement that is sent again changes nothing, for it can only revoke for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidSignature

from keyark.canonical import canonical
from keyark.errors import InvalidInputError, KeyarkError, Kind
from keyark.keys.key_types import SigningPrivateKey, SigningPublicKey
from keyark.statements.signed import SignedKind
from keyark.v1.revocation_pb2 import RevocationReason, RevocationStatement
from keyark.x509.serials import check_serial

LABEL: Final = "keyark/v1/revocation-statement"
VERSION: Final = 1
MAX_SIZE: Final = 1024
_KIND: Final = SignedKind(
    message=RevocationStatement,
    label=LABEL,
    version=VERSION,
    max_size=MAX_SIZE,
    name="revocation statement",
    field="statement",
)
OWN_REASONS: Final = (
    RevocationReason.REVOCATION_REASON_UNSPECIFIED,
    RevocationReason.REVOCATION_REASON_KEY_COMPROMISE,
    RevocationReason.REVOCATION_REASON_AFFILIATION_CHANGED,
    RevocationReason.REVOCATION_REASON_SUPERSEDED,
    RevocationReason.REVOCATION_REASON_CESSATION_OF_OPERATION,
)
"""What the holder of a key may give as the reason."""
_OWN_WORDS: Final = tuple(
    RevocationReason.Name(reason).removeprefix("REVOCATION_REASON_") for reason in OWN_REASONS
)


class RevocationSignatureError(KeyarkError):
    """The statement is not signed with the signing key of the pair that it names."""

    reason = "REVOCATION_SIGNATURE"
    kind = Kind.INVALID


class AlreadyRevokedError(KeyarkError):
    """The certificate is revoked for good, for another reason than the one that is given now."""

    reason = "ALREADY_REVOKED"
    kind = Kind.CONFLICT


class AlreadyExpiredError(KeyarkError):
    """The certificate expired, and no list tells of expired certificates."""

    reason = "ALREADY_EXPIRED"
    kind = Kind.PRECONDITION


class CrlsNotConfiguredError(KeyarkError):
    """This CM publishes no certificate revocation lists."""

    reason = "CRLS_NOT_CONFIGURED"
    kind = Kind.PRECONDITION


class NotOnHoldError(KeyarkError):
    """The certificate to release is not on hold."""

    reason = "NOT_ON_HOLD"
    kind = Kind.PRECONDITION


def build_revocation(
    *,
    trust_domain: str,
    serials: Sequence[bytes],
    reason: RevocationReason.ValueType,
    invalidity_time: int = 0,
) -> bytes:
    """Return the canonical bytes of a statement, ready to sign; raises as ``parse_revocation`` does."""
    statement = RevocationStatement(
        version=VERSION,
        trust_domain=trust_domain,
        serials=sorted(serials),
        reason=reason,
        invalidity_time=invalidity_time,
    )
    raw = canonical(statement)
    parse_revocation(raw, trust_domain)
    return raw


def parse_revocation(raw: bytes, trust_domain: str) -> RevocationStatement:
    """Read a serialized RevocationStatement of this trust domain, strictly; the signature is not looked at.

    Raises InvalidInputError with the field (``statement`` for the whole).
    """
    statement = _KIND.decode(raw)
    if statement.trust_domain != trust_domain:
        raise InvalidInputError("The statement is for another trust domain.", field="trust_domain")
    if not 1 <= len(statement.serials) <= 2 or sorted(set(statement.serials)) != list(statement.serials):
        raise InvalidInputError(
            "The statement names one or both certificates of a pair, in ascending order.", field="serials"
        )
    for serial in statement.serials:
        check_serial(serial)
    if statement.reason not in OWN_REASONS:
        raise InvalidInputError(
            "The holder of a key cannot give this reason for a revocation; give one of "
            f"{', '.join(_OWN_WORDS)}.",
            field="reason",
        )
    if statement.invalidity_time < 0:
        raise InvalidInputError("The invalidity time is before 1970.", field="invalidity_time")
    return statement


def sign_revocation(raw: bytes, private_key: SigningPrivateKey) -> bytes:
    """Sign a statement with the pair's signing key; the scheme is that of enrollment statements."""
    return _KIND.sign(raw, private_key)


def verify_revocation(raw: bytes, signature: bytes, public_key: SigningPublicKey) -> None:
    """Verify the proof of possession; raises RevocationSignatureError."""
    try:
        _KIND.verify(raw, signature, public_key)
    except InvalidSignature:
        raise RevocationSignatureError(
            "The revocation is not signed with the signing key of this pair; sign it with that key, or ask an officer."
        ) from None
