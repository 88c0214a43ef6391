"""A run second by second: nothing lost between processes and steps, and a view of it while it goes on."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from keyark.errors import OverloadedError
from keyark.load.driving.fleet import LoadResult
from keyark.load.driving.loops import MAX_POINTS, Window
from keyark.load.measuring.recording import Recorder
from keyark.load.planning.plan import Closed, LoadPlan
from keyark.load.reporting.live import LiveView
from keyark.load.reporting.series import build_series
from keyark.load.reporting.summary import summarize


def line(at: float, *, answered: int, failed: int = 0, latency: float = 0.01) -> dict:
    """What a client process writes at the end of a second."""
    recorder = Recorder(lambda: 0.0)
    for _ in range(answered):
        recorder.answered("enroll", since=0.0, until=latency, items=2)
    if failed:
        recorder.failed("enroll", OverloadedError("full"), items=failed)
    return {"at": at, "interval": {kind: tally.to_json() for kind, tally in recorder.take().items()}}


def result_of(*lines: dict, seconds: float, measure: float = 100.0) -> LoadResult:
    plan = LoadPlan(home="unused", arrival=Closed(clients=1), seconds=seconds, warm_up=0.0)
    result = LoadResult(plan=plan, window=Window(measure, measure, measure + seconds), services={})
    for one in lines:
        result.add_moment(one)
    return result


def test_seconds_of_several_processes_add_up():
    result = result_of(
        line(101.001, answered=3),
        line(101.02, answered=4, failed=1),
        line(102.3, answered=5, latency=0.5),  # its loop was busy
        line(103.9, answered=1),  # the last answers came after the end
        seconds=3.0,
    )
    series = build_series(result)
    assert series["items_per_second"]["enroll"] == [(1, 14), (2, 10), (3, 2)]
    assert series["errors_per_second"]["enroll"] == [(1, 1), (2, 0), (3, 0)]
    assert series["p50_ms"]["enroll"][1] == (2, pytest.approx(500, rel=0.01))
    assert summarize(result).kinds["enroll"].items == 26
    assert summarize(result).kinds["enroll"].errors == {"OVERLOADED": 1}


def test_a_kind_without_errors_has_no_curve_of_them():
    assert build_series(result_of(line(101, answered=1), seconds=1.0))["errors_per_second"] == {}


def test_a_soak_of_hours_has_no_more_points_than_a_plot_shows_and_loses_none_of_its_items():
    hours = 3 * 3600
    result = result_of(*(line(100 + s, answered=1) for s in range(1, hours + 1, 9)), seconds=float(hours))
    points = build_series(result)["items_per_second"]["enroll"]
    assert len(points) <= MAX_POINTS
    assert sum(rate * result.window.step for _, rate in points) == pytest.approx(2 * hours / 9)
    assert points[-1][0] == hours


def test_a_percentile_is_drawn_only_where_there_are_calls_to_tell_it():
    few = build_series(result_of(line(101, answered=100), seconds=1.0))["percentiles_ms"]["enroll"]
    many = build_series(result_of(line(101, answered=10_000), seconds=1.0))["percentiles_ms"]["enroll"]
    assert max(percentile for percentile, _ in few) == 99.0
    assert max(percentile for percentile, _ in many) == 99.99


def test_the_view_shows_rates_latencies_and_errors_while_it_goes_on():
    screen = io.StringIO()
    result = result_of(seconds=5.0)
    with LiveView(Console(file=screen, force_terminal=True, width=100), result.plan) as view:
        view.say("running")
        for at in (101.0, 102.0):
            view.update(result.add_moment(line(at, answered=21, failed=2)), result)
    shown = screen.getvalue()
    for word in ("running", "enroll", "42", "OVERLOADED 4", "10.0"):
        assert word in shown


def test_without_a_terminal_the_view_is_silent():
    screen = io.StringIO()
    result = result_of(seconds=5.0)
    with LiveView(Console(file=screen), result.plan) as view:
        view.update(result.add_moment(line(101.0, answered=1)), result)
    assert screen.getvalue() == ""
