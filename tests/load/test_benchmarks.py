"""The benchmarks' parts on a real deployment: every key of the table is there, and no figure is missing or absurd."""

from __future__ import annotations

import os
import time

import pytest
from rich.console import Console

from benchmarks import deployments, scale, suite
from benchmarks.__main__ import report_of
from benchmarks.page import bench_page, bench_tables
from keyark.load import KeyCache
from keyark.load.driving.observing import machine
from keyark.load.measuring.floor import FloorMeter
from keyark.load.planning.plan import CERTIFICATE, STATUS
from keyark.load.planning.suites import EC

TABLE = {
    "crypto_floor_us", "crypto_floor_spread",
    "server_cpu_us", "floor_ratio", "enrollments_per_second", "client_cpu_us", "p50_ms", "p99_ms",
    "p999_ms", "unloaded_p50_ms", "commit_ms", "rss_mb", "bytes_per_key", "fsyncs_per_enrollment",
    "rpcs_per_enrollment", "batch_mean", "signing_pool", "policy",
}  # fmt: skip
SHORT = suite.Pace(seconds=0.4, warm_up=0.1, unloaded=0.3, signing=0.1)
"""A part in which nothing was answered is measured again for twice as long."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return deployments.make(tmp_path_factory.mktemp("bench") / "deployment", EC)


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> KeyCache:
    return KeyCache(tmp_path_factory.mktemp("keys") / "keys")


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the parts of a scale as short as the look of its report needs."""
    monkeypatch.setattr(scale, "SECONDS", 0.3)
    monkeypatch.setattr(scale, "WARM_UP", 0.1)
    monkeypatch.setattr(scale, "FASTEST", 500)
    monkeypatch.setattr(scale, "CLIENTS", 8)


def test_a_suite_has_every_figure_of_the_table(home, keys):
    figures = suite.measure_suite(EC, home, keys, SHORT)
    assert set(figures) >= TABLE
    for name in TABLE - {"rss_mb", "signing_pool", "policy"}:
        assert figures[name] > 0, name
    assert set(figures["rss_mb"]) == {"rm", "cm", "drm"}
    assert set(figures["signing_pool"]) >= {"pairs_per_second", "fraction_of_raw"}
    assert 0 < figures["signing_pool"]["fraction_of_raw"] < 1.5
    assert 0 < figures["policy"]["share"] < 1
    assert figures["floor_ratio"] == pytest.approx(figures["server_cpu_us"] / figures["crypto_floor_us"])
    assert set(figures["modes"]) == {"one_per_call", "sixteen_per_call", "key_asked_for"}
    assert figures["modes"]["sixteen_per_call"]["rpcs_per_enrollment"] < 0.5
    assert figures["modes"]["key_asked_for"]["rpcs_per_enrollment"] > 2
    report = report_of({"ec": [figures]}, host=machine(), seconds=1.0, quick=True)
    page = bench_page(report)
    assert "Suite ec" in page
    console = Console(record=True, width=200)
    for table in bench_tables(report):
        console.print(table)
    assert "floor_ratio" in console.export_text()


def test_the_floor_counts_every_verification_and_its_samples_tell_their_spread() -> None:
    meter = FloorMeter(EC)
    before = os.sched_getaffinity(0)
    meter.sample()
    meter.sample()
    assert os.sched_getaffinity(0) == before
    floor = meter.floor(batch_mean=10.0, items_per_call=1)
    p = floor.primitives
    expected = (
        3 * p["statement_verify"] + 3 * p["caller_verify"] + p["open"] + p["match"] + p["seal"]
        + 2 * p["certificate_sign"] + p["certificate_verify"]
        + (p["checkpoint_sign"] + 2 * p["checkpoint_verify"]) / 10
    )  # fmt: skip
    assert floor.per_enrollment == pytest.approx(expected)
    assert meter.floor(batch_mean=10.0, items_per_call=16).per_enrollment < floor.per_enrollment
    assert meter.spread(floor) >= 0


def test_the_median_of_several_runs_stands_in_for_all_of_them():
    runs = [
        {"a": a, "modes": {"x": {"b": b}}, "notes": [str(a)], "series": {"s": a}}
        for a, b in ((3.0, 10), (1.0, 30), (9.0, 20))
    ]
    report = report_of({"ec": runs}, host={}, seconds=1.0, quick=False)
    assert report["suites"]["ec"] == {
        "a": 3.0,
        "modes": {"x": {"b": 20}},
        "notes": ["9.0"],
        "series": {"s": 9.0},
    }
    assert [run["a"] for run in report["runs"]["ec"]] == [3.0, 1.0, 9.0]
    assert "series" not in report["runs"]["ec"][0]


async def test_stores_are_filled_to_a_size_and_measured_there(home, keys, monkeypatch: pytest.MonkeyPatch):
    shorten(monkeypatch)
    run = scale.Scale(
        suite=EC, home=home, keys=keys, deadline=time.monotonic() + 60, console=Console(quiet=True)
    )
    await run.run([300])
    assert run.rows[0]["keys"] == 300
    assert run.stored > 300
    assert set(run.rows[0]["stored_mb"]) == {"rm", "cm", "drm"}
    latencies = run.rows[0]["lookup_p50_ms"]
    assert set(latencies) == set(scale.LOOKUPS)
    assert all(latencies[kind] > 0 for kind in ("status", "certificate", "outcome"))
    html = scale.page({"rows": run.rows, "time": "now"})
    assert html.count("<svg") == len(scale.CURVES)


async def test_filling_ends_with_the_time_and_says_how_far_it_came(
    home, keys, monkeypatch: pytest.MonkeyPatch
):
    shorten(monkeypatch)
    monkeypatch.setattr(scale, "LOOKUPS", (STATUS, CERTIFICATE))
    run = scale.Scale(suite=EC, home=home, keys=keys, deadline=time.monotonic(), console=Console(quiet=True))
    await run.run([10**9, 10**10])
    assert [row["keys"] for row in run.rows] == [0]
