"""The officers' queue: a request that policy deferred waits here, durably, until an officer decides or its time ends.

Every change is one transaction with its leaf in the log. What leaves the queue without certificates leaves no private
key behind: the wrapped key is deleted with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from keyark.clock import Clock
from keyark.custody.envelopes import MAX_ENVELOPE_SIZE
from keyark.errors import InvalidInputError, KeyarkError, Violation
from keyark.records.v1.rm_pb2 import EnrollmentRecord
from keyark.statements.calls import SignedCall
from keyark.statements.enrollment import Statement, reread_statement
from keyark.store import Store, WriteTransaction
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.v1.registration_pb2 import Deferral, Enrollment, EnrollmentReview, EnrollmentState
from rm_service.config import ApprovalSettings
from rm_service.enrollment.quotas import count_enrollment
from rm_service.records import describe
from rm_service.reviews import QUEUED, check_state, enqueue, expires_us, find_reviewed, queued, replace_record

PAGE: Final = 256
MAX_MESSAGE: Final = 1000

Change = Callable[[EnrollmentRecord], None]
"""Checks a record and changes it in place; what it raises undoes the transaction."""


@dataclass(frozen=True, kw_only=True)
class ApprovalQueue:
    """The requests that wait in the RM's store."""

    store: Store
    log: Log
    clock: Clock
    settings: ApprovalSettings

    async def defer(
        self,
        statement: Statement,
        *,
        signature: bytes,
        wrapped_key: bytes,
        call: SignedCall | None,
        deferrals: Sequence[Violation],
    ) -> Enrollment:
        """Let a request wait; it counts for the caller's quota from now on.

        Raises InvalidInputError for a wrapped key that cannot be one, TooManyWaitingError and OverloadedError.
        """
        if len(wrapped_key) > MAX_ENVELOPE_SIZE:
            raise InvalidInputError(
                f"A wrapped private key has at most {MAX_ENVELOPE_SIZE} bytes.", field="wrapped_private_key"
            )
        now = self.clock.now_us()
        review = EnrollmentReview(
            deferrals=[Deferral(rule=v.rule, message=v.message) for v in deferrals],
            submitted_time_us=now,
            expires_time_us=now + self.settings.expire_us,
            version=1,
            with_private_key=bool(wrapped_key),
        )
        record = EnrollmentRecord(
            statement=statement.raw,
            signature=signature,
            state=EnrollmentState.ENROLLMENT_STATE_PENDING_APPROVAL,
            review=review,
            call=call.message if call else None,
        )
        told = "; ".join(f"{v.rule}: {v.message}" for v in deferrals)[:MAX_MESSAGE]
        details = AuditDetails(caller=str(statement.caller), message=told)
        event = self.leaf(EventType.EVENT_TYPE_ENROLLMENT_DEFERRED, statement, details)

        def write(txn: WriteTransaction) -> None:
            enqueue(txn, statement.enrollment_id, record, wrapped_key=wrapped_key, room=self.settings.room)
            count_enrollment(txn, str(statement.caller), now)
            self.log.append(txn, event)

        await self.store.update(write)
        return describe(statement.enrollment_id, record)

    async def change(self, enrollment_id: bytes, change: Change, event: LoggedEvent) -> Enrollment:
        """Change a request and log it, all or nothing; its version is counted up.

        Raises NotFoundError, and whatever ``change`` raises.
        """

        def write(txn: WriteTransaction) -> Enrollment:
            record = find_reviewed(txn, enrollment_id)
            change(record)
            record.review.version += 1
            replace_record(txn, enrollment_id, record)
            self.log.append(txn, event)
            return describe(enrollment_id, record)

        return await self.store.update(write)

    async def refuse(self, statement: Statement, error: KeyarkError) -> None:
        """End a request that an officer approved and that DRM or CM refuses for good."""

        def end(record: EnrollmentRecord) -> None:
            check_state(record, (EnrollmentState.ENROLLMENT_STATE_APPROVED,))
            record.state = EnrollmentState.ENROLLMENT_STATE_REJECTED
            record.completed_time_us = now
            record.review.reason = error.message

        now = self.clock.now_us()
        details = AuditDetails(reason=error.reason, message=error.message)
        event = self.leaf(EventType.EVENT_TYPE_ENROLLMENT_REJECTED, statement, details)
        await self.change(statement.enrollment_id, end, event)

    async def expire_due(self) -> None:
        """End every request whose time is over."""
        now = self.clock.now_us()
        while True:
            places = [
                p for p in await self.store.view(lambda txn: queued(txn, limit=PAGE)) if _is_due(p, now)
            ]
            for _, enrollment_id in places:
                await self._expire(enrollment_id, now)
            if len(places) < PAGE:
                return

    async def _expire(self, enrollment_id: bytes, now: int) -> None:
        def write(txn: WriteTransaction) -> None:
            record = find_reviewed(txn, enrollment_id)
            if record.state not in QUEUED or record.review.expires_time_us > now:
                return  # decided, or approved and given more time, since it was looked for
            pending = record.state == EnrollmentState.ENROLLMENT_STATE_PENDING_APPROVAL
            record.state = EnrollmentState.ENROLLMENT_STATE_EXPIRED
            record.completed_time_us = now
            record.review.version += 1
            record.review.reason = (
                "no officer decided in time"
                if pending
                else ("it was approved, but could not be issued in time")
            )
            replace_record(txn, enrollment_id, record)
            self.log.append(txn, event)

        found = self.store.read(lambda txn: find_reviewed(txn, enrollment_id))
        statement = reread_statement(found.statement)
        event = self.leaf(EventType.EVENT_TYPE_ENROLLMENT_EXPIRED, statement, AuditDetails())
        await self.store.update(write)

    def leaf(
        self,
        event_type: EventType.ValueType,
        statement: Statement,
        details: AuditDetails,
        *,
        approval: SignedStatement | None = None,
    ) -> LoggedEvent:
        """Make the leaf of a change: ids and hashes of the request; ``details``, who did it and why, get its owner."""
        event = AuditEvent(
            version=EVENT_VERSION,
            type=event_type,
            time_us=self.clock.now_us(),
            enrollment_id=statement.enrollment_id,
            statement_sha256=statement.sha256,
            signing_spki_sha256=statement.signing_spki_sha256,
            encryption_spki_sha256=statement.encryption_spki_sha256,
            decision_sha256=b"" if approval is None else sha256(approval.statement).digest(),
        )
        details.common_name, details.email = statement.common_name, statement.email
        details.profile = statement.profile
        details.decision = b"" if approval is None else approval.SerializeToString()
        return new_event(event, details)


def _is_due(place: tuple[bytes, bytes], now_us: int) -> bool:
    return expires_us(place[0]) <= now_us
