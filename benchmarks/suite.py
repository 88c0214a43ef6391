"""One key suite on a fresh deployment: every figure of the table in docs/performance.md.

`python -m benchmarks.suite NAME` prints the figures as JSON; `python -m benchmarks` runs it for each suite.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks import deployments, signing
from benchmarks.policy import measure_policy
from drm_service.records import KEYS, SCHEMA_VERSION, TABLES
from keyark.errors import KeyarkError
from keyark.identity.spiffe import SERVICE_ROLES
from keyark.load import Closed, Delivery, KeyCache, LoadPlan, Open
from keyark.load.driving.fleet import run_load
from keyark.load.measuring.floor import FloorMeter
from keyark.load.measuring.processes import find_services, mebibytes, process_table, usage_of
from keyark.load.planning.plan import ENROLL
from keyark.load.planning.suites import SUITES, KeySuite
from keyark.load.reporting.series import build_series
from keyark.load.reporting.summary import Summary, summarize
from keyark.store import WriteTransaction, open_store

CLIENTS: Final = {"ec": 64, "rsa": 4, "pq": 64}
"""A core proves 35 RSA-2048 keys a second: more clients would wait for one another longer than a part lasts."""
SHARE: Final = 0.7
MODES: Final[dict[str, dict[str, Any]]] = {
    "one_per_call": {},
    "sixteen_per_call": {"batch": 16, "longer": 2.0},
    "key_asked_for": {"delivery": Delivery.ASKED},
}
"""Sixteen times as many enrollments in flight come back in waves; ``longer`` makes a measurement hold several."""
HEADLINE: Final = "one_per_call"
HEADROOM: Final = 4.0
"""How much faster than the part before it a part may be before its keys run out."""
DOUBTFUL: Final = 0.15
"""How far apart, as a share, samples of the crypto floor may lie before a run is marked."""
COMMITS: Final = 40
ROW: Final = bytes(4000)
FIRST_GUESS: Final = {"ec": 1000, "rsa": 60, "pq": 500}
"""Enrollments per second to expect before anything is known."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long each part measures, in seconds."""

    seconds: float
    warm_up: float
    unloaded: float
    signing: float


FULL: Final = Pace(seconds=15.0, warm_up=3.0, unloaded=6.0, signing=5.0)
QUICK: Final = Pace(seconds=2.5, warm_up=0.8, unloaded=1.0, signing=0.7)


LONGEST: Final = 60.0
"""Seconds after which a part in which nothing was enrolled is given up; a shorter one gets twice the time."""


class NothingEnrolledError(KeyarkError):
    """A part of the benchmark has nothing to show."""

    reason = "NOTHING_ENROLLED"


class Suite:
    """The measurements of one suite on one deployment."""

    def __init__(self, suite: KeySuite, home: Path, keys: KeyCache, pace: Pace) -> None:
        self._suite, self._home, self._keys, self._pace = suite, home, keys, pace
        self._rate = float(FIRST_GUESS[suite.name])
        self._meter = FloorMeter(suite)
        self.series: dict[str, Any] = {}

    async def measure(self) -> dict[str, Any]:
        """Return all figures; the headline mode's stand at the top, every mode's below ``modes``."""
        self._meter.sample()
        unloaded = await self._run("unloaded", Closed(clients=1), seconds=self._pace.unloaded, processes=1)
        saturated = {name: await self._saturated(name, options) for name, options in MODES.items()}
        rate = saturated[HEADLINE].kinds[ENROLL].items_per_second
        opened = await self._run("open_loop_70_percent", Open(rate=SHARE * rate), processes=2)
        modes = {name: self._figures(summary, MODES[name]) for name, summary in saturated.items()}
        pool = await signing.measure_pool(
            self._home / "cm" / "cm.toml",
            self._suite,
            workers=deployments.WORKERS,
            seconds=self._pace.signing,
        )
        return {
            **modes[HEADLINE],
            "open_loop_70_percent": _latencies(opened),
            "unloaded_p50_ms": unloaded.kinds[ENROLL].p50_ms,
            "commit_ms": await commit_ms(self._home / "commits"),
            "signing_pool": pool,
            "policy": measure_policy(self._suite, server_cpu_us=modes[HEADLINE]["server_cpu_us"]),
            "modes": modes,
            "series": self.series,
        }

    async def _saturated(self, name: str, options: dict[str, Any]) -> Summary:
        summary = await self._run(name, Closed(clients=CLIENTS[self._suite.name]), processes=2, **options)
        self._rate = summary.kinds[ENROLL].items_per_second
        return summary

    def _figures(self, summary: Summary, options: dict[str, Any]) -> dict[str, Any]:
        """Return the figures of a mode, against the floor of all samples of the run."""
        floor = self._meter.floor(batch_mean=summary.batch_mean, items_per_call=options.get("batch", 1))
        spread = self._meter.spread(floor)
        doubt = [f"the floor's samples lie {spread:.0%} apart: measure again on a quiet machine"]
        return {
            "crypto_floor_us": floor.per_enrollment,
            "crypto_floor_spread": spread,
            "primitives_us": floor.primitives,
            "server_cpu_us": summary.server_cpu_us,
            "server_cpu_us_by_service": {
                role: service.cpu_us_per_enrollment for role, service in summary.services.items()
            },
            "floor_ratio": summary.server_cpu_us / floor.per_enrollment,
            **_latencies(summary),
            "fsyncs_per_enrollment": summary.fsyncs_per_enrollment,
            "rpcs_per_enrollment": summary.rpcs_per_enrollment,
            "batch_mean": summary.batch_mean,
            "errors": summary.kinds[ENROLL].errors,
            "notes": [
                *summary.notes,
                *(doubt if spread > DOUBTFUL else ()),
                *(f"errors: {text}" for text in summary.kinds[ENROLL].messages.values()),
            ],
        }

    async def _run(self, name: str, arrival: Closed | Open, **options: Any) -> Summary:
        """Run one part, longer on a host that enrolls nobody in its time; raises where nothing was enrolled at all."""
        seconds = options.pop("seconds", self._pace.seconds) * options.pop("longer", 1.0)
        while True:
            result = await run_load(self._plan(arrival, seconds, options), keys=self._keys)
            summary = summarize(result)
            if ENROLL in summary.kinds and summary.kinds[ENROLL].items:
                self._meter.sample()
                self.series[name] = build_series(result)
                return summary
            if ENROLL in summary.kinds or seconds >= LONGEST:
                raise NothingEnrolledError(
                    f"In the benchmark's part {name!r} nothing was enrolled: {summary.kinds}"
                )
            seconds *= 2

    def _plan(self, arrival: Closed | Open, seconds: float, options: dict[str, Any]) -> LoadPlan:
        most = HEADROOM * self._rate * (seconds + self._pace.warm_up)
        return LoadPlan(
            home=self._home,
            arrival=arrival,
            seconds=seconds,
            warm_up=self._pace.warm_up,
            signing=self._suite.signing,
            encryption=self._suite.encryption,
            items=round(most) + 100 if isinstance(arrival, Closed) else None,
            **options,
        )


def _latencies(summary: Summary) -> dict[str, float]:
    enrolled = summary.kinds[ENROLL]
    return {
        "enrollments_per_second": enrolled.items_per_second,
        "client_cpu_us": summary.client_cpu_us,
        "p50_ms": enrolled.p50_ms,
        "p99_ms": enrolled.p99_ms,
        "p999_ms": enrolled.p999_ms,
    }


def memory_mb(home: Path) -> dict[str, float]:
    """Return the resident memory of each service with its workers, MiB."""
    services, table = find_services(home), process_table()
    return {role: mebibytes(usage_of(services[role].pid, table).rss) for role in SERVICE_ROLES}


def bytes_per_key(home: Path) -> float:
    """Return what an archived key takes on the DRM's disk, log and indexes included; the DRM is stopped."""
    store = open_store(home / "drm" / "store", tables=TABLES, schema_version=SCHEMA_VERSION)
    try:
        keys = store.read(lambda txn: txn.count(KEYS))
    finally:
        asyncio.run(store.close())
    return (home / "drm" / "store" / "data.mdb").stat().st_blocks * 512 / keys


async def commit_ms(folder: Path) -> float:
    """Return how long one durable commit of a row takes on this disk: the median of some."""
    store = open_store(folder, tables=("rows",))
    times = []
    try:
        for number in range(COMMITS):
            started = time.perf_counter()
            await store.update(partial(_put, number.to_bytes(4, "big")))
            times.append(time.perf_counter() - started)
    finally:
        await store.close()
    return statistics.median(times) * 1000


def _put(key: bytes, txn: WriteTransaction) -> None:
    txn.put("rows", key, ROW)


def measure_suite(suite: KeySuite, home: Path, keys: KeyCache, pace: Pace) -> dict[str, Any]:
    """Run a deployment, and return every figure of it."""
    figures = asyncio.run(_measure_running(suite, home, keys, pace))
    return figures | {"bytes_per_key": bytes_per_key(home)}


async def _measure_running(suite: KeySuite, home: Path, keys: KeyCache, pace: Pace) -> dict[str, Any]:
    async with deployments.running(home):
        figures = await Suite(suite, home, keys, pace).measure()
        return figures | {"rss_mb": memory_mb(home)}


def main() -> int:
    """Measure one suite and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=sorted(SUITES))
    parser.add_argument("--keys", type=Path, required=True, help="folder of key pairs, made if need be")
    parser.add_argument("--quick", action="store_true", help="measure for seconds instead of minutes")
    options = parser.parse_args()
    suite, keys = SUITES[options.suite], KeyCache(options.keys, lambda line: print(line, file=sys.stderr))
    with tempfile.TemporaryDirectory(prefix="keyark-bench-", dir=options.keys.parent) as folder:
        home = deployments.make(Path(folder) / "deployment", suite)
        figures = measure_suite(suite, home, keys, QUICK if options.quick else FULL)
    json.dump(figures, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
