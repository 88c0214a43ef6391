"""What a terminal is shown: nothing that moves its cursor, reorders its text, or that nobody sees.

Whatever a command prints goes through one of these: ``print_line`` for lines, ``SafeConsole`` for what Rich draws,
and ``escaped_streams`` below all of it, for tracebacks and what libraries print.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Final
from unicodedata import bidirectional

from keyark.text.characters import unseen_positions

FIRST_STRONG_ISOLATE: Final = "\u2068"
POP_DIRECTIONAL_ISOLATE: Final = "\u2069"


def line(text: str) -> str:
    """Return a text on one line; a character that nobody sees is an escape: ``\\n``, ``\\x1b``, ``\\u202e``."""
    unseen = set(unseen_positions(text))
    if not unseen:
        return text
    return "".join(_escape(char) if position in unseen else char for position, char in enumerate(text))


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def escaped_json(text: str) -> str:
    """Return JSON text that shows nothing but what is seen: other characters of its strings as ``\\uXXXX``."""
    return "\n".join(_json_line(part) for part in text.split("\n"))


def _json_line(text: str) -> str:
    unseen = set(unseen_positions(text))
    return "".join(_utf16(char) if position in unseen else char for position, char in enumerate(text))


def _utf16(character: str) -> str:
    raw = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{raw[i : i + 2].hex()}" for i in range(0, len(raw), 2))


def isolated(text: str) -> str:
    """Return a line whose right-to-left words stand apart, so that they reorder nothing around them (UAX 9)."""
    first = next((i for i, char in enumerate(text) if _is_right_to_left(char)), None)
    if first is None:
        return text
    rest = next((i for i in range(first, len(text)) if bidirectional(text[i]) == "L"), len(text))
    reach = text[first:rest]
    size = len(reach) - len(list(_trailing(reach)))
    word = reach[:size]
    return (
        f"{text[:first]}{FIRST_STRONG_ISOLATE}{word}{POP_DIRECTIONAL_ISOLATE}{isolated(text[first + size :])}"
    )


def _trailing(text: str) -> Iterator[str]:
    """Yield what follows the last right-to-left character."""
    for character in reversed(text):
        if _is_right_to_left(character):
            return
        yield character


def _is_right_to_left(character: str) -> bool:
    return bidirectional(character) in ("R", "AL")


def below(stream: IO[str]) -> IO[str]:
    """Return the stream that is written to without escaping: for what is escaped already, and for what draws."""
    return stream.rich_proxied_file if isinstance(stream, EscapingStream) else stream


def several_lines(text: str) -> str:
    """Return a text as ``line`` does, with its line ends."""
    return "\n".join(line(part) for part in text.split("\n"))


class EscapingStream:
    """A text stream on which only line ends control the terminal. Rich, which draws, is given what lies below."""

    def __init__(self, stream: IO[str]) -> None:
        self.rich_proxied_file = stream

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # nobody gets around this one
            raise AttributeError(name)
        return getattr(self.rich_proxied_file, name)

    def write(self, text: str) -> int:
        """Write a text, escaped."""
        if not isinstance(text, str):
            raise TypeError("This stream takes text.")
        return _write(self.rich_proxied_file, several_lines(text))

    def writelines(self, parts: Iterable[str]) -> None:
        """Write texts, escaped."""
        for part in parts:
            self.write(part)


def print_line(text: str, stream: IO[str] | None) -> None:
    """Print one line, whatever is in the text; right-to-left words stand apart on a terminal that may reorder them."""
    if stream is None:  # it was closed before the command began
        return
    target = below(stream)
    shown = line(text)
    _write(target, f"{isolated(shown) if target.isatty() else shown}\n")
    target.flush()


def _write(stream: IO[str], text: str) -> int:
    try:
        return stream.write(text)
    except UnicodeEncodeError:
        encoding = getattr(stream, "encoding", None) or "ascii"
        return stream.write(text.encode(encoding, "backslashreplace").decode(encoding))


class _OneLineFormatter(logging.Formatter):
    """A record is one line, and its traceback indented lines: whatever callers wrote forges no other record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 — logging calls it so
        return line(super().formatMessage(record))


def log_to_stderr(layout: str) -> None:
    """Log warnings and errors to stderr, each on one line, whatever a caller put into it."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLineFormatter(layout))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


@contextmanager
def escaped_streams() -> Iterator[None]:
    """Escape whatever is written to stdout and stderr until the end."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and EscapingStream(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
