"""Runs a plan: client processes that begin together, and what was seen meanwhile.

result = await run_load(plan, keys=KeyCache(folder), say=print)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.hashes import SHA256
from hdrh.histogram import HdrHistogram

from keyark.client.access.home import Home
from keyark.errors import KeyarkError
from keyark.load.driving.loops import DRAIN_SECONDS, Window
from keyark.load.driving.observing import Observer, Sample
from keyark.load.measuring.processes import Service, find_services
from keyark.load.measuring.recording import Interval, Tally, add_interval, new_histogram
from keyark.load.planning.assignment import Assignment
from keyark.load.planning.keys import KeyCache, KeyRange
from keyark.load.planning.plan import LoadPlan, needed_items
from keyark.programs import python_command

START_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 0.3
"""What services do after the last answer, such as linking certificates to keys, belongs to the run."""
READY_SECONDS: Final = 120.0
STOP_SECONDS: Final = 60.0
LINE: Final = 1 << 24


class LoadClientError(KeyarkError):
    """A client process of the harness failed; nothing of the run counts."""

    reason = "LOAD_CLIENT"


@dataclass(frozen=True)
class Moment:
    """One second of one client process: when it ended, and what it recorded, packed: a soak has many of them."""

    at: float
    packed: dict[str, Any]

    def interval(self) -> Interval:
        """Return what was recorded."""
        return {kind: Tally.from_json(value) for kind, value in self.packed.items()}


@dataclass(kw_only=True)
class LoadResult:
    """A run and all that it measured; ``keyark.load.reporting.summary`` makes figures of it.

    ``totals``, ``moments`` and ``samples`` are of the measurement. ``ends`` are two looks, before the first call and
    after the last answer; ``done`` (items by kind) and ``client_cpu`` (seconds) are what lies between them, so that
    nothing that is in flight at the edges of the measurement distorts what an item costs.
    """

    plan: LoadPlan
    window: Window
    services: dict[str, Service]
    totals: Interval = field(default_factory=dict)
    moments: list[Moment] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    ends: list[Sample] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    client_cpu: float = 0.0
    late: HdrHistogram = field(default_factory=new_histogram)
    exhausted: bool = False
    checked_fully: int = 0

    def add_moment(self, line: dict[str, Any]) -> Moment:
        """Take a line that a client process wrote."""
        moment = Moment(line["at"], line["interval"])
        self.moments.append(moment)
        add_interval(self.totals, moment.interval())
        return moment

    def add_summary(self, line: dict[str, Any]) -> None:
        """Take the last line of a client process."""
        self.exhausted |= line["exhausted"]
        self.checked_fully += line["checked_fully"]
        self.done.update(line["done"])
        self.client_cpu += line["cpu"]
        if line["late"]:
            self.late.add(HdrHistogram.decode(line["late"].encode()))


OnMoment = Callable[[Moment, LoadResult], None]


async def run_load(
    plan: LoadPlan,
    *,
    keys: KeyCache,
    say: Callable[[str], None] = lambda _: None,
    on_moment: OnMoment = lambda _, __: None,
) -> LoadResult:
    """Run a plan against the deployment of its home, which runs already.

    ``say`` gets a line per step, ``on_moment`` every second of every client process. Raises LoadClientError where one
    fails, and ConfigurationError and NoConnectionError through it.
    """
    home = Home.load(plan.home)
    assignments = assign(plan, keys, deployment=home.ca_chain[0].fingerprint(SHA256()).hex())
    services = find_services(plan.home)
    say(f"starting {plan.processes} client process{'es' if plan.processes > 1 else ''}")
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(_client(assignment)) for assignment in assignments]
        await asyncio.wait_for(asyncio.gather(*(client.ready() for client in clients)), READY_SECONDS)
        start = time.monotonic() + START_SECONDS
        window = Window(start, start + plan.warm_up, start + plan.whole_seconds)
        result = LoadResult(plan=plan, window=window, services=services)
        observer = Observer(
            services=services, clients=[c.process.pid for c in clients], window=window, samples=result.samples
        )
        result.ends.append(await observer.look())
        say("running")
        watching = asyncio.create_task(observer.run())
        try:
            await asyncio.gather(*(client.run(window, result, on_moment) for client in clients))
            if not result.exhausted:
                await watching
        finally:
            watching.cancel()
            await asyncio.wait([watching])
        await asyncio.sleep(SETTLE_SECONDS)
        result.ends.append(await observer.look())
    return result


def assign(plan: LoadPlan, keys: KeyCache, *, deployment: str) -> list[Assignment]:
    """Deal the plan's keys out to its processes."""
    each = math.ceil(needed_items(plan) / plan.processes)
    signing = keys.take(plan.signing, each * plan.processes, deployment=deployment)
    encryption = keys.take(plan.encryption, each * plan.processes, deployment=deployment)

    def part(whole: KeyRange, index: int) -> tuple[Path, int, int]:
        mine = whole.part(index, plan.processes)
        return mine.path.resolve(), mine.start, mine.count

    return [
        Assignment(plan=plan, index=i, signing=part(signing, i), encryption=part(encryption, i))
        for i in range(plan.processes)
    ]


@dataclass(frozen=True)
class _Client:
    """A client process and its two pipes."""

    process: asyncio.subprocess.Process
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader

    async def ready(self) -> None:
        """Wait until it has connected; raises LoadClientError."""
        await self._line()

    async def run(self, window: Window, result: LoadResult, on_moment: OnMoment) -> None:
        """Let it begin, and collect what it writes until it has finished."""
        self.write(json.dumps([window.start, window.measure, window.end]))
        async with asyncio.timeout(window.end - time.monotonic() + DRAIN_SECONDS + STOP_SECONDS):
            while True:
                line = await self._line()
                if "finished" in line:
                    result.add_summary(line)
                    return
                on_moment(result.add_moment(line), result)

    def write(self, line: str) -> None:
        """Send it a line."""
        self.stdin.write(line.encode() + b"\n")

    async def _line(self) -> dict[str, Any]:
        raw = await self.stdout.readline()
        line: dict[str, Any] = json.loads(raw) if raw else {"failed": "It ended; see above for why."}
        if "failed" in line:
            raise LoadClientError(f"A client process of the load test failed: {line['failed']}")
        return line


@asynccontextmanager
async def _client(assignment: Assignment) -> AsyncIterator[_Client]:
    """Start a client process; it is killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *python_command("keyark.load.driving.client"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE,
    )
    if process.stdin is None or process.stdout is None:
        raise LoadClientError("A client process has no pipes.")
    client = _Client(process, process.stdin, process.stdout)
    client.write(assignment.model_dump_json())
    try:
        yield client
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
