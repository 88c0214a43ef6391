"""Archived keys that did not open or match when a quorum wanted them: remembered, with a leaf each, until they do.

Such a key was damaged in the store, or never the one of its certificate. `keyark doctor` reports it.
"""

from __future__ import annotations

from dataclasses import dataclass

from drm_service.records import FAILED_KEYS
from keyark.errors.recovery import KeyIntegrityError
from keyark.records.v1.drm_pb2 import ArchivedKeyRecord, FailedKey
from keyark.statements.ceremonies import CeremonyRequest
from keyark.store import ReadTransaction, WriteTransaction
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent


@dataclass(frozen=True, kw_only=True)
class KeyFailure:
    """That one key did not open in a ceremony, and the leaf that says so."""

    enrollment_id: bytes
    row: FailedKey
    event: LoggedEvent

    @classmethod
    def of(
        cls, record: ArchivedKeyRecord, error: KeyIntegrityError, request: CeremonyRequest, *, time_us: int
    ) -> KeyFailure:
        """Make what is written of a key that did not open in the ceremony of ``request``."""
        archived = AuditEvent.FromString(record.leaf)
        event = AuditEvent(
            version=EVENT_VERSION,
            type=EventType.EVENT_TYPE_KEY_DID_NOT_OPEN,
            time_us=time_us,
            enrollment_id=archived.enrollment_id,
            encryption_spki_sha256=archived.encryption_spki_sha256,
            ceremony_id=request.ceremony_id,
            ceremony_digest=request.digest,
        )
        details = AuditDetails(caller=str(request.requester), reason=error.reason, message=error.message)
        return cls(
            enrollment_id=archived.enrollment_id,
            row=FailedKey(time_us=time_us, ceremony_id=request.ceremony_id),
            event=new_event(event, details),
        )

    def write(self, txn: WriteTransaction, log: Log) -> None:
        """Remember it, and log it."""
        txn.put(FAILED_KEYS, self.enrollment_id, self.row.SerializeToString())
        log.append(txn, self.event)


def failure_time_us(txn: ReadTransaction, enrollment_id: bytes) -> int:
    """Return when the key of an enrollment (32 bytes) did not open last, microseconds UTC; 0 where it did not fail."""
    value = txn.get(FAILED_KEYS, enrollment_id)
    return 0 if value is None else FailedKey.FromString(value).time_us


def forget_failure(txn: WriteTransaction, record: ArchivedKeyRecord) -> None:
    """Forget that a key did not open, for now it did; the log keeps both."""
    txn.delete(FAILED_KEYS, AuditEvent.FromString(record.leaf).enrollment_id)
