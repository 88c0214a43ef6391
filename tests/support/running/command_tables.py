"""Every command of keyark and of its services, with the paths that each takes, and words to call it with."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from keyark.cli.main import COMMANDS, main

ID = "0192" + "ab" * 30
WORDS = {
    "name": "Alice",
    "email": "alice@example.org",
    "ceremony_id": "01920000000070008000000000000000",
    "enrollment_id": ID,
    "key_id": ID,
    "serial": "01",
    "identity": "client/alice",
    "owner": "alice@example.org",
    "names": "client/enroller",
    "agents": "alice,bob,carol",
    "trust_domain": "example.org",
    "within": "30d",
    "listen": "127.0.0.1:0",
    "quorum": "2",
    "storage_key_id": "ab" * 32,
}

PROCESSES = {("reload",), ("transport-key", "list"), ("transport-key", "retire")}
"""These run the services' own commands, which takes seconds."""

SHARED = {"home", "identity_password_file"}
"""Options of one making, read by the same code in every command: tried once below each word that follows `keyark`."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command, and one of its paths: ``words`` makes the call with that path at a place, ``run`` makes it."""

    name: tuple[str, ...]
    parameter: str
    words: Callable[[Path, Path, Path], list[str]]

    def run(self, place: Path, home: Path, tmp: Path) -> int:
        """Call the command with the path at ``place``, all else in ``home`` and ``tmp``; returns its exit code."""
        return run([*self.name, *self.words(place, home, tmp)])


def run(arguments: list[str]) -> int:
    """Run `keyark` or, if the first word is one, a service's program in this process; returns the exit code.

    Asserts that it ends as a command does that knows what it met.
    """
    if arguments[0] in PROGRAMS:
        code, output = _run_program(PROGRAMS[arguments[0]], arguments[1:])
    else:
        done = CliRunner().invoke(main, arguments)
        code, output = done.exit_code, done.output
    assert "unexpected error" not in output, (arguments, output)
    assert "Traceback" not in output, (arguments, output)
    assert code in (0, 1, 2), (arguments, output)
    return code


def _run_program(program: Any, arguments: list[str]) -> tuple[int, str]:
    told = StringIO()
    with redirect_stdout(told), redirect_stderr(told):
        try:
            code = program.main(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
    return code, told.getvalue()


PROGRAMS = {
    f"keyark-{role}": import_module(f"{role}_service.__main__").PROGRAM for role in ("rm", "cm", "drm")
}


def cases() -> list[Case]:
    """Every command with each of its paths."""
    return [*_of_keyark(), *_of_services()]


def _of_keyark() -> Iterator[Case]:
    tried = set()
    for top in COMMANDS:
        if top == "load":  # it makes keys for minutes before it looks
            continue
        found = main.get_command(click.Context(main), top)
        assert found is not None
        for name, command in _leaves(found, (top,)):
            for parameter in command.params:
                if not isinstance(parameter.type, click.Path):
                    continue
                if parameter.name in SHARED and (top, parameter.name) in tried:
                    continue
                tried.add((top, parameter.name))
                yield Case(
                    name=name, parameter=str(parameter.name), words=_words_of_keyark(command, parameter)
                )


def _leaves(command: click.Command, name: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its words."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for one in command.list_commands(context):
            found = command.get_command(context, one)
            assert found is not None
            yield from _leaves(found, (*name, one))
    else:
        yield name, command


def _words_of_keyark(
    command: click.Command, asked: click.Parameter
) -> Callable[[Path, Path, Path], list[str]]:
    """The arguments with one path at a place; the home is a real one unless that is the place."""

    def words(place: Path, home: Path, tmp: Path) -> list[str]:
        values: list[tuple[click.Parameter, str]] = [(asked, str(place))]
        values += [
            (parameter, _some_value(parameter, home, tmp))
            for parameter in command.params
            if parameter is not asked and (parameter.required or parameter.name in ("home", "name", "email"))
        ]
        said: list[str] = []
        for parameter, value in values:
            said += [parameter.opts[0], value] if isinstance(parameter, click.Option) else []
        return [*said, *(value for parameter, value in values if isinstance(parameter, click.Argument))]

    return words


def _some_value(parameter: click.Parameter, home: Path, tmp: Path) -> str:
    """What a required parameter is given that is not in question."""
    if isinstance(parameter.type, click.Path):
        return str(home if parameter.name in ("home", "folder") else tmp / f"given-{parameter.name}")
    if isinstance(parameter.type, click.Choice):
        return str(parameter.type.choices[0])
    is_text = isinstance(parameter.type, click.types.StringParamType)
    return WORDS.get(parameter.name or "", "text" if is_text else "1")


def _of_services() -> Iterator[Case]:
    for program_name, program in PROGRAMS.items():
        for name, parser in _parsers(program.parser(), (program_name,)):
            actions = [action for action in parser._actions if action.dest != "help"]
            for asked in actions:
                if _is_path(asked):
                    yield Case(
                        name=name,
                        parameter=asked.dest,
                        words=_words_of_program(actions, asked, program_name.removeprefix("keyark-")),
                    )


def _parsers(
    parser: argparse.ArgumentParser, name: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    choices = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not choices:
        yield name, parser
    for below in choices:
        for word, found in (below or {}).items():
            yield from _parsers(found, (*name, str(word)))


def _is_path(action: argparse.Action) -> bool:
    return action.type is Path or getattr(action.type, "__name__", "") == "_absolute"


def _words_of_program(
    actions: list[argparse.Action], asked: argparse.Action, role: str
) -> Callable[[Path, Path, Path], list[str]]:
    def values(action: argparse.Action, place: Path, home: Path, tmp: Path) -> list[str]:
        agents = home / "identities" / "agent"
        config = home / role / f"{role}.toml"
        if asked.dest == "answer":  # a service that has its identity would not read it, but serve
            config = home / "keyark.toml"
        paths = {
            "config": [config],
            "trust_anchor": [home / "trust-anchor.pem"],
            "agent": [agents / name / "share-key.json" for name in ("alice", "bob", "carol")],
        }
        if action is asked:
            return [str(path) for path in (place, *paths.get(action.dest, [])[1:])]
        if _is_path(action):
            return [str(path) for path in paths.get(action.dest, [tmp / f"given-{action.dest}"])]
        return (
            ["agent/alice", "agent/bob", "agent/carol"]
            if action.dest == "agent"
            else [WORDS.get(action.dest, "1")]
        )

    def words(place: Path, home: Path, tmp: Path) -> list[str]:
        wanted = [action for action in actions if action is asked or action.required]
        options = [action for action in wanted if action.option_strings]
        said = [
            word
            for action in options
            for value in values(action, place, home, tmp)
            for word in (action.option_strings[0], value)
        ]
        positional = [action for action in wanted if not action.option_strings]
        return [*said, *(value for action in positional for value in values(action, place, home, tmp))]

    return words
