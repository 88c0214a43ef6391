"""What officers do with requests that wait: look, assign, approve, reject, cancel.

Who acts names the version of the request that it looked at. State, version and assignee are checked inside the
transaction that changes them, so of two officers who act at once one wins and the other is told.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from keyark.clock import Clock
from keyark.errors import KeyarkError
from keyark.errors.enrollment import AssignedElsewhereError, NotPendingError, RequestChangedError
from keyark.identity.spiffe import SpiffeId
from keyark.policy.engine import PolicyEngine
from keyark.policy.requests import Archival, Receipt
from keyark.records.v1.rm_pb2 import EnrollmentRecord
from keyark.service.checks.key_uses import KeyClaim, Possession, check_key_uses
from keyark.service.checks.policy_requests import policy_request
from keyark.statements.approvals import (
    Approval,
    ApprovalMismatchError,
    OfficerTrust,
    edits_of,
)
from keyark.statements.ceremonies import check_reason
from keyark.statements.enrollment import Statement, reread_statement
from keyark.statements.signed import CLOCK_SKEW_SECONDS
from keyark.store import ReadTransaction, Store
from keyark.v1.audit_pb2 import AuditDetails, EventType
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.v1.registration_pb2 import Enrollment, EnrollmentState
from rm_service.enrollment.queue import PAGE, ApprovalQueue
from rm_service.enrollment.quotas import enrollments_within
from rm_service.enrollment.steps import STAGE as SUBMIT
from rm_service.enrollment.steps import Enrollments
from rm_service.officers.duties import Duties
from rm_service.records import describe
from rm_service.reviews import QUEUED, check_state, find_reviewed, queued

STAGE: Final = "approve"
PENDING: Final = EnrollmentState.ENROLLMENT_STATE_PENDING_APPROVAL
APPROVED: Final = EnrollmentState.ENROLLMENT_STATE_APPROVED
_LEAVES: Final = {
    EnrollmentState.ENROLLMENT_STATE_REJECTED: EventType.EVENT_TYPE_ENROLLMENT_REJECTED,
    EnrollmentState.ENROLLMENT_STATE_CANCELED: EventType.EVENT_TYPE_ENROLLMENT_CANCELED,
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Act:
    """An officer acts on a request (id of 32 bytes) of which it saw a version; 0 stands for whichever it is."""

    enrollment_id: bytes
    officer: SpiffeId
    version: int = 0


@dataclass(frozen=True, kw_only=True)
class Approvals:
    """The officers' side of the queue."""

    enrollments: Enrollments
    queue: ApprovalQueue
    duties: Duties
    trust: OfficerTrust
    policy: PolicyEngine
    store: Store
    clock: Clock

    async def approve(self, act: Act, signed: SignedStatement) -> Enrollment:
        """Approve with the officer's signed word, and carry the request out.

        It comes back ISSUED, or APPROVED where DRM or CM cannot be reached now. An officer who repeats its approval
        goes on with it. Raises NotFoundError, SeparationOfDutiesError, the errors of ``OfficerTrust.verify``,
        PolicyRejectedError, NotPendingError, RequestChangedError, AssignedElsewhereError, and what DRM or CM refuse
        for good.
        """
        record, statement = self._look(act)
        approval = self.trust.verify(signed, statement, now=self._now())
        if approval.officer != act.officer or approval.time < self._now() - CLOCK_SKEW_SECONDS:
            raise ApprovalMismatchError(
                "The approval was made by another officer, or too long ago; sign a new one in your own name."
            )
        if not self._is_repeated(record, approval):
            self._check_mine(act, record)
            self._apply_policy(record, approval.applied_to(statement), approval)
            await self._write_approval(act, statement, approval)
        return await self._carry_out(act.enrollment_id)

    async def reject(self, act: Act, reason: str) -> Enrollment:
        """Reject for a reason (1 to 500 printable characters) that the caller is told; raises as ``approve``.

        What was approved can be ended as well, for as long as it is not issued.
        """
        return await self._end(act, EnrollmentState.ENROLLMENT_STATE_REJECTED, reason)

    async def cancel(self, act: Act, reason: str) -> Enrollment:
        """Cancel what nobody needs any more; as ``reject``."""
        return await self._end(act, EnrollmentState.ENROLLMENT_STATE_CANCELED, reason)

    async def assign(self, act: Act, assignee: str) -> Enrollment:
        """Say which officer (SPIFFE ID, empty for any) decides; raises as ``approve``, but for the assignee's right."""
        _, statement = self._look(act)
        named = self.duties.assignee(assignee, statement.caller)

        def change(record: EnrollmentRecord) -> None:
            self._check_waits(act, record, (PENDING,))
            record.review.assignee = named

        details = AuditDetails(caller=str(act.officer), message=named or "any officer")
        leaf = self.queue.leaf(EventType.EVENT_TYPE_ENROLLMENT_ASSIGNED, statement, details)
        return await self.queue.change(act.enrollment_id, change, leaf)

    async def sweep(self) -> None:
        """End what is due, and go on with what was approved and is not issued yet."""
        await self.queue.expire_due()
        after: bytes | None = None
        while places := await self.store.view(partial(_page, after)):
            for _, enrollment_id in places:
                record = self.store.read(partial(_find, enrollment_id))
                if record.state == APPROVED:
                    await self._try_again(enrollment_id)
            after = places[-1][0]

    async def _try_again(self, enrollment_id: bytes) -> None:
        try:
            await self._carry_out(enrollment_id)
        except KeyarkError as error:  # refused for good, and the request ended with it
            logger.warning("an approved enrollment was refused: %s (%s)", error.message, error.reason)

    def _look(self, act: Act) -> tuple[EnrollmentRecord, Statement]:
        record = self.store.read(partial(_find, act.enrollment_id))
        statement = reread_statement(record.statement)
        self.duties.check(act.officer, statement.caller)
        return record, statement

    def _now(self) -> int:
        return self.clock.now_us() // 1_000_000

    def _apply_policy(self, record: EnrollmentRecord, statement: Statement, approval: Approval) -> None:
        """Judge what the officer approved: all rules of the stage submit but for deferrals, then those of approve."""
        possession = Possession.PROVEN if record.review.with_private_key else Possession.ASSERTED
        claim = KeyClaim(statement=statement, encryption_key=possession)
        self.store.read(lambda txn: check_key_uses(txn, claim))
        archival = Archival.REQUESTED if record.review.with_private_key else Archival.ABSENT
        request = replace(
            policy_request(statement, archival=archival, receipt=Receipt.ABSENT),
            enrollments_within=partial(self._enrollments_within, statement.caller),
        )
        self.policy.judge(SUBMIT, request)
        days = approval.edits.validity_days
        self.policy.enforce(STAGE, replace(request, approver=str(approval.officer), approved_days=days))

    def _enrollments_within(self, caller: SpiffeId, hours: int) -> int:
        """Count a caller's enrollments, which this one was added to when it was deferred."""
        now = self.clock.now_us()
        return self.store.read(lambda txn: enrollments_within(txn, str(caller), hours=hours, now_us=now))

    @staticmethod
    def _is_repeated(record: EnrollmentRecord, approval: Approval) -> bool:
        """Whether this officer approved the very same before."""
        if record.state not in (APPROVED, EnrollmentState.ENROLLMENT_STATE_ISSUED):
            return False
        earlier = edits_of(record.review.approval)
        return record.review.officer == str(approval.officer) and earlier == approval.edits

    async def _write_approval(self, act: Act, statement: Statement, approval: Approval) -> None:
        now = self.clock.now_us()

        def change(record: EnrollmentRecord) -> None:
            self._check_mine(act, record)
            record.state = APPROVED
            record.review.officer, record.review.decided_time_us = str(act.officer), now
            record.review.approval.CopyFrom(approval.signed)
            record.review.expires_time_us = now + self.queue.settings.expire_us  # to be carried out in

        details = AuditDetails(caller=str(act.officer))
        event_type = EventType.EVENT_TYPE_ENROLLMENT_APPROVED
        leaf = self.queue.leaf(event_type, statement, details, approval=approval.signed)
        await self.queue.change(act.enrollment_id, change, leaf)

    async def _carry_out(self, enrollment_id: bytes) -> Enrollment:
        record = self.store.read(partial(_find, enrollment_id))
        if record.state != APPROVED:
            return describe(enrollment_id, record)
        try:
            return await self.enrollments.carry_out(record)
        except KeyarkError as error:
            now = self.store.read(partial(_find, enrollment_id))
            if now.state != APPROVED:
                raise
            logger.warning("an approved enrollment waits: %s (%s)", error.message, error.reason)
            waiting = describe(enrollment_id, now)
            waiting.review.reason = error.message
            return waiting

    async def _end(self, act: Act, state: EnrollmentState.ValueType, reason: str) -> Enrollment:
        check_reason(reason)
        _, statement = self._look(act)
        await self.enrollments.under_way.end_of(act.enrollment_id)  # it may be issued at this moment
        now = self.clock.now_us()

        def change(record: EnrollmentRecord) -> None:
            self._check_mine(act, record, states=QUEUED)
            record.state, record.completed_time_us = state, now
            record.review.officer, record.review.decided_time_us = str(act.officer), now
            record.review.reason = reason

        details = AuditDetails(caller=str(act.officer), message=reason)
        return await self.queue.change(
            act.enrollment_id, change, self.queue.leaf(_LEAVES[state], statement, details)
        )

    def _check_mine(self, act: Act, record: EnrollmentRecord, *, states: Sequence[int] = (PENDING,)) -> None:
        self._check_waits(act, record, states)
        if record.review.assignee not in ("", str(act.officer)):
            raise AssignedElsewhereError(
                f"The request is assigned to {record.review.assignee}, and nobody else may decide on it; "
                "assign it to yourself first."
            )

    def _check_waits(self, act: Act, record: EnrollmentRecord, states: Sequence[int]) -> None:
        """Raise NotPendingError or RequestChangedError unless the request waits and is what the officer saw."""
        check_state(record, states)
        if record.review.expires_time_us <= self.clock.now_us():
            raise NotPendingError("The request has expired; the person has to submit a new one.")
        if act.version not in (0, record.review.version):
            raise RequestChangedError(
                f"The request has changed since version {act.version}; show it again, and then decide."
            )


def _find(enrollment_id: bytes, txn: ReadTransaction) -> EnrollmentRecord:
    return find_reviewed(txn, enrollment_id)


def _page(after: bytes | None, txn: ReadTransaction) -> list[tuple[bytes, bytes]]:
    return queued(txn, after=after, limit=PAGE)
