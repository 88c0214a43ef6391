"""The tables of the RM's store and enrollments as its rows tell them."""

from __future__ import annotations

from typing import Final

from keyark.records.v1.rm_pb2 import EnrollmentRecord
from keyark.service import archive_trust, key_uses, tables
from keyark.store import ReadTransaction
from keyark.transparency import heads, log
from keyark.v1.common_pb2 import CertificatePair
from keyark.v1.registration_pb2 import Enrollment, EnrollmentState

ENROLLMENTS: Final = "enrollments"
OUTBOX: Final = "outbox"
CALLER_COUNTS: Final = "caller_counts"
TABLES: Final = (
    ENROLLMENTS,
    OUTBOX,
    CALLER_COUNTS,
    key_uses.TABLE,
    archive_trust.TABLE,
    tables.POLICY,
    *heads.TABLES,
    *log.TABLES,
)
SCHEMA_VERSION: Final = 1


def read_enrollment(txn: ReadTransaction, enrollment_id: bytes) -> EnrollmentRecord | None:
    """Return the outcome of an enrollment (32 bytes), or None where there is none yet."""
    value = txn.get(ENROLLMENTS, enrollment_id)
    return None if value is None else EnrollmentRecord.FromString(value)


def describe(enrollment_id: bytes, record: EnrollmentRecord) -> Enrollment:
    """Return the enrollment as its owner sees it."""
    return Enrollment(
        enrollment_id=enrollment_id,
        state=EnrollmentState.ENROLLMENT_STATE_ISSUED,
        certificates=CertificatePair(
            signing_certificate=record.signing_certificate,
            encryption_certificate=record.encryption_certificate,
            chain=record.chain,
        ),
        receipt=record.receipt,
        statement=record.statement,
        completed_time_us=record.completed_time_us,
    )
