"""Rows of requests that wait for an officer, changed inside transactions: record, place in the queue, wrapped key.

The queue is ordered by when requests expire. A wrapped private key lies in a table of its own, and only while the
request is in the queue: whatever takes a request out of it deletes the key in the same transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from keyark.errors import NotFoundError, OverloadedError
from keyark.errors.enrollment import NotPendingError, TooManyWaitingError
from keyark.records.v1.rm_pb2 import EnrollmentRecord
from keyark.sizes import ENROLLMENT_ID_SIZE
from keyark.store import ReadTransaction, WriteTransaction
from keyark.v1.registration_pb2 import EnrollmentReview, EnrollmentState
from rm_service.records import (
    APPROVAL_QUEUE,
    ENROLLMENTS,
    WAITING_BY_CALLER,
    WRAPPED_KEYS,
    read_enrollment,
    state_of,
)

_REQUEST_ID: Final = 16
QUEUED: Final = (
    EnrollmentState.ENROLLMENT_STATE_PENDING_APPROVAL,
    EnrollmentState.ENROLLMENT_STATE_APPROVED,
)


@dataclass(frozen=True, kw_only=True)
class QueueRoom:
    """How many requests wait for officers at most: of all callers, and of each one, so that none fills the queue."""

    everybody: int
    each_caller: int


def enqueue(
    txn: WriteTransaction,
    enrollment_id: bytes,
    record: EnrollmentRecord,
    *,
    wrapped_key: bytes,
    room: QueueRoom,
) -> None:
    """Write a request that begins to wait; raises TooManyWaitingError, and OverloadedError where the queue is full."""
    caller = enrollment_id[_REQUEST_ID:]
    if len(txn.scan(WAITING_BY_CALLER, prefix=caller, limit=room.each_caller)) >= room.each_caller:
        raise TooManyWaitingError(
            f"{room.each_caller} of your requests wait for an officer, which is the limit; submit this "
            "one again when some are decided."
        )
    if txn.count(APPROVAL_QUEUE) >= room.everybody:
        raise OverloadedError(
            "The queue of requests that wait for an officer is full; submit this one again when some are "
            "decided."
        )
    txn.insert(ENROLLMENTS, enrollment_id, record.SerializeToString())
    txn.put(APPROVAL_QUEUE, _place(enrollment_id, record.review), b"\1")
    txn.put(WAITING_BY_CALLER, _by_caller(enrollment_id), b"\1")
    if wrapped_key:
        txn.put(WRAPPED_KEYS, enrollment_id, wrapped_key)


def replace_record(txn: WriteTransaction, enrollment_id: bytes, record: EnrollmentRecord) -> None:
    """Write another state of a request that is in the queue, and take it out where it is over."""
    earlier = find_reviewed(txn, enrollment_id)
    txn.delete(APPROVAL_QUEUE, _place(enrollment_id, earlier.review))
    if record.state not in QUEUED:
        record.ClearField("call")  # nobody asks for it any more
    txn.put(ENROLLMENTS, enrollment_id, record.SerializeToString())
    if record.state in QUEUED:
        txn.put(APPROVAL_QUEUE, _place(enrollment_id, record.review), b"\1")
    else:
        txn.delete(WAITING_BY_CALLER, _by_caller(enrollment_id))
        txn.delete(WRAPPED_KEYS, enrollment_id)


def complete(txn: WriteTransaction, enrollment_id: bytes, issued: EnrollmentRecord) -> None:
    """Write the outcome of a request that an officer approved: ``issued`` gets what the officer decided.

    Raises NotPendingError where the request was ended meanwhile: its end stands.
    """
    approved = find_reviewed(txn, enrollment_id)
    check_state(approved, (EnrollmentState.ENROLLMENT_STATE_APPROVED,))
    issued.review.CopyFrom(approved.review)
    issued.review.version += 1
    replace_record(txn, enrollment_id, issued)


def check_state(record: EnrollmentRecord, states: Sequence[int]) -> None:
    """Raise NotPendingError unless a request is in one of these states."""
    if record.state not in states:
        name = EnrollmentState.Name(state_of(record)).removeprefix("ENROLLMENT_STATE_").lower()
        by = f" by {record.review.officer}" if record.review.officer else ""
        raise NotPendingError(f"The request no longer waits: it is {name}{by}. Show it again.")


def find_reviewed(txn: ReadTransaction, enrollment_id: bytes) -> EnrollmentRecord:
    """Return a request that an officer decides or decided on; raises NotFoundError."""
    record = read_enrollment(txn, enrollment_id) if len(enrollment_id) == ENROLLMENT_ID_SIZE else None
    if record is None or not record.HasField("review"):
        raise NotFoundError(
            "No request with this enrollment id has waited for an officer; `keyark enrollments list` "
            "lists them."
        )
    return record


def wrapped_key(txn: ReadTransaction, enrollment_id: bytes) -> bytes:
    """Return the wrapped private key of a request in the queue, empty where there is none."""
    return txn.get(WRAPPED_KEYS, enrollment_id) or b""


def queued(txn: ReadTransaction, *, after: bytes | None = None, limit: int) -> list[tuple[bytes, bytes]]:
    """Return places in the queue after another one, each with its enrollment id; the first to expire is first."""
    rows = txn.scan(APPROVAL_QUEUE, after=after, limit=limit)
    return [(place, place[-ENROLLMENT_ID_SIZE:]) for place, _ in rows]


def expires_us(place: bytes) -> int:
    """Return when the request at a place expires, microseconds."""
    return int.from_bytes(place[:8], "big")


def _place(enrollment_id: bytes, review: EnrollmentReview) -> bytes:
    return review.expires_time_us.to_bytes(8, "big") + enrollment_id


def _by_caller(enrollment_id: bytes) -> bytes:
    """The half of the id that names the caller, then the one that names the request."""
    return enrollment_id[_REQUEST_ID:] + enrollment_id[:_REQUEST_ID]
