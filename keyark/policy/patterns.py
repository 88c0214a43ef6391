"""Regular expressions of administrators on texts of others: RE2, in time linear in the text, and compiled once."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import re2

MATCHES: Final = "matches_kept"
"""The name of ``matches`` in compiled conditions; those that people write do not have it."""
MAX_KEPT: Final = 256
"""Compiled patterns that are kept, those used last."""

_OPTIONS: Final = re2.Options()
_OPTIONS.log_errors = False


def matches(text: str, pattern: str) -> bool:
    """Whether the pattern matches anywhere in the text; raises ValueError where it is no regular expression."""
    return _compiled(pattern).search(text) is not None


def matches_whole(text: str, pattern: str) -> bool:
    """Whether the pattern matches the whole text; raises as ``matches``."""
    return _compiled(pattern).fullmatch(text) is not None


def check_pattern(pattern: str) -> str:
    """Return a pattern; raises ValueError where it is no regular expression of RE2."""
    _compiled(pattern)
    return pattern


@lru_cache(maxsize=MAX_KEPT)
def _compiled(pattern: str) -> Any:
    try:
        return re2.compile(pattern, _OPTIONS)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace")
        raise ValueError(f"{pattern!r} is not a valid regex: {reason}") from None
