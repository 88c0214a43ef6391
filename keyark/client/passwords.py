"""Where passwords come from: a callback, never an argument that lands in a process list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

PasswordSource = Callable[[Path], bytes | None]
"""Given the file that is encrypted, returns its password, or None where there is none to give."""


def no_password(_: Path) -> bytes | None:
    """The source for files that are not encrypted."""
    return None
