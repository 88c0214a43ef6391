"""What is idempotent is repeated while time may heal it, in time that tests control; nothing else is."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from google.protobuf.descriptor_pb2 import MethodOptions

import keyark.v1
from keyark.errors import (
    DeadlineExceededError,
    InvalidInputError,
    KeyarkError,
    OverloadedError,
    UnavailableError,
)
from keyark.errors.services import StoreFullError, WitnessQuotaError
from keyark.rpc.calling.channels import call
from keyark.rpc.calling.pinning import ServiceRevokedError
from keyark.rpc.calling.retries import NO_RETRIES, Retries, is_idempotent
from keyark.rpc.errors import InternalError, MessageTooLargeError
from keyark.rpc.reach import IdentityEndedError, NoConnectionError, ServiceCertificateError


class Time:
    def __init__(self) -> None:
        self.now, self.pauses = 100.0, []

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)

    def retries(self, seconds: float = 20.0, jitter: float = 0.0) -> Retries:
        return Retries(seconds=seconds, sleep=self.sleep, clock=lambda: self.now, jitter=lambda: jitter)


class Answers:
    """Gives the errors and answers of a list, one after another, the last for ever."""

    def __init__(self, *answers: object) -> None:
        self.answers, self.asked = answers, 0

    async def __call__(self) -> object:
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, KeyarkError):
            raise answer
        return answer


AWAY = UnavailableError("away")
FULL = OverloadedError("full")


async def test_what_is_away_for_a_while_answers_in_the_end():
    time, service = Time(), Answers(AWAY, DeadlineExceededError("slow"), NoConnectionError("nobody"), "here")
    assert await time.retries().call(service) == "here"
    assert time.pauses == [0.5, 1.0, 2.0]


async def test_pauses_are_shortened_at_random_by_half_at_most():
    time, service = Time(), Answers(AWAY, AWAY, "here")
    assert await time.retries(jitter=1.0).call(service) == "here"
    assert time.pauses == [0.25, 0.5]


async def test_no_attempt_begins_after_the_time_and_the_last_error_is_told():
    time, service = Time(), Answers(AWAY)
    with pytest.raises(UnavailableError):
        await time.retries().call(service)
    assert time.pauses == [0.5, 1.0, 2.0, 4.0, 8.0]  # the next would end after 20 seconds
    assert service.asked == 6


@pytest.mark.parametrize(("said", "waited"), [(5.0, 5.0), (0.0, 0.5), (60.0, None)])
async def test_the_pause_is_no_shorter_than_the_service_says(said: float, waited: float | None):
    """A service that says 0 makes nobody ask without a pause; one that says a minute is asked once."""
    time, error = Time(), OverloadedError("full")
    error.retry_after = said
    service = Answers(error, "here")
    if waited is None:
        with pytest.raises(OverloadedError):
            await time.retries().call(service)
    else:
        assert await time.retries().call(service) == "here"
    assert time.pauses == ([waited] if waited else [])


@pytest.mark.parametrize(
    "error",
    [
        InvalidInputError("wrong"),
        InternalError("broken"),
        MessageTooLargeError("large"),
        IdentityEndedError("ended"),
        ServiceCertificateError("another"),
        ServiceRevokedError("revoked"),
        WitnessQuotaError("next hour"),
    ],
    ids=lambda error: error.reason,
)
async def test_what_seconds_do_not_heal_is_told_at_once(error: KeyarkError):
    time, service = Time(), Answers(error, "here")
    with pytest.raises(type(error)):
        await time.retries().call(service)
    assert (service.asked, time.pauses) == (1, [])


async def test_an_error_that_is_final_is_told_at_once():
    time, final = Time(), UnavailableError("for good")
    final.is_final = True
    with pytest.raises(UnavailableError):
        await time.retries().call(Answers(final, "here"))


async def test_without_retries_there_is_one_attempt():
    service = Answers(AWAY, "here")
    with pytest.raises(UnavailableError):
        await NO_RETRIES.call(service)
    assert service.asked == 1


async def test_of_a_batch_only_the_items_that_failed_for_now_are_attempted_again():
    time, sent = Time(), []
    left = {"a": [], "b": [AWAY, FULL], "c": [InvalidInputError("wrong")], "d": [StoreFullError("full")]}

    async def attempt(items):
        sent.append("".join(items))
        if len(sent) == 3:
            raise AWAY  # the call as a whole
        return [left[item].pop(0) if left[item] else item.upper() for item in items]

    answers = await time.retries().items(attempt, list("abcd"))
    assert [getattr(a, "reason", a) for a in answers] == ["A", "B", "INVALID_INPUT", "D"]
    assert sent == ["abcd", "bd", "b", "b"]
    assert time.pauses == [5.0, 1.0, 2.0]  # StoreFullError says five seconds


async def test_items_that_stay_away_keep_their_error():
    time = Time()

    async def attempt(items):
        return [AWAY for _ in items]

    assert await time.retries(seconds=3.0).items(attempt, ["a"]) == [AWAY]
    assert time.pauses == [0.5, 1.0]


@pytest.mark.parametrize(("has_retries", "asked"), [(True, 2), (False, 1)])
async def test_a_call_is_repeated_where_its_channel_says_so(has_retries: bool, asked: int):
    time, service = Time(), Answers(AWAY, "here")

    async def method(request, *, timeout):
        return await service()

    if has_retries:
        method.retries = time.retries()
        assert await call(method, None, timeout=5) == "here"
    else:
        with pytest.raises(UnavailableError):
            await call(method, None, timeout=5)
    assert service.asked == asked


NOT_REPEATED = {
    "ApproveCeremony",
    "AssignEnrollment",
    "CancelEnrollment",
    "PublishCrls",
    "RejectCeremony",
    "RejectEnrollment",
    "ReleaseCertificates",
}


def test_the_protos_say_of_every_method_whether_it_may_be_repeated():
    found = {}
    for module in pkgutil.iter_modules(keyark.v1.__path__, "keyark.v1."):
        file = getattr(importlib.import_module(module.name), "DESCRIPTOR", None)
        for service in file.services_by_name.values() if file else ():
            found |= {method.name: method for method in service.methods}
    assert len(found) > 35
    for name, method in found.items():
        path = f"/{method.containing_service.full_name}/{name}"
        assert is_idempotent(path) == (name not in NOT_REPEATED), name
        reads = name.startswith(("Get", "List", "Inspect"))
        assert (method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS) == reads, name
    assert not is_idempotent("/grpc.health.v1.Health/Unknown")
