"""`keyark audit log`: what happened, from the three logs at once, each entry with its proof."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click

from keyark.cli.listing import hexadecimal
from keyark.cli.options import (
    password_source,
    person_options,
)
from keyark.cli.output import careful, end_if_output_closed, is_output_closed, json_text, say, say_aside
from keyark.client.audit.log_entries import EVENT_TYPES, SHOWN, EntryFilter, PersonTrail, ReadEntry, rfc3339
from keyark.client.audit.log_reading import LogPositions, LogReading
from keyark.errors.commands import UsageError
from keyark.rpc.calling.retries import NO_RETRIES
from keyark.text.terminal import escaped_json

F = TypeVar("F", bound=Callable[..., Any])

LOOK_SECONDS: Final = 10
"""Between two looks of --follow: a witness takes 600 newer heads of the DRM's log an hour from one auditor."""


def filter_options(function: F) -> F:
    """The options that say which entries are meant; those that are given have to fit together."""
    for option in reversed(
        (
            click.option(
                "--type",
                "types",
                multiple=True,
                metavar="TYPE",
                type=click.Choice(EVENT_TYPES, case_sensitive=False),
                help="Entries of this type, such as KEYS_RECOVERED. Repeat it for several types.",
            ),
            click.option(
                "--person",
                default="",
                help="Entries about this person (whole common name or address) and that person's keys.",
            ),
            click.option(
                "--caller",
                default="",
                metavar="ROLE/NAME",
                help="Entries caused by this identity, or on its behalf.",
            ),
            click.option("--officer", default="", metavar="NAME", help="Entries caused by this officer."),
            click.option(
                "--agent", default="", metavar="NAME", help="Entries caused by this recovery agent."
            ),
            click.option(
                "--certificate",
                default="",
                help="Entries about this certificate: its serial number or SHA-256.",
            ),
            click.option(
                "--since", type=str, help="Entries at this time or later (RFC 3339 or a date, UTC)."
            ),
            click.option("--until", type=str, help="Entries before this time."),
        )
    ):
        function = option(function)
    return function


def pop_filter(options: dict[str, Any]) -> EntryFilter:
    """Return the filter that a command's options name; raises UsageError."""
    return EntryFilter(
        types=tuple(options["types"]),
        person=options["person"],
        caller=options["caller"].removeprefix("spiffe://").removeprefix(f"{_domain(options['caller'])}/"),
        officer=_identity("officer", options["officer"]),
        agent=_identity("agent", options["agent"]),
        certificate=hexadecimal(options["certificate"]).lstrip(b"\0"),
        since=_moment("--since", options["since"]),
        until=_moment("--until", options["until"]),
    )


def _domain(identity: str) -> str:
    return identity.removeprefix("spiffe://").partition("/")[0] if "://" in identity else ""


def _identity(role: str, name: str) -> str:
    return name and f"{role}/{name.removeprefix(f'{role}/')}"


def _moment(option: str, text: str | None) -> int | None:
    """Return a time in microseconds, UTC where the text names no offset; raises UsageError."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} {text!r} is not a time; write 2026-11-30 or 2026-11-30T22:15:00Z."
        ) from None
    since_epoch = moment.replace(tzinfo=moment.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return round(since_epoch.total_seconds() * 1_000_000)


@click.command("log")
@filter_options
@click.option("--limit", type=click.IntRange(1), help="Show at most this many entries.")
@click.option(
    "--page-token", default="", help="Continue where an earlier run stopped; that run printed the token."
)
@click.option("--follow", is_flag=True, help="Keep running and show new entries, until Ctrl-C.")
@click.option("--json-lines", is_flag=True, help="Print one JSON object on each line, for a SIEM.")
@person_options("auditor/auditor")
def show_log(**options: Any) -> None:
    """Show the log entries of RM, CM and DRM, merged by time.

    Each entry is verified under the signed head of its log. That head must continue what this home saw before,
    and the DRM's must be the one that RM and CM follow. An entry that cannot be proven is marked as unproven. A
    contradiction is an error.
    """
    if options["as_json"] and (options["json_lines"] or options["follow"]):
        raise UsageError("--json prints one array, which --follow never ends; use --json-lines instead.")
    wanted = pop_filter(options)
    token = options["page_token"]
    shown = _Shown(
        wanted=wanted,
        limit=options["limit"],
        printing=_printing(options),
        start=LogPositions.parse(token) if token else LogPositions(),
    )

    async def run() -> LogReading:
        async with LogReading.open(
            options["home"],
            identity=options["identity"],
            password=password_source(options["identity_password_file"]),
            page_token="" if wanted.person else token,  # what is about a person follows from what was before
            retries=NO_RETRIES,
        ) as reading:
            if options["follow"]:
                await shown.print_all(reading, reading.follow(lambda: _look_again(reading, shown)))
            else:
                await shown.print_all(reading, reading.entries())
            shown.tell(reading)
            return reading

    reading = asyncio.run(run())
    end_if_output_closed()
    reading.check()


async def _look_again(reading: LogReading, shown: _Shown) -> None:
    shown.tell_changes(reading)
    await asyncio.sleep(LOOK_SECONDS)


class _Lines:
    """Prints entries for people."""

    def begin(self) -> None:
        """Nothing comes before the first."""

    def entry(self, entry: ReadEntry, positions: LogPositions) -> None:
        """Print one entry on a line."""
        say(entry_line(entry))

    def end(self) -> None:
        """Nothing comes after the last."""


class _JsonLines(_Lines):
    """Prints each entry as one JSON object on a line, with the token to go on behind it."""

    def entry(self, entry: ReadEntry, positions: LogPositions) -> None:
        """Print one object."""
        facts = entry.facts() | {"page_token": str(positions)}
        say(escaped_json(json.dumps(facts, ensure_ascii=False, separators=(",", ":"))))


class _JsonArray(_Lines):
    """Prints one array, element by element, so that a large log takes no memory."""

    def __init__(self) -> None:
        self._separator = ""

    def begin(self) -> None:
        """Open the array."""
        say("[")

    def entry(self, entry: ReadEntry, positions: LogPositions) -> None:
        """Print one element."""
        if self._separator:
            say(self._separator)
        self._separator = ","
        for part in json_text(entry.facts() | {"page_token": str(positions)}).split("\n"):
            say(part)

    def end(self) -> None:
        """Close the array."""
        say("]")


def _printing(options: dict[str, Any]) -> _Lines:
    if options["as_json"]:
        return _JsonArray()
    return _JsonLines() if options["json_lines"] else _Lines()


@dataclass(kw_only=True)
class _Shown:
    """Which entries are printed, and what is told beside them."""

    wanted: EntryFilter
    limit: int | None
    printing: _Lines
    start: LogPositions
    count: int = 0
    undisclosed: int = 0
    is_cut: bool = False
    _told: list[str] = field(default_factory=list)

    async def print_all(self, reading: LogReading, entries: AsyncIterator[ReadEntry]) -> None:
        """Print the entries that are looked for, up to the limit."""
        trail = PersonTrail(person=self.wanted.person) if self.wanted.person else None
        self.printing.begin()
        async for entry in entries:
            if is_output_closed():
                break
            is_about = trail is None or trail.is_about(entry)
            if self.wanted.needs_details and entry.details_state != SHOWN:
                self.undisclosed += 1
            is_new = entry.index >= self.start.of[entry.log]
            if not (is_new and is_about and self.wanted.fits(entry)):
                continue
            self.printing.entry(entry, reading.positions.furthest(self.start))
            self.count += 1
            if self.count == self.limit:
                self.is_cut = True
                break
        self.printing.end()

    def tell(self, reading: LogReading) -> None:
        """Tell aside what is not proven, what may be missing, and how to go on."""
        self.tell_changes(reading)
        if self.undisclosed:
            say_aside(
                f"careful     {self.undisclosed} entries have no details (erased, or withheld by policy); some of "
                "them may match, but are not shown"
            )
        if self.is_cut:
            say_aside(f"more        go on with --page-token {reading.positions.furthest(self.start)}")

    def tell_changes(self, reading: LogReading) -> None:
        """Tell aside what is not proven or away, once for as long as it stays so."""
        now = [f"{role:11} not read: {failure.message}" for role, failure in reading.failures.items()]
        if reading.unproven:
            now.append(f"unproven    the drm log: {reading.unproven}")
        for what in now:
            if what not in self._told:
                say_aside(what)
        self._told = now


def entry_line(entry: ReadEntry) -> str:
    """Return an entry on one line: when, where, whether it is proven, what, by whom, about whom, why."""
    details = entry.details
    parts = [
        f"{rfc3339(entry.time_us)}  {entry.log} {entry.index}  {entry.proof.state}  {entry.type}",
        *(f"by {actor}" for actor in entry.actors[:1]),
        *(f"with {actor}" for actor in entry.actors[1:]),
    ]
    if details.common_name or details.email:
        parts.append(f"{details.common_name} <{details.email}>{careful(details.common_name)}")
    parts += _ids(entry)
    parts += [text for text in (details.reason, details.message) if text]
    if entry.details_state != SHOWN:
        parts.append(f"details {entry.details_state}")
    return "  ".join(parts)


def _ids(entry: ReadEntry) -> list[str]:
    event = entry.opened.event
    named = [("certificate", serial) for serial in event.serials[:2]]
    named += [
        ("key", event.encryption_spki_sha256),
        ("ceremony", event.ceremony_id),
        ("policy", event.policy_sha256),
    ]
    return [f"{what} {value.hex()}" for what, value in named if value]
