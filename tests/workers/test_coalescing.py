"""Coalescing: one batch outstanding, a second only behind a full one, no timer, nobody hurt by another's item."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from keyark.errors import DeadlineExceededError, KeyarkError, NotFoundError, OverloadedError, UnavailableError
from keyark.rpc.calling.coalescing import Coalescer


class Downstream:
    """Records batches, and answers when its gate is open."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()

    async def send(self, items):
        self.batches.append(list(items))
        await self.gate.wait()
        return [NotFoundError(f"no {item}") if item < 0 else item * 10 for item in items]


def coalescer(downstream: Downstream, **options) -> Coalescer[int, int]:
    settings = {"weigh": lambda _: 1, "max_waiting": 100, "batch_seconds": 30.0, "max_items": 4, **options}
    return Coalescer(downstream.send, **settings)


async def turn() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_arrives_meanwhile_is_the_next_batch() -> None:
    downstream = Downstream()
    batches = coalescer(downstream)
    first = asyncio.create_task(batches.submit(1, caller="alice"))
    await turn()
    others = [asyncio.create_task(batches.submit(i, caller="alice")) for i in (2, 3, 4)]
    await turn()
    assert downstream.batches == [[1]]
    downstream.gate.set()
    assert await first == 10
    assert await asyncio.gather(*others) == [20, 30, 40]
    assert downstream.batches == [[1], [2, 3, 4]]
    assert (batches.stats.batches, batches.stats.items) == (2, 4)


async def test_a_second_batch_goes_out_behind_a_full_one_and_no_third() -> None:
    downstream = Downstream()
    batches = coalescer(downstream)
    tasks = [asyncio.create_task(batches.submit(i, caller="alice")) for i in range(20)]
    await turn()
    assert downstream.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]
    downstream.gate.set()
    assert await asyncio.gather(*tasks) == [i * 10 for i in range(20)]


async def test_bytes_fill_a_batch_too() -> None:
    downstream = Downstream()
    batches = coalescer(downstream, weigh=lambda item: item, max_bytes=10, max_items=99)
    tasks = [asyncio.create_task(batches.submit(i, caller="alice")) for i in (6, 3, 5, 50, 1)]
    await turn()
    downstream.gate.set()
    await asyncio.gather(*tasks)
    assert downstream.batches == [[6, 3], [5], [50], [1]]


async def test_one_items_error_is_its_own() -> None:
    downstream = Downstream()
    downstream.gate.set()
    batches = coalescer(downstream)
    outcomes = await asyncio.gather(
        *(batches.submit(i, caller="alice") for i in (1, -1, 2)), return_exceptions=True
    )
    assert outcomes[0] == 10
    assert isinstance(outcomes[1], NotFoundError)
    assert outcomes[2] == 20


async def test_a_call_that_fails_fails_all_its_items_and_the_next_goes_on() -> None:
    calls = []

    async def send(items):
        calls.append(items)
        if len(calls) == 1:
            raise UnavailableError("away")
        return items

    batches: Coalescer[int, int] = Coalescer(send, weigh=lambda _: 1, max_waiting=9, batch_seconds=1)
    outcomes = await asyncio.gather(
        batches.submit(1, caller="alice"), batches.submit(2, caller="alice"), return_exceptions=True
    )
    assert [type(o) for o in outcomes] == [UnavailableError, UnavailableError]
    assert await batches.submit(3, caller="alice") == 3


async def test_a_waiter_that_is_cancelled_takes_its_item_along_unless_it_was_sent() -> None:
    downstream = Downstream()
    batches = coalescer(downstream)
    sent = asyncio.create_task(batches.submit(1, caller="alice"))
    await turn()
    waiting, staying = (asyncio.create_task(batches.submit(i, caller="alice")) for i in (2, 3))
    await turn()
    sent.cancel()
    waiting.cancel()
    downstream.gate.set()
    assert await staying == 30
    assert downstream.batches == [[1], [3]]


async def test_too_many_waiting_are_refused() -> None:
    downstream = Downstream()
    batches = coalescer(downstream, max_waiting=2)
    first = asyncio.create_task(batches.submit(0, caller="alice"))
    await turn()
    waiting = [asyncio.create_task(batches.submit(i, caller="alice")) for i in (1, 2)]
    await turn()
    with pytest.raises(OverloadedError):
        await batches.submit(3, caller="alice")
    downstream.gate.set()
    await asyncio.gather(first, *waiting)


async def test_a_batch_has_a_deadline_of_its_own() -> None:
    batches = coalescer(Downstream(), batch_seconds=0.01)
    with pytest.raises(DeadlineExceededError):
        await batches.submit(1, caller="alice")


async def test_closing_sends_what_waits_and_takes_no_more() -> None:
    downstream = Downstream()
    batches = coalescer(downstream)
    tasks = [asyncio.create_task(batches.submit(i, caller="alice")) for i in range(10)]
    await turn()
    closing = asyncio.create_task(batches.close())
    await turn()
    downstream.gate.set()
    await closing
    assert await asyncio.gather(*tasks) == [i * 10 for i in range(10)]
    with pytest.raises(UnavailableError):
        await batches.submit(1, caller="alice")


async def test_too_few_results_fail_every_item() -> None:
    async def send(items):
        return items[1:]

    batches: Coalescer[int, int] = Coalescer(send, weigh=lambda _: 1, max_waiting=9, batch_seconds=1)
    outcomes = await asyncio.gather(
        batches.submit(1, caller="alice"), batches.submit(2, caller="alice"), return_exceptions=True
    )
    assert all(isinstance(outcome, KeyarkError) for outcome in outcomes)


async def test_a_batch_that_is_exactly_full_is_full() -> None:
    downstream = Downstream()
    batches = coalescer(downstream)
    first = [asyncio.create_task(batches.submit(i, caller="alice")) for i in range(4)]
    await turn()
    second = asyncio.create_task(batches.submit(4, caller="alice"))
    await turn()
    assert downstream.batches == [[0, 1, 2, 3], [4]]
    downstream.gate.set()
    await asyncio.gather(*first, second)


async def test_a_second_goes_out_again_while_the_full_one_is_outstanding() -> None:
    gates: list[asyncio.Event] = []

    async def send(items):
        gates.append(asyncio.Event())
        await gates[-1].wait()
        return items

    batches: Coalescer[int, int] = Coalescer(
        send, weigh=lambda _: 1, max_waiting=9, batch_seconds=30, max_items=2
    )
    tasks = [
        asyncio.create_task(batches.submit(i, caller="alice")) for i in range(3)
    ]  # [0, 1] is full, [2] behind it is not
    await turn()
    gates[1].set()
    assert await tasks[2] == 2
    tasks.append(asyncio.create_task(batches.submit(3, caller="alice")))
    await turn()
    assert len(gates) == 3
    for gate in gates:
        gate.set()
    assert await asyncio.gather(*tasks) == [0, 1, 2, 3]


async def test_who_gave_up_takes_no_place_in_the_queue() -> None:
    downstream = Downstream()
    batches = coalescer(downstream, max_waiting=2)
    first = asyncio.create_task(batches.submit(0, caller="alice"))
    await turn()
    gone = [asyncio.create_task(batches.submit(i, caller="alice")) for i in (1, 2)]
    await turn()
    for task in gone:
        task.cancel()
    await turn()
    staying = asyncio.create_task(batches.submit(3, caller="alice"))
    await turn()
    downstream.gate.set()
    assert await asyncio.gather(first, staying) == [0, 30]
    assert downstream.batches == [[0], [3]]


async def test_a_call_that_is_cancelled_leaves_nobody_waiting() -> None:
    async def send(items):
        raise asyncio.CancelledError

    batches: Coalescer[int, int] = Coalescer(send, weigh=lambda _: 1, max_waiting=9, batch_seconds=30)
    with pytest.raises(UnavailableError):
        await batches.submit(1, caller="alice")


async def test_a_batch_carries_nothing_of_the_call_that_began_it() -> None:
    caller: ContextVar[str] = ContextVar("caller")
    seen = []

    async def send(items):
        seen.append(caller.get("nobody"))
        return items

    batches: Coalescer[int, int] = Coalescer(send, weigh=lambda _: 1, max_waiting=9, batch_seconds=30)

    async def submit(name: str) -> int:
        caller.set(name)
        return await batches.submit(1, caller="alice")

    await asyncio.gather(submit("alice"), submit("bob"))
    assert seen == ["nobody"]


async def test_one_item_travels_in_the_next_batch_whatever_another_caller_has_waiting() -> None:
    downstream = Downstream()
    batches = coalescer(downstream)
    flood = [asyncio.create_task(batches.submit(i, caller="eve")) for i in range(50)]
    await turn()
    others = [asyncio.create_task(batches.submit(100 + i, caller=f"client {i}")) for i in range(2)]
    await turn()
    downstream.gate.set()
    assert await asyncio.gather(*others) == [1000, 1010]
    assert {100, 101} <= set(downstream.batches[2])
    assert await asyncio.gather(*flood) == [i * 10 for i in range(50)]
    assert [item for batch in downstream.batches for item in batch if item < 100] == list(range(50))
