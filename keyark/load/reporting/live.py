"""What a terminal shows while a run goes on."""

from __future__ import annotations

import time
from collections import Counter
from types import TracebackType
from typing import Final, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from keyark.load.driving.fleet import LoadResult, Moment
from keyark.load.planning.plan import LoadPlan
from keyark.text.console import SafeConsole

KEPT_SECONDS: Final = 3


class LiveView:
    """A bar, and a line per kind of call: use it as a context manager; without a terminal it shows nothing."""

    def __init__(self, console: SafeConsole, plan: LoadPlan) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console
        )
        self._task = self._progress.add_task("preparing", total=plan.whole_seconds)
        self._recent: dict[int, Counter[str]] = {}
        self._live = Live(self._progress, console=console, refresh_per_second=4, transient=True)
        self._is_shown = console.is_terminal

    def __enter__(self) -> Self:
        if self._is_shown:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_shown:
            self._live.__exit__(kind, error, trace)

    def say(self, step: str) -> None:
        """Show which step is being taken."""
        self._progress.update(self._task, description=step)

    def update(self, moment: Moment, result: LoadResult) -> None:
        """Show one more second of one client process."""
        second = round(moment.at - result.window.measure)
        counts = self._recent.setdefault(second, Counter())
        counts.update({kind: value["items"] for kind, value in moment.packed.items()})
        for old in [key for key in self._recent if key <= second - KEPT_SECONDS]:
            del self._recent[old]
        self._progress.update(self._task, completed=time.monotonic() - result.window.start)
        self._live.update(Group(self._progress, self._table(result)))

    def _table(self, result: LoadResult) -> RenderableType:
        """The newest whole second, and latencies and errors so far."""
        last = self._recent[sorted(self._recent)[-2 if len(self._recent) > 1 else -1]]
        table = Table(box=None, pad_edge=False)
        for column in ("call", "per second", "p50 ms", "p99 ms", "errors"):
            table.add_column(column, justify="left" if column == "call" else "right")
        for kind, tally in sorted(result.totals.items()):
            errors = ", ".join(f"{reason} {count}" for reason, count in tally.errors.most_common(3)) or "none"
            percentiles = (f"{tally.percentile_ms(p):.1f}" for p in (50, 99))
            table.add_row(kind, str(last[kind]), *percentiles, errors)
        return table
