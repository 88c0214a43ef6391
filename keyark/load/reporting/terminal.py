"""Load tests as `keyark load` runs them: progress on stderr, the report in a folder and on stdout."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keyark.load.driving.fleet import LoadResult, run_load
from keyark.load.planning.keys import KeyCache
from keyark.load.planning.plan import LoadPlan, Open
from keyark.load.reporting.capacity import Trial, find_capacity, judge
from keyark.load.reporting.live import LiveView
from keyark.load.reporting.report import print_capacity, print_summary, write_capacity, write_report
from keyark.load.reporting.summary import summarize
from keyark.text.console import SafeConsole
from keyark.text.terminal import escaped_json


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """Where key pairs lie, where the report goes, and whether stdout is for scripts."""

    keys: Path
    out: Path
    as_json: bool
    progress: SafeConsole = field(default_factory=lambda: SafeConsole(stderr=True))

    def run(self, plan: LoadPlan) -> int:
        """Run a plan and report; returns how many items failed."""
        result = asyncio.run(self._load(plan))
        report = write_report(result, self.out)
        self._print(report, lambda console: print_summary(result, console))
        failed: int = report["figures"]["errors"]
        return failed

    def find_capacity(self, plan: LoadPlan, first: Open, p99_ms: float) -> None:
        """Search for the highest rate that is sustained, beginning with ``first``, each in a run of its own."""

        async def attempt(rate: float) -> Trial:
            tried = plan.model_copy(update={"arrival": first.model_copy(update={"rate": rate})})
            trial = judge(summarize(await self._load(tried)), rate=rate, p99_ms=p99_ms)
            word = "sustained" if trial.sustained else "not sustained"
            self.progress.print(
                f"{rate:8.1f} calls per second: p99 {trial.p99_ms:.1f} ms, {trial.errors} errors, {word}"
            )
            return trial

        found = asyncio.run(find_capacity(attempt, start=first.rate))
        report = write_capacity(found, plan, p99_ms, self.out)
        self._print(report, lambda console: print_capacity(found, p99_ms, console))

    async def _load(self, plan: LoadPlan) -> LoadResult:
        keys = KeyCache(self.keys, self.progress.print)
        with LiveView(self.progress, plan) as view:
            return await run_load(plan, keys=keys, say=view.say, on_moment=view.update)

    def _print(self, report: dict[str, Any], show: Callable[[SafeConsole], None]) -> None:
        if self.as_json:
            print(escaped_json(json.dumps(report, indent=2, ensure_ascii=False)))
            return
        show(SafeConsole())
        print(f"report: {self.out / 'report.html'}")
