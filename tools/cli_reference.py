"""Writes the reference of commands in docs/cli.md from the commands themselves; `make docs` runs it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click

from cm_service.__main__ import PROGRAM as CM
from drm_service.__main__ import PROGRAM as DRM
from keyark.cli.main import main as keyark
from keyark.service.program.output import CommandParser
from rm_service.__main__ import PROGRAM as RM

PROGRAMS = (RM, CM, DRM)
WIDTH = 100

DOCUMENT = Path(__file__).parent.parent / "docs" / "cli.md"
BEGIN, END = "<!-- written by make docs, from here -->\n", "<!-- to here -->\n"


def main() -> None:
    """Put the reference between the marks of the document."""
    DOCUMENT.write_text(with_reference(DOCUMENT.read_text()))


def with_reference(document: str) -> str:
    """Return the document with the reference of today's commands between its marks."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}"


def reference() -> str:
    """Return every command with its arguments and options, in Markdown: those of `keyark`, then the services' own."""
    lines = [line for path, command in commands(keyark, ()) for line in described(path, command)]
    for program in PROGRAMS:
        lines += [line for parser in leaves(program.parser()) for line in told(parser)]
    return "\n".join(lines).rstrip()


def leaves(parser: CommandParser) -> Iterator[CommandParser]:
    """Yield the parsers of all commands below one."""
    for below in parser.below.values():
        yield from leaves(below)
    if not parser.below:
        yield parser


def told(parser: CommandParser) -> Iterator[str]:
    """Yield the lines about one command of a service's program."""
    parser.formatter_class = partial(argparse.HelpFormatter, width=WIDTH)
    yield f"### {parser.prog}"
    yield ""
    yield from (f"    {line}".rstrip() for line in parser.format_help().splitlines())
    yield ""


def commands(
    command: click.Command, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield all commands below one, in the order in which --help has them."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        if below is not None:
            yield from commands(below, (*path, name))


def described(path: tuple[str, ...], command: click.Command) -> Iterator[str]:
    """Yield the lines about one command."""
    context = click.Context(command, info_name=f"keyark {' '.join(path)}")
    yield f"### keyark {' '.join(path)}"
    yield ""
    yield f"    keyark {' '.join([*path, *command.collect_usage_pieces(context)])}"
    yield ""
    yield " ".join((command.help or "").split()).replace("|", "\\|")
    yield ""
    rows = [
        record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))
    ]
    rows = [(names, text) for names, text in rows if not names.endswith("--help")]
    if rows:
        yield "| option | |"
        yield "|---|---|"
        for names, text in rows:
            yield f"| `{_cell(names)}` | {_cell(text)} |"
        yield ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
