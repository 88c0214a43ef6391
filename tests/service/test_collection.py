"""The collector's setting: what was there is set aside, and cycles made later still go."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, weakref
from keyark.collection import YOUNG, tune_garbage_collection

class Node:
    pass

tune_garbage_collection()
assert gc.get_freeze_count() > 1000 and gc.isenabled()
first = Node()
first.itself, gone = first, weakref.ref(first)
del first
kept = [[] for _ in range(YOUNG + 1)]
assert gone() is None
"""


def test_cycles_are_collected_after_the_collector_was_settled() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
