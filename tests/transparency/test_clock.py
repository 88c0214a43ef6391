"""Times in the log are microseconds UTC, and tests hold the clock in hand."""

from __future__ import annotations

import time

from keyark.clock import ManualClock, SystemClock


def test_the_system_clock_tells_microseconds_since_1970():
    before, now, after = time.time_ns(), SystemClock().now_us(), time.time_ns()
    assert before // 1000 <= now <= after // 1000


def test_the_manual_clock_stands_still_until_it_is_advanced():
    clock = ManualClock(5)
    assert (clock.now_us(), clock.now_us()) == (5, 5)
    clock.advance(1.5)
    assert clock.now_us() == 1_500_005
