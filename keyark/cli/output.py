"""What commands print: lines for people, or proto3 JSON with proto field names for scripts."""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, TextIO

import click
from click.core import ParameterSource

from keyark.client.enrollment.pending import EnrollmentRejectedError, PendingApprovalError
from keyark.errors import InvalidInputError, KeyarkError, Kind, PolicyRejectedError
from keyark.errors.commands import StoppedError, SystemRefusalError, UsageError
from keyark.text.characters import resemblances
from keyark.text.terminal import (
    describe_refusal,
    escaped_json,
    escaped_streams,
    is_reader_gone,
    line,
    output_error,
    print_line,
)

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
REJECTED: Final = 3
PENDING: Final = 4
STOPPED: Final = 130
"""128 + SIGINT, as a shell reports a command that Ctrl-C ended."""
UNREAD: Final = 141
"""128 + SIGPIPE, as a shell reports a command whose reader closed the pipe before its end."""


def json_text(value: dict[str, Any] | Sequence[dict[str, Any]]) -> str:
    """Return one object or one array as text."""
    return escaped_json(json.dumps(value, indent=2, ensure_ascii=False))


class _Answer:
    """What a command printed for scripts: one document at most, or lines that are a document each."""

    is_wanted = False
    is_given = False


def print_json(value: dict[str, Any] | Sequence[dict[str, Any]]) -> None:
    """Print one object or one array."""
    _Answer.is_given = True
    for part in json_text(value).split("\n"):
        say(part)


def say_or_print(
    options: Mapping[str, Any], facts: dict[str, Any] | Sequence[dict[str, Any]], lines: Sequence[str]
) -> None:
    """Print facts for scripts where --json was given, else lines for people."""
    if options["as_json"]:
        print_json(facts)
    else:
        for text in lines:
            say(text)


def say(text: str) -> None:
    """Print one line to stdout, whatever a service put into the text."""
    print_line(text, sys.stdout)


def say_aside(text: str) -> None:
    """Print one line to stderr, whatever a service put into the text."""
    print_line(text, sys.stderr)


class OutputLostError(KeyarkError):
    """What a command has to tell reaches nobody."""

    reason = "OUTPUT_LOST"
    kind = Kind.PRECONDITION
    remedy = "Let standard output go to a terminal or a file, or name a --password-file."


def check_heard(stream: TextIO | None) -> None:
    """Raise OutputLostError where what is written to a standard stream reaches nobody: it is closed, or /dev/null."""
    try:
        lost = stream is None or os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))
    except io.UnsupportedOperation:  # a stream in memory
        lost = False
    except (OSError, ValueError):
        lost = True
    if lost:
        raise OutputLostError(
            "Nobody would see the generated password; name a --password-file, or run the command on a "
            "terminal."
        )


def tell(text: str, stream: TextIO | None) -> None:
    """Print a line that must not get lost; raises OutputLostError where it cannot be written."""
    try:
        if stream is None:
            raise ValueError("closed")
        _Answer.is_given = _Answer.is_given or stream is sys.stdout
        print(text, file=stream, flush=True)
        if (lost := output_error(stream)) is not None:
            raise lost
    except (OSError, ValueError):
        raise OutputLostError(
            "The password could not be shown, so nothing was saved here, and the archive still has the "
            "key. Run the command again."
        ) from None


def is_output_closed() -> bool:
    """Whether nothing that is printed to stdout arrives any more; a command that only shows things may then stop."""
    return output_error(sys.stdout) is not None


def end_if_output_closed() -> None:
    """End a command that only shows things, with the code of SIGPIPE, where its reader closed the pipe."""
    lost = output_error(sys.stdout)
    if lost is not None and is_reader_gone(lost):
        raise SystemExit(UNREAD)


class NotConfirmedError(KeyarkError):
    """A person did not answer a question with yes."""

    reason = "NOT_CONFIRMED"
    kind = Kind.PRECONDITION
    remedy = "Answer with yes. Scripts use --yes."


def careful(name: str) -> str:
    """Return what to say after a name: nothing, or that a word of it looks like another word or mixes scripts."""
    notes = "; ".join(resemblances(name))
    return f"  [careful: {notes}]" if notes else ""


def exit_code(error: KeyarkError) -> int:
    """Return the exit code that stands for an error."""
    if isinstance(error, PolicyRejectedError | EnrollmentRejectedError):
        return REJECTED
    if isinstance(error, StoppedError):
        return STOPPED
    if isinstance(error, UsageError) or (
        isinstance(error, InvalidInputError)
        and (error.field.startswith("--") or error.field.endswith("page_token") or error.field == "id")
    ):
        return USAGE
    return PENDING if isinstance(error, PendingApprovalError) else FAILED


def describe_error(error: KeyarkError) -> list[str]:
    """Return an error for people, in lines: the sentence, every rule that rejects, and the reason for scripts."""
    first, *more = f"{error.message} [{error.reason}]".split("\n")
    if isinstance(error, PolicyRejectedError):
        more += [f"{v.subsystem} rule {v.rule}: {v.message}" for v in error.violations]
    return [first, *(f"  {part}" for part in more)]


def error_facts(error: KeyarkError) -> dict[str, Any]:
    """Return an error for scripts: its reason, its sentence, what to do, and every rule that rejects."""
    facts: dict[str, Any] = {"reason": error.reason, "message": error.message, "remedy": error.remedy}
    if isinstance(error, PolicyRejectedError):
        facts["violations"] = [
            {"subsystem": v.subsystem, "rule": v.rule, "message": v.message} for v in error.violations
        ]
    return facts


def _check_given(value: Any, param: click.Parameter | None, ctx: click.Context | None) -> None:
    """Fail where the command line gives an empty text: a filter would select everything, a path be this folder."""
    given = (
        ctx and param and param.name and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    )
    if given and isinstance(value, str) and not value.strip():
        raise click.BadParameter("it is empty; give a value, or leave it out.", ctx=ctx, param=param)


class Paths(click.Path):
    """A path of the command line."""

    @classmethod
    def like(cls, path: click.Path) -> Paths:
        """Return the type that takes what another one takes, less the empty path, which Python reads as "."."""
        paths = cls.__new__(cls)
        vars(paths).update(vars(path))
        return paths

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; fails for an empty one."""
        _check_given(value, param, ctx)
        return super().convert(value, param, ctx)


class Words(click.types.StringParamType):
    """Text of the command line; paths, which may be any bytes, are no such text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text without spaces around it; fails for bytes that are no UTF-8: lone surrogates in Python."""
        text = super().convert(value, param, ctx).strip()
        _check_given(text, param, ctx)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.fail(f"'{line(text)}' is not UTF-8; set the terminal's character set to UTF-8.", param, ctx)
        return text


def with_words(command: click.Command) -> click.Command:
    """Return a command, and all below it, that takes no empty text or path, and text in UTF-8 only."""
    for parameter in command.params:
        if parameter.type is click.STRING:
            parameter.type = Words()
        elif isinstance(parameter.type, click.Path):
            parameter.type = Paths.like(parameter.type)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            with_words(below)
    return command


class KeyarkGroup(click.Group):
    """A command group that turns typed errors into one message and the exit code of the design."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the words name; for an unknown one, what it may have been is told."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand:
            known = self.list_commands(ctx)
            raise click.exceptions.NoSuchCommand(args[0], possibilities=known, ctx=ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a KeyarkError is printed to stderr and ends the process with its code."""
        try:
            return super().invoke(ctx)
        except KeyarkError as error:
            _fail(ctx, error)
        except KeyboardInterrupt:
            _fail(ctx, StoppedError.before_the_end())
        except OSError as error:
            _fail(ctx, SystemRefusalError(describe_refusal(error)))
        except click.UsageError as error:  # click tells it for people, and ends the process
            _answer_with(error_facts(UsageError(error.format_message())))
            _Answer.is_given = True
            raise


def _fail(ctx: click.Context, error: KeyarkError) -> NoReturn:
    first, *more = describe_error(error)
    for part in (f"keyark: {first}", *more):
        say_aside(part)
    _answer_with(error_facts(error))
    ctx.exit(exit_code(error))


def _answer_with(facts: dict[str, Any]) -> None:
    """Print an error as the answer for scripts, where one is wanted and none was given yet."""
    if _Answer.is_wanted and not _Answer.is_given:
        print_json({"error": facts})


def _wants_json(words: Sequence[str]) -> bool:
    return "--json" in (words[: words.index("--")] if "--" in words else words)


class SafeGroup(KeyarkGroup):
    """The group of all commands: whatever one of them prints, click's own words and tracebacks included, is escaped."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run a command on streams that escape what controls a terminal, and that it outlives."""
        given = options.get("args") or (arguments[0] if arguments else None)
        _Answer.is_wanted, _Answer.is_given = (
            _wants_json(sys.argv[1:] if given is None else list(given)),
            False,
        )
        with escaped_streams() as streams:
            try:
                return super().main(*arguments, **options)
            except SystemExit as end:
                raise SystemExit(
                    streams.exit_code(end.code) if isinstance(end.code, int) else end.code
                ) from None
            except Exception:
                say_aside("keyark: the command failed with an unexpected error; please report this:")
                for part in traceback.format_exc().split("\n"):
                    say_aside(f"  {part}")
                raise SystemExit(FAILED) from None
