"""What commands print: lines for people, or proto3 JSON with proto field names for scripts."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from typing import Any, Final, TextIO

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from keyark.client.pending import EnrollmentRejectedError, PendingApprovalError
from keyark.errors import ConfigurationError, KeyarkError, Kind, PolicyRejectedError

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
REJECTED: Final = 3
PENDING: Final = 4


def to_json(message: Message) -> dict[str, Any]:
    """Return a message as proto3 JSON with proto field names."""
    return MessageToDict(message, preserving_proto_field_name=True)


def json_text(value: dict[str, Any] | Sequence[dict[str, Any]]) -> str:
    """Return one object or one array as text."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def print_json(value: dict[str, Any] | Sequence[dict[str, Any]]) -> None:
    """Print one object or one array."""
    click.echo(json_text(value))


class OutputLostError(KeyarkError):
    """What a command has to tell reaches nobody."""

    reason = "OUTPUT_LOST"
    kind = Kind.PRECONDITION


def check_heard(stream: TextIO | None) -> None:
    """Raise OutputLostError where what is written to a standard stream reaches nobody: it is closed, or /dev/null."""
    try:
        lost = stream is None or os.path.samestat(os.fstat(stream.fileno()), os.stat(os.devnull))
    except (OSError, ValueError):
        lost = not isinstance(stream, io.StringIO)
    if lost:
        raise OutputLostError(
            "The password that is made would be shown to nobody; name a --password-file, or run it on a terminal."
        )


def tell(text: str, stream: TextIO | None) -> None:
    """Print a line that must not get lost; raises OutputLostError where it cannot be written."""
    try:
        if stream is None:
            raise ValueError("closed")
        print(text, file=stream, flush=True)
    except (OSError, ValueError):
        raise OutputLostError(
            "The password could not be shown, so nothing was kept here and the archive still holds the key; run the "
            "command again."
        ) from None


def exit_code(error: KeyarkError) -> int:
    """Return the exit code that stands for an error."""
    if isinstance(error, PolicyRejectedError | EnrollmentRejectedError):
        return REJECTED
    return PENDING if isinstance(error, PendingApprovalError) else FAILED


def describe_error(error: KeyarkError) -> str:
    """Return an error for people: the sentence, every rule that rejects, and the reason for scripts."""
    lines = [f"{error.message} [{error.reason}]"]
    if isinstance(error, PolicyRejectedError):
        lines += [f"  {v.subsystem} rule {v.rule}: {v.message}" for v in error.violations]
    return "\n".join(lines)


class KeyarkGroup(click.Group):
    """A command group that turns typed errors into one message and the exit code of the design."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a KeyarkError is printed to stderr and ends the process with its code."""
        try:
            return super().invoke(ctx)
        except KeyarkError as error:
            click.echo(f"keyark: {describe_error(error)}", err=True)
            ctx.exit(USAGE if isinstance(error, UsageError) else exit_code(error))


class UsageError(ConfigurationError):
    """The command's words do not fit together."""

    reason = "USAGE"
