"""Coalescing: what is in flight towards one downstream travels in as few calls as possible, without a timer.

One batch is outstanding; what arrives meanwhile is the next batch. A second is sent only when the first is full, since
two half-empty ones would share nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from keyark.errors import DeadlineExceededError, KeyarkError, OverloadedError, UnavailableError

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class CoalescerStats:
    """How many items shared how many calls."""

    batches: int = 0
    items: int = 0


@dataclass(eq=False)
class _Waiting(Generic[T, R]):
    item: T
    weight: int
    future: asyncio.Future[R]


class Coalescer(Generic[T, R]):
    """Collects items and sends them in batches; ``send`` returns a result or a typed error per item."""

    def __init__(
        self,
        send: Callable[[Sequence[T]], Awaitable[Sequence[R | KeyarkError]]],
        *,
        weigh: Callable[[T], int],
        max_waiting: int,
        batch_seconds: float,
        max_items: int = 256,
        max_bytes: int = 1 << 20,
    ) -> None:
        self.stats = CoalescerStats()
        self._send, self._weigh = send, weigh
        self._max_waiting, self._batch_seconds = max_waiting, batch_seconds
        self._max_items, self._max_bytes = max_items, max_bytes
        self._waiting: deque[_Waiting[T, R]] = deque()
        self._outstanding: set[asyncio.Task[None]] = set()
        self._last_was_full = False
        self._scheduled = False
        self._closing = False

    async def submit(self, item: T) -> R:
        """Return the item's result, or raise its typed error.

        A waiter that is cancelled before its batch was sent takes its item along; after that the batch runs to
        its own deadline. Raises OverloadedError where too many wait.
        """
        if self._closing:
            raise UnavailableError("The service is stopping; try again later.")
        if len(self._waiting) >= self._max_waiting:
            raise OverloadedError("Too many requests are waiting; try again later.")
        entry: _Waiting[T, R] = _Waiting(item, self._weigh(item), asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        if not self._scheduled:  # what else arrives in this turn of the loop comes along
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._dispatch)
        return await entry.future

    async def close(self) -> None:
        """Send what waits, wait for every batch, and take no more."""
        self._closing = True
        while self._waiting or self._outstanding:
            self._dispatch()
            if self._outstanding:
                await asyncio.wait(self._outstanding)

    def _dispatch(self) -> None:
        self._scheduled = False
        while self._waiting and (
            not self._outstanding or (len(self._outstanding) == 1 and self._last_was_full)
        ):
            batch = self._take()
            if batch:
                task = asyncio.create_task(self._run(batch))
                self._outstanding.add(task)
                task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._outstanding.discard(task)
        self._dispatch()

    def _take(self) -> list[_Waiting[T, R]]:
        batch: list[_Waiting[T, R]] = []
        weight = 0
        self._last_was_full = False
        while self._waiting:
            entry = self._waiting[0]
            if entry.future.done():
                self._waiting.popleft()
                continue
            if batch and (len(batch) >= self._max_items or weight + entry.weight > self._max_bytes):
                self._last_was_full = True
                break
            weight += entry.weight
            batch.append(self._waiting.popleft())
        return batch

    async def _run(self, batch: Sequence[_Waiting[T, R]]) -> None:
        self.stats.batches += 1
        self.stats.items += len(batch)
        try:
            async with asyncio.timeout(self._batch_seconds):
                results = await self._send([entry.item for entry in batch])
            if len(results) != len(batch):
                raise UnavailableError("A downstream service answered another number of outcomes; try again.")
        except TimeoutError:
            _fail(batch, DeadlineExceededError("A downstream service did not answer in time; try again."))
        except Exception as error:
            _fail(batch, error)
        else:
            for entry, result in zip(batch, results, strict=True):
                _settle(entry.future, result)


def _fail(batch: Sequence[_Waiting[T, R]], error: Exception) -> None:
    for entry in batch:
        _settle(entry.future, error)


def _settle(future: asyncio.Future[R], result: R | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
