"""Enrollments as officers list them: all by their ids, or those in one state."""

from __future__ import annotations

from dataclasses import dataclass

from keyark.errors import NotFoundError
from keyark.records.v1.rm_pb2 import EnrollmentRecord
from keyark.service.id_prefix import IdPrefix
from keyark.service.paging import Page
from keyark.sizes import ENROLLMENT_ID_SIZE
from keyark.store import ReadTransaction
from keyark.v1.registration_pb2 import Enrollment, EnrollmentState
from rm_service.records import ENROLLMENTS, describe_stored, read_enrollment
from rm_service.reviews import QUEUED, queued


@dataclass(frozen=True, kw_only=True)
class EnrollmentPage:
    """A page, and the token of the next; the page may be empty while there is one."""

    enrollments: list[Enrollment]
    next_token: str


def list_enrollments(
    txn: ReadTransaction, state: EnrollmentState.ValueType, prefix: IdPrefix, page: Page
) -> EnrollmentPage:
    """Return a page of enrollments, oldest first, in one state unless that is UNSPECIFIED.

    ``prefix`` is what their ids begin with. Where it is empty, those that wait come from the queue: the first to
    expire first, and none of the others is read.
    """
    if state in QUEUED and not prefix.digits:
        places = queued(txn, after=page.after, limit=page.limit)
        found = [(key, record) for _, key in places if (record := read_enrollment(txn, key)) is not None]
        token = page.next_token(places)
    else:
        rows = prefix.rows(txn, ENROLLMENTS, after=page.after, limit=page.limit)
        found = [(key, EnrollmentRecord.FromString(value)) for key, value in rows]
        token = page.next_token(rows)
    wanted = [
        describe_stored(txn, key, record) for key, record in found if not state or record.state == state
    ]
    return EnrollmentPage(enrollments=wanted, next_token=token)


def find_enrollment(txn: ReadTransaction, enrollment_id: bytes) -> Enrollment:
    """Return an enrollment (id of 32 bytes); raises NotFoundError."""
    record = read_enrollment(txn, enrollment_id) if len(enrollment_id) == ENROLLMENT_ID_SIZE else None
    if record is None:
        raise NotFoundError("There is no enrollment with this id; `keyark enrollments list` lists them.")
    return describe_stored(txn, enrollment_id, record)
