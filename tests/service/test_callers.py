"""Whose request it is, as CM and DRM take it from the RM: a signed call, or a profile that waives it (P5, P6)."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from keyark.clock import ManualClock
from keyark.errors import InvalidInputError, KeyarkError
from keyark.keys.key_types import KeyType
from keyark.service.checks.callers import AT_ONCE_SECONDS, CallerChecks, CallerSignature, named_calls
from keyark.statements.approvals import Edits, OfficerSigner
from keyark.statements.calls import SignedCall
from keyark.statements.enrollment import parse_statement
from keyark.transparency.rejections import Sender
from keyark.v1.ceremony_pb2 import SignedStatement
from tests.support.keys.pki import CALLER, NOW, identity_certificate, private_key, statement_bytes
from tests.support.running.calls import caller_checks, signed_call

DAY = 86_400
REQUIRED, WAIVED = CallerSignature.REQUIRED, CallerSignature.WAIVED


@dataclass(frozen=True)
class Sent:
    """What the RM hands along with a statement."""

    call: SignedCall | None = None
    approval: SignedStatement | None = None
    sender: Sender = field(default_factory=Sender)


@pytest.fixture(scope="module")
def statement():
    return parse_statement(statement_bytes())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW * 1_000_000)


@pytest.fixture
def checks(clock: ManualClock) -> CallerChecks:
    return caller_checks(clock)


def approval(statement, *, time: int = NOW) -> SignedStatement:
    key = private_key(KeyType.EC_P256, 906)
    signer = OfficerSigner(certificate=identity_certificate("officer/jo", key=key), private_key=key)
    return signer.approve(statement, Edits(), time=time)


def refusal(checks: CallerChecks, statement, sent: Sent, rule: CallerSignature = REQUIRED) -> str:
    with pytest.raises(KeyarkError) as caught:
        checks.check(statement, sent, rule=rule)
    return caught.value.reason


def test_a_profile_waives_that_there_is_a_call_and_not_that_it_is_good(checks, statement) -> None:
    assert refusal(checks, statement, Sent()) == "CALLER_SIGNATURE_REQUIRED"
    checks.check(statement, Sent(), rule=WAIVED)
    other = Sent(signed_call(b"another statement"))
    assert refusal(checks, statement, other, WAIVED) == "CALL_MISMATCH"


def test_without_an_officer_a_call_counts_for_minutes(checks, clock, statement) -> None:
    sent = Sent(signed_call(statement.raw))
    clock.advance(AT_ONCE_SECONDS)
    checks.check(statement, sent, rule=REQUIRED)
    clock.advance(1)
    assert refusal(checks, statement, sent) == "CALL_TIME"


def test_with_an_officers_approval_of_this_statement_it_counts_for_days(checks, clock, statement) -> None:
    call = signed_call(statement.raw)
    other = parse_statement(statement_bytes(common_name="Another Name"))
    clock.advance(13 * DAY)
    now = NOW + 13 * DAY
    checks.check(statement, Sent(call, approval(statement, time=now)), rule=REQUIRED)
    early = approval(statement, time=now + DAY)
    for bad, reason in ((approval(other, time=now), "APPROVAL_MISMATCH"), (early, "APPROVAL_TIME")):
        assert refusal(checks, statement, Sent(call, bad)) == reason
    clock.advance(2 * DAY)
    late = approval(statement, time=now + DAY)
    assert refusal(checks, statement, Sent(call, late)) == "CALL_TIME"


def test_a_refusal_is_the_clients_only_where_its_call_proves_that_at_that_time(
    checks, clock, statement
) -> None:
    """Else an RM could use up what is logged of another's refusals, or lay its own replays at another's door."""
    sent = Sent(signed_call(statement.raw))
    checks.check(statement, sent, rule=REQUIRED)
    assert sent.sender.proven == str(CALLER)
    accomplice = signed_call(statement.raw, path="client/accomplice")
    for call in (signed_call(b"another statement"), accomplice, SignedCall(b"", b"", b"")):
        sent = Sent(call)
        refusal(checks, statement, sent)
        assert sent.sender.proven == ""
    clock.advance(AT_ONCE_SECONDS + 1)
    replayed = Sent(signed_call(statement.raw))
    assert refusal(checks, statement, replayed) == "CALL_TIME"
    assert replayed.sender.proven == ""
    waived = Sent()
    checks.check(statement, waived, rule=WAIVED)
    assert waived.sender.proven == ""


def test_items_name_calls_that_came_along(statement) -> None:
    calls = [signed_call(statement.raw), signed_call(b"another")]
    messages = [call.message for call in calls]
    assert named_calls(messages, [2, 0, 1, 2]) == [calls[1], None, calls[0], calls[1]]
    for sent, places in ((messages, [3, 1]), ([], [1]), (messages, [1])):
        with pytest.raises(InvalidInputError):
            named_calls(sent, places)
