"""Bisecting finds the highest rate that is sustained, whatever it is begun with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.load.reporting.capacity import MAX_TRIALS, Trial, find_capacity, judge
from keyark.load.reporting.summary import KindFigures, Summary
from tests.load.virtual_time import run_in_virtual_time


def search(limit: float, start: float):
    async def attempt(rate: float) -> Trial:
        return Trial(rate=rate, p99_ms=1.0, items_per_second=rate, errors=0, sustained=rate <= limit)

    return run_in_virtual_time(lambda _: find_capacity(attempt, start=start))


@given(st.floats(1, 10_000), st.floats(1, 10_000))
def test_the_highest_sustained_rate_is_found_within_five_per_cent(limit, start):
    found = search(limit, start)
    assert limit / 1.06 <= found.rate <= limit
    assert len(found.trials) <= MAX_TRIALS
    assert found.rate == max(trial.rate for trial in found.trials if trial.sustained)


@pytest.mark.parametrize(("limit", "rate"), [(0.0, 0.0), (1e30, 100.0 * 2 ** (MAX_TRIALS - 1))])
def test_the_search_ends_where_nothing_or_everything_is_sustained(limit, rate):
    found = search(limit, 100.0)
    assert found.rate == rate
    assert len(found.trials) <= MAX_TRIALS


def summary(*, p99_ms: float = 10.0, per_second: float = 100.0, errors: int = 0) -> Summary:
    kind = KindFigures(
        calls=1000,
        items=1000,
        items_per_second=per_second,
        mean_ms=5.0,
        p50_ms=5.0,
        p99_ms=p99_ms,
        p999_ms=p99_ms,
        percentiles_ms={},
        errors={"X": errors} if errors else {},
        messages={},
    )
    return Summary(
        seconds=10.0,
        items_per_second=per_second,
        errors=errors,
        kinds={"enroll": kind} if per_second else {},
        services={},
        server_cpu_us=0.0,
        client_cpu_us=0.0,
        client_busiest=0.0,
        late_p99_ms=0.0,
        checked_fully=0,
        batch_mean=0.0,
        batches={},
        fsyncs_per_enrollment=0.0,
        rpcs_per_enrollment=0.0,
        memory_growth_percent=0.0,
    )


@pytest.mark.parametrize(
    ("figures", "sustained"),
    [
        ({}, True),
        ({"p99_ms": 50.0}, True),
        ({"p99_ms": 50.1}, False),
        ({"errors": 1}, True),
        ({"errors": 2}, False),
        ({"per_second": 0.0}, False),
    ],
)
def test_a_rate_is_sustained_where_answers_are_quick_and_right(figures, sustained):
    trial = judge(summary(**figures), rate=100.0, p99_ms=50.0)
    assert trial.sustained is sustained
