"""`make fuzz MINUTES=9`: mutates the seeds of every parser for so long, and writes down what it finds.

python -m tests.fuzz --minutes 9 [--seed N] [--target NAME …]

An input that takes longer than 20 seconds ends the run with a traceback, and stays in build/fuzz/current; one that
takes longer than a second, or raises anything but a typed error, is written to build/fuzz/TARGET-HASH. What is mended
goes to tests/fuzz/seeds as a test.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import time
import traceback
import warnings
from collections import Counter
from hashlib import sha256
from pathlib import Path
from random import Random

from keyark.errors import KeyarkError
from tests.fuzz.mutators import mutate
from tests.fuzz.targets import TARGETS, Target

FOUND = Path("build/fuzz")
HANG_SECONDS, SLOW_SECONDS, TURN_SECONDS = 20.0, 1.0, 0.5


class Run:
    """One run: turns of half a second for each target, over and over."""

    def __init__(self, targets: list[Target], random: Random) -> None:
        self._targets, self._random = targets, random
        self._seeds = {target.name: target.seeds() for target in targets}
        self._all = [seed for seeds in self._seeds.values() for seed in seeds]
        self.executions: Counter[str] = Counter()
        self.taken: Counter[str] = Counter()
        self.found: dict[str, str] = {}
        FOUND.mkdir(parents=True, exist_ok=True)
        self._current = (FOUND / "current").open("wb", buffering=0)

    def go_on(self, until: float) -> None:
        """Take turns until a moment (time.monotonic)."""
        while time.monotonic() < until:
            for target in self._targets:
                end = time.monotonic() + TURN_SECONDS
                while time.monotonic() < end:
                    self._try(
                        target, mutate(self._random, self._random.choice(self._seeds[target.name]), self._all)
                    )

    def _try(self, target: Target, data: bytes) -> None:
        self._keep(target, data)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        begun = time.process_time()
        try:
            target.parse(data)
            self.taken[target.name] += 1
        except KeyarkError:
            pass
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            frames = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__} at {Path(frames.filename).name}:{frames.lineno}: {error}"
            self._tell(target, data, what[:300])
        if time.process_time() - begun > SLOW_SECONDS:
            self._tell(target, data, "more than a second")
        self.executions[target.name] += 1

    def _keep(self, target: Target, data: bytes) -> None:
        self._current.seek(0)
        self._current.truncate()
        self._current.write(target.name.encode() + b"\n" + data)

    def _tell(self, target: Target, data: bytes, what: str) -> None:
        key = f"{target.name}: {what.partition(': ')[0]}"
        if key not in self.found:
            path = FOUND / f"{target.name}-{sha256(data).hexdigest()[:12]}"
            path.write_bytes(data)
            self.found[key] = str(path)
            print(f"{path}: {what}", flush=True)


def main() -> int:
    """Run; returns 1 where anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--target", action="append", choices=[target.name for target in TARGETS])
    options = parser.parse_args()
    faulthandler.enable()
    warnings.simplefilter("ignore")
    run = Run(
        [t for t in TARGETS if options.target is None or t.name in options.target], Random(options.seed)
    )
    run.go_on(time.monotonic() + 60 * options.minutes)
    faulthandler.cancel_dump_traceback_later()
    for name, count in sorted(run.executions.items()):
        print(f"{name:24} {count:9} inputs, {run.taken[name]:8} taken")
    total = sum(run.executions.values())
    print(f"{total} inputs, {len(run.executions)} targets, seed {options.seed}, {len(run.found)} findings")
    return 1 if run.found else 0


if __name__ == "__main__":
    sys.exit(main())
