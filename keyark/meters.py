"""What a service counts: numbers for whoever measures it, read on demand and at no cost in between.

A service that runs as a program writes them to ``meters.json`` in its store's folder (0600) when it starts and
whenever it gets SIGUSR1::

    {"sequence": 3, "pid": 4711, "seconds": 86.2, "store": {"commits": 12, ...}, "calls": {"/keyark.v1...": 7}}

There is no port and no method that somebody would have to be kept from. Names and numbers only: nothing of a request.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FILE: Final = "meters.json"

logger = logging.getLogger(__name__)


class Meters:
    """The counters of one service, by the name of the part that counts; ``folder`` takes the file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._sources: dict[str, DataclassInstance | Mapping[str, float]] = {}
        self._sequence = 0

    def add(self, name: str, source: DataclassInstance | Mapping[str, float]) -> None:
        """Include a part's counters, which it goes on to change; the newest of a name counts."""
        self._sources[name] = source

    def read(self) -> dict[str, dict[str, float]]:
        """Return every part's numbers as they are now."""
        return {
            name: dict(source) if isinstance(source, Mapping) else dataclasses.asdict(source)
            for name, source in self._sources.items()
        }

    def write(self) -> None:
        """Replace the file, all of it or nothing; a disk that is full costs the measurement only."""
        self._sequence += 1
        content: dict[str, Any] = {
            "sequence": self._sequence,
            "pid": os.getpid(),
            "seconds": time.monotonic(),
            **self.read(),
        }
        new = self._path.with_suffix(".new")
        try:
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file)
            new.replace(self._path)
        except OSError as error:
            logger.warning("meters cannot be written: %s", error.strerror)

    def remove(self) -> None:
        """Delete the file: nobody counts any more."""
        self._path.unlink(missing_ok=True)
