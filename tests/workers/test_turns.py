"""P7: no caller's work keeps the loop from the others, and callers take turns however much one of them brings."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial

import pytest

from keyark.workers.turns import Turns


class Work:
    """Pieces that take a second each, by a clock of the test's own, and note who was served."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.done: list[str] = []
        self.turns = Turns(slice_seconds=4.0, clock=lambda: self.seconds)

    def pieces(self, caller: str, count: int) -> list[Callable[[], int]]:
        return [partial(self._piece, caller, number) for number in range(count)]

    def _piece(self, caller: str, number: int) -> int:
        self.seconds += 1.0
        self.done.append(caller)
        return number

    def start(self, caller: str, count: int) -> asyncio.Task[list[int]]:
        return asyncio.create_task(self.turns.run(caller, self.pieces(caller, count)))


async def test_one_item_is_served_long_before_256_of_another_caller() -> None:
    work = Work()
    many, one = work.start("eve", 256), work.start("alice", 1)
    assert await one == [0]
    assert work.done.count("eve") <= 8
    assert await many == list(range(256))


async def test_many_calls_of_a_caller_are_one_caller() -> None:
    work = Work()
    flood = [work.start("eve", 16) for _ in range(50)]
    await asyncio.sleep(0)
    before = len(work.done)
    one, other = work.start("alice", 1), work.start("bob", 1)
    await asyncio.gather(one, other)
    assert work.done.count("eve") - before <= 12
    await asyncio.gather(*flood)
    assert work.done.count("eve") == 800


async def test_between_slices_the_loop_does_what_else_is_ready() -> None:
    work, passes = Work(), []

    async def others() -> None:
        while len(work.done) < 64:
            passes.append(len(work.done))
            await asyncio.sleep(0)

    await asyncio.gather(work.start("eve", 64), others())
    assert all(later - earlier <= 4 for earlier, later in itertools.pairwise(passes))


async def test_a_caller_that_is_alone_waits_for_nobody() -> None:
    work = Work()
    coroutine = work.turns.run("alice", work.pieces("alice", 4))
    with pytest.raises(StopIteration) as done:  # it never awaits
        coroutine.send(None)
    assert done.value.value == [0, 1, 2, 3]


async def test_who_gives_up_loses_its_place_and_holds_up_nobody() -> None:
    work = Work()
    running = work.start("eve", 64)
    await asyncio.sleep(0)
    waiting = [work.start("mallory", 8) for _ in range(3)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    assert await work.start("alice", 1) == [0]
    await running
    assert work.done.count("mallory") <= 4


async def test_an_error_is_its_callers_own() -> None:
    work = Work()

    def fail() -> int:
        raise ValueError("no")

    failing = asyncio.create_task(work.turns.run("eve", [*work.pieces("eve", 5), fail]))
    assert await work.start("alice", 9) == list(range(9))
    with pytest.raises(ValueError, match="no"):
        await failing
