"""Turns on the event loop: work on what others sent is done in slices, and callers take turns.

Verifying 256 signatures takes a second for some keys, and nobody else would be served meanwhile. So each caller gets
one slice, then the next caller, and between two slices the loop does everything else that is ready.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

T = TypeVar("T")

SLICE_SECONDS: Final = 0.002


class Turns:
    """Whose slice is next on this loop; ``clock`` (seconds) tells when one is used up."""

    def __init__(
        self, *, slice_seconds: float = SLICE_SECONDS, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._slice_seconds, self._clock = slice_seconds, clock
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._used = 0.0  # seconds, in this pass of the loop
        self._scheduled = False

    async def run(self, lane: str, work: Iterable[Callable[[], T]]) -> list[T]:
        """Do each piece of work, in its order, in slices of this lane; returns the results.

        A lane is a caller, or a kind of work where one caller brings everything. A piece is plain,
        and is done whole however long it takes. What one raises ends the rest.
        """
        results: list[T] = []
        left = 0.0
        for piece in work:
            if left <= 0:
                left = await self._turn(lane)
            begun = self._clock()
            try:
                results.append(piece())
            finally:
                spent = self._clock() - begun
                left -= spent
                self._spend(spent)
        return results

    async def _turn(self, lane: str) -> float:
        """Return how many seconds the lane may use now; while nobody waits, what is left of this pass."""
        if not self._waiting and self._used < self._slice_seconds:
            return self._slice_seconds - self._used
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(lane, deque()).append(turn)
        self._spend(0.0)
        await turn
        return self._slice_seconds

    def _spend(self, seconds: float) -> None:
        self._used += seconds
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._next_pass)

    def _next_pass(self) -> None:
        """Give one slice to the lane that waits longest."""
        self._scheduled, self._used = False, 0.0
        while self._waiting:
            lane, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[lane] = turns
            if not turn.done():  # else who waited gave up
                turn.set_result(None)
                break
        if self._waiting:
            self._spend(0.0)
