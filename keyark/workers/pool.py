"""The pool: items in, results out, worked in batches by processes that are replaced when they die or grow old.

Whichever worker is idle takes its share of what waits. A batch whose worker died is redone item by item; an item that
kills two workers is refused. A key opens in the worker only; the pool carries bytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from keyark.errors import KeyarkError, OverloadedError, UnavailableError
from keyark.errors.services import PoisonedItemError, WorkerDiedError, WorkerStartError
from keyark.workers.process import Worker

FATAL_DEATHS: Final = 2
RESTART_SECONDS: Final = 1.0
LEAST_SHARE: Final = 16
"""Items that a worker takes where they wait: to wake another one for fewer costs more than it saves."""

logger = logging.getLogger(__name__)


@dataclass
class PoolStats:
    """How work was shared and what went wrong."""

    batches: int = 0
    items: int = 0
    deaths: int = 0


class _Run:
    """What one caller waits for: a result or an error for each of its items."""

    def __init__(self, count: int) -> None:
        self._missing = count
        self._results: list[bytes | KeyarkError] = [b""] * count
        self.future: asyncio.Future[list[bytes | KeyarkError]] = asyncio.get_running_loop().create_future()

    def settle(self, position: int, result: bytes | KeyarkError) -> None:
        self._results[position] = result
        self._missing -= 1
        if not self._missing and not self.future.done():
            self.future.set_result(self._results)


@dataclass(eq=False, slots=True)
class _Item:
    data: bytes = field(repr=False)
    run: _Run
    position: int
    deaths: int = 0

    def settle(self, result: bytes | KeyarkError) -> None:
        self.run.settle(self.position, result)


class WorkerPool:
    """A number of worker processes behind one bounded queue; start it before use, close it after."""

    def __init__(
        self,
        factory: str,
        setup: bytes,
        *,
        workers: int,
        batch_seconds: float,
        max_batch: int,
        max_waiting: int,
        recycle_after: int,
    ) -> None:
        self.stats = PoolStats()
        self._factory, self._setup = factory, setup
        self._count, self._batch_seconds = workers, batch_seconds
        self._max_batch, self._max_waiting, self._recycle_after = max_batch, max_waiting, recycle_after
        self._waiting: OrderedDict[_Item, None] = OrderedDict()
        self._changed = asyncio.Condition()
        self._closing = False
        self._runners: list[asyncio.Task[None]] = []
        self._workers: dict[int, Worker] = {}
        self._replacing: dict[int, asyncio.Future[None]] = {}

    @property
    def worker_pids(self) -> list[int]:
        """The process ids of the workers, for measuring them."""
        return [worker.process.pid for worker in self._workers.values()]

    async def start(self) -> None:
        """Start all workers; raises WorkerStartError, and then none is left running."""
        starts = [asyncio.create_task(self._worker(slot)) for slot in range(self._count)]
        try:
            await asyncio.gather(*starts)
        except BaseException:  # one did not start, or nobody waits for it any more
            for start in starts:
                start.cancel()
            await asyncio.wait(starts)
            await self._stop_workers()
            raise
        self._runners = [asyncio.create_task(self._run(slot)) for slot in range(self._count)]

    async def run(self, items: Sequence[bytes]) -> list[bytes | KeyarkError]:
        """Work items and return one result each, in order: bytes, or the typed error of that item.

        Raises OverloadedError where the queue is full, and UnavailableError once the pool is closing.
        """
        if self._closing:
            raise UnavailableError("The service is stopping; try again later, or at another one.")
        if len(self._waiting) + len(items) > self._max_waiting:
            raise OverloadedError("Too much work is waiting; try again later.")
        if not items:
            return []
        run = _Run(len(items))
        taken = [_Item(data, run, position) for position, data in enumerate(items)]
        self._waiting.update((item, None) for item in taken)
        try:
            async with self._changed:
                self._changed.notify(self._count)
            return await run.future
        except asyncio.CancelledError:
            run.future.cancel()
            for item in taken:  # who gave up takes no place in the queue
                self._waiting.pop(item, None)
            raise

    async def reconfigure(self, setup: bytes) -> None:
        """Replace every worker by one with this set-up, each after the batch that it works; then return.

        Raises WorkerStartError where one did not start: its predecessor goes on, so call again.
        """
        self._setup = setup
        loop = asyncio.get_running_loop()
        self._replacing = {slot: loop.create_future() for slot in range(self._count)}
        waiting = list(self._replacing.values())
        async with self._changed:
            self._changed.notify_all()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def close(self) -> None:
        """Work what waits, then stop all workers."""
        self._closing = True
        async with self._changed:
            self._changed.notify_all()
        await asyncio.gather(*self._runners)
        await self._stop_workers()

    async def _stop_workers(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._workers.values()))
        self._workers = {}

    async def _run(self, slot: int) -> None:
        """Feed one slot's worker until the pool closes and nothing waits."""
        while True:
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self._waiting or self._closing or slot in self._replacing
                )
            if asked := self._replacing.pop(slot, None):
                await self._replace_for(asked, slot)
            batch = self._take()
            if batch:
                await self._work(slot, batch)
            elif self._closing and not self._waiting:
                return

    def _take(self) -> list[_Item]:
        """This worker's share of what waits; an item that already killed a worker goes alone."""
        share = min(self._max_batch, max(LEAST_SHARE, -(-len(self._waiting) // self._count)))
        batch: list[_Item] = []
        while self._waiting and len(batch) < share:
            if batch and next(iter(self._waiting)).deaths:
                break
            batch.append(self._waiting.popitem(last=False)[0])
            if batch[0].deaths:
                break
        return batch

    async def _work(self, slot: int, batch: list[_Item]) -> None:
        try:
            worker = await self._worker(slot)
            results = await worker.work([item.data for item in batch], seconds=self._batch_seconds)
        except WorkerDiedError:
            self.stats.deaths += 1
            self._workers.pop(slot, None)
            self._redo(batch)
            return
        except KeyarkError as error:
            for item in batch:
                item.settle(error)
            if isinstance(error, WorkerStartError):
                logger.error("a worker did not start again; the next attempt is in %.0f s", RESTART_SECONDS)  # noqa: TRY400
                await asyncio.sleep(RESTART_SECONDS)
            return
        self.stats.batches += 1
        self.stats.items += len(batch)
        for item, result in zip(batch, results, strict=True):
            item.settle(result)
        if worker.batches >= self._recycle_after:
            await self._replace(slot, worker)

    def _redo(self, batch: list[_Item]) -> None:
        """Put a dead worker's items back, one by one, and refuse the one that has now killed twice."""
        logger.error("a worker died over a batch of %d", len(batch))
        for item in reversed(batch):
            item.deaths += 1
            if item.run.future.done():
                continue
            if item.deaths >= FATAL_DEATHS:
                item.settle(
                    PoisonedItemError("The item crashed each worker that processed it, so it is refused.")
                )
            else:
                self._waiting[item] = None
                self._waiting.move_to_end(item, last=False)

    async def _worker(self, slot: int) -> Worker:
        if slot not in self._workers:
            self._workers[slot] = await Worker.start(self._factory, self._setup)
        return self._workers[slot]

    async def _replace_for(self, asked: asyncio.Future[None], slot: int) -> None:
        """Replace a worker because its set-up changed, and tell who asked."""
        old = self._workers.get(slot)
        try:
            self._workers[slot] = await Worker.start(self._factory, self._setup)
        except WorkerStartError as error:
            asked.set_exception(error)
            return
        if old is not None:
            await old.stop()
        asked.set_result(None)

    async def _replace(self, slot: int, old: Worker) -> None:
        """Start the replacement before the old one goes: memory cannot be wiped, only given back."""
        try:
            self._workers[slot] = await Worker.start(self._factory, self._setup)
        except WorkerStartError:
            logger.error("the replacement of a worker did not start; the old one continues")  # noqa: TRY400
            return
        await old.stop()
