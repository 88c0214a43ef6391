"""How many branches of each package its own tests reach, against floors that only rise; `make coverage` runs it.

    make coverage                        # every package of tools/coverage_floors.toml
    make coverage PACKAGES="rm_service"  # one of them

What a test reaches in processes that it starts does not count, so these are tests that run the code themselves. The
lines and branches that nothing reached are listed in build/coverage/PACKAGE/index.html.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = ROOT / "tools" / "coverage_floors.toml"
BUILD = ROOT / "build" / "coverage"
SLACK = 2.0
"""Per cent by which a package may be above its floor before the floor has to rise."""


def main() -> int:
    """Measure, print a line for each package, and end with 1 where one is below its floor or far above it."""
    floors = tomllib.loads(FLOORS.read_text())
    parser = argparse.ArgumentParser(description="Branches that a package's own tests reach.")
    parser.add_argument(
        "packages", nargs="*", default=[], help="those of tools/coverage_floors.toml otherwise"
    )
    packages = parser.parse_args().packages or list(floors)
    failed = False
    for package in packages:
        reached, floor = measure(package, floors[package]["tests"]), floors[package]["floor"]
        verdict = "below its floor" if reached < floor else ""
        if reached >= floor + SLACK:
            verdict = "above its floor: raise it"
        print(f"{package:<16} {reached:5.1f} %  floor {floor} %  {verdict}".rstrip())
        failed |= bool(verdict)
    return int(failed)


def measure(package: str, tests: list[str]) -> float:
    """Run the tests, and return the per cent of lines and branches of a package that they reached."""
    folder = BUILD / package.replace("/", ".")
    folder.mkdir(parents=True, exist_ok=True)
    coverage = [sys.executable, "-m", "coverage"]
    data = f"--data-file={folder / 'data'}"
    source = [f"--source={package}", "--branch", data]
    subprocess.run([*coverage, "run", *source, "-m", "pytest", "-q", *tests], cwd=ROOT, check=True)
    report = folder / "report.json"
    subprocess.run([*coverage, "json", "-q", data, "-o", str(report)], cwd=ROOT, check=True)
    subprocess.run([*coverage, "html", "-q", data, "-d", str(folder)], cwd=ROOT, check=True)
    return float(json.loads(report.read_text())["totals"]["percent_covered"])


if __name__ == "__main__":
    sys.exit(main())
