"""`keyark-drm check` and `backup`: keys and tokens open as at a start, and every record is what the log says."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from drm_service.ceremonies.trust_changes import change_ids
from drm_service.config import DrmConfig
from drm_service.keys.search import by_folded_name, owner_hashes
from drm_service.keys.storage_keys import read_tokens, storage_key_id
from drm_service.records import (
    BY_OWNER,
    BY_SERIAL,
    BY_TIME,
    CERTIFICATES,
    KEYS,
    SCHEMA_VERSION,
    SEALED_KEYS,
    TABLES,
    read_contents,
    scan_records,
)
from drm_service.transport.files import TransportFiles
from drm_service.transport.restored import WAY_OUT, describe_mark, mark_row
from drm_service.transport.rows import read_transport_keys
from keyark.clock import SystemClock
from keyark.errors import KeyarkError
from keyark.errors.recovery import KeyIntegrityError
from keyark.records.v1.drm_pb2 import ArchivedKeyRecord
from keyark.service.program import maintenance
from keyark.store import ReadTransaction
from keyark.v1.audit_pb2 import AuditEvent, EventType
from keyark.x509.certificates import Validity, load_certificate, load_certificates
from keyark.x509.chains import lowest

PAGE: Final = 1024


class RecordMismatchError(KeyarkError):
    """An archived key's record is not the one that its leaf in the log stands for."""

    reason = "RECORD_MISMATCH"


def check(config: DrmConfig) -> list[str]:
    """Check all that a start needs and all that is stored; returns what to print, raises what is wrong."""
    files = TransportFiles.of(config)
    return maintenance.check(
        "drm",
        config,
        tables=TABLES,
        schema_version=SCHEMA_VERSION,
        check_keys=lambda: check_issuers(config),
        check_rows=lambda txn: [
            *check_transport_keys(txn, files),
            *tell_restored(txn),
            *tell_changes(txn),
            *check_records(txn),
        ],
    )


def backup(config: DrmConfig, target: Path) -> None:
    """Write a copy of the store that says that it is one; raises as ``maintenance.backup`` does."""
    rows = [mark_row(SystemClock())]
    maintenance.backup(config, target, tables=TABLES, schema_version=SCHEMA_VERSION, rows=rows)


def tell_restored(txn: ReadTransaction) -> list[str]:
    """Return a line where the store is a backup that archives nothing yet; the DRM starts all the same."""
    told = describe_mark(txn)
    return [f"restored: {told} To go on, {WAY_OUT}."] if told else []


def tell_changes(txn: ReadTransaction) -> list[str]:
    """Return a line for each change of agents and storage keys: what RM and CM are told after a restore."""
    changes = [f"change of agents or storage keys: {change.hex()}" for change in change_ids(txn)]
    return changes or ["change of agents or storage keys: none"]


def check_issuers(config: DrmConfig) -> list[str]:
    """Load the CAs whose certificates are linked; raises the errors of ``load_certificates``."""
    issuers = lowest(load_certificates(config.certificates.issuers))
    return [f"issuer of certificates: {issuer.subject.rfc4514_string()}" for issuer in issuers]


def check_transport_keys(txn: ReadTransaction, files: TransportFiles) -> list[str]:
    """Hold the transport keys on disk against the log; returns a line for each.

    An ended certificate of the newest is told: the DRM runs, and no client wraps a key to it. Raises as
    ``read_transport_keys`` does, and TransportCertificateError and CertificateChainError for the newest.
    """
    records = read_transport_keys(txn, files)
    certificate = files.certificate(records[-1].generation)
    validity = Validity.of(load_certificate(certificate.certificate))
    files.trust().verify(certificate, validity.not_before)
    lines = [f"transport key: {record.key_id.hex()}{' (retired)' * record.retired}" for record in records]
    if validity.not_after < SystemClock().now_us() // 1_000_000:
        _, until = validity.dates()
        path = files.certificate_path(records[-1].generation)
        lines.append(
            f"transport certificate: ended on {until:%Y-%m-%d}; have "
            f"{files.request_path(records[-1].generation)} signed again, save it as {path}, then start or "
            "reload"
        )
    return lines


def check_records(txn: ReadTransaction) -> list[str]:
    """Hold every archived key's record against its leaf; returns a line per storage key.

    Raises RecordMismatchError naming the enrollment, and TokenError for a damaged token.
    """
    storage_keys = [
        f"storage key: {storage_key_id(token).hex()}, PIN epoch {token.pin_epoch}"
        for token in read_tokens(txn)
    ]
    after: bytes | None = None
    certified = folded = 0
    while rows := scan_records(txn, after=after, limit=PAGE):
        for enrollment_id, record in rows:
            _check_record(enrollment_id, record)
            _check_indexes(txn, enrollment_id, record)
            certified += bool(record.certificate_serial)
            folded += _has_folded_name(txn, enrollment_id, record)
        after = rows[-1][0]
    keys = txn.count(KEYS)
    expected = {
        SEALED_KEYS: keys,
        CERTIFICATES: certified,
        BY_OWNER: 2 * keys + folded,
        BY_TIME: keys,
        BY_SERIAL: certified,
    }
    if {table: txn.count(table) for table in expected} != expected:
        raise RecordMismatchError(
            "A table of the archived keys has too few or too many rows; restore the store from a backup."
        )
    return storage_keys


def _check_record(enrollment_id: bytes, record: ArchivedKeyRecord) -> None:
    """Raise RecordMismatchError unless the leaf at the record's place is the one of this very key."""
    try:
        event = read_contents(record)[1]
    except KeyIntegrityError:
        event = AuditEvent()
    if (event.type, event.enrollment_id) != (EventType.EVENT_TYPE_KEY_ARCHIVED, enrollment_id):
        raise RecordMismatchError(
            f"The archived key of enrollment {enrollment_id.hex()} is not what leaf {record.log_index} of the log "
            "says; restore the store from a backup."
        )


def _has_folded_name(txn: ReadTransaction, enrollment_id: bytes, record: ArchivedKeyRecord) -> bool:
    """Whether a key is indexed by its owner's name as names are compared, which older releases did not do."""
    name = read_contents(record)[0].common_name
    return txn.get(BY_OWNER, by_folded_name(name) + enrollment_id) is not None


def _check_indexes(txn: ReadTransaction, enrollment_id: bytes, record: ArchivedKeyRecord) -> None:
    """Raise RecordMismatchError unless every index leads to the record."""
    statement, event = read_contents(record)
    rows = [(BY_OWNER, owner + enrollment_id, b"") for owner in owner_hashes(statement)]
    rows.append((BY_TIME, event.time_us.to_bytes(8, "big") + enrollment_id, b""))
    if record.certificate_serial:
        rows.append((BY_SERIAL, record.certificate_serial, enrollment_id))
    if any(txn.get(table, key) != value for table, key, value in rows):
        raise RecordMismatchError(
            f"An index does not lead to the archived key of enrollment {enrollment_id.hex()}; restore the store from a "
            "backup."
        )
