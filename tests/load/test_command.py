"""`keyark load` end to end: reports that fit the run, and words that do not fit together."""

from __future__ import annotations

import json

import pytest

from keyark.deployment.ports import free_ports
from tests.support.running.deployment import make_deployment
from tests.support.running.processes import keyark, up


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = make_deployment(tmp_path_factory.mktemp("command") / "deployment", port_base=free_ports())
    with up(folder):
        yield folder


def load(home, *arguments, **options):
    common = ("--home", home, "--keys", home.parent / "keys", "--out", home.parent / "out")
    return keyark("load", *common, *arguments, **options)


SHORT = (
    "--duration",
    "60s",
    "--warm-up",
    "0s",
    "--items",
    "150",
    "--clients",
    "4",
)  # it ends when the keys run out


def test_the_report_has_the_figures_the_series_and_a_page(home):
    printed = json.loads(load(home, *SHORT, "--json").stdout)
    out = home.parent / "out"
    assert json.loads((out / "report.json").read_text()) == printed
    assert printed["figures"]["kinds"]["enroll"]["items"] > 0
    assert printed["figures"]["errors"] == 0
    series = printed["series"]
    assert set(series["cores"]) == {"rm", "cm", "drm", "clients"}
    assert sum(value for _, value in series["items_per_second"]["enroll"]) > 0
    for name in ("percentiles_ms", "p50_ms", "p99_ms", "memory_mb", "batch_mean", "commits_per_second"):
        assert series[name], name
    page = (out / "report.html").read_text()
    for heading in (
        "Throughput",
        "Latency by percentile",
        "CPU of each service",
        "Durable commits",
        "Batches",
    ):
        assert heading in page


def test_people_get_a_summary_and_scripts_an_exit_code(home):
    printed = load(home, *SHORT).stdout
    for word in ("enroll", "p99 ms", "CPU us per enrollment", "report.html"):
        assert word in printed
    ledger = home.parent / "keys" / "used.json"
    used = ledger.read_bytes()
    ledger.unlink()  # the same keys again: every enrollment is refused
    failed = load(home, *SHORT, "--warm-up", "0s", "--items", "50", "--json", code=1)
    ledger.write_bytes(used)
    assert json.loads(failed.stdout)["figures"]["kinds"]["enroll"]["errors"]["PUBLIC_KEY_IN_USE"] > 0


def test_the_highest_rate_is_searched_for(home):
    search = ("--find-capacity", "--rate", "1", "--p99", "0.01", "--duration", "0.3s", "--warm-up", "0s")
    report = json.loads(load(home, *search, "--mix", "status", "--json").stdout)
    assert report["calls_per_second"] == 0  # nothing answers in 10 us
    assert [trial["rate"] for trial in report["trials"]] == [1, 0.5]
    assert "99th percentile" in (home.parent / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rate", "5", "--clients", "2"), "choose one"),
        (("--find-capacity", "--clients", "2"), "--find-capacity chooses the rate"),
        (("--ramp", "10"), "--ramp takes two rates"),
        (("--duration", "soon"), "is not a duration"),
        (("--mix", "enroll=x"), "is not a mix"),
        (("--mix", "enroll=0"), "weighs nothing"),
        (("--clients", "0"), "greater than or equal to 1"),
        (("--clients", "1", "--processes", "2"), "fewer clients than processes"),
        (("--batch", "257"), "257"),
    ],
)
def test_words_that_do_not_fit_are_refused(tmp_path, arguments, message):
    done = keyark("load", "--home", tmp_path, *arguments, code=2)
    assert message in done.stderr
