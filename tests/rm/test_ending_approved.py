"""What an officer approved ends: refused for good by CM or DRM, or by an officer as long as it is not issued."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from keyark.errors import KeyarkError, UnavailableError, Violation
from keyark.errors.enrollment import (
    AlreadyRenewedError,
    NotPendingError,
    RenewalOnHoldError,
    RenewalRefusedError,
)
from keyark.identity.revoked import NOBODY_REVOKED
from keyark.identity.spiffe import SpiffeId
from keyark.policy.engine import PolicyEngine
from keyark.rpc.errors import error_from_status, error_to_status
from keyark.statements.approvals import OfficerTrust
from keyark.statements.enrollment import RenewalSignatureError, parse_statement
from keyark.v1.audit_pb2 import AuditDetails, EventType
from keyark.v1.common_pb2 import CertificatePair
from keyark.v1.registration_pb2 import EnrollmentState
from keyark.x509.certificates import IssuerValidityError
from rm_service.enrollment.steps import VerifiedReceipt
from rm_service.officers.approvals import Act, Approvals
from rm_service.officers.duties import Duties
from rm_service.records import read_enrollment
from rm_service.reviews import wrapped_key
from tests.rm.test_fairness import ALICE, Rm, request
from tests.support.running.calls import signed_call

JO = SpiffeId("example.org", "officer/jo")
APPROVED = EnrollmentState.ENROLLMENT_STATE_APPROVED


class Office:
    """An RM with one request that is approved, and the CM's answer to it."""

    def __init__(self) -> None:
        self.rm = Rm()
        self.answer: KeyarkError | CertificatePair = UnavailableError("away")
        enrollments = self.rm.enrollments
        enrollments.issuer = enrollments.archiver = self
        self.approvals = Approvals(
            enrollments=enrollments,
            queue=enrollments.queue,
            duties=Duties(trust_domain="example.org", separated=False, agents=dict),
            trust=OfficerTrust(trust_domain="example.org", anchors=[], revoked=NOBODY_REVOKED),
            policy=PolicyEngine(subsystem="rm", rules={}),
            store=enrollments.store,
            clock=enrollments.clock,
        )
        self.gate, self.asked = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def archive(self, *_: Any) -> Any:
        self.asked.set()
        await self.gate.wait()
        if isinstance(self.answer, KeyarkError):
            raise error_from_status(error_to_status(self.answer))
        return VerifiedReceipt()

    async def issue(self, *_: Any) -> Any:
        return self.answer

    async def approve(self) -> bytes:
        """A request that waited and is approved; returns its id."""
        await self.rm.log.open(self.rm.enrollments.store)
        sent = request(ALICE)
        statement = parse_statement(sent.statement)
        await self.approvals.queue.defer(
            statement,
            signature=sent.signature,
            wrapped_key=b"wrapped",
            call=signed_call(sent.statement, path=ALICE.path),
            deferrals=[Violation(rule="by-hand", subsystem="rm", message="wait")],
        )

        def change(record: Any) -> None:
            record.state = APPROVED

        leaf = self.approvals.queue.leaf(
            EventType.EVENT_TYPE_ENROLLMENT_APPROVED, statement, AuditDetails(caller=str(JO))
        )
        await self.approvals.queue.change(statement.enrollment_id, change, leaf)
        return statement.enrollment_id

    def state(self, enrollment_id: bytes) -> tuple[str, bytes]:
        """Where it stands, and which wrapped key is left."""
        store = self.rm.enrollments.store
        record = store.read(lambda txn: read_enrollment(txn, enrollment_id))
        name = EnrollmentState.Name(record.state).removeprefix("ENROLLMENT_STATE_")
        return name, store.read(lambda txn: wrapped_key(txn, enrollment_id))


@pytest.mark.parametrize(
    "error", [RenewalRefusedError, AlreadyRenewedError, RenewalSignatureError, IssuerValidityError]
)
async def test_what_the_cm_refuses_for_good_ends_the_request_and_its_wrapped_key(
    error: type[KeyarkError],
) -> None:
    office = Office()
    wanted = await office.approve()
    office.answer = error("No.")
    await office.approvals.sweep()
    assert office.state(wanted) == ("REJECTED", b"")


@pytest.mark.parametrize("error", [UnavailableError, RenewalOnHoldError])
async def test_what_time_heals_waits_and_an_officer_can_end_it(error: type[KeyarkError]) -> None:
    office = Office()
    wanted = await office.approve()
    office.answer = error("Not now.")
    await office.approvals.sweep()
    assert office.state(wanted) == ("APPROVED", b"wrapped")
    await office.approvals.reject(Act(enrollment_id=wanted, officer=JO), "revoke it all")
    assert office.state(wanted) == ("REJECTED", b"")
    office.asked.clear()
    await office.approvals.sweep()
    assert not office.asked.is_set()


async def test_what_is_being_issued_is_issued_and_not_ended() -> None:
    office = Office()
    wanted = await office.approve()
    office.answer = CertificatePair(signing_certificate=b"signing", encryption_certificate=b"encryption")
    office.gate.clear()
    sweeping = asyncio.create_task(office.approvals.sweep())
    await office.asked.wait()
    ending = asyncio.create_task(
        office.approvals.cancel(Act(enrollment_id=wanted, officer=JO), "nobody needs it")
    )
    office.gate.set()
    with pytest.raises(NotPendingError, match="issued"):
        await ending
    await sweeping
    assert office.state(wanted) == ("ISSUED", b"")


async def test_an_end_that_came_first_stands() -> None:
    office = Office()
    wanted = await office.approve()
    office.answer = CertificatePair(signing_certificate=b"signing", encryption_certificate=b"encryption")
    store = office.rm.enrollments.store
    office.gate.clear()
    record = store.read(lambda txn: read_enrollment(txn, wanted))
    issuing = asyncio.create_task(office.rm.enrollments.carry_out(record))
    await office.asked.wait()

    def end(record: Any) -> None:
        record.state = EnrollmentState.ENROLLMENT_STATE_CANCELED

    statement = parse_statement(record.statement)
    leaf = office.approvals.queue.leaf(
        EventType.EVENT_TYPE_ENROLLMENT_CANCELED, statement, AuditDetails(caller=str(JO))
    )
    await office.approvals.queue.change(wanted, end, leaf)
    office.gate.set()
    with pytest.raises(NotPendingError, match="canceled"):
        await issuing
    assert office.state(wanted) == ("CANCELED", b"")
