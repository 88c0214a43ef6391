"""Every kind of wrong answer is found, whether it is in the sample that is checked fully or not."""

from __future__ import annotations

import copy

import pytest
from google.rpc.status_pb2 import Status

from keyark.client.recovery.recipients import RecoveredKey
from keyark.errors import OverloadedError
from keyark.load.driving.known import Issued
from keyark.load.driving.recovering import KeyWanted, Recover
from keyark.load.measuring.checking import AnswerChecker
from keyark.rpc.errors import error_to_status
from keyark.statements.enrollment import parse_statement
from keyark.v1 import registration_pb2 as rm
from tests.support.running.deployment import Deployment
from tests.support.stories.enrolling import enrolling


@pytest.fixture
async def answers(deployment: Deployment):
    """Two enrollments with their right outcomes, and what makes a checker."""
    async with enrolling(deployment.home()) as enroller:
        requests = [enroller.request(), enroller.request(fields={"common_name": "Bob Example"})]
        outcomes = [rm.EnrollmentOutcome(enrollment=answer) for answer in await enroller.send(*requests)]
        statements = [parse_statement(request.statement) for request in requests]
        yield (
            statements,
            outcomes,
            lambda sample: AnswerChecker(deployment.home(), enroller.form, sample=sample, seed=1),
        )


@pytest.mark.parametrize("sample", [0.0, 1.0])
async def test_a_right_answer_is_right_and_any_other_is_not(answers, sample):
    statements, outcomes, make = answers
    checker = make(sample)
    assert [checker.failure(*pair) for pair in zip(statements, outcomes, strict=True)] == [None, None]
    assert checker.checked_fully == 2 * sample
    assert checker.failure(statements[0], outcomes[1])
    for name, wrong in wrong_answers(*outcomes):
        assert checker.failure(statements[0], wrong), name


def wrong_answers(right: rm.EnrollmentOutcome, other: rm.EnrollmentOutcome):
    """Yield answers that are wrong in one thing each."""

    def but(change) -> rm.EnrollmentOutcome:
        wrong = copy.deepcopy(right)
        change(wrong.enrollment)
        return wrong

    def swap(answer):
        pair = answer.certificates
        pair.signing_certificate, pair.encryption_certificate = (
            pair.encryption_certificate,
            pair.signing_certificate,
        )

    foreign = other.enrollment
    yield "swapped roles", but(swap)
    yield (
        "another's encryption certificate",
        but(
            lambda a: setattr(
                a.certificates, "encryption_certificate", foreign.certificates.encryption_certificate
            )
        ),
    )
    yield (
        "another's signing certificate",
        but(
            lambda a: setattr(a.certificates, "signing_certificate", foreign.certificates.signing_certificate)
        ),
    )
    yield "no certificate", but(lambda a: a.certificates.ClearField("encryption_certificate"))
    yield (
        "a changed certificate",
        but(
            lambda a: setattr(
                a.certificates, "signing_certificate", flipped(a.certificates.signing_certificate)
            )
        ),
    )
    yield "another's receipt", but(lambda a: setattr(a, "receipt", foreign.receipt))
    yield "a changed receipt", but(lambda a: setattr(a, "receipt", flipped(a.receipt)))
    yield "no receipt", but(lambda a: a.ClearField("receipt"))
    yield "no outcome yet", but(lambda a: setattr(a, "state", rm.ENROLLMENT_STATE_PENDING_APPROVAL))
    yield "nothing", rm.EnrollmentOutcome()


def flipped(data: bytes) -> bytes:
    """The same bytes but for the last letter or bit that counts."""
    at = len(data.rstrip()) - 3
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


async def test_an_error_is_counted_under_its_reason(answers):
    statements, _, make = answers
    overloaded = rm.EnrollmentOutcome(error=error_to_status(OverloadedError("full")))
    assert make(0.0).failure(statements[0], overloaded).reason == "OVERLOADED"
    assert make(0.0).failure(statements[0], rm.EnrollmentOutcome(error=Status(code=13)))


@pytest.mark.parametrize("key_ids", [[], [b"other"], [b"wanted", b"other"]])
def test_a_recovery_that_brings_other_keys_is_wrong(key_ids):
    recover = object.__new__(Recover)  # who asks does not matter here
    wanted = KeyWanted(Issued(b"", b""), b"wanted")

    def answer(ids):
        return [
            RecoveredKey(key_id=i, email="", private_key=b"", certificate=None, chain=(), archive_index=0)
            for i in ids
        ]

    assert recover.check(wanted, answer([b"wanted"])) == []
    assert [error.reason for error in recover.check(wanted, answer(key_ids))] == ["WRONG_ANSWER"]
