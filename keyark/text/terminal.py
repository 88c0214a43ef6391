"""What a terminal is shown: nothing that moves its cursor, reorders its text, or that nobody sees.

Whatever a command prints goes through one of these: ``print_line`` for lines, ``SafeConsole`` for what Rich draws,
and ``escaped_streams`` below all of it, for tracebacks and what libraries print. No output error ends a command: text
that the locale cannot show is escaped, and text that cannot be written is dropped.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, Final
from unicodedata import bidirectional

from keyark.text.characters import unseen_positions

FIRST_STRONG_ISOLATE: Final = "\u2068"
POP_DIRECTIONAL_ISOLATE: Final = "\u2069"


def line(text: str) -> str:
    """Return a text on one line; a character that nobody sees is an escape: ``\\n``, ``\\x1b``, ``\\u202e``.

    A byte of a file name that is no UTF-8, which Python keeps as a lone surrogate, is shown as that byte: ``\\xff``.
    """
    unseen = set(unseen_positions(text))
    if not unseen:
        return text
    return "".join(_escape(char) if position in unseen else char for position, char in enumerate(text))


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
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


class EnduringStream:
    """A text stream that a command outlives.

    A character that the encoding lacks is written as an escape. Once a text cannot be written, ``failure`` says why,
    and that text and all later ones are dropped.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.failure: OSError | ValueError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text."""
        encoding = getattr(self._stream, "encoding", None)
        shown = text.encode(encoding, "backslashreplace").decode(encoding) if encoding else text
        with self._enduring():
            self._stream.write(shown)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        with self._enduring():
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        try:
            return self._stream.isatty()
        except ValueError:  # it was closed
            return False

    @contextmanager
    def _enduring(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # the latter where it was closed
            self.failure = self.failure or error
            self._drop_the_rest()

    def _drop_the_rest(self) -> None:
        """Lead the descriptor to /dev/null, so that what is buffered fails neither now nor when Python ends."""
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), self._stream.fileno())


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
        return self.rich_proxied_file.write(several_lines(text))

    def writelines(self, parts: Iterable[str]) -> None:
        """Write texts, escaped."""
        for part in parts:
            self.write(part)


def print_line(text: str, stream: IO[str] | None) -> None:
    """Print one line, whatever is in the text; right-to-left words stand apart on a terminal that may reorder them."""
    if stream is None:  # it was closed before the command began
        return
    target = _enduring(below(stream))
    shown = line(text)
    target.write(f"{isolated(shown) if target.isatty() else shown}\n")
    target.flush()


def output_error(stream: IO[str] | None) -> OSError | ValueError | None:
    """Return why a text was dropped that was written to a stream of ``escaped_streams``; None where all was written."""
    target = None if stream is None else below(stream)
    return target.failure if isinstance(target, EnduringStream) else None


class _OneLineFormatter(logging.Formatter):
    """A record is one line, and its traceback indented lines: whatever callers wrote forges no other record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 — logging calls it so
        return line(super().formatMessage(record))


def log_to_stderr(layout: str) -> None:
    """Log warnings and errors to stderr, each on one line, whatever a caller put into it."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLineFormatter(layout))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def is_reader_gone(error: OSError | ValueError) -> bool:
    """Whether an output error says that the reader closed the pipe, as `head` does once it has enough."""
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def describe_refusal(error: OSError) -> str:
    """Return what the operating system refused, to which file, in a sentence with a way out."""
    where = " and ".join(
        os.fsdecode(p) for p in (error.filename, error.filename2) if isinstance(p, str | bytes)
    )
    why = error.strerror or type(error).__name__
    return (
        f"{where or 'A file or connection'} cannot be used: {why}. Correct that, and run the command again."
    )


@dataclass(frozen=True)
class Streams:
    """Standard output and standard error of a command."""

    output: Any
    aside: Any

    def exit_code(self, code: int) -> int:
        """Return the code to end with: 1 in place of 0 where standard output was lost, and not by its reader's wish."""
        if self.output is not None:
            self.output.flush()
        lost = output_error(self.output)
        if lost is None or code != 0 or is_reader_gone(lost):
            return code
        why = (isinstance(lost, OSError) and lost.strerror) or "it is closed"
        print_line(
            f"The command did its work, but its output could not be written: {why}. [OUTPUT_LOST]",
            self.aside,
        )
        return 1


@contextmanager
def escaped_streams() -> Iterator[Streams]:
    """Escape whatever is written to stdout and stderr until the end, and let no output error end the command."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (stream and EscapingStream(_enduring(below(stream))) for stream in before)
    try:
        yield Streams(sys.stdout, sys.stderr)
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before


def _enduring(stream: IO[str]) -> Any:
    return stream if isinstance(stream, EnduringStream) else EnduringStream(stream)
