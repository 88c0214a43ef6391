"""What the services' programs print: lines for people, or with --json one document for scripts, as docs/cli.md says."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from keyark.errors import KeyarkError
from keyark.errors.commands import UsageError
from keyark.text.terminal import escaped_json, print_line


class CommandParser(argparse.ArgumentParser):
    """A parser of a program's commands, each of which takes --json; raises UsageError and prints nothing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._below: Any = None
        below = " " in self.prog  # a command's parser must not undo what was said before its name
        self.add_argument(
            "--json",
            action="store_true",
            dest="as_json",
            default=argparse.SUPPRESS if below else False,
            help="print JSON for scripts",
        )

    def add_subparsers(self, **options: Any) -> Any:
        """Add commands below this one, and remember them."""
        self._below = super().add_subparsers(**options)
        return self._below

    @property
    def below(self) -> Mapping[str, CommandParser]:
        """The commands below this one by their names, in order."""
        return self._below.choices if self._below else {}

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the words."""
        raise UsageError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")


def wants_json(words: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, also one that does not parse."""
    return "--json" in words


def answer(parsed: argparse.Namespace, facts: Any, lines: Sequence[str] = ()) -> None:
    """Print facts where --json was given, else lines; what a command only has as JSON it always prints so."""
    if parsed.as_json or not lines:
        print_line(escaped_json(json.dumps(facts, ensure_ascii=False)), sys.stdout)
        return
    for line in lines:
        print_line(line, sys.stdout)


def answer_lines(parsed: argparse.Namespace, role: str, lines: Sequence[str]) -> None:
    """Print lines; for scripts each is an object that names the service."""
    if parsed.as_json:
        answer(parsed, [{"service": role, "line": line} for line in lines])
        return
    for line in lines:
        print_line(line, sys.stdout)


def tell_error(role: str, error: KeyarkError, *, as_json: bool) -> None:
    """Print an error on standard error, and for scripts as a document too."""
    print_line(f"{role}: {error.message} [{error.reason}]", sys.stderr)
    if as_json:
        facts = {"reason": error.reason, "message": error.message, "remedy": error.remedy}
        print_line(escaped_json(json.dumps({"error": facts}, ensure_ascii=False)), sys.stdout)
