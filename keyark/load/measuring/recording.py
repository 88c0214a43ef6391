"""What a run measured: latencies in HdrHistograms, items and errors, second by second.

Client processes record intervals and hand them over as JSON; adding intervals up gives the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from hdrh.histogram import HdrHistogram

from keyark.errors import KeyarkError

LOWEST_US: Final = 1
HIGHEST_US: Final = 3_600_000_000
DIGITS: Final = 3
PERCENTILES: Final = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 100.0)


def new_histogram() -> HdrHistogram:
    """Return a histogram of microseconds: 1 us to 1 h, exact to three digits."""
    return HdrHistogram(LOWEST_US, HIGHEST_US, DIGITS)


@dataclass
class Tally:
    """One kind of call: how many, the items in them, latencies of those answered well, errors by reason.

    ``messages`` has the words of one error for each reason.
    """

    calls: int = 0
    items: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    messages: dict[str, str] = field(default_factory=dict)
    histogram: HdrHistogram = field(default_factory=new_histogram)

    def add(self, other: Tally) -> None:
        """Add another's numbers."""
        self.calls += other.calls
        self.items += other.items
        self.errors.update(other.errors)
        self.messages = other.messages | self.messages
        self.histogram.add(other.histogram)

    def percentile_ms(self, percentile: float) -> float:
        """Return a latency percentile in milliseconds, 0 where nothing was answered."""
        if not self.histogram.get_total_count():
            return 0.0
        return float(self.histogram.get_value_at_percentile(percentile)) / 1000

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` reads."""
        histogram = self.histogram.encode().decode() if self.histogram.get_total_count() else ""
        return {
            "calls": self.calls,
            "items": self.items,
            "errors": dict(self.errors),
            "messages": self.messages,
            "histogram": histogram,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Tally:
        """Read what ``to_json`` returned."""
        encoded = value["histogram"]
        histogram = HdrHistogram.decode(encoded.encode()) if encoded else new_histogram()
        return cls(
            calls=value["calls"],
            items=value["items"],
            errors=Counter(value["errors"]),
            messages=value["messages"],
            histogram=histogram,
        )


Interval = dict[str, Tally]
"""Tallies by kind of call."""


def add_interval(total: Interval, part: Interval) -> None:
    """Add the tallies of one interval to those of another."""
    for kind, tally in part.items():
        total.setdefault(kind, Tally()).add(tally)


class Recorder:
    """Takes what happens; ``now`` is the clock that the times given are of, in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self._interval: Interval = {}
        self.late_us = new_histogram()

    def answered(self, kind: str, *, since: float, until: float, items: int) -> None:
        """Count a call whose answer was right; its latency runs from ``since``, when it was to begin."""
        tally = self._tally(kind)
        tally.calls += 1
        tally.items += items
        tally.histogram.record_value(min(max(LOWEST_US, round((until - since) * 1e6)), HIGHEST_US))

    def failed(self, kind: str, error: KeyarkError, *, items: int = 1) -> None:
        """Count items that came to nothing, or whose answer was wrong, under the error's reason."""
        tally, reason = self._tally(kind), error.reason
        tally.errors[reason] += items
        tally.messages.setdefault(reason, error.message)

    def began(self, *, due: float, at: float) -> None:
        """Record how much later than it was to a call of an open loop began: the harness's own delay."""
        self.late_us.record_value(min(max(LOWEST_US, round((at - due) * 1e6)), HIGHEST_US))

    def take(self) -> Interval:
        """Return what was recorded since the last time, and begin anew."""
        interval, self._interval = self._interval, {}
        return interval

    def _tally(self, kind: str) -> Tally:
        return self._interval.setdefault(kind, Tally())
