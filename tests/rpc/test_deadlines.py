"""A call's time is bounded, and what is left of it, less a margin, bounds the calls that handling it takes."""

from __future__ import annotations

import asyncio

import pytest

from keyark.errors import DeadlineExceededError
from keyark.rpc import deadlines
from keyark.rpc.calling.channels import call
from keyark.v1 import audit_pb2
from tests.support.running.rpc import Scripted, channel_to, identity, serving, stub

REQUEST = audit_pb2.GetCheckpointRequest()
AUDITOR = "auditor/auditor"


async def time_of_a_handler(timeout: float | None) -> float:
    """What a handler may spend downstream, where its caller allows ``timeout``."""
    got = []

    async def answer() -> bytes:
        got.append(deadlines.downstream_seconds(10_000))
        return b""

    async with serving(Scripted(answer)) as server, channel_to(server, identity(AUDITOR)) as channel:
        await call(stub(channel).GetCheckpoint, REQUEST, timeout=timeout)  # type: ignore[arg-type]
    return got[0]


@pytest.mark.parametrize(
    ("timeout", "most"),
    [(5, 5), (10_000, deadlines.LONGEST_SECONDS)],
)
async def test_a_handler_passes_on_what_its_caller_left_it(timeout: float, most: float) -> None:
    assert 0 < await time_of_a_handler(timeout) <= most - deadlines.MARGIN_SECONDS


async def test_a_caller_without_a_deadline_gets_the_default() -> None:
    got = []

    async def answer() -> bytes:
        got.append(deadlines.downstream_seconds(10_000))
        return b""

    async with serving(Scripted(answer)) as server, channel_to(server, identity(AUDITOR)) as channel:
        await stub(channel).GetCheckpoint(REQUEST)
    assert 0 < got[0] <= deadlines.DEFAULT_SECONDS


async def test_too_little_time_is_refused_before_the_handler_runs() -> None:
    called = []

    async def answer() -> bytes:
        called.append(1)
        return b""

    async with serving(Scripted(answer)) as server, channel_to(server, identity(AUDITOR)) as channel:
        await call(stub(channel).GetConsistencyProof, audit_pb2.GetConsistencyProofRequest(), timeout=10)
        with pytest.raises(DeadlineExceededError):
            await call(stub(channel).GetCheckpoint, REQUEST, timeout=deadlines.MARGIN_SECONDS / 2)
    assert called == []


@pytest.mark.parametrize("remaining", [0.0, -1.0, deadlines.MARGIN_SECONDS])
def test_no_time_is_no_time(remaining: float) -> None:
    with pytest.raises(DeadlineExceededError):
        deadlines.handling_seconds(remaining)


async def test_outside_a_call_everything_that_is_wanted_is_given() -> None:
    assert deadlines.downstream_seconds(7) == 7


async def test_within_a_call_less_is_given_and_nothing_when_nothing_is_left() -> None:
    async def handle() -> None:
        deadlines.begin(5)
        assert deadlines.downstream_seconds(3) == 3
        assert deadlines.downstream_seconds(30) < 5
        deadlines.begin(0)
        with pytest.raises(DeadlineExceededError):
            deadlines.downstream_seconds(3)

    await asyncio.create_task(handle())


async def test_a_task_that_outlives_the_call_keeps_its_own_time() -> None:
    async def own() -> float:
        return deadlines.downstream_seconds(60)

    async def handle() -> float:
        deadlines.begin(0)
        return await asyncio.create_task(own())

    assert await asyncio.create_task(handle()) == 60


async def test_a_call_that_has_no_time_left_is_not_made() -> None:
    calls = []

    async def answer() -> bytes:
        calls.append(1)
        return b""

    async with serving(Scripted(answer)) as server, channel_to(server, identity(AUDITOR)) as channel:

        async def handle() -> None:
            deadlines.begin(0)
            await call(stub(channel).GetCheckpoint, REQUEST, timeout=30)

        with pytest.raises(DeadlineExceededError):
            await asyncio.create_task(handle())
    assert calls == []
