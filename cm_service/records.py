"""The tables of the CM's store and certificates as its rows tell them."""

from __future__ import annotations

from typing import Final, Literal, cast

from keyark.errors import NotFoundError
from keyark.records.v1.cm_pb2 import PairRecord, Revocation, SerialRecord
from keyark.service import tables
from keyark.service.checks import archive_trust, key_uses
from keyark.store import ReadTransaction
from keyark.transparency import heads, log
from keyark.v1.certificates_pb2 import Certificate, CertificateState, KeyRole
from keyark.v1.revocation_pb2 import RevocationReason

PAIRS: Final = "pairs"
SERIALS: Final = "serials"
SERIAL_BLOCKS: Final = "serial_blocks"
INDEX: Final = "certificate_index"
CRL_ENTRIES: Final = "crl_entries"
CRL_CHANGES: Final = "crl_changes"
REFUSED: Final = "refused_enrollments"
EXPIRY_NOTICES: Final = "expiry_notices"
CRL_STATE: Final = "crl_state"
TABLES: Final = (
    PAIRS,
    SERIALS,
    SERIAL_BLOCKS,
    INDEX,
    CRL_ENTRIES,
    CRL_CHANGES,
    CRL_STATE,
    REFUSED,
    EXPIRY_NOTICES,
    key_uses.TABLE,
    archive_trust.TABLE,
    tables.IDENTITY_LISTS,
    tables.POLICY,
    *heads.TABLES,
    *log.TABLES,
)
SCHEMA_VERSION: Final = 1


def read_pair(txn: ReadTransaction, enrollment_id: bytes) -> PairRecord | None:
    """Return the pair of an enrollment (32 bytes), or None; of an earlier release it may be a reservation only."""
    value = txn.get(PAIRS, enrollment_id)
    return None if value is None else PairRecord.FromString(value)


def is_issued(pair: PairRecord) -> bool:
    """Whether its certificates exist; before that the pair is only a reservation of serial numbers."""
    return bool(pair.signing_certificate and (pair.encryption_certificate or not pair.encryption_serial))


def has_issued(txn: ReadTransaction) -> bool:
    """Whether the CA signed, or was about to sign, any certificate."""
    return any(txn.scan(table, limit=1) for table in (SERIALS, SERIAL_BLOCKS))


def roles_of(pair: PairRecord) -> list[KeyRole.ValueType]:
    """Return the roles that a pair has certificates for: signing, and encryption unless it is for signing alone."""
    both = [KeyRole.KEY_ROLE_SIGNING, KeyRole.KEY_ROLE_ENCRYPTION]
    return both if pair.encryption_serial else both[:1]


def describe_pair(enrollment_id: bytes, pair: PairRecord, now: int) -> list[Certificate]:
    """Return the certificates of an issued pair, signing first; ``now`` is in seconds UTC."""
    return [_describe(enrollment_id, pair, role, now) for role in roles_of(pair)]


def find_by_serial(txn: ReadTransaction, serial: bytes) -> tuple[SerialRecord, PairRecord]:
    """Return the issued pair that holds this serial number, and which of the two it is; raises NotFoundError."""
    value = txn.get(SERIALS, serial)
    found = SerialRecord.FromString(value) if value is not None else None
    pair = read_pair(txn, found.enrollment_id) if found else None
    if (
        found is None
        or pair is None
        or not is_issued(pair)
        or serial not in (pair.signing_serial, pair.encryption_serial)
    ):
        raise NotFoundError("No certificate has this serial number; `keyark certificates list` lists them.")
    return found, pair


def find_certificate(txn: ReadTransaction, serial: bytes, now: int) -> Certificate:
    """Return the certificate with this serial number (big-endian); raises NotFoundError."""
    found, pair = find_by_serial(txn, serial)
    return _describe(found.enrollment_id, pair, found.role, now)


def revocation_of(pair: PairRecord, role: int) -> Revocation | None:
    """Return that one certificate of a pair is revoked or on hold, or None while it is in force."""
    name = revocation_field(role)
    return getattr(pair, name) if pair.HasField(name) else None


def revocation_field(role: int) -> Literal["signing_revocation", "encryption_revocation"]:
    """Return which field of a pair tells that this one of its certificates is revoked or on hold."""
    return "signing_revocation" if role == KeyRole.KEY_ROLE_SIGNING else "encryption_revocation"


def _state(pair: PairRecord, revocation: Revocation | None, now: int) -> CertificateState.ValueType:
    if revocation is not None:
        held = revocation.reason == RevocationReason.REVOCATION_REASON_CERTIFICATE_HOLD
        return (
            CertificateState.CERTIFICATE_STATE_ON_HOLD if held else CertificateState.CERTIFICATE_STATE_REVOKED
        )
    expired = now > pair.not_after
    return CertificateState.CERTIFICATE_STATE_EXPIRED if expired else CertificateState.CERTIFICATE_STATE_VALID


def _describe(enrollment_id: bytes, pair: PairRecord, role: int, now: int) -> Certificate:
    signing = role == KeyRole.KEY_ROLE_SIGNING
    revocation = revocation_of(pair, role)
    told = revocation or Revocation()
    return Certificate(
        serial=pair.signing_serial if signing else pair.encryption_serial,
        certificate=pair.signing_certificate if signing else pair.encryption_certificate,
        state=_state(pair, revocation, now),
        role=KeyRole.KEY_ROLE_SIGNING if signing else KeyRole.KEY_ROLE_ENCRYPTION,
        enrollment_id=enrollment_id,
        pair_serial=pair.encryption_serial if signing else pair.signing_serial,
        common_name=pair.common_name,
        email=pair.email,
        profile=pair.profile,
        not_before=pair.not_before,
        not_after=pair.not_after,
        spki_sha256=pair.signing_spki_sha256 if signing else pair.encryption_spki_sha256,
        revocation_reason=cast("RevocationReason.ValueType", told.reason),
        revocation_time=told.revocation_time,
        invalidity_time=told.invalidity_time,
        renews=pair.renews,
        renewed_by=pair.renewed_by,
    )
