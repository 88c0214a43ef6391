"""`make bench`: each key suite on a fresh deployment, then build/bench.json and build/bench.html.

`python -m benchmarks --quick` takes less than two minutes. A suite runs in a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.page import bench_page, bench_tables
from keyark.load.driving.observing import machine
from keyark.load.planning.suites import RSA, SUITES

RSA_2048: Final = Path(__file__).parent / "rsa2048"
BUILD: Final = Path("build")


def run_suite(name: str, keys: Path, *arguments: str) -> dict[str, Any]:
    """Run one suite; raises CalledProcessError where it fails, after it has said why."""
    python = _rsa_2048_python() if name == RSA.name else sys.executable
    command = [python, "-m", "benchmarks.suite", name, "--keys", str(keys), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 — fixed program
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _rsa_2048_python() -> str:
    """Return a Python like this one that knows RSA-2048; programs are isolated, so no variable could add it."""
    folder = BUILD / "rsa2048"
    venv.create(folder, symlinks=True, clear=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    ours = sysconfig.get_path("purelib")
    (packages / "keyark.pth").write_text(f"import site; site.addsitedir({ours!r})\n", encoding="utf-8")
    shutil.copy(RSA_2048 / "sitecustomize.py", packages)
    return str(folder / "bin" / "python")


def report_of(
    runs: dict[str, list[dict[str, Any]]], *, host: dict[str, Any], seconds: float, quick: bool
) -> dict[str, Any]:
    """Return build/bench.json: the median of each figure, every run's own, and what they were measured on.

    Series are those of the last run.
    """
    figures = {
        name: [{k: v for k, v in run.items() if k != "series"} for run in made] for name, made in runs.items()
    }
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": host,
        "quick": quick,
        "seconds": seconds,
        "suites": {
            name: {**median_of(made), "series": runs[name][-1]["series"]} for name, made in figures.items()
        },
        "runs": figures,
    }


def median_of(runs: list[Any]) -> Any:
    """Return the median of numbers, below every key of dictionaries; what is no number is the last run's."""
    last = runs[-1]
    if isinstance(last, dict):
        return {key: median_of([run[key] for run in runs if key in run]) for key in last}
    if isinstance(last, int | float):
        return statistics.median(runs)
    return last


def main() -> int:
    """Run the suites and write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="all suites in less than two minutes")
    parser.add_argument("--suites", default=",".join(SUITES), help="of ec, rsa and pq")
    parser.add_argument(
        "--runs", type=int, default=1, help="of every suite; the report has the median and all"
    )
    parser.add_argument("--keys", type=Path, default=Path("build/load-keys"), help="folder of key pairs")
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
    options = parser.parse_args()
    console, started = Console(stderr=True), time.monotonic()
    options.keys.parent.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.suites.split(",")}
    host = machine()
    for number, name in itertools.product(range(1, options.runs + 1), runs):
        with console.status(f"measuring suite {name}, run {number} of {options.runs}"):
            runs[name].append(run_suite(name, options.keys, *(["--quick"] if options.quick else [])))
        console.print(f"suite {name}, run {number}, done after {time.monotonic() - started:.0f} s")
    report = report_of(runs, host=host, seconds=time.monotonic() - started, quick=options.quick)
    options.output.write_text(json.dumps(report, indent=2) + "\n")
    options.output.with_suffix(".html").write_text(bench_page(report))
    for table in bench_tables(report):
        Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
