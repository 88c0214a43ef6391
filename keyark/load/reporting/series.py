"""A run second by second, fit for JSON and for plots."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Final

from keyark.identity.spiffe import SERVICE_ROLES
from keyark.load.driving.fleet import LoadResult, Moment
from keyark.load.driving.observing import Sample
from keyark.load.measuring.processes import mebibytes
from keyark.load.measuring.recording import Interval, Tally, add_interval
from keyark.load.reporting.summary import BATCH_PARTS

CURVE: Final = (0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99)

KIND_CURVES: Final[dict[str, Callable[[Tally, float], float]]] = {
    "items_per_second": lambda tally, seconds: tally.items / seconds,
    "errors_per_second": lambda tally, seconds: tally.errors.total() / seconds,
    "p50_ms": lambda tally, _: tally.percentile_ms(50),
    "p99_ms": lambda tally, _: tally.percentile_ms(99),
}

Points = list[tuple[float, float]]
"""Seconds since the start of the measurement (or a percentile), and a value."""


def build_series(result: LoadResult) -> dict[str, dict[str, Points]]:
    """Return every curve of a run by the name of its plot and its own name."""
    kinds = _by_kind(result)
    samples = [pair for pair in pairwise(result.samples) if pair[1].at - pair[0].at > 0.5]
    start = result.window.measure

    def rates(value: Callable[[Sample], float]) -> Points:
        return [(b.at - start, (value(b) - value(a)) / (b.at - a.at)) for a, b in samples]

    def each(value: Callable[[str, Sample], float]) -> dict[str, Points]:
        return {role: rates(partial(value, role)) for role in result.services}

    return {
        "percentiles_ms": {kind: percentile_curve(tally) for kind, tally in sorted(result.totals.items())},
        **kinds,
        "cores": each(lambda role, sample: sample.services[role].cpu)
        | {"clients": rates(lambda sample: sum(sample.client_cpu))},
        "memory_mb": {
            role: [(s.at - start, mebibytes(s.services[role].anonymous)) for s in result.samples]
            for role in SERVICE_ROLES
            if role in result.services
        },
        "commits_per_second": each(lambda role, sample: float(sample.commits(role))),
        "batch_mean": {name: _batches(samples, part, start) for name, part in BATCH_PARTS.items()}
        if "rm" in result.services
        else {},
    }


def steps(result: LoadResult) -> Iterator[tuple[float, Interval]]:
    """Yield the end of every step of the measurement and what all client processes recorded in it."""
    step, start = result.window.step, result.window.measure
    count = max(1, math.ceil((result.window.end - start) / step - 1e-6))
    moments: list[list[Moment]] = [[] for _ in range(count)]
    for moment in result.moments:
        second = round(moment.at - start)  # they report at whole seconds, or a little later
        moments[min(max(math.ceil(second / step) - 1, 0), count - 1)].append(moment)
    for index, group in enumerate(moments):
        interval: Interval = {}
        for moment in group:
            add_interval(interval, moment.interval())
        yield (index + 1) * step, interval


def percentile_curve(tally: Tally) -> Points:
    """Return latencies in milliseconds by percentile, as far up as there are calls to tell one."""
    count = tally.histogram.get_total_count()
    return [(p, tally.percentile_ms(p)) for p in CURVE if count * (100 - p) >= 100]


def _by_kind(result: LoadResult) -> dict[str, dict[str, Points]]:
    """The curves that each kind of call has."""
    curves: dict[str, dict[str, Points]] = {
        name: {kind: [] for kind in result.totals} for name in KIND_CURVES
    }
    for at, interval in steps(result):
        for kind in result.totals:
            tally = interval.get(kind, Tally())
            for name, value in KIND_CURVES.items():
                curves[name][kind].append((at, value(tally, result.window.step)))
    errors = curves["errors_per_second"]
    curves["errors_per_second"] = {
        kind: points for kind, points in errors.items() if result.totals[kind].errors
    }
    return curves


def _batches(samples: list[tuple[Sample, Sample]], part: tuple[str, str], start: float) -> Points:
    points = []
    for before, after in samples:
        batches = after.batches(*part)[0] - before.batches(*part)[0]
        items = after.batches(*part)[1] - before.batches(*part)[1]
        points.append((after.at - start, items / batches if batches else 0.0))
    return points
