"""A client process: `python -m keyark.load.driving.client`, started by the fleet.

On stdin: one line with the assignment; once this process has printed ``{"ready": true}``, a line with the window's
three times (CLOCK_MONOTONIC, the same in all processes). On stdout: a line per second with what was recorded, then
one with ``finished``. It ends when stdin does, so that none outlives the fleet.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from typing import Any

import uvloop

from keyark.client.access.home import Home
from keyark.custody.harden import disable_core_dumps
from keyark.errors import KeyarkError
from keyark.keys.library import ignore_library_warnings
from keyark.load.driving.connections import Connections
from keyark.load.driving.loops import Driver, Window
from keyark.load.driving.operations import Enroll, build_mix
from keyark.load.measuring.checking import AnswerChecker
from keyark.load.measuring.recording import Recorder
from keyark.load.planning.assignment import Assignment
from keyark.load.planning.plan import SEEDS


class LoadClient:
    """One process's part of a run."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment, self._plan = assignment, assignment.plan
        self._recorder = Recorder(time.monotonic)

    async def run(self) -> None:
        """Make ready, wait for the window, make the calls, report."""
        seed = self._plan.seed * 1000 + self._assignment.index
        connections = Connections(self._plan, Home.load(self._plan.home), seed=seed)
        try:
            form = await connections.form()
            checker = AnswerChecker(connections.home, form, sample=self._plan.sample, seed=seed)
            enroll = Enroll(connections, checker, self._assignment.keys())
            mix = build_mix(connections, enroll, seed=seed)
            if self._plan.queries and not connections.known:
                await _make_some(enroll)
            _say({"ready": True})
            window = Window(*json.loads(await asyncio.to_thread(sys.stdin.readline)))
            threading.Thread(target=_end_with_stdin, daemon=True).start()
            driver = Driver(mix.next, self._recorder, window)
            cpu = time.process_time()
            await self._drive(driver, window)
            _say(self._summary(driver, checker) | {"cpu": time.process_time() - cpu})
        finally:
            await connections.close()

    async def _drive(self, driver: Driver, window: Window) -> None:
        reporting = asyncio.create_task(self._report(window))
        try:
            await driver.run(self._plan, index=self._assignment.index)
        finally:
            reporting.cancel()
            await asyncio.wait([reporting])
            self._say_interval()

    async def _report(self, window: Window) -> None:
        """Report at whole seconds of the measurement, as every other process does."""
        while True:
            await asyncio.sleep(1 - (time.monotonic() - window.measure) % 1)
            self._say_interval()

    def _say_interval(self) -> None:
        interval = {kind: tally.to_json() for kind, tally in self._recorder.take().items()}
        _say({"at": time.monotonic(), "interval": interval})

    def _summary(self, driver: Driver, checker: AnswerChecker) -> dict[str, Any]:
        late = self._recorder.late_us
        return {
            "finished": True,
            "exhausted": driver.exhausted,
            "done": driver.done,
            "checked_fully": checker.checked_fully,
            "late": late.encode().decode() if late.get_total_count() else "",
        }


async def _make_some(enroll: Enroll) -> None:
    """Enroll a few before the window, so that there is something to ask about."""
    done = 0
    while done < SEEDS:
        request = enroll.prepare()
        wrong = enroll.check(request, await enroll.send(request))
        if wrong:
            raise wrong[0]
        done += enroll.size(request)


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _end_with_stdin() -> None:
    """Wait for the end of stdin: the fleet is gone, and so is the reason to go on."""
    while sys.stdin.readline():
        pass
    os._exit(1)


def main() -> int:
    """Run one assignment; returns the exit code of the process."""
    disable_core_dumps()
    ignore_library_warnings()
    assignment = Assignment.model_validate_json(sys.stdin.readline())
    try:
        uvloop.run(LoadClient(assignment).run())
    except KeyarkError as error:
        _say({"failed": error.message, "reason": error.reason})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
