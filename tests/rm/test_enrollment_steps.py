"""P9 in the RM alone: a request has one content and one outcome, and a receipt that came too late is got anew once."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from keyark.errors import KeyarkError, UnavailableError
from keyark.errors.services import CheckpointGapError, StaleCheckpointError
from keyark.keys.key_types import KeyType
from keyark.policy.engine import ACCEPT, Accept, PolicyEngine
from keyark.policy.requests import Archival, PolicyRequest, Receipt
from keyark.records.v1.rm_pb2 import OutboxRecord
from keyark.statements.enrollment import Statement, parse_statement, sign_statement
from keyark.transparency.transport_keys import TransportKeyRetiredError
from keyark.v1.audit_pb2 import AuditEvent, EventType
from keyark.v1.common_pb2 import ArchivalPolicy, CertificatePair, TransportCertificate
from keyark.v1.registration_pb2 import EnrollmentForm, EnrollmentState
from rm_service.enrollment.steps import VerifiedReceipt
from rm_service.records import OUTBOX, read_enrollment
from rm_service.requests import EnrollmentRequest
from tests.rm.test_ending_approved import Office
from tests.rm.test_fairness import ALICE, EVE, Rm, request
from tests.support.keys.pki import NOW, private_key, spki, statement_bytes

PAIR = CertificatePair(signing_certificate=b"signing", encryption_certificate=b"encryption", chain=[b"ca"])


class Downstream:
    """An archive that numbers its receipts, and a CM whose answers are given beforehand."""

    def __init__(self, *answers: KeyarkError | CertificatePair) -> None:
        self.answers = list(answers)
        self.receipts = 0
        self.shown: list[bytes] = []
        self.reserved = 0

    async def archive(self, statement: Statement, request: EnrollmentRequest) -> VerifiedReceipt:
        assert statement.raw == request.statement
        self.receipts += 1
        return VerifiedReceipt(file=b"%d" % self.receipts, leaf_hash=b"%032d" % self.receipts)

    async def reserve_signing_key(self, statement: Statement, request: EnrollmentRequest) -> None:
        assert statement.raw == request.statement
        self.reserved += 1

    async def issue(
        self, statement: Statement, request: EnrollmentRequest, receipt: bytes
    ) -> CertificatePair:
        assert statement.raw == request.statement
        self.shown.append(receipt)
        answer = self.answers.pop(0)
        if isinstance(answer, KeyarkError):
            raise answer
        return answer


async def rm_with(*answers: KeyarkError | CertificatePair) -> tuple[Rm, Downstream]:
    rm, downstream = Rm(), Downstream(*answers)
    rm.enrollments.archiver = rm.enrollments.issuer = downstream
    await rm.log.open(rm.enrollments.store)
    return rm, downstream


def wrapped(number: int = 0) -> EnrollmentRequest:
    return replace(request(ALICE, number), wrapped_private_key=b"wrapped")


def same_id(sent: EnrollmentRequest, number: int) -> EnrollmentRequest:
    """Another request under the same id."""
    raw = statement_bytes(
        caller=ALICE,
        request_id=parse_statement(sent.statement).request_id,
        signing_spki=spki(KeyType.EC_P256, 100 + 2 * number),
        encryption_spki=spki(KeyType.EC_P256, 101 + 2 * number),
    )
    return EnrollmentRequest(
        statement=raw,
        signature=sign_statement(raw, private_key(KeyType.EC_P256, 100 + 2 * number)),
        wrapped_private_key=b"wrapped",
    )


@pytest.mark.parametrize("stale", [StaleCheckpointError("late"), TransportKeyRetiredError("rotated")])
async def test_a_receipt_that_the_cm_no_longer_takes_is_got_anew(stale: KeyarkError) -> None:
    rm, downstream = await rm_with(stale, PAIR)
    (outcome,) = await rm.submit(ALICE, wrapped())
    assert outcome.state == EnrollmentState.ENROLLMENT_STATE_ISSUED
    assert downstream.shown == [b"1", b"2"]
    assert outcome.receipt == b"2", "the person gets the one that the pair was issued on"


@pytest.mark.parametrize(
    ("answers", "shown"),
    [
        ([StaleCheckpointError("late"), StaleCheckpointError("late again")], [b"1", b"2"]),
        ([CheckpointGapError("gap")], [b"1"]),
        ([UnavailableError("away")], [b"1"]),
    ],
)
async def test_what_a_second_receipt_does_not_heal_is_told(answers: Any, shown: list[bytes]) -> None:
    rm, downstream = await rm_with(*answers)
    (outcome,) = await rm.submit(ALICE, wrapped())
    assert outcome is answers[-1]
    assert downstream.shown == shown


async def test_an_issued_request_gets_its_first_outcome_again_and_its_id_stands_for_nothing_else() -> None:
    rm, downstream = await rm_with(PAIR)
    sent = wrapped()
    (first,) = await rm.submit(ALICE, sent)
    assert await rm.submit(ALICE, sent) == [first]
    assert downstream.shown == [b"1"]
    (other,) = await rm.submit(ALICE, same_id(sent, 1))
    assert isinstance(other, KeyarkError)
    assert other.reason == "REQUEST_ID_REUSED"


async def test_an_approved_request_is_not_carried_out_with_other_content() -> None:
    """What an officer approved is what the person signed then."""
    office = Office()
    wanted = await office.approve()
    record = office.rm.enrollments.store.read(lambda txn: read_enrollment(txn, wanted))
    sent = EnrollmentRequest(
        statement=record.statement, signature=record.signature, wrapped_private_key=b"wrapped"
    )
    (outcome,) = await office.rm.submit(ALICE, same_id(sent, 1))
    assert isinstance(outcome, KeyarkError)
    assert outcome.reason == "REQUEST_ID_REUSED"
    assert not office.asked.is_set()


async def test_nobody_sends_the_statement_of_another_client() -> None:
    rm, downstream = await rm_with(PAIR)
    (outcome,) = await rm.submit(EVE, wrapped())
    assert isinstance(outcome, KeyarkError)
    assert outcome.reason == "PERMISSION_DENIED"
    assert downstream.receipts == 0


async def test_the_outcome_its_leaf_and_what_the_archive_is_to_be_told_are_written_together() -> None:
    rm, _ = await rm_with(PAIR)
    sent = wrapped()
    (outcome,) = await rm.submit(ALICE, sent)
    assert (outcome.certificates.signing_certificate, outcome.certificates.encryption_certificate) == (
        b"signing",
        b"encryption",
    )
    wanted = parse_statement(sent.statement).enrollment_id
    told = OutboxRecord.FromString(rm.enrollments.store.read(lambda txn: txn.get(OUTBOX, wanted)))
    assert told.encryption_certificate == b"encryption"
    leaf = AuditEvent.FromString((await rm.log.entries(limit=9))[-1].event.leaf)
    assert leaf.type == EventType.EVENT_TYPE_ENROLLMENT_COMPLETED
    assert (leaf.enrollment_id, leaf.receipt_leaf_hash) == (wanted, b"%032d" % 1)
    assert leaf.time_us == outcome.completed_time_us == NOW * 1_000_000
    assert list(leaf.certificate_sha256) == [sha256(der).digest() for der in (b"signing", b"encryption")]
    assert list(outcome.certificates.chain) == [b"ca"]
    kept = rm.enrollments.store.read(lambda txn: read_enrollment(txn, wanted))
    assert (kept.statement, kept.signature) == (sent.statement, sent.signature)


class Form:
    """Every profile has this form."""

    def __init__(self, archival: ArchivalPolicy.ValueType) -> None:
        self.form = EnrollmentForm(
            archival=archival, transport_certificate=TransportCertificate(certificate=b"transport")
        )

    async def get(self, _: str) -> EnrollmentForm:
        return self.form


async def test_a_key_that_the_profile_wants_archived_is_asked_for_and_nothing_is_begun() -> None:
    rm, downstream = await rm_with(PAIR)
    rm.enrollments.forms = Form(ArchivalPolicy.ARCHIVAL_POLICY_REQUIRED)
    sent = request(ALICE)
    (asked,) = await rm.submit(ALICE, sent)
    assert asked.state == EnrollmentState.ENROLLMENT_STATE_AWAITING_PRIVATE_KEY
    assert asked.enrollment_id == parse_statement(sent.statement).enrollment_id
    assert asked.statement == sent.statement
    assert asked.transport_certificate.certificate == b"transport"
    assert (downstream.receipts, downstream.reserved, downstream.shown) == (0, 0, [])
    (outcome,) = await rm.submit(ALICE, replace(sent, wrapped_private_key=b"wrapped"))
    assert outcome.state == EnrollmentState.ENROLLMENT_STATE_ISSUED


async def test_a_key_that_the_profile_does_not_archive_is_not_taken() -> None:
    rm, downstream = await rm_with(PAIR)
    rm.enrollments.forms = Form(ArchivalPolicy.ARCHIVAL_POLICY_FORBIDDEN)
    (outcome,) = await rm.submit(ALICE, wrapped())
    assert outcome.reason == "ARCHIVAL_FORBIDDEN"
    assert (downstream.receipts, downstream.shown) == (0, [])


async def test_a_key_of_another_enrollment_is_refused_before_archive_and_cm_are_asked() -> None:
    rm, downstream = await rm_with(PAIR, PAIR)
    await rm.submit(ALICE, wrapped())
    (outcome,) = await rm.submit(ALICE, wrapped())
    assert outcome.reason == "PUBLIC_KEY_IN_USE"
    assert downstream.receipts == 1


class Watching:
    """A rule that accepts all, and keeps what it saw."""

    name = "watching"

    def __init__(self) -> None:
        self.seen: list[PolicyRequest] = []

    def applies(self, _: PolicyRequest) -> bool:
        return True

    def evaluate(self, request: PolicyRequest) -> Accept:
        self.seen.append(request)
        return ACCEPT


async def test_policy_sees_whether_a_key_came_along() -> None:
    rm, _ = await rm_with(PAIR, PAIR)
    rule = Watching()
    rm.enrollments.policy = PolicyEngine(subsystem="rm", rules={"submit": [rule]})
    await rm.submit(ALICE, wrapped(0))
    await rm.submit(ALICE, request(ALICE, 1))
    assert [one.archival for one in rule.seen] == [Archival.REQUESTED, Archival.ABSENT]
    assert {one.receipt for one in rule.seen} == {Receipt.ABSENT}


async def test_what_archives_nothing_has_its_signing_key_reserved_and_tells_the_archive_nothing() -> None:
    rm, downstream = await rm_with(PAIR)
    await rm.submit(ALICE, request(ALICE))
    assert (downstream.reserved, downstream.receipts, downstream.shown) == (1, 0, [b""])
    assert rm.enrollments.store.read(lambda txn: txn.count(OUTBOX)) == 0
