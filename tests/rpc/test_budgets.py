"""P7: one caller's calls, bytes and unfinished messages leave room for others, and come back however a call ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from keyark.errors import DeadlineExceededError, KeyarkError, OverloadedError
from keyark.errors.services import UnreadMessageError
from keyark.identity.spiffe import SpiffeId
from keyark.meters import Meters
from keyark.rpc.calling.channels import call
from keyark.rpc.errors import MessageTooLargeError, error_from_call
from keyark.rpc.serving import guard
from keyark.rpc.serving.budgets import Readers, Share
from keyark.v1 import audit_pb2
from tests.support.running.rpc import Scripted, budgets, channel_to, identity, serving, stub

EVE, ALICE = (SpiffeId("example.org", f"client/{name}") for name in ("eve", "alice"))
METHOD = "/keyark.v1.AuditService/GetCheckpoint"
REQUEST = audit_pb2.GetCheckpointRequest()
LARGE = audit_pb2.GetCheckpointRequest.FromString(b"\x7a\x80\x80\xc0\x01" + bytes(3 << 20))
"""Three MiB in a field that nobody knows."""


class Held(Scripted):
    """Handles calls when its gate is open, and says of each that it came."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.came = asyncio.Event(), asyncio.Queue[None]()
        self.answer = self._hold

    async def _hold(self) -> bytes:
        self.came.put_nowait(None)
        await self.gate.wait()
        return b"done"


async def test_one_callers_bytes_leave_room_for_another() -> None:
    servicer = Held()
    async with (
        serving(servicer, budgets=budgets(megabytes=16)) as server,
        channel_to(server, identity("auditor/eve")) as hers,
        channel_to(server, identity("auditor/alice")) as others,
    ):
        first = asyncio.create_task(call(stub(hers).GetCheckpoint, LARGE, timeout=30))
        await servicer.came.get()
        with pytest.raises(OverloadedError) as refused:
            await call(stub(hers).GetCheckpoint, LARGE, timeout=30)
        assert refused.value.retry_after > 0
        second = asyncio.create_task(call(stub(others).GetCheckpoint, LARGE, timeout=30))
        await servicer.came.get()
        servicer.gate.set()
        await asyncio.gather(first, second)
        await call(stub(hers).GetCheckpoint, LARGE, timeout=30)


@pytest.mark.parametrize("end", ["cancel", "error"])
async def test_bytes_and_calls_are_given_back_however_a_call_ends(end: str) -> None:
    servicer = Held()
    async with (
        serving(servicer, budgets=budgets(calls=4, megabytes=16)) as server,
        channel_to(server, identity("auditor/eve")) as channel,
    ):
        held = asyncio.create_task(call(stub(channel).GetCheckpoint, LARGE, timeout=30))
        await servicer.came.get()
        with pytest.raises(OverloadedError):
            await call(stub(channel).GetCheckpoint, REQUEST, timeout=30)
        if end == "cancel":
            held.cancel()
            with pytest.raises(asyncio.CancelledError):
                await held
        servicer.answer = KeyError("no")
        servicer.gate.set()
        await asyncio.wait([held])
        for _ in range(3):
            with pytest.raises(KeyarkError) as failed:
                await until_there_is_room(stub(channel).GetCheckpoint)
            assert failed.value.reason == "INTERNAL_ERROR"


async def until_there_is_room(method) -> None:
    """Call until a call that was cancelled has ended at the server, too."""
    while True:
        try:
            await call(method, LARGE, timeout=30)
        except OverloadedError:
            continue
        return


async def test_messages_that_never_arrive_hold_up_nobody_else() -> None:
    async with (
        serving(Scripted(), budgets=budgets(readers=8)) as server,
        channel_to(server, identity("auditor/eve")) as hers,
        channel_to(server, identity("auditor/alice")) as others,
    ):
        stalled = [hers.stream_unary(METHOD)() for _ in range(20)]
        for one in stalled:
            await one.wait_for_connection()
        for _ in range(5):
            await call(stub(others).GetCheckpoint, REQUEST, timeout=30)
        for one in stalled[:3]:  # who ends a call gives its place to the next
            one.cancel()
        for one in stalled[3:]:
            await one.done_writing()
        for one in stalled[3:]:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await one
            assert isinstance(error_from_call(refused.value), UnreadMessageError)
        await call(stub(hers).GetCheckpoint, REQUEST, timeout=30)


async def test_a_message_that_takes_too_long_to_arrive_ends_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "READ_SECONDS", 0.01)
    meters = Meters(Path())
    async with (
        serving(Scripted(), meters=meters) as server,
        channel_to(server, identity("auditor/eve")) as channel,
    ):
        stalled = channel.stream_unary(METHOD)()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stalled
        assert isinstance(error_from_call(refused.value), DeadlineExceededError)
        assert meters.read()["unserved_calls"]["unread_message"] == 1


async def test_who_may_not_call_has_no_message_read() -> None:
    servicer = Scripted()
    async with serving(servicer) as server, channel_to(server, identity("client/eve")) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.stream_unary(METHOD)()  # there is none, and the answer comes all the same
    assert error_from_call(refused.value).reason == "PERMISSION_DENIED"


def test_a_share_is_a_quarter_and_all_of_them_the_whole() -> None:
    share = Share(8, what="things")
    with share.taking(EVE, 2):
        with pytest.raises(OverloadedError, match="eve"):
            share.taking(EVE, 1).__enter__()
        with (
            share.taking(ALICE, 2),
            share.taking(SpiffeId("example.org", "client/bob"), 2),
            share.taking(SpiffeId("example.org", "client/carol"), 2),
            pytest.raises(OverloadedError, match="The service"),
        ):
            share.taking(SpiffeId("example.org", "client/dave"), 1).__enter__()
    with share.taking(EVE, 2):
        pass


class Reading:
    """Readers, and tasks that read until they are told to end."""

    def __init__(self, total: int) -> None:
        self.readers, self.reading = Readers(total), list[str]()

    def start(self, name: str) -> tuple[asyncio.Task[None], asyncio.Event]:
        ended = asyncio.Event()
        return asyncio.create_task(self._read(name, ended)), ended

    async def _read(self, name: str, ended: asyncio.Event) -> None:
        async with self.readers.reading(SpiffeId("example.org", f"client/{name}")):
            self.reading.append(name)
            await ended.wait()


async def turn() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_callers_take_turns_to_have_messages_read() -> None:
    reading = Reading(4)  # one for each caller
    runs = [reading.start("eve") for _ in range(50)] + [reading.start(name) for name in "abc"]
    await turn()
    assert reading.reading == ["eve", "a", "b", "c"]
    late = reading.start("d")
    await turn()
    runs[0][1].set()
    await turn()
    assert reading.reading[4:] == ["eve"]  # her next was here before
    runs[1][1].set()
    await turn()
    assert reading.reading[5:] == ["d"], "all of hers do not come first"
    for _, ended in (*runs, late):
        ended.set()
    await asyncio.gather(*(task for task, _ in (*runs, late)))
    assert reading.reading.count("eve") == 50


async def test_who_gives_up_waiting_to_have_a_message_read_holds_no_place() -> None:
    reading = Reading(4)
    (first, ended), (unserved, _), (served, _) = (reading.start("eve") for _ in range(3))
    await turn()
    unserved.cancel()
    await turn()
    ended.set()
    await first
    await turn()
    served.cancel()
    await turn()
    place = reading.readers.reading(EVE)
    await place.__aenter__()
    overtaken, _ = reading.start("eve")
    await turn()
    await place.__aexit__(None, None, None)
    overtaken.cancel()  # in the very turn of the loop in which it was given the place
    await turn()
    last, ended = reading.start("eve")
    ended.set()
    await last
    assert reading.reading == ["eve"] * 3


async def test_a_message_that_is_too_large_is_a_refusal_that_is_recorded() -> None:
    servicer = Scripted()
    async with serving(servicer) as server, channel_to(server, identity("auditor/eve")) as channel:
        large = audit_pb2.GetCheckpointRequest.FromString(b"\x7a\x80\x80\x80\x04" + bytes(8 << 20))
        with pytest.raises(MessageTooLargeError):
            await call(stub(channel).GetCheckpoint, large, timeout=30)
        await call(stub(channel).GetCheckpoint, REQUEST, timeout=30)
    assert servicer.rejected == [("spiffe://example.org/auditor/eve", METHOD, "UNREAD_MESSAGE")]
