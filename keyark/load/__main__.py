"""`python -m keyark.load`: the benchmark on a fresh deployment."""

from __future__ import annotations

import argparse
from pathlib import Path

from keyark.load.bench import main

parser = argparse.ArgumentParser(description="crypto floor, server CPU per enrollment, mean batch size")
parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
parser.add_argument("--enrollments", type=int, default=2048)
arguments = parser.parse_args()
main(arguments.output, arguments.enrollments)
