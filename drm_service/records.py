"""The tables of the DRM's store and the archived key as its rows tell it."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from keyark.errors import KeyarkError, Kind, NotFoundError
from keyark.pki.statements import Statement, parse_statement
from keyark.records.v1.drm_pb2 import ArchivedKeyRecord
from keyark.records.v1.keys_pb2 import KeyUse
from keyark.service import key_uses
from keyark.store import ReadTransaction
from keyark.transparency import log
from keyark.transparency.events import parse_leaf
from keyark.v1.audit_pb2 import AuditEvent
from keyark.v1.certificates_pb2 import KeyRole
from keyark.v1.recovery_pb2 import ArchivedKey, KeyState

KEYS: Final = "archived_keys"
TOKENS: Final = "storage_tokens"
CEREMONIES: Final = "ceremonies"
OPEN_CEREMONIES: Final = "open_ceremonies"
RECOVERIES: Final = "recoveries"
TRUST_CHANGES: Final = "trust_changes"
TRANSPORT_KEYS: Final = "transport_keys"
BY_OWNER: Final = "keys_by_owner"
BY_SERIAL: Final = "keys_by_serial"
BY_TIME: Final = "keys_by_time"
TABLES: Final = (
    KEYS,
    BY_OWNER,
    BY_SERIAL,
    BY_TIME,
    TOKENS,
    CEREMONIES,
    OPEN_CEREMONIES,
    RECOVERIES,
    TRUST_CHANGES,
    TRANSPORT_KEYS,
    key_uses.TABLE,
    *log.TABLES,
)
SCHEMA_VERSION: Final = 1


class KeyIntegrityError(KeyarkError):
    """An archived key does not open, or is not the key that the log says it is."""

    reason = "KEY_INTEGRITY"
    kind = Kind.PRECONDITION


def read_record(txn: ReadTransaction, enrollment_id: bytes) -> ArchivedKeyRecord | None:
    """Return the record of an enrollment (32 bytes), or None where nothing was archived for it.

    Raises KeyIntegrityError for a row that does not parse.
    """
    value = txn.get(KEYS, enrollment_id)
    try:
        return None if value is None else ArchivedKeyRecord.FromString(value)
    except DecodeError:
        raise damaged_key(enrollment_id) from None


def read_contents(record: ArchivedKeyRecord) -> tuple[Statement, AuditEvent]:
    """Return the owner's statement and the leaf of a record; raises KeyIntegrityError unless they belong together."""
    try:
        statement, event = parse_statement(record.statement), parse_leaf(record.leaf)
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
        raise NotFoundError("No archived key has this key id; `keyark keys list` shows those that there are.")
    return record


def describe(record: ArchivedKeyRecord) -> ArchivedKey:
    """Return what may be shown of a record: no key material."""
    statement = parse_statement(record.statement)
    event = AuditEvent.FromString(record.leaf)
    return ArchivedKey(
        key_id=event.encryption_spki_sha256,
        enrollment_id=event.enrollment_id,
        state=_state(record),
        deactivated_reason=record.deactivated_reason,
        key_type=statement.encryption_key_type.proto,
        caller=str(statement.caller),
        common_name=statement.common_name,
        email=statement.email,
        profile=statement.profile,
        archived_time_us=event.time_us,
        storage_key_id=record.sealed_key.storage_key_id,
        log_index=record.log_index,
        certificate_serial=record.certificate_serial,
        match_proof=record.match_proof,
    )


def _state(record: ArchivedKeyRecord) -> KeyState.ValueType:
    if record.deactivated_reason:
        return KeyState.KEY_STATE_DEACTIVATED
    return KeyState.KEY_STATE_CERTIFIED if record.certificate_serial else KeyState.KEY_STATE_UNCERTIFIED
