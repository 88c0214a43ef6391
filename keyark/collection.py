"""The cyclic garbage collector, set for processes that start once and then serve small things in great number.

What a service needs for all its life is some hundred thousand objects: modules, descriptors, keys. By default the
collector walks through part of them after every 700 objects that live on, and through all of them now and then,
although batches of requests die by reference counting alone.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 20_000
"""Objects that live on before the youngest are looked through: more than a full batch has."""


def collect_later() -> None:
    """Look for no cycles while modules are imported: that takes a quarter of a service's start, and finds none."""
    gc.disable()


def set_modules_aside() -> None:
    """Look for cycles again, among what is made from now on."""
    gc.freeze()
    gc.enable()


def tune_garbage_collection() -> None:
    """Set aside what is there for good, and look for cycles among new objects less often; none stays uncollected."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
    gc.enable()
