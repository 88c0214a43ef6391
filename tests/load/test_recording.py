"""Percentiles are right, and the sum of what processes recorded is what all of them saw."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.errors import OverloadedError
from keyark.load.measuring.recording import Recorder, Tally, add_interval

LATENCIES = st.lists(st.integers(1, 60_000_000), min_size=1, max_size=300)


def recorded(latencies_us) -> Tally:
    recorder = Recorder(lambda: 0.0)
    for latency in latencies_us:
        recorder.answered("call", since=0.0, until=latency / 1e6, items=1)
    return recorder.take()["call"]


@given(LATENCIES, st.sampled_from([50.0, 90.0, 99.0, 99.9, 100.0]))
def test_a_percentile_is_the_latency_that_so_many_do_not_exceed(latencies, percentile):
    rank = max(1, int(len(latencies) * percentile / 100 + 0.5))  # nearest rank
    exact = sorted(latencies)[rank - 1]
    assert recorded(latencies).percentile_ms(percentile) == pytest.approx(exact / 1000, rel=0.002, abs=0.002)


@given(LATENCIES, LATENCIES)
def test_the_sum_of_two_processes_is_the_same_as_one_that_did_it_all(one, other):
    total: dict[str, Tally] = {}
    for latencies in (one, other):
        line = json.dumps(recorded(latencies).to_json())
        add_interval(total, {"call": Tally.from_json(json.loads(line))})
    together = recorded(one + other)
    assert total["call"].to_json() == together.to_json()
    assert total["call"].calls == len(one) + len(other)


def test_what_was_taken_is_not_counted_again():
    recorder = Recorder(lambda: 0.0)
    recorder.failed("call", OverloadedError("full"), items=3)
    assert recorder.take()["call"].errors == {"OVERLOADED": 3}
    assert recorder.take() == {}


def test_a_tally_without_answers_has_no_latency_and_survives_its_journey():
    tally = Tally()
    tally.errors["X"] = 2
    assert tally.percentile_ms(99) == 0.0
    assert Tally.from_json(tally.to_json()).errors == {"X": 2}


def test_a_latency_beyond_the_scale_counts_as_the_longest():
    assert recorded([10**13]).percentile_ms(100) == pytest.approx(3_600_000, rel=0.01)
    assert recorded([0]).percentile_ms(100) == pytest.approx(0.001)
