"""The CEL library without its command line.

Its package imports an interactive shell, whose terminal toolkit takes longer to import than any other part of a
service, and which no service needs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final

_SHELL: Final = "cel.cli"


@contextmanager
def _without_shell() -> Iterator[None]:
    """Let an empty module stand for the shell, unless it was imported already; whoever asks for it later gets it."""
    if _SHELL in sys.modules:
        yield
        return
    sys.modules[_SHELL] = ModuleType(_SHELL)
    try:
        yield
    finally:
        del sys.modules[_SHELL]


with _without_shell():
    import cel

__all__ = ["cel"]
