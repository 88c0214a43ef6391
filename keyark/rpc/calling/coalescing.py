"""Coalescing: what is in flight towards one downstream travels in as few calls as possible, without a timer.

One batch is outstanding; what arrives meanwhile is the next batch. A second is sent only when the first is full, since
two half-empty ones would share nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
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
    caller: str


class Coalescer(Generic[T, R]):
    """Collects items and sends them in batches; ``send`` returns a result or a typed error per item.

    A batch takes one item of each caller after the other, so that nobody's many items keep another's one waiting.
    """

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
        self._waiting: OrderedDict[str, OrderedDict[_Waiting[T, R], None]] = OrderedDict()
        self._count = 0
        self._outstanding: dict[asyncio.Task[None], bool] = {}  # and whether each batch is full
        self._scheduled = False
        self._closing = False

    async def submit(self, item: T, *, caller: str) -> R:
        """Return the item's result, or raise its typed error; ``caller`` is whose item it is.

        A waiter that is cancelled before its batch was sent takes its item along; after that the batch runs to
        its own deadline. Raises OverloadedError where too many wait.
        """
        if self._closing:
            raise UnavailableError("The service is stopping; try again later.")
        if self._count >= self._max_waiting:
            raise OverloadedError("Too many requests are waiting; try again later.")
        loop = asyncio.get_running_loop()
        entry: _Waiting[T, R] = _Waiting(item, self._weigh(item), loop.create_future(), caller)
        self._waiting.setdefault(caller, OrderedDict())[entry] = None
        self._count += 1
        if not self._scheduled:  # what else arrives in this turn of the loop comes along
            self._scheduled = True
            loop.call_soon(self._dispatch)
        try:
            return await entry.future
        except asyncio.CancelledError:
            self._remove(entry)  # who gave up takes no place in the queue
            raise

    def _remove(self, entry: _Waiting[T, R]) -> None:
        """Take an entry out of its caller's queue, where it still waits."""
        queue = self._waiting.get(entry.caller)
        if queue is None or entry not in queue:
            return
        del queue[entry]
        self._count -= 1
        if not queue:
            del self._waiting[entry.caller]

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
            not self._outstanding or (len(self._outstanding) == 1 and all(self._outstanding.values()))
        ):
            batch, full = self._take()
            if batch:
                # a context of its own: the batch is nobody's call, and nobody's identity or deadline applies
                task = asyncio.get_running_loop().create_task(self._run(batch), context=Context())
                self._outstanding[task] = full
                task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        del self._outstanding[task]
        self._dispatch()

    def _take(self) -> tuple[list[_Waiting[T, R]], bool]:
        """The next batch, and whether it is full by count or bytes."""
        batch: list[_Waiting[T, R]] = []
        weight = 0
        while self._waiting and len(batch) < self._max_items and weight < self._max_bytes:
            entry = next(iter(next(iter(self._waiting.values()))))
            if entry.future.done():  # cancelled in this very turn of the loop
                self._remove(entry)
                continue
            if batch and weight + entry.weight > self._max_bytes:
                return batch, True
            self._remove(entry)
            if entry.caller in self._waiting:
                self._waiting.move_to_end(entry.caller)
            weight += entry.weight
            batch.append(entry)
        return batch, len(batch) >= self._max_items or weight >= self._max_bytes

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
        except asyncio.CancelledError:  # else everybody would wait for ever
            _fail(batch, UnavailableError("The service is stopping; try again later."))
            raise
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
