"""`keyark enrollments`, and how lists and single messages are printed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from google.protobuf.message import Message

from keyark.cli.options import (
    home_option,
    identity_option,
    identity_password_option,
    json_option,
    paging_options,
    password_source,
)
from keyark.cli.output import (
    KeyarkGroup,
    careful,
    end_if_output_closed,
    is_output_closed,
    print_json,
    say,
    say_aside,
)
from keyark.cli.shape import to_json
from keyark.client.access.home import Home
from keyark.client.access.sessions import Session, open_session
from keyark.client.administration import lists as administration
from keyark.client.administration.paging import Paging
from keyark.client.trust.witnesses import Witnesses
from keyark.errors.commands import UsageError
from keyark.rpc.calling.retries import NO_RETRIES
from keyark.statements.enrollment import reread_statement
from keyark.v1.registration_pb2 import Enrollment, EnrollmentState, Recoverability

M = TypeVar("M", bound=Message)
Row = TypeVar("Row")

STATES: Final = {
    "pending": EnrollmentState.ENROLLMENT_STATE_PENDING_APPROVAL,
    "approved": EnrollmentState.ENROLLMENT_STATE_APPROVED,
    "issued": EnrollmentState.ENROLLMENT_STATE_ISSUED,
    "rejected": EnrollmentState.ENROLLMENT_STATE_REJECTED,
    "canceled": EnrollmentState.ENROLLMENT_STATE_CANCELED,
    "expired": EnrollmentState.ENROLLMENT_STATE_EXPIRED,
}


@click.group(cls=KeyarkGroup)
def enrollments() -> None:
    """See enrollments, and decide on those that wait for a registration officer."""


@enrollments.command("list")
@click.option(
    "--state",
    type=click.Choice(list(STATES)),
    help="List only enrollments in this state; with pending, those that expire first come first.",
)
@home_option
@identity_option("officer/officer")
@identity_password_option
@paging_options
@json_option
def list_enrollments(*, state: str | None, **options: Any) -> None:
    """List enrollments, oldest first."""
    wanted = STATES.get(state or "", EnrollmentState.ENROLLMENT_STATE_UNSPECIFIED)
    print_all(
        options, "rm", lambda s, part: administration.list_enrollments(s, wanted, part), enrollment_line
    )


def print_all(
    options: dict[str, Any],
    role: str,
    fetch: Callable[[Session, Paging], AsyncIterator[M]],
    line: Callable[[M], str],
) -> None:
    """Print every message of the part that the options name as it comes, and where the list goes on.

    JSON is one array, or an object with the array and the next page token where a part was asked for.
    """
    as_json: bool = options["as_json"]
    paging = Paging(token=options["page_token"], limit=options["limit"])

    async def run() -> list[dict[str, Any]]:
        collected = []
        async with session_of(options, role) as session:
            async for message in fetch(session, paging):
                if is_output_closed():
                    break
                if as_json:
                    collected.append(to_json(message))
                else:
                    say(line(message))
        return collected

    print_part(options, asyncio.run(run()), paging)
    if not as_json:
        say_unproven(role)


def part_of(rows: Sequence[Row], paging: Paging, *, token: Callable[[Row], str]) -> Sequence[Row]:
    """Return the part of a whole list that is wanted; raises UsageError for a token of no entry of it.

    ``token`` names an entry, and an entry's token goes on after it.
    """
    tokens = [token(row) for row in rows]
    if paging.token and paging.token not in tokens:
        raise UsageError(
            "The page token belongs to another list, or to other filters; take the one it printed."
        )
    start = tokens.index(paging.token) + 1 if paging.token else 0
    end = len(rows) if paging.limit is None else start + paging.limit
    if end < len(rows):
        paging.next_token = tokens[end - 1]
    return rows[start:end]


def print_part(
    options: dict[str, Any], facts: list[dict[str, Any]], paging: Paging, *, lines: Sequence[str] = ()
) -> None:
    """Print a part of a list, whose lines may be printed already, and where the list goes on."""
    if options["as_json"]:
        print_json(_page(facts, paging) if paging.token or paging.limit else facts)
        return
    for text in lines:
        say(text)
    end_if_output_closed()
    if paging.next_token:
        say_aside(f"more        go on with --page-token {paging.next_token}")


def _page(collected: list[dict[str, Any]], paging: Paging) -> dict[str, Any]:
    following = {"next_page_token": paging.next_token} if paging.next_token else {}
    return {"entries": collected} | following


def say_unproven(role: str) -> None:
    """Tell aside whose word a list is."""
    say_aside(f"unproven    every line is the word of the {role.upper()} alone; `show` verifies what can be")


def print_one(
    options: dict[str, Any], role: str, fetch: Callable[[Session], Any], line: Callable[[Any], str]
) -> None:
    """Print one message."""

    async def run() -> Message:
        async with session_of(options, role) as session:
            found: Message = await fetch(session)
            return found

    message = asyncio.run(run())
    if options["as_json"]:
        print_json(to_json(message))
    else:
        say(line(message))


def session_of(options: dict[str, Any], role: str) -> Any:
    """Return the session of the identity that the options name."""
    home: Path = options["home"]
    password = password_source(options["identity_password_file"])
    return open_session(home, role, identity=options["identity"], password=password, retries=NO_RETRIES)


def witnesses_of(options: dict[str, Any]) -> AbstractAsyncContextManager[Witnesses]:
    """Return channels to the DRM, RM and CM, of the identity that the options name."""
    password = password_source(options["identity_password_file"])
    return Witnesses.open(
        Home.load(options["home"]), identity=options["identity"], password=password, retries=NO_RETRIES
    )


def hexadecimal(text: str) -> bytes:
    """Return the bytes of hexadecimal digits, with or without colons; raises UsageError."""
    digits = text.replace(":", "").lower()
    try:
        return bytes.fromhex(digits.rjust(len(digits) + len(digits) % 2, "0"))
    except ValueError:
        raise UsageError(f"{text!r} is not hexadecimal.") from None


def when(seconds: float) -> str:
    """Return a time (seconds) for people, UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def recoverability(enrollment: Enrollment) -> str:
    """Return what the RM says of the archived key, "" where none was archived."""
    if enrollment.recoverability == Recoverability.RECOVERABILITY_RECOVERABLE:
        return "archived, recoverable by a quorum of agents"
    if enrollment.recoverability != Recoverability.RECOVERABILITY_NOT_YET:
        return ""
    why = enrollment.not_recoverable_reason or "the archive is being told of the certificate"
    return f"archived, not yet recoverable ({why})"


def enrollment_line(enrollment: Enrollment) -> str:
    """Return an enrollment on one line: when it was completed, or when it was submitted while it waits."""
    statement = reread_statement(enrollment.statement)
    state = EnrollmentState.Name(enrollment.state).removeprefix("ENROLLMENT_STATE_")
    time_us = enrollment.completed_time_us or enrollment.review.submitted_time_us
    return (
        f"{enrollment.enrollment_id.hex()}  {state}  {when(time_us / 1e6)}  "
        f"{statement.common_name} <{statement.email}>  by {statement.caller}"
        f"{careful(statement.common_name)}"
        f"{'  archived, not yet recoverable' if enrollment.not_recoverable_reason else ''}"
    )
