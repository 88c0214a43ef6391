"""A run second by second, fit for JSON and for plots."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Final

from keyark.load.fleet import LoadResult
from keyark.load.observing import Sample
from keyark.load.processes import ROLES, mebibytes
from keyark.load.recording import Interval, Tally, add_interval
from keyark.load.summary import BATCH_PARTS

CURVE: Final = (0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.98, 99.99)

Points = list[tuple[float, float]]
"""Seconds since the start of the measurement (or a percentile), and a value."""


def build_series(result: LoadResult) -> dict[str, dict[str, Points]]:
    """Return every curve of a run by the name of its plot and its own name."""
    seconds = by_second(result)
    samples = [pair for pair in pairwise(result.samples) if pair[1].at - pair[0].at > 0.5]
    start = result.window.measure

    def rates(value: Callable[[Sample], float]) -> Points:
        return [(b.at - start, (value(b) - value(a)) / (b.at - a.at)) for a, b in samples]

    def each(value: Callable[[str, Sample], float]) -> dict[str, Points]:
        return {role: rates(partial(value, role)) for role in result.services}

    return {
        "percentiles_ms": {kind: percentile_curve(tally) for kind, tally in sorted(result.totals.items())},
        "items_per_second": _by_kind(seconds, lambda tally: float(tally.items)),
        "errors_per_second": _without_zeros(_by_kind(seconds, lambda tally: float(tally.errors.total()))),
        "p50_ms": _by_kind(seconds, lambda tally: tally.percentile_ms(50)),
        "p99_ms": _by_kind(seconds, lambda tally: tally.percentile_ms(99)),
        "cores": each(lambda role, sample: sample.services[role].cpu)
        | {"clients": rates(lambda sample: sum(sample.client_cpu))},
        "memory_mb": {
            role: [(s.at - start, mebibytes(s.services[role].anonymous)) for s in result.samples]
            for role in ROLES
            if role in result.services
        },
        "commits_per_second": each(lambda role, sample: float(sample.commits(role))),
        "batch_mean": {name: _batches(samples, part, start) for name, part in BATCH_PARTS.items()}
        if "rm" in result.services
        else {},
    }


def by_second(result: LoadResult) -> list[Interval]:
    """Return what all client processes recorded in each second of the measurement."""
    whole = max(1, round(result.window.end - result.window.measure))
    seconds: list[Interval] = [{} for _ in range(whole)]
    for moment in result.moments:
        second = round(moment.at - result.window.measure) - 1
        add_interval(seconds[min(max(second, 0), whole - 1)], moment.interval)
    return seconds


def percentile_curve(tally: Tally) -> Points:
    """Return latencies in milliseconds by percentile, as far up as there are calls to tell one."""
    count = tally.histogram.get_total_count()
    return [(p, tally.percentile_ms(p)) for p in CURVE if count * (100 - p) >= 100]


def _by_kind(seconds: list[Interval], value: Callable[[Tally], float]) -> dict[str, Points]:
    kinds = sorted({kind for second in seconds for kind in second})
    return {
        kind: [
            (i + 1, value(second[kind])) if kind in second else (i + 1, 0.0)
            for i, second in enumerate(seconds)
        ]
        for kind in kinds
    }


def _without_zeros(curves: dict[str, Points]) -> dict[str, Points]:
    return {name: points for name, points in curves.items() if any(value for _, value in points)}


def _batches(samples: list[tuple[Sample, Sample]], part: tuple[str, str], start: float) -> Points:
    points = []
    for before, after in samples:
        batches = after.batches(*part)[0] - before.batches(*part)[0]
        items = after.batches(*part)[1] - before.batches(*part)[1]
        points.append((after.at - start, items / batches if batches else 0.0))
    return points
