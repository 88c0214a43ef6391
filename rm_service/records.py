"""The tables of the RM's store and enrollments as its rows tell them."""

from __future__ import annotations

from typing import Final, cast

from keyark.records.v1.rm_pb2 import EnrollmentRecord, OutboxRecord
from keyark.service import tables
from keyark.service.checks import archive_trust, key_uses
from keyark.store import Backups, ReadTransaction, VanishingTable
from keyark.transparency import heads, log
from keyark.v1.common_pb2 import CertificatePair
from keyark.v1.registration_pb2 import Enrollment, EnrollmentState, Recoverability

ENROLLMENTS: Final = "enrollments"
OUTBOX: Final = "outbox"
CALLER_COUNTS: Final = "caller_counts"
APPROVAL_QUEUE: Final = "approval_queue"
WAITING_BY_CALLER: Final = "waiting_by_caller"
WRAPPED_KEYS: Final = VanishingTable("wrapped_keys", backups=Backups.WITHOUT_KEYS)
TABLES: Final = (
    ENROLLMENTS,
    OUTBOX,
    CALLER_COUNTS,
    APPROVAL_QUEUE,
    WAITING_BY_CALLER,
    WRAPPED_KEYS,
    key_uses.TABLE,
    archive_trust.TABLE,
    tables.IDENTITY_LISTS,
    tables.POLICY,
    *heads.TABLES,
    *log.TABLES,
)
SCHEMA_VERSION: Final = 1


def read_enrollment(txn: ReadTransaction, enrollment_id: bytes) -> EnrollmentRecord | None:
    """Return how an enrollment (32 bytes) stands, or None where nothing is stored of it."""
    value = txn.get(ENROLLMENTS, enrollment_id)
    return None if value is None else EnrollmentRecord.FromString(value)


def state_of(record: EnrollmentRecord) -> EnrollmentState.ValueType:
    """Return the state that a record tells."""
    return cast("EnrollmentState.ValueType", record.state)


def describe_stored(txn: ReadTransaction, enrollment_id: bytes, record: EnrollmentRecord) -> Enrollment:
    """Return the enrollment as its owner sees it, with what the archive says of the key."""
    enrollment = describe(enrollment_id, record)
    if record.state != EnrollmentState.ENROLLMENT_STATE_ISSUED or not record.receipt:
        return enrollment
    if (row := txn.get(OUTBOX, enrollment_id)) is None:
        enrollment.recoverability = Recoverability.RECOVERABILITY_RECOVERABLE
        return enrollment
    enrollment.recoverability = Recoverability.RECOVERABILITY_NOT_YET
    refusal = OutboxRecord.FromString(row).refusal
    enrollment.not_recoverable_reason = f"{refusal.reason}: {refusal.message}" if refusal.reason else ""
    return enrollment


def describe(enrollment_id: bytes, record: EnrollmentRecord) -> Enrollment:
    """Return the enrollment as its record tells it."""
    enrollment = Enrollment(
        enrollment_id=enrollment_id,
        state=state_of(record),
        receipt=record.receipt,
        statement=record.statement,
        completed_time_us=record.completed_time_us,
    )
    if record.state == EnrollmentState.ENROLLMENT_STATE_ISSUED:
        enrollment.certificates.CopyFrom(
            CertificatePair(
                signing_certificate=record.signing_certificate,
                encryption_certificate=record.encryption_certificate,
                chain=record.chain,
            )
        )
    if record.HasField("review"):
        enrollment.review.CopyFrom(record.review)
    return enrollment
