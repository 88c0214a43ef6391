"""The tables of the DRM's store and the archived key as its rows tell it."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from drm_service.ceremony_rows import CEREMONIES, CEREMONY_SECRETS
from keyark.errors import KeyarkError, NotFoundError
from keyark.errors.recovery import KeyIntegrityError
from keyark.errors.services import LogCorruptError
from keyark.records.v1.drm_pb2 import ArchivedKeyRecord, SealedKey
from keyark.records.v1.keys_pb2 import KeyUse
from keyark.service import tables
from keyark.service.checks import key_uses
from keyark.statements.enrollment import Statement, reread_statement
from keyark.store import Backups, ReadTransaction, VanishingTable, WriteTransaction
from keyark.transparency import log
from keyark.transparency.events import parse_leaf
from keyark.transparency.integrity import stored_entry
from keyark.transparency.log import row_key
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent
from keyark.v1.certificates_pb2 import KeyRole
from keyark.v1.recovery_pb2 import ArchivedKey, KeyState

KEYS: Final = "archived_keys"
SEALED_KEYS: Final = "sealed_keys"
CERTIFICATES: Final = "certificates"
TOKENS: Final = VanishingTable("storage_tokens", backups=Backups.WITH_KEYS)
OPEN_CEREMONIES: Final = "open_ceremonies"
RECOVERIES: Final = "recoveries"
TRUST_CHANGES: Final = "trust_changes"
TRANSPORT_KEYS: Final = "transport_keys"
REFUSED_PAIRS: Final = "refused_pairs"
FAILED_KEYS: Final = "failed_keys"
BACKUP_MARK: Final = "backup_mark"
BY_OWNER: Final = "keys_by_owner"
BY_SERIAL: Final = "keys_by_serial"
BY_TIME: Final = "keys_by_time"
TABLES: Final = (
    KEYS,
    SEALED_KEYS,
    CERTIFICATES,
    BY_OWNER,
    BY_SERIAL,
    BY_TIME,
    TOKENS,
    CEREMONIES,
    OPEN_CEREMONIES,
    CEREMONY_SECRETS,
    RECOVERIES,
    TRUST_CHANGES,
    TRANSPORT_KEYS,
    REFUSED_PAIRS,
    FAILED_KEYS,
    BACKUP_MARK,
    key_uses.TABLE,
    tables.IDENTITY_LISTS,
    tables.POLICY,
    *log.TABLES,
)
SCHEMA_VERSION: Final = 2

_ELSEWHERE: Final = ("leaf", "salt", "details", "sealed_key", "certificate")


def read_record(txn: ReadTransaction, enrollment_id: bytes) -> ArchivedKeyRecord | None:
    """Return the record of an enrollment (32 bytes), or None where nothing was archived for it.

    Raises KeyIntegrityError where its rows do not parse, or the log has no leaf for it.
    """
    record = read_row(txn, enrollment_id)
    return None if record is None else _complete(txn, enrollment_id, record)


def read_row(txn: ReadTransaction, enrollment_id: bytes) -> ArchivedKeyRecord | None:
    """Return a record as its own row tells it: without leaf, sealed key and certificate; see ``read_record``."""
    value = txn.get(KEYS, enrollment_id)
    return None if value is None else _parse(enrollment_id, value)


def scan_records(
    txn: ReadTransaction, *, after: bytes | None, limit: int
) -> list[tuple[bytes, ArchivedKeyRecord]]:
    """Return a page of records with their enrollment ids, in order; raises as ``read_record`` does."""
    rows = txn.scan(KEYS, after=after, limit=limit)
    return [(key, _complete(txn, key, _parse(key, value))) for key, value in rows]


def _parse(enrollment_id: bytes, value: bytes) -> ArchivedKeyRecord:
    try:
        return ArchivedKeyRecord.FromString(value)
    except DecodeError:
        raise damaged_key(enrollment_id) from None


def _complete(txn: ReadTransaction, enrollment_id: bytes, record: ArchivedKeyRecord) -> ArchivedKeyRecord:
    """Put together what lies in rows of its own."""
    try:
        logged = stored_entry(txn, record.log_index)
        record.sealed_key.ParseFromString(txn.get(SEALED_KEYS, row_key(record.log_index)) or b"")
    except (NotFoundError, LogCorruptError, DecodeError):
        raise damaged_key(enrollment_id) from None
    record.leaf, record.salt, record.details = logged.leaf, logged.salt, logged.details
    record.certificate = txn.get(CERTIFICATES, row_key(record.certified_index)) or b""
    return record


def put_row(txn: WriteTransaction, enrollment_id: bytes, record: ArchivedKeyRecord) -> None:
    """Write a record's own row, without what lies elsewhere."""
    row = ArchivedKeyRecord()
    row.CopyFrom(record)
    for name in _ELSEWHERE:
        row.ClearField(name)
    txn.put(KEYS, enrollment_id, row.SerializeToString())


def append_sealed_key(txn: WriteTransaction, log_index: int, sealed_key: SealedKey) -> None:
    """Write how the key whose leaf comes to stand at this index, the last of the log, is sealed."""
    txn.append(SEALED_KEYS, row_key(log_index), sealed_key.SerializeToString())


def put_sealed_key(txn: WriteTransaction, log_index: int, sealed_key: SealedKey) -> None:
    """Write how the key whose leaf stands at this index is sealed, in place of what was there."""
    txn.put(SEALED_KEYS, row_key(log_index), sealed_key.SerializeToString())


def read_contents(record: ArchivedKeyRecord) -> tuple[Statement, AuditEvent]:
    """Return the owner's statement and the leaf of a record; raises KeyIntegrityError unless they belong together."""
    try:
        statement, event = reread_statement(record.statement), parse_leaf(record.leaf)
    except KeyarkError:
        raise damaged_key(b"") from None
    if (event.enrollment_id, event.statement_sha256, event.encryption_spki_sha256) != (
        statement.enrollment_id,
        statement.sha256,
        statement.encryption_spki_sha256,
    ):
        raise damaged_key(event.enrollment_id)
    return statement, event


def damaged_key(enrollment_id: bytes) -> KeyIntegrityError:
    """Return the error of an archived key that was altered; its enrollment id is empty where nobody can tell."""
    return KeyIntegrityError(
        f"The archived key of enrollment {enrollment_id.hex() or '(unreadable)'} does not open as what the log says "
        "it is; restore the store from a backup."
    )


def find_by_key_id(txn: ReadTransaction, key_id: bytes) -> ArchivedKeyRecord:
    """Return the record of the key with this SPKI SHA-256; raises NotFoundError."""
    value = txn.get(key_uses.TABLE, key_id)
    use = KeyUse.FromString(value) if value is not None else None
    record = read_record(txn, use.enrollment_id) if use and use.role == KeyRole.KEY_ROLE_ENCRYPTION else None
    if record is None:
        raise NotFoundError("No archived key has this key id; `keyark keys list` lists them.")
    return record


def describe(record: ArchivedKeyRecord, *, failed_time_us: int = 0) -> ArchivedKey:
    """Return what may be shown of a record: no key material; and when it did not open, if that is known."""
    statement = reread_statement(record.statement)
    event = AuditEvent.FromString(record.leaf)
    return ArchivedKey(
        key_id=event.encryption_spki_sha256,
        enrollment_id=event.enrollment_id,
        state=_state(record),
        deactivated_reason=record.deactivated_reason,
        key_type=statement.archived_key_type.proto,
        caller=str(statement.caller),
        common_name=statement.common_name,
        email=statement.email,
        profile=statement.profile,
        archived_time_us=event.time_us,
        storage_key_id=record.sealed_key.storage_key_id,
        log_index=record.log_index,
        certificate_serial=record.certificate_serial,
        match_proof=AuditDetails.FromString(record.details).match_proof,
        failed_time_us=failed_time_us,
    )


def _state(record: ArchivedKeyRecord) -> KeyState.ValueType:
    if record.deactivated_reason:
        return KeyState.KEY_STATE_DEACTIVATED
    return KeyState.KEY_STATE_CERTIFIED if record.certificate_serial else KeyState.KEY_STATE_UNCERTIFIED
