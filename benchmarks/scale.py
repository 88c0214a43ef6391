"""`make bench-scale`: the same figures with 10^3, 10^4, 10^5 and 10^6 archived keys in the stores.

The stores are filled through the front door, 256 enrollments per call: every record is a real one, its certificates
signed, its key sealed, its leaves in the logs. That takes as long as it takes; ``--minutes`` bounds it, and the report
says how far it came. The same processes serve all of it, so that growth of their memory shows; look-ups ask about one
in a hundred of all enrollments, old and new.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import deployments
from keyark.load import Closed, KeyCache, LoadPlan
from keyark.load.driving.fleet import run_load
from keyark.load.driving.observing import machine
from keyark.load.measuring.processes import find_services, mebibytes, process_table, usage_of
from keyark.load.planning.plan import CERTIFICATE, ENROLL, MAX_BATCH, OUTCOME, RECOVER, STATUS
from keyark.load.planning.suites import SUITES, KeySuite
from keyark.load.reporting import pages
from keyark.load.reporting.plots import Axis, line_plot
from keyark.load.reporting.summary import Summary, summarize

SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
CLIENTS: Final = 64
FILLING: Final = 4
PROCESSES: Final = 2
SECONDS: Final = 8.0
WARM_UP: Final = 2.0
LOOKUPS: Final = (STATUS, CERTIFICATE, OUTCOME, RECOVER)
FASTEST: Final = 3_000
"""Enrollments per second that keys are made for in a measurement."""
LONGEST: Final = 60.0
"""Seconds that one kind of call gets where none was answered in less."""
CURVES: Final = (
    ("enrollments_per_second", "Enrollments per second, 64 clients"),
    ("lookup_p50_ms", "Look-ups, median ms, one client"),
    ("anonymous_mb", "Memory without the page cache, MiB"),
    ("stored_mb", "Stores on disk, MiB"),
)


@dataclass(kw_only=True)
class Scale:
    """A deployment that is filled step by step."""

    suite: KeySuite
    home: Path
    keys: KeyCache
    deadline: float
    console: Console
    stored: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)

    async def run(self, sizes: Sequence[int]) -> None:
        """Fill to each size and measure there, until the time is used up."""
        async with deployments.running(self.home):
            for size in sizes:
                started, before = time.monotonic(), self.stored
                await self._fill(size)
                rate = (self.stored - before) / (time.monotonic() - started)
                self.console.print(f"{self.stored:,} keys stored, {rate:.0f} per second")
                is_full = self.stored >= size
                self.rows.append(await self._measure() | {"filled_per_second": rate})
                if not is_full:
                    self.console.print("the time is used up")
                    return

    async def _fill(self, size: int) -> None:
        lacking, left = size - self.stored, self.deadline - time.monotonic()
        if lacking > 0 and left > 0:
            await self._load(
                ENROLL, clients=FILLING, seconds=left, items=lacking, batch=MAX_BATCH, sample=0.001
            )

    async def _measure(self) -> dict[str, Any]:
        at = self.stored
        lookups = {kind: await self._answered(kind, clients=1, seconds=SECONDS / 2) for kind in LOOKUPS}
        items = round(FASTEST * SECONDS)
        enrolled = await self._answered(ENROLL, clients=CLIENTS, seconds=SECONDS, items=items)
        services, table = find_services(self.home), process_table()
        usage = {role: usage_of(service.pid, table) for role, service in services.items()}
        return {
            "keys": at,
            "enrollments_per_second": enrolled.kinds[ENROLL].items_per_second,
            "p50_ms": enrolled.kinds[ENROLL].p50_ms,
            "p99_ms": enrolled.kinds[ENROLL].p99_ms,
            "server_cpu_us": enrolled.server_cpu_us,
            "lookup_p50_ms": {kind: _latency(lookups[kind], kind, "p50_ms") for kind in LOOKUPS},
            "lookup_p99_ms": {kind: _latency(lookups[kind], kind, "p99_ms") for kind in LOOKUPS},
            "rss_mb": {role: mebibytes(used.rss) for role, used in usage.items()},
            "anonymous_mb": {role: mebibytes(used.anonymous) for role, used in usage.items()},
            "stored_mb": {role: mebibytes(service.stored_bytes()) for role, service in services.items()},
        }

    async def _answered(self, kind: str, *, clients: int, seconds: float, **options: Any) -> Summary:
        """Make one kind of call for so long, and for twice as long where none was answered."""
        summary = await self._load(kind, clients=clients, seconds=seconds, **options)
        while kind not in summary.kinds and seconds < LONGEST:
            seconds *= 2
            summary = await self._load(kind, clients=clients, seconds=seconds, **options)
        return summary

    async def _load(self, kind: str, *, clients: int, seconds: float, **options: Any) -> Summary:
        """Make one kind of call for so long; warming up is left out where every item counts."""
        plan = LoadPlan(
            home=self.home,
            arrival=Closed(clients=clients),
            seconds=seconds,
            warm_up=0.0 if options.get("batch") else WARM_UP,
            mix={kind: 1.0},
            signing=self.suite.signing,
            encryption=self.suite.encryption,
            processes=min(PROCESSES, clients),
            known=self.home / "known",
            **options,
        )
        result = await run_load(plan, keys=self.keys)
        summary = summarize(result)
        if summary.errors:
            self.console.print(f"[red]errors: {summary.kinds}[/red]")
        self.stored += result.done[ENROLL]
        return summary


def _latency(summary: Summary, kind: str, figure: str) -> float:
    """A latency of one kind of call; 0 where none was answered in time."""
    value: float = getattr(summary.kinds[kind], figure) if kind in summary.kinds else 0.0
    return value


def show(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the curve as a table."""
    table = Table(title="by number of archived keys", title_justify="left")
    for column in (
        "keys",
        "enrollments/s",
        "p99 ms",
        *(f"{kind} p50 ms" for kind in LOOKUPS),
        "memory MiB",
        "disk MiB",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        lookups = (row["lookup_p50_ms"][kind] for kind in LOOKUPS)
        sizes = (sum(row["anonymous_mb"].values()), sum(row["stored_mb"].values()))
        values = (row["keys"], row["enrollments_per_second"], row["p99_ms"], *lookups, *sizes)
        table.add_row(*(pages.cell(value) for value in values))
    return table


def page(report: dict[str, Any]) -> str:
    """Return build/scale.html."""
    rows = report["rows"]
    body = []
    for name, title in CURVES:
        body += [pages.heading(title), line_plot(curves(rows, name), x=Axis(label="keys"), y=Axis(label=""))]
    body += [pages.heading("Figures"), f"<pre>{json.dumps(rows, indent=2)}</pre>"]
    return pages.page("keyark by number of archived keys", lead=report["time"], body=body)


def curves(rows: Sequence[dict[str, Any]], name: str) -> dict[str, list[tuple[float, float]]]:
    """Return one curve for each name that a figure has, over the number of keys."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        values = row[name] if isinstance(row[name], dict) else {name: row[name]}
        for key, value in values.items():
            points.setdefault(key, []).append((row["keys"], value))
    return points


def main() -> int:
    """Fill, measure, and write build/scale.json and build/scale.html."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="archived keys to measure at")
    parser.add_argument("--minutes", type=float, default=90.0, help="how long filling may take")
    parser.add_argument("--suite", choices=sorted(SUITES), default="ec")
    parser.add_argument("--keys", type=Path, default=Path("build/load-keys"), help="folder of key pairs")
    parser.add_argument("--output", type=Path, default=Path("build/scale.json"))
    options = parser.parse_args()
    options.keys.parent.mkdir(parents=True, exist_ok=True)
    console, suite = Console(stderr=True), SUITES[options.suite]
    with tempfile.TemporaryDirectory(prefix="keyark-scale-", dir=options.keys.parent) as folder:
        scale = Scale(
            suite=suite,
            home=deployments.make(Path(folder) / "deployment", suite),
            keys=KeyCache(options.keys, console.print),
            deadline=time.monotonic() + options.minutes * 60,
            console=console,
        )
        asyncio.run(scale.run([int(size) for size in options.sizes.split(",")]))
    report = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "suite": suite.name,
        "machine": machine(),
        "rows": scale.rows,
    }
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    options.output.with_suffix(".html").write_text(page(report))
    Console().print(show(scale.rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
