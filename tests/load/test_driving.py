"""Closed and open loops: what a latency counts, when calls begin, and what becomes of those that fail."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.errors import OverloadedError
from keyark.load.driving import loops as driving
from keyark.load.driving.loops import Driver, Mix, Window, due_times, share
from keyark.load.measuring.checking import WrongAnswerError
from keyark.load.measuring.recording import Recorder, Tally
from keyark.load.planning.keys import KeysExhaustedError
from keyark.load.planning.plan import Closed, LoadPlan, Open, Ramp
from keyark.rpc.errors import RemoteError
from tests.load.virtual_time import run_in_virtual_time


class Server:
    """Works one call at a time, each for so many seconds; ``wrong`` are the errors of items that fail."""

    def __init__(
        self, *, takes: float, wrong=(), error=None, requests: int = 10**9, size: int = 1, kind="call"
    ):
        self.takes, self.wrong, self.error, self.left, self._size = takes, wrong, error, requests, size
        self.kind = kind
        self._working = asyncio.Lock()

    def prepare(self):
        if not self.left:
            raise KeysExhaustedError("none left")
        self.left -= 1
        return self._size

    async def send(self, request):
        async with self._working:
            await asyncio.sleep(self.takes)
        if self.error:
            raise self.error
        return self.wrong

    def check(self, request, answer):
        return list(answer)

    def size(self, request):
        return request


def plan(arrival, **more) -> LoadPlan:
    return LoadPlan(**{"home": "unused", "arrival": arrival, "seconds": 100.0, "warm_up": 0.0} | more)


def drive(arrival, *, seconds: float = 100.0, warm_up: float = 0.0, **server) -> tuple[Tally, Driver]:
    """Drive a server by a plan in virtual time."""

    async def main(now):
        operation, recorder = Server(**server), Recorder(now)
        window = Window(0.0, warm_up, warm_up + seconds)
        driver = Driver(lambda: operation, recorder, window)
        await driver.run(plan(arrival, seconds=seconds, warm_up=warm_up), index=0)
        return recorder.take().get("call", Tally()), driver

    return run_in_virtual_time(main)


def test_an_open_loop_counts_the_waiting_that_a_closed_one_hides():
    # each call takes twice as long as the gap between arrivals: the queue grows by a second per call
    opened, _ = drive(Open(rate=1.0, process="constant"), seconds=20.0, takes=2.0)
    closed, _ = drive(Closed(clients=1), seconds=20.0, takes=2.0)
    assert closed.percentile_ms(99) == pytest.approx(2_000, rel=0.01)
    assert opened.calls == 20
    assert opened.percentile_ms(100) == pytest.approx(2_000 + 19 * 1_000, rel=0.01)
    assert opened.percentile_ms(50) == pytest.approx(2_000 + 9 * 1_000, rel=0.01)


def test_a_call_that_the_harness_begins_late_has_that_in_its_latency():
    async def main(now):
        operation, recorder = Server(takes=0.0), Recorder(now)
        driver = Driver(lambda: operation, recorder, Window(0.0, 0.0, 100.0))
        await asyncio.sleep(5.0)
        await driver.open_loop(iter([1.0]))
        return recorder

    recorder = run_in_virtual_time(main)
    assert recorder.take()["call"].percentile_ms(100) == pytest.approx(4_000, rel=0.01)
    assert recorder.late_us.get_max_value() == pytest.approx(4_000_000, rel=0.01)


def test_a_closed_loop_has_as_many_calls_in_flight_as_clients():
    tally, _ = drive(Closed(clients=4), takes=1.0)
    assert tally.percentile_ms(99) == pytest.approx(4_000, rel=0.01)
    assert 99 <= tally.calls <= 100


def test_warming_up_is_done_and_not_measured():
    tally, _ = drive(Closed(clients=1), seconds=10.0, warm_up=50.0, takes=1.0)
    assert 9 <= tally.calls <= 11
    opened, _ = drive(Open(rate=2.0, process="constant"), seconds=10.0, warm_up=50.0, takes=0.1)
    assert opened.calls == 20


def test_items_are_counted_and_not_calls():
    tally, _ = drive(Closed(clients=1), seconds=10.0, takes=1.0, size=16)
    assert tally.items == 16 * tally.calls


def test_errors_are_counted_by_reason_and_item_and_have_no_latency():
    tally, _ = drive(Closed(clients=1), seconds=9.5, takes=1.0, size=4, error=OverloadedError("full"))
    assert tally.errors == {"OVERLOADED": 36}
    assert (tally.calls, tally.items, tally.histogram.get_total_count()) == (0, 0, 0)


def test_an_error_of_another_release_is_counted_under_its_own_reason():
    error = RemoteError("?", kind=OverloadedError.kind, reason="NEW_REASON", metadata={})
    tally, _ = drive(Closed(clients=1), seconds=1.5, takes=1.0, error=error)
    assert tally.errors == {"NEW_REASON": 1}


def test_items_with_a_wrong_answer_are_errors_and_the_others_of_their_call_are_not():
    tally, _ = drive(
        Closed(clients=1), seconds=9.5, takes=1.0, size=4, wrong=[WrongAnswerError("another key")]
    )
    assert tally.errors == {"WRONG_ANSWER": 9}
    assert tally.messages == {"WRONG_ANSWER": "another key"}
    assert tally.items == 27
    all_wrong, _ = drive(Closed(clients=1), seconds=9.5, takes=1.0, wrong=[WrongAnswerError("another key")])
    assert (all_wrong.calls, all_wrong.items, all_wrong.errors) == (0, 0, {"WRONG_ANSWER": 9})


def test_calls_that_are_never_answered_are_errors():
    tally, _ = drive(Open(rate=1.0, process="constant"), seconds=5.0, takes=1e9)
    assert tally.errors == {"UNANSWERED": 5}


def test_calls_beyond_what_the_harness_holds_are_counted_and_not_forgotten(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(driving, "MAX_OUTSTANDING", 3)
    tally, _ = drive(Open(rate=1.0, process="constant"), seconds=5.0, takes=1e9)
    assert tally.errors == {"UNANSWERED": 3, "NOT_SENT": 2}


@pytest.mark.parametrize("arrival", [Closed(clients=3), Open(rate=10.0)])
def test_a_run_whose_keys_are_used_up_ends_early_and_says_so(arrival):
    tally, driver = drive(arrival, takes=1.0, requests=7)
    assert driver.exhausted
    assert tally.calls == 7
    assert not drive(arrival, seconds=1.0, takes=0.01)[1].exhausted


def times(arrival, *, processes: int = 1, seconds: float = 1000.0, seed: int = 1) -> list[float]:
    window = Window(10.0, 10.0, 10.0 + seconds)
    made = plan(arrival, processes=processes, seconds=seconds, seed=seed)
    return sorted(time for i in range(processes) for time in due_times(arrival, window, made, index=i))


def test_constant_arrivals_of_several_processes_interleave_evenly():
    due = times(Open(rate=4.0, process="constant"), processes=4, seconds=10.0)
    assert due == pytest.approx([10.0 + i / 4 for i in range(40)])


def test_poisson_arrivals_have_the_rate_and_the_spread_of_chance():
    due = times(Open(rate=50.0), processes=3)
    assert len(due) == pytest.approx(50_000, rel=0.02)
    per_second = Counter(int(time) for time in due)
    mean = len(due) / 1000
    variance = sum((per_second[second] - mean) ** 2 for second in range(10, 1010)) / 1000
    assert variance == pytest.approx(mean, rel=0.2)  # evenly spaced ones would have almost none
    assert all(10.0 <= time < 1010.0 for time in due)


def test_arrivals_are_the_same_for_the_same_seed_only():
    assert times(Open(rate=5.0)) == times(Open(rate=5.0))
    assert times(Open(rate=5.0)) != times(Open(rate=5.0), seed=2)


@pytest.mark.parametrize(("start", "end"), [(10.0, 90.0), (90.0, 10.0)])
def test_a_ramp_goes_from_one_rate_to_the_other(start, end):
    due = times(Ramp(start=start, end=end), processes=2)
    first = len([time for time in due if time < 110.0]) / 100
    last = len([time for time in due if time >= 910.0]) / 100
    assert first == pytest.approx(start + (end - start) * 0.05, rel=0.1)
    assert last == pytest.approx(end - (end - start) * 0.05, rel=0.1)
    assert len(due) == pytest.approx(50_000, rel=0.03)


@given(st.integers(0, 10_000), st.integers(1, 100))
def test_shares_add_up(whole, parts):
    assert sum(share(whole, index, parts) for index in range(parts)) == whole


def test_a_mix_follows_its_weights():
    weighed = [(Server(takes=0, kind=kind), weight) for kind, weight in (("a", 3.0), ("b", 1.0), ("c", 0.0))]
    mix = Mix(weighed, seed=7)
    picked = Counter(mix.next().kind for _ in range(10_000))
    assert picked["a"] / picked["b"] == pytest.approx(3.0, rel=0.1)
    assert not picked["c"]
