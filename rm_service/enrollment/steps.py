"""The enrollment process: its six steps, one function each, named after the step.

    serve_form -> accept_request -> request_private_key -> archive -> issue -> deliver

Each enrollment is driven in a task of its own, shielded from the client's cancellation. Nothing is stored before
its outcome; every step is idempotent under the enrollment id, so that a crash anywhere is repaired by a retry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from typing import Final, Protocol

from keyark.clock import Clock
from keyark.errors import (
    DeadlineExceededError,
    KeyarkError,
    NotFoundError,
    PermissionDeniedError,
    Violation,
)
from keyark.errors.enrollment import ArchivalForbiddenError
from keyark.errors.services import StaleCheckpointError
from keyark.identity.spiffe import SpiffeId
from keyark.keys.known_keys import NO_KNOWN_KEYS, KnownKeys
from keyark.policy.engine import PolicyEngine
from keyark.policy.requests import Archival, Receipt
from keyark.records.v1.rm_pb2 import EnrollmentRecord, OutboxRecord
from keyark.service.checks.callers import check_signed
from keyark.service.checks.key_uses import KeyClaim, Possession, check_key_uses, claim_key_uses
from keyark.service.checks.leaves import enrollment_leaf
from keyark.service.checks.policy_requests import policy_request
from keyark.service.checks.requests import accept_statement, check_same_statement
from keyark.statements.calls import CallTrust, SignedCall
from keyark.statements.enrollment import Statement, reread_statement
from keyark.store import ReadTransaction, Store, WriteTransaction
from keyark.transparency.heads import AcceptedHeads
from keyark.transparency.log import Log
from keyark.transparency.transport_keys import TransportKeyRetiredError
from keyark.v1.audit_pb2 import EventType, TransportKeyChange
from keyark.v1.common_pb2 import ArchivalPolicy, CertificatePair
from keyark.v1.registration_pb2 import Enrollment, EnrollmentForm, EnrollmentState
from keyark.workers.turns import Turns
from rm_service.enrollment.queue import ApprovalQueue
from rm_service.enrollment.quotas import count_enrollment, enrollments_within
from rm_service.enrollment.under_way import UnderWay
from rm_service.records import ENROLLMENTS, OUTBOX, describe_stored, read_enrollment
from rm_service.requests import EnrollmentRequest, accept_call, approved_request
from rm_service.reviews import complete

STAGE: Final = "submit"


@dataclass(frozen=True, kw_only=True)
class VerifiedReceipt:
    """An archival receipt that was verified (a tlog-proof file), and the hash of its leaf; both empty for none."""

    file: bytes = b""
    leaf_hash: bytes = b""


class Forms(Protocol):
    """Where the enrollment forms come from."""

    async def get(self, profile: str) -> EnrollmentForm:
        """Return the form of a profile; raises UnknownProfileError."""

    def transport_key_changes(self, known_key_id: bytes) -> Sequence[TransportKeyChange]:
        """Return how the transport key changed since the one that a client knows."""

    def meet(self, known_key_id: bytes) -> None:
        """Heed that a client knows a transport key, which may be newer than what forms are made of."""

    def forget(self) -> None:
        """Fetch what forms are made of anew when the next one is asked for."""


class Archive(Protocol):
    """The way to the DRM; batches are its business."""

    async def archive(self, statement: Statement, request: EnrollmentRequest) -> VerifiedReceipt:
        """Have the wrapped private key archived; return the receipt once it is verified."""

    async def reserve_signing_key(self, statement: Statement, request: EnrollmentRequest) -> None:
        """Keep the signing key of an enrollment that archives nothing out of the archive."""


class Issuer(Protocol):
    """The way to the CM; batches are its business."""

    async def issue(
        self, statement: Statement, request: EnrollmentRequest, receipt: bytes
    ) -> CertificatePair:
        """Return both certificates."""


class Outbox(Protocol):
    """Tells the DRM later which certificate belongs to which key."""

    def wake(self) -> None:
        """Say that the outbox table has a new row."""


@dataclass(kw_only=True)
class Enrollments:
    """Drives enrollments; ``enrollment_seconds`` bounds one from acceptance to outcome."""

    trust_domain: str
    store: Store
    log: Log
    policy: PolicyEngine
    clock: Clock
    forms: Forms
    archiver: Archive
    issuer: Issuer
    outbox: Outbox
    accepted_heads: AcceptedHeads
    queue: ApprovalQueue
    turns: Turns
    under_way: UnderWay
    calls: CallTrust
    enrollment_seconds: float = 60.0
    known_keys: KnownKeys = NO_KNOWN_KEYS

    async def serve_form(self, profile: str) -> EnrollmentForm:
        """Step 1: what the profile asks for, and the transport certificate."""
        return await self.forms.get(profile)

    async def submit(
        self, caller: SpiffeId, requests: Sequence[EnrollmentRequest], *, call: SignedCall | None
    ) -> list[Enrollment | BaseException]:
        """Steps 2 to 6 of each request; outcomes stand in their order, what was raised among them.

        The same request joins its own run or gets its first outcome (P9). A caller that stops waiting ends no run.
        Raises the errors of ``accept_call`` for all requests of a call that the caller did not sign.
        """
        self.under_way.check_room(caller)
        if call is not None:
            statements, now = [request.statement for request in requests], self.clock.now_us() // 1_000_000
            verify = partial(accept_call, self.calls, caller, call, statements, now=now)
            await self.turns.run(str(caller), [verify])
            requests = [replace(request, call=call) for request in requests]
        begin = [partial(self._begin, caller, request) for request in requests]
        runs = await self.turns.run(str(caller), begin)
        if waiting := {run for run in runs if isinstance(run, asyncio.Task)}:
            await asyncio.wait(waiting)
        return [_outcome(run) if isinstance(run, asyncio.Task) else run for run in runs]

    def _begin(
        self, caller: SpiffeId, request: EnrollmentRequest
    ) -> asyncio.Task[Enrollment] | Enrollment | KeyarkError:
        """Return the one task of an enrollment, or the outcome that it has already."""
        try:
            statement = self.accept_request(caller, request)
            recorded = self.store.read(lambda txn: read_enrollment(txn, statement.enrollment_id))
            if recorded is not None and recorded.state != EnrollmentState.ENROLLMENT_STATE_APPROVED:
                check_same_statement(statement, sha256(recorded.statement).digest())
                return self.outcome(statement.enrollment_id)
            if recorded is not None:
                check_same_statement(statement, sha256(recorded.statement).digest())
                request = approved_request(self.store, recorded, newer=request)
            return self._join(statement, request)
        except KeyarkError as error:
            return error

    def _join(self, statement: Statement, request: EnrollmentRequest) -> asyncio.Task[Enrollment]:
        return self.under_way.join(statement, lambda: self._drive(statement, request))

    async def carry_out(self, record: EnrollmentRecord) -> Enrollment:
        """Steps 4 to 6 of a request that an officer approved; what was begun already is joined.

        Raises what archival and issuance raise. Who gives up waiting ends nothing.
        """
        statement = reread_statement(record.statement)
        return await asyncio.shield(self._join(statement, approved_request(self.store, record)))

    async def _drive(self, statement: Statement, request: EnrollmentRequest) -> Enrollment:
        try:
            async with asyncio.timeout(self.enrollment_seconds):
                form = await self.serve_form(statement.profile)
                check_signed(statement, request.call, form.caller_signature)
                if request.approval is not None:
                    return await self._carry_out(statement, request, form)
                deferrals = self._apply_policy(statement, request)
                if asked := self.request_private_key(statement, request, form):
                    return asked
                if deferrals:
                    return await self.defer(statement, request, deferrals)
                receipt, certificates = await self._archive_and_issue(statement, request)
                return await self.deliver(statement, request, receipt, certificates)
        except TimeoutError:
            raise DeadlineExceededError(
                "The enrollment took too long; send the same request again, and it goes on."
            ) from None

    async def _carry_out(
        self, statement: Statement, request: EnrollmentRequest, form: EnrollmentForm
    ) -> Enrollment:
        """Go on with what an officer approved; what is refused for good is over, with its wrapped key."""
        if asked := self.request_private_key(statement, request, form):
            return asked
        try:
            receipt, certificates = await self._archive_and_issue(statement, request)
        except KeyarkError as error:
            if error.is_final:
                await self.queue.refuse(statement, error)
            raise
        return await self.deliver(statement, request, receipt, certificates)

    async def defer(
        self, statement: Statement, request: EnrollmentRequest, deferrals: Sequence[Violation]
    ) -> Enrollment:
        """Between steps 3 and 4: let the request wait for a registration officer, durably."""
        return await self.queue.defer(
            statement,
            signature=request.signature,
            wrapped_key=request.wrapped_private_key,
            call=request.call,
            deferrals=deferrals,
        )

    async def _archive_and_issue(
        self, statement: Statement, request: EnrollmentRequest
    ) -> tuple[VerifiedReceipt, CertificatePair]:
        receipt = await self.archive(statement, request)
        try:
            return receipt, await self.issue(statement, request, receipt)
        except (StaleCheckpointError, TransportKeyRetiredError):
            # The CM has seen later trees, or the successor of the key, only: the archive gives the receipt anew.
            receipt = await self.archive(statement, request)
            return receipt, await self.issue(statement, request, receipt)

    def accept_request(self, caller: SpiffeId, request: EnrollmentRequest) -> Statement:
        """Step 2: verify the statement and that the caller made it for itself."""
        statement = accept_statement(
            request.statement, request.signature, self.trust_domain, known_keys=self.known_keys
        )
        if statement.caller != caller:
            raise PermissionDeniedError(
                f"The statement names another caller; {caller} may send only its own."
            )
        return statement

    def _apply_policy(self, statement: Statement, request: EnrollmentRequest) -> Sequence[Violation]:
        """Return why an officer has to decide, nothing where none has; raises what a rule rejects."""
        shown = Possession.shown_by(request.wrapped_private_key)
        claim = KeyClaim(statement=statement, encryption_key=shown)
        self.store.read(lambda txn: check_key_uses(txn, claim))
        archival = Archival.REQUESTED if request.wrapped_private_key else Archival.ABSENT
        attributes = policy_request(statement, archival=archival, receipt=Receipt.ABSENT)
        counted = replace(attributes, enrollments_within=partial(self._enrollments_within, statement))
        return self.policy.judge(STAGE, counted)

    def _enrollments_within(self, statement: Statement, hours: int) -> int:
        """Count a caller's enrollments of so many clock hours, and those under way, up to this one."""
        caller, now = statement.caller, self.clock.now_us()
        count = self.store.read(lambda txn: enrollments_within(txn, str(caller), hours=hours, now_us=now))
        return count + self.under_way.up_to(statement)

    def request_private_key(
        self, statement: Statement, request: EnrollmentRequest, form: EnrollmentForm
    ) -> Enrollment | None:
        """Step 3: where archival applies and no wrapped key came along, ask for it; nothing is stored."""
        if form.archival == ArchivalPolicy.ARCHIVAL_POLICY_FORBIDDEN and request.wrapped_private_key:
            raise ArchivalForbiddenError(
                f"Profile {statement.profile!r} forbids archival; enroll without a wrapped private key."
            )
        required = form.archival == ArchivalPolicy.ARCHIVAL_POLICY_REQUIRED
        if request.wrapped_private_key or not (required or request.lacks_private_key):
            return None
        return Enrollment(
            enrollment_id=statement.enrollment_id,
            state=EnrollmentState.ENROLLMENT_STATE_AWAITING_PRIVATE_KEY,
            transport_certificate=form.transport_certificate,
            statement=statement.raw,
        )

    async def archive(self, statement: Statement, request: EnrollmentRequest) -> VerifiedReceipt:
        """Step 4: have the private key archived; the receipt is empty where there is none to archive.

        The archive's register is the one that decides what a key is (P8), so it is told of every signing key before
        anything is issued: with the key that is archived, or alone.
        """
        if not request.wrapped_private_key:
            await self.archiver.reserve_signing_key(statement, request)
            return VerifiedReceipt()
        return await self.archiver.archive(statement, request)

    async def issue(
        self, statement: Statement, request: EnrollmentRequest, receipt: VerifiedReceipt
    ) -> CertificatePair:
        """Step 5: have both certificates issued."""
        return await self.issuer.issue(statement, request, receipt.file)

    async def deliver(
        self,
        statement: Statement,
        request: EnrollmentRequest,
        receipt: VerifiedReceipt,
        certificates: CertificatePair,
    ) -> Enrollment:
        """Step 6: record the outcome durably, and in the same transaction what the DRM is to be told."""
        now = self.clock.now_us()
        record = EnrollmentRecord(
            statement=statement.raw,
            signature=request.signature,
            state=EnrollmentState.ENROLLMENT_STATE_ISSUED,
            signing_certificate=certificates.signing_certificate,
            encryption_certificate=certificates.encryption_certificate,
            chain=certificates.chain,
            receipt=receipt.file,
            completed_time_us=now,
        )
        value = record.SerializeToString()
        event = enrollment_leaf(
            EventType.EVENT_TYPE_ENROLLMENT_COMPLETED,
            statement,
            approval=request.approval,
            time_us=record.completed_time_us,
            certificate_sha256=[
                sha256(certificate).digest()
                for certificate in (record.signing_certificate, record.encryption_certificate)
                if certificate
            ],
            receipt_leaf_hash=receipt.leaf_hash,
        )
        told = OutboxRecord(
            encryption_certificate=certificates.encryption_certificate, approval=request.approval
        ).SerializeToString()

        claim = KeyClaim(statement=statement, encryption_key=Possession.shown_by(receipt.file))

        def write(txn: WriteTransaction) -> None:
            claim_key_uses(txn, claim)
            if request.approval is None:
                count_enrollment(txn, str(statement.caller), now)
                txn.insert(ENROLLMENTS, statement.enrollment_id, value)
            else:  # it was counted when it was deferred
                complete(txn, statement.enrollment_id, record)
            if receipt.file:
                txn.put(OUTBOX, statement.enrollment_id, told)
            self.accepted_heads.record(txn)
            self.log.append(txn, event)

        await self.store.update(write)
        self.outbox.wake()
        return self.outcome(statement.enrollment_id)

    def outcome(self, enrollment_id: bytes) -> Enrollment:
        """Return the recorded outcome of an enrollment (32 bytes); raises NotFoundError."""
        return self.store.read(lambda txn: _outcome_of(txn, enrollment_id))

    async def drain(self) -> None:
        """Wait until every enrollment that was accepted has its outcome."""
        await self.under_way.drain()


def _outcome(run: asyncio.Task[Enrollment]) -> Enrollment | BaseException:
    return asyncio.CancelledError() if run.cancelled() else run.exception() or run.result()


def _outcome_of(txn: ReadTransaction, enrollment_id: bytes) -> Enrollment:
    if (record := read_enrollment(txn, enrollment_id)) is None:
        raise NotFoundError(
            "There is no outcome for this request id; send the request again, and it goes on."
        )
    return describe_stored(txn, enrollment_id, record)
