"""What commands make of words: an empty one is refused everywhere, a wrong one is told what it may have been."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from keyark.cli.main import main
from keyark.cli.options import confirm
from keyark.cli.output import NotConfirmedError


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


def test_a_word_has_no_spaces_around_it_for_any_command() -> None:
    for path, parameter in takers(main):
        if isinstance(parameter.type, click.types.StringParamType):
            context = click.Context(click.Command(path[-1]))
            assert (
                parameter.type.convert(" pia@example.org\u00a0", parameter, context) == "pia@example.org"
            ), path


def test_a_mistyped_command_is_told_what_it_may_have_been() -> None:
    for words, meant in (("renw", "renew"), ("certificate", "certificates"), ("recover aprove", "approve")):
        done = CliRunner().invoke(main, words.split())
        assert (done.exit_code, f"Did you mean '{meant}'" in done.output) == (2, True), done.output


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_a_question_without_a_yes_says_that_nothing_was_done(answer: str) -> None:
    asking = click.command()(lambda: confirm("Approve this?"))
    done = CliRunner().invoke(asking, input=answer)
    assert isinstance(done.exception, NotConfirmedError)
    assert "nothing was done. Scripts use --yes" in done.exception.message
    assert CliRunner().invoke(asking, input="y\n").exit_code == 0


def test_a_holder_is_offered_the_reasons_that_a_holder_may_give() -> None:
    words = ["certificates", "revoke-own", "."]
    for more in (["--help"], ["--reason", "lost"], ["--reason", "privilegeWithdrawn"]):
        done = CliRunner().invoke(main, [*words, *more])
        offered = done.output.replace("'privilegeWithdrawn' is not one of", "")
        assert "cessationOfOperation" in offered
        assert "privilegeWithdrawn" not in offered
