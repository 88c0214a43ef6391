"""Writes the reference of commands in docs/cli.md from the commands themselves; `make docs` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from keyark.cli.main import main as keyark

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
    """Return every command with its arguments and options, in Markdown."""
    return "\n".join(
        line for path, command in commands(keyark, ()) for line in described(path, command)
    ).rstrip()


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
