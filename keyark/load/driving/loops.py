"""Closed and open loops: when calls begin, whatever it is that they do.

In a closed loop a slow answer delays the next call, and so hides how long callers would have waited. In an open loop
calls are due at times that were fixed before; each one's latency counts from then, waiting for anything included.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from keyark.errors import KeyarkError, Kind
from keyark.load.measuring.recording import Recorder
from keyark.load.planning.keys import KeysExhaustedError
from keyark.load.planning.plan import Closed, LoadPlan, Open, Ramp

MAX_OUTSTANDING: Final = 20_000
DRAIN_SECONDS: Final = 30.0
MAX_POINTS: Final = 900


class NotSentError(KeyarkError):
    """A call was due and the harness had no room for one more in flight."""

    reason = "NOT_SENT"
    kind = Kind.EXHAUSTED


class UnansweredError(KeyarkError):
    """A call of an open loop had no answer when the run ended."""

    reason = "UNANSWERED"
    kind = Kind.DEADLINE


class Operation(Protocol):
    """One kind of call. What ``prepare`` returns is sent once, and goes to ``check`` with its answer."""

    kind: str

    def prepare(self) -> Any:
        """Make the next request; raises KeysExhaustedError where there is nothing left to send."""

    async def send(self, request: Any) -> Any:
        """Send it; this is what is timed. Raises the typed error of the whole call."""

    def check(self, request: Any, answer: Any) -> list[KeyarkError]:
        """Look at the answer; returns an error for each item that failed or is wrong."""

    def size(self, request: Any) -> int:
        """Return how many items the request has."""


class Mix:
    """Picks what the next call is, by weight, the same way for the same seed."""

    def __init__(self, operations: list[tuple[Operation, float]], *, seed: int) -> None:
        self._operations = [operation for operation, _ in operations]
        self._weights = list(itertools.accumulate(weight for _, weight in operations))
        self._random = random.Random(seed)  # noqa: S311 — chooses calls, not keys

    def next(self) -> Operation:
        """Return the operation of the next call."""
        return self._random.choices(self._operations, cum_weights=self._weights)[0]


@dataclass(frozen=True)
class Window:
    """From when on calls are made, and between which times they are measured; seconds of the clock."""

    start: float
    measure: float
    end: float

    @property
    def step(self) -> float:
        """How far apart the points of a series are: a second, or more in a run of hours."""
        return max(1.0, math.ceil((self.end - self.measure) / MAX_POINTS))

    def holds(self, time: float) -> bool:
        """Whether what belongs to this time is measured."""
        return self.measure <= time < self.end


class Driver:
    """Makes calls and records them; ``pick`` says what the next one is."""

    def __init__(self, pick: Callable[[], Operation], recorder: Recorder, window: Window) -> None:
        self._pick, self._recorder, self._window = pick, recorder, window
        self._now = recorder.now
        self._outstanding: set[asyncio.Task[None]] = set()
        self.exhausted = False
        self.done: Counter[str] = Counter()
        """Items answered well by kind, whenever that was: what the CPU of the whole run was used for."""

    async def run(self, plan: LoadPlan, *, index: int) -> None:
        """Run this process's share of a plan; ``index`` is its number among the plan's processes."""
        if isinstance(plan.arrival, Closed):
            await self.closed_loop(share(plan.arrival.clients, index, plan.processes))
        else:
            await self.open_loop(due_times(plan.arrival, self._window, plan, index=index))

    async def closed_loop(self, clients: int) -> None:
        """Let each client send its next call when the last one was answered, until the window ends."""
        await self._sleep_until(self._window.start)
        await asyncio.gather(*(self._client() for _ in range(clients)))

    async def _client(self) -> None:
        while self._now() < self._window.end and (made := self._prepare()):
            await self._call(*made, None)

    async def open_loop(self, due: Iterator[float]) -> None:
        """Begin a call at each time that is due; then wait for the answers, but not for ever."""
        for time in due:
            made = self._prepare()  # before it is due: the harness's work is not the deployment's
            if made is None:
                break
            operation, request = made
            await self._sleep_until(time)
            if len(self._outstanding) >= MAX_OUTSTANDING:
                self._fail(operation, request, NotSentError("Too many calls were in flight."), at=time)
                continue
            self._recorder.began(due=time, at=self._now())
            task = asyncio.create_task(self._call(operation, request, time))
            self._outstanding.add(task)
            task.add_done_callback(self._outstanding.discard)
        if self._outstanding:
            await asyncio.wait(self._outstanding, timeout=DRAIN_SECONDS)
        for task in list(self._outstanding):
            task.cancel()
        await asyncio.gather(*self._outstanding, return_exceptions=True)

    def _prepare(self) -> tuple[Operation, Any] | None:
        """The next call, or None where keys have run out; then the run ends early, and says so."""
        operation = self._pick()
        try:
            return operation, operation.prepare()
        except KeysExhaustedError:
            self.exhausted = True
            return None

    async def _call(self, operation: Operation, request: Any, due: float | None) -> None:
        """Make one call; it is measured if it is due in the window, or ends in it where nothing is due."""
        since = self._now() if due is None else due
        try:
            answer = await operation.send(request)
        except KeyarkError as error:
            self._fail(operation, request, error, at=self._now() if due is None else due)
            return
        except asyncio.CancelledError:
            self._fail(operation, request, UnansweredError("The run ended before the answer came."), at=since)
            raise
        until = self._now()
        wrong = operation.check(request, answer)
        right = operation.size(request) - len(wrong)
        self.done[operation.kind] += right
        if self._window.holds(until if due is None else due):
            if right:
                self._recorder.answered(operation.kind, since=since, until=until, items=right)
            for failure in wrong:
                self._recorder.failed(operation.kind, failure)

    def _fail(self, operation: Operation, request: Any, error: KeyarkError, *, at: float) -> None:
        if self._window.holds(at):
            self._recorder.failed(operation.kind, error, items=operation.size(request))

    async def _sleep_until(self, time: float) -> None:
        await asyncio.sleep(max(0.0, time - self._now()))


def share(whole: int, index: int, parts: int) -> int:
    """Return one part of a number that is dealt out evenly."""
    return whole // parts + (index < whole % parts)


def due_times(arrival: Open | Ramp, window: Window, plan: LoadPlan, *, index: int) -> Iterator[float]:
    """Yield when this process's calls are due, in seconds of the window's clock."""
    chance = random.Random(f"{plan.seed}/{index}")  # noqa: S311 — arrivals, not keys
    if isinstance(arrival, Ramp):
        return _ramp(arrival, window, chance, parts=plan.processes)
    gap = plan.processes / arrival.rate
    if arrival.process == "constant":
        first = window.start + gap * index / plan.processes
        return itertools.takewhile(lambda t: t < window.end, (first + gap * i for i in itertools.count()))
    return _poisson(gap, window, chance)


def _poisson(gap: float, window: Window, chance: random.Random) -> Iterator[float]:
    time = window.start
    while (time := time + chance.expovariate(1 / gap)) < window.end:
        yield time


def _ramp(arrival: Ramp, window: Window, chance: random.Random, *, parts: int) -> Iterator[float]:
    """Thin the arrivals of the highest rate to the one of the moment."""
    highest, whole = max(arrival.start, arrival.end), window.end - window.start
    for time in _poisson(parts / highest, window, chance):
        rate = arrival.start + (arrival.end - arrival.start) * (time - window.start) / whole
        if chance.random() * highest < rate:
            yield time
