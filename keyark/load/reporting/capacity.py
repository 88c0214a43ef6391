"""The highest rate at which a deployment keeps its promise of latency, found by trying rates in an open loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from keyark.load.reporting.summary import Summary

GROWTH: Final = 2.0
PRECISION: Final = 0.05
MAX_TRIALS: Final = 24
LOWEST_RATE: Final = 0.5
"""Calls per second: where not even this is sustained, nothing is."""
ERRORS: Final = 0.001
"""The share of items that may fail: a rate at which more do is not sustained."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One rate (calls per second) that was tried, and whether it was sustained."""

    rate: float
    p99_ms: float
    items_per_second: float
    errors: int
    sustained: bool


@dataclass(kw_only=True)
class Capacity:
    """What was found: the highest sustained rate in calls per second, 0 for none, and every trial in order."""

    rate: float = 0.0
    trials: list[Trial] = field(default_factory=list)


def judge(summary: Summary, *, rate: float, p99_ms: float) -> Trial:
    """Return whether an open loop sustained its rate: p99 within the bound, and next to no errors.

    What is left behind shows in both: it waits longer and longer, and what is never answered is an error.
    """
    worst = max((kind.p99_ms for kind in summary.kinds.values()), default=0.0)
    answered = summary.items_per_second * summary.seconds
    sustained = 0 < worst <= p99_ms and summary.errors <= ERRORS * answered
    return Trial(
        rate=rate,
        p99_ms=worst,
        items_per_second=summary.items_per_second,
        errors=summary.errors,
        sustained=sustained,
    )


async def find_capacity(attempt: Callable[[float], Awaitable[Trial]], *, start: float) -> Capacity:
    """Double the rate until it is not sustained (or halve it until it is), then bisect to within 5 %.

    Where a deployment sustains whatever is tried it ends after 24 trials, and below 0.5 where it sustains nothing.
    """
    found, low, high, rate = Capacity(), 0.0, 0.0, start
    while len(found.trials) < MAX_TRIALS:
        trial = await attempt(rate)
        found.trials.append(trial)
        if trial.sustained:
            low = rate
        else:
            high = rate
        if (low and high and high / low <= 1 + PRECISION) or (not low and rate <= LOWEST_RATE):
            break
        rate = (low + high) / 2 if low and high else rate * GROWTH if low else rate / GROWTH
    found.rate = low
    return found
