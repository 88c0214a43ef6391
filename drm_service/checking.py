"""`python -m drm_service check`: keys and tokens open as they would at start, and every record is what the log says."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from drm_service.config import DrmConfig
from drm_service.records import KEYS, SCHEMA_VERSION, TABLES
from drm_service.storage_keys import read_tokens, storage_key_id
from drm_service.subsystem import load_transport_certificate
from keyark.clock import SystemClock
from keyark.crypto.uris import load_private_key_by_uri
from keyark.errors import KeyarkError, NotFoundError
from keyark.records.v1.drm_pb2 import ArchivedKeyRecord
from keyark.service import maintenance
from keyark.store import ReadTransaction
from keyark.transparency.integrity import stored_entry
from keyark.v1.audit_pb2 import LoggedEvent

PAGE: Final = 1024


class RecordMismatchError(KeyarkError):
    """An archived key's record is not the one that its leaf in the log stands for."""

    reason = "RECORD_MISMATCH"


def check(config: DrmConfig) -> list[str]:
    """Check all that a start needs and all that is stored; returns what to print, raises what is wrong."""
    transport_key = load_private_key_by_uri(config.transport.key, config.service.folder)
    load_transport_certificate(config, transport_key, SystemClock())
    return maintenance.check(
        "drm", config, tables=TABLES, schema_version=SCHEMA_VERSION, check_rows=check_records
    )


def check_records(txn: ReadTransaction) -> list[str]:
    """Hold every archived key's record against its leaf; returns a line per storage key.

    Raises RecordMismatchError naming the enrollment, and TokenError for a damaged token.
    """
    storage_keys = [f"storage key: {storage_key_id(token).hex()}" for token in read_tokens(txn)]
    after: bytes | None = None
    while rows := txn.scan(KEYS, after=after, limit=PAGE):
        for enrollment_id, value in rows:
            _check_record(txn, enrollment_id, _parse(value))
        after = rows[-1][0]
    return storage_keys


def _parse(value: bytes) -> ArchivedKeyRecord:
    """Return a record; one that does not parse is an empty one, which no leaf stands for."""
    try:
        return ArchivedKeyRecord.FromString(value)
    except DecodeError:
        return ArchivedKeyRecord()


def _check_record(txn: ReadTransaction, enrollment_id: bytes, record: ArchivedKeyRecord) -> None:
    recorded = LoggedEvent(leaf=record.leaf, salt=record.salt, details=record.details)
    try:
        logged = stored_entry(txn, record.log_index)
    except NotFoundError:
        logged = LoggedEvent()
    if recorded != logged:
        raise RecordMismatchError(
            f"The archived key of enrollment {enrollment_id.hex()} is not what leaf {record.log_index} of the log "
            "says; restore the store from a backup."
        )
