"""`keyark recover`: agents bring keys back, by a quorum and in the log."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from keyark.cli.agents.ceremonies import (
    ceremony_facts,
    is_change,
    owners_of,
    parse_ceremony_id,
    recovery_client,
    show_ceremony,
    show_line,
    wait_until_carried_out,
)
from keyark.cli.agents.keys import key_id_of
from keyark.cli.listing import print_all, witnesses_of
from keyark.cli.options import (
    accept_weak_option,
    confirm,
    home_option,
    identity_option,
    identity_password_option,
    json_option,
    key_password,
    paging_options,
    password_file_option,
    person_options,
    pkcs12_form_option,
)
from keyark.cli.output import (
    KeyarkGroup,
    OutputLostError,
    check_heard,
    json_text,
    print_json,
    say,
    say_aside,
    say_or_print,
    tell,
)
from keyark.client.access.passwords import new_password
from keyark.client.administration import lists as administration
from keyark.client.administration.abbreviations import whole_ceremony_id
from keyark.client.administration.lists import keys_of_person
from keyark.client.enrollment.folder import KeyFormat
from keyark.client.recovery.client import RecoveryClient
from keyark.client.recovery.delivery import KeyFiles
from keyark.client.recovery.recipients import RecoveredKey
from keyark.client.recovery.review import CeremonyReview, ReviewedCeremony, confirmed
from keyark.errors.commands import UsageError
from keyark.transparency.opening_facts import change_id
from keyark.v1.recovery_pb2 import CeremonyState
from keyark.x509.pkcs12 import Pkcs12Form
from keyark.x509.serials import serial_text


@click.group(cls=KeyarkGroup)
def recover() -> None:
    """Recover keys: one agent asks, a quorum approves, and the agent who asked collects."""


@recover.command()
@click.option(
    "--owner",
    help="E-mail address, or a name that only one person has. Asks for the newest key, or with --all "
    "for every key.",
)
@click.option("--all", "whole_history", is_flag=True, help="With --owner, all keys of that person.")
@click.option("--key", "key_id", help="The key id, hexadecimal. It may be abbreviated.")
@click.option(
    "--cert", type=click.Path(dir_okay=False, path_type=Path), help="The encryption certificate, PEM."
)
@click.option("--reason", required=True, help="The reason, for the other agents to judge. It is logged.")
@person_options("agent/alice")
def request(**options: Any) -> None:
    """Ask for an archived key, and print the id that the other agents approve.

    Standard error says whose keys they are.
    """
    if sum(options[name] is not None for name in ("owner", "key_id", "cert")) != 1:
        raise UsageError("Name the key with one of --owner, --key and --cert.")

    async def run() -> ReviewedCeremony:
        async with recovery_client(options) as client:
            wanted, owner = await _wanted(client, options), options["owner"] or ""
            return await client.request_keys(wanted, reason=options["reason"], owner=owner)

    opened = asyncio.run(run())
    if options["as_json"]:
        print_json(ceremony_facts(opened))
    else:
        say(opened.ceremony_id.hex())
        for owner in owners_of(opened):
            say_aside(f"asked for   {owner}")


async def _wanted(client: RecoveryClient, options: dict[str, Any]) -> list[bytes]:
    if options["owner"] is None:
        return [await key_id_of(client.session, options["key_id"], options["cert"])]
    found = await keys_of_person(client.session, options["owner"])
    return [key.key_id for key in (found if options["whole_history"] else found[-1:])]


@recover.command("list")
@click.option(
    "--state",
    type=click.Choice(
        [name.removeprefix("CEREMONY_STATE_") for name in CeremonyState.keys()[1:]], case_sensitive=False
    ),
    help="List only entries in this state.",
)
@home_option
@identity_option("agent/alice")
@identity_password_option
@paging_options
@json_option
def list_(**options: Any) -> None:
    """List recoveries and other ceremonies, oldest first. The list is unverified; `show` verifies one."""
    wanted = CeremonyState.Value(f"CEREMONY_STATE_{options['state'] or 'UNSPECIFIED'}")
    print_all(options, "drm", lambda s, part: administration.list_ceremonies(s, wanted, part), show_line)


@recover.command()
@click.argument("ceremony_id")
@person_options("agent/alice")
def show(ceremony_id: str, **options: Any) -> None:
    """Verify a ceremony, and show who asks for whose key, why, until when, and who decided.

    Facts that only the archive asserts are marked as unproven.
    """

    async def run() -> ReviewedCeremony:
        if not options["identity"].startswith("agent/"):
            async with witnesses_of(options) as witnesses:
                number = await whole_ceremony_id(witnesses.archive, ceremony_id)
                view = await administration.get_ceremony(witnesses.archive, number)
                reviewed = CeremonyReview(witnesses.archive.home).review(view)
                return await confirmed(reviewed, witnesses)
        async with recovery_client(options) as client:
            return await client.review(await whole_ceremony_id(client.session, ceremony_id))

    show_ceremony(asyncio.run(run()), as_json=options["as_json"])


@recover.command()
@click.argument("ceremony_id")
@click.option(
    "--yes",
    is_flag=True,
    help="Do not ask for confirmation, for scripts that examined the ceremony with `show`.",
)
@person_options("agent/alice")
def approve(ceremony_id: str, **options: Any) -> None:
    """Verify and show a ceremony, ask, and then release this agent's share for it.

    The approval that completes the quorum carries it out.
    """

    async def run() -> ReviewedCeremony:
        async with recovery_client(options) as client:
            reviewed = await client.review(parse_ceremony_id(ceremony_id))
            if not options["yes"]:
                show_ceremony(reviewed, as_json=False)
                confirm("Approve this?")
            return await wait_until_carried_out(client, await client.approve(reviewed))

    _tell(asyncio.run(run()), options)


@recover.command()
@click.argument("ceremony_id")
@click.option("--reason", required=True, help="The reason for the rejection. It is logged.")
@person_options("agent/alice")
def reject(ceremony_id: str, **options: Any) -> None:
    """Reject a ceremony. It ends when too few agents are left for a quorum."""

    async def run() -> ReviewedCeremony:
        async with recovery_client(options) as client:
            reviewed = await client.review(parse_ceremony_id(ceremony_id))
            return await client.reject(reviewed, reason=options["reason"])

    _tell(asyncio.run(run()), options)


@recover.command()
@click.argument("ceremony_id")
@person_options("agent/alice")
def cancel(ceremony_id: str, **options: Any) -> None:
    """End a ceremony that this agent asked for. Keys that were not collected are erased."""

    async def run() -> ReviewedCeremony:
        async with recovery_client(options) as client:
            return await client.cancel(await whole_ceremony_id(client.session, ceremony_id))

    _tell(asyncio.run(run()), options)


@recover.command()
@click.argument("ceremony_id")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="The file for the key and its certificate, or a folder if there are several keys.",
)
@click.option("--format", "key_format", type=click.Choice(["p12", "pem"]), default="p12", show_default=True)
@pkcs12_form_option
@password_file_option(
    "The file with the password for the recovered keys. Without it, a password is generated and shown."
)
@accept_weak_option
@person_options("agent/alice")
def collect(ceremony_id: str, **options: Any) -> None:
    """Fetch recovered keys into a file, and then have the archive erase its copy.

    Only the agent who asked can collect. PKCS#12 holds all keys in one file, the newest first.
    """
    given = key_password(options)
    if given is None:
        check_heard(sys.stdout if options["as_json"] else sys.stderr)
    files = KeyFiles(
        out=options["out"],
        key_format=KeyFormat(options["key_format"]),
        password=given or new_password(),
        pkcs12_form=Pkcs12Form(options["p12_form"]),
    )
    files.check_free()

    async def run() -> None:
        async with recovery_client(options) as client:
            number = await whole_ceremony_id(client.session, ceremony_id)
            keys = await client.collect(number)
            written = files.write(keys)
            try:
                _tell_collected(
                    keys, written, made=None if given else files.password, as_json=options["as_json"]
                )
            except OutputLostError:
                files.remove()
                raise
            await client.acknowledge(number)  # only now: the person has what opens the files

    asyncio.run(run())


def _tell_collected(
    keys: Sequence[RecoveredKey], written: Sequence[Path], *, made: bytes | None, as_json: bool
) -> None:
    """Say which key lies in which file, and the password that was made; raises OutputLostError."""
    if not as_json:
        if made is not None:
            tell(f"password: {made.decode()}", sys.stderr)
        for key, path in zip(keys, written, strict=True):
            say(f"{key.key_id.hex()}  {path}")
        return
    password = {} if made is None else {"password": made.decode()}
    facts = [
        {"key_id": key.key_id.hex(), "serial": serial_text(key.certificate.serial_number), "file": str(path)}
        | password
        for key, path in zip(keys, written, strict=True)
    ]
    tell(json_text(facts), sys.stdout)


@recover.command()
@click.argument("ceremony_id")
@person_options("agent/alice")
def acknowledge(ceremony_id: str, **options: Any) -> None:
    """Tell the archive that the collected files are safe, if `collect` could not tell it."""

    async def run() -> bytes:
        async with recovery_client(options) as client:
            number = await whole_ceremony_id(client.session, ceremony_id)
            await client.acknowledge(number)
            return number

    number = asyncio.run(run())
    say_or_print(options, {"ceremony_id": number.hex(), "erased": True}, ["the archive erased them"])


def _tell(ceremony: ReviewedCeremony, options: dict[str, Any]) -> None:
    if options["as_json"]:
        print_json(ceremony_facts(ceremony))
        return
    say(show_line(ceremony.view))
    if is_change(ceremony) and ceremony.state == CeremonyState.CEREMONY_STATE_COMPLETED:
        say_aside(
            f"carried out: the newest change is {change_id(ceremony.opened.leaf).hex()}, which new agents pin; "
            "`keyark agents pins` shows it with the fingerprint to compare"
        )
