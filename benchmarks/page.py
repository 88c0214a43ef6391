"""What `make bench` shows: tables for the terminal, and a page with the plots of every part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.table import Table

from keyark.load.reporting import pages

FIGURES: Final = (
    ("crypto_floor_us", "CPU of the unavoidable cryptography, us per enrollment"),
    ("crypto_floor_spread", "how far the floor's samples lie apart, as a share; more than 0.15 is marked"),
    ("server_cpu_us", "CPU of RM, DRM, CM with all workers, us per enrollment"),
    ("floor_ratio", "the one divided by the other"),
    ("enrollments_per_second", "enrollments per second"),
    ("client_cpu_us", "CPU of the client, us per enrollment"),
    ("p50_ms", "median latency, ms"),
    ("p99_ms", "99th percentile of latency, ms"),
    ("p999_ms", "99.9th percentile of latency, ms"),
    ("fsyncs_per_enrollment", "durable commits per enrollment, all three stores"),
    ("rpcs_per_enrollment", "calls per enrollment, all three services"),
    ("batch_mean", "enrollments per call from the RM to DRM and CM"),
)
ALONE: Final = (
    ("unloaded_p50_ms", "median latency with one client, ms"),
    ("commit_ms", "one durable commit on this disk, ms"),
    ("bytes_per_key", "bytes per archived key on the DRM's disk"),
)
MODES: Final = {
    "one_per_call": "one per call",
    "sixteen_per_call": "16 per call",
    "key_asked_for": "key asked for",
    "open_loop_70_percent": "open loop at 70 %",
}

Row = Sequence[object]


def suite_rows(figures: dict[str, Any]) -> Iterator[Row]:
    """Yield a row per figure: its name and meaning, and its value in each mode."""
    columns = [*figures["modes"].values(), figures["open_loop_70_percent"]]
    for name, meaning in FIGURES:
        yield (name, meaning, *(column.get(name, "") for column in columns))


def alone_rows(figures: dict[str, Any]) -> Iterator[Row]:
    """Yield the figures that no mode changes."""
    for name, meaning in ALONE:
        yield (meaning, figures[name])
    for role, size in figures["rss_mb"].items():
        yield (f"resident memory of {role} with its workers, MiB", size)
    pool = figures["signing_pool"]
    yield ("signing pool alone, pairs per second", pool["pairs_per_second"])
    yield ("signing pool's share of the raw signature rate", pool["fraction_of_raw"])
    yield ("policy: CPU of ten rules in each service, µs per enrollment", figures["policy"]["cpu_us"])
    yield ("policy: that as a share of the services' CPU", figures["policy"]["share"])


def bench_tables(report: dict[str, Any]) -> Iterator[Table]:
    """Yield what the terminal shows: two tables per suite."""
    for suite, figures in report["suites"].items():
        modes = Table(title=f"suite {suite}, 64 clients", title_justify="left")
        for column in ("", *MODES.values()):
            modes.add_column(column, justify="right" if column else "left", no_wrap=not column)
        for name, _, *values in suite_rows(figures):
            modes.add_row(str(name), *map(pages.cell, values))
        yield modes
        alone = Table(show_header=False)
        for row in alone_rows(figures):
            alone.add_row(*map(pages.cell, row))
        yield alone


def bench_page(report: dict[str, Any]) -> str:
    """Return build/bench.html."""
    body = []
    for name, figures in report["suites"].items():
        body += [pages.heading(f"Suite {name}")]
        body += [pages.note(text) for mode in figures["modes"].values() for text in mode["notes"]]
        body += [
            pages.table(("64 clients", "", *MODES.values()), suite_rows(figures)),
            pages.table(("figure", "value"), alone_rows(figures)),
            pages.heading("What the floor is made of"),
            pages.table(("primitive", "us of CPU"), figures["primitives_us"].items()),
        ]
        for part, series in figures["series"].items():
            body += [pages.heading(f"{name}: {MODES.get(part, part)}"), pages.plots(series)]
    host = report["machine"]
    lead = (
        f"{report['time']} · {host['cpus']} CPUs, {host['cpu']} · load average {host['load_average']:.2f} before · "
        f"took {report['seconds']:.0f} s"
    )
    return pages.page("keyark benchmark", lead=lead, body=body)
