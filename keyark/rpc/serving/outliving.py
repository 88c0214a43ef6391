"""Work that goes on although the call that asked for it has ended.

A caller may hang up, or allow a short time, at whatever moment suits it. What its call brought about, refusals among
it, is recorded all the same: the call waits for the work and does not carry it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Outliving:
    """The tasks of one server that outlive their calls."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Begin some work, wait for its end and return what it returns; cancelling the wait does not cancel it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        await asyncio.wait([task])
        return task.result()

    async def finish(self, seconds: float) -> None:
        """Let what is under way end within this time, and cancel the rest."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved here: the call may have ended before
