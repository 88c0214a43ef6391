"""Where the time comes from: the system's clock in services, one that tests set by hand."""

from __future__ import annotations

import time
from typing import Final, Protocol

SECONDS_PER_DAY: Final = 86_400


class Clock(Protocol):
    """Tells the time; handed to whatever writes times down or judges validity."""

    def now_us(self) -> int:
        """Return microseconds since 1970-01-01T00:00:00Z."""


class SystemClock:
    """The time of the operating system."""

    def now_us(self) -> int:
        """Return microseconds since 1970-01-01T00:00:00Z."""
        return time.time_ns() // 1000


class ManualClock:
    """A clock for tests: it stands still until it is advanced."""

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        """Return the microseconds since 1970-01-01T00:00:00Z that it was set to."""
        return self._now_us

    def advance(self, seconds: float) -> None:
        """Move on by this many seconds."""
        self._now_us += round(seconds * 1_000_000)
