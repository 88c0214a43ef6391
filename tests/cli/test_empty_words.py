"""An empty text selects nobody, names no file and is no answer: no command takes one for any of its words."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from keyark.cli.main import main


def takers(
    group: click.Group, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Parameter]]:
    """Every option and argument below a group that takes a text or a path."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from takers(command, (*path, name))
            continue
        for parameter in command.params:
            if isinstance(parameter.type, click.Path | click.types.StringParamType):
                yield (*path, name), parameter


@pytest.mark.parametrize("empty", ["", "  "])
def test_no_command_takes_an_empty_word(empty: str) -> None:
    found = list(takers(main))
    assert len(found) > 100
    for path, parameter in found:
        words = [empty] if isinstance(parameter, click.Argument) else [parameter.opts[0], empty]
        done = CliRunner().invoke(main, [*path, *words])
        assert (done.exit_code, "it is empty" in done.output) == (2, True), (path, words, done.output)
