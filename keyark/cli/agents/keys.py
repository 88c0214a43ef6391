"""`keyark keys`: archived keys, as recovery agents see them; never key material."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from cryptography import x509

from keyark.cli.agents.ceremonies import UNCONFIRMED, say_unconfirmed
from keyark.cli.listing import hexadecimal, print_all, print_one, when, witnesses_of
from keyark.cli.options import (
    home_option,
    identity_option,
    identity_password_option,
    json_option,
    paging_options,
    person_options,
)
from keyark.cli.output import KeyarkGroup, careful, print_json, say
from keyark.cli.shape import to_json
from keyark.client.access.sessions import Session
from keyark.client.administration import lists as administration
from keyark.client.administration.abbreviations import whole_key_id
from keyark.client.trust.witnesses import Unconfirmed
from keyark.errors.commands import UsageError
from keyark.keys.spki import public_key_id
from keyark.v1.recovery_pb2 import ArchivedKey, KeyFilter, KeyState
from keyark.x509.certificates import load_certificates

STATES: Final = ("UNCERTIFIED", "CERTIFIED", "DEACTIVATED")
DATES: Final = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"])


@click.group(cls=KeyarkGroup)
def keys() -> None:
    """Find archived keys, and keep one from being recovered. Shows no key material."""


@keys.command("list")
@click.option("--owner", help="The whole e-mail address or common name, in any case.")
@click.option("--serial", help="The serial number of the encryption certificate, hexadecimal.")
@click.option(
    "--state", type=click.Choice(STATES, case_sensitive=False), help="List only entries in this state."
)
@click.option("--failed", is_flag=True, help="List only keys that failed to open in a ceremony.")
@click.option("--from", "start", type=DATES, help="Archived at this time (UTC) or later.")
@click.option("--until", type=DATES, help="Archived before this time (UTC).")
@home_option
@identity_option("agent/alice")
@identity_password_option
@paging_options
@json_option
def list_keys(**options: Any) -> None:
    """List the archived keys that match all given options, oldest first."""
    key_filter = KeyFilter(
        owner=options["owner"],
        certificate_serial=hexadecimal(options["serial"]).lstrip(b"\x00") if options["serial"] else None,
        state=KeyState.Value(f"KEY_STATE_{options['state'] or 'UNSPECIFIED'}"),
        archived_from_us=_microseconds(options["start"]),
        archived_until_us=_microseconds(options["until"]),
        failed=options["failed"],
    )
    print_all(options, "drm", lambda s, part: administration.list_keys(s, key_filter, part), key_line)


@keys.command("show")
@click.argument("key_id", required=False)
@click.option(
    "--cert",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The encryption certificate (PEM), instead of a key id.",
)
@person_options("agent/alice")
def show_key(key_id: str | None, cert: Path | None, **options: Any) -> None:
    """Show an archived key, proven by its receipt. KEY_ID may be abbreviated."""
    check_named_once(key_id, cert)

    async def run() -> tuple[administration.ProvenKey, Unconfirmed]:
        async with witnesses_of(options) as witnesses:
            wanted = await key_id_of(witnesses.archive, key_id, cert)
            key = await administration.get_proven_key(witnesses.archive, wanted)
            return key, await witnesses.confirm_where_possible([key.receipt.head])

    key, unconfirmed = asyncio.run(run())
    if options["as_json"]:
        unproven = [*key.unproven, *([UNCONFIRMED] if unconfirmed else [])]
        print_json({**to_json(key.view), "unconfirmed": dict(unconfirmed), "unproven": unproven})
        return
    _show(key, unconfirmed)


def _show(key: administration.ProvenKey, unconfirmed: Unconfirmed) -> None:
    details, view = key.receipt.details, key.view
    say(f"key         {view.key_id.hex()}")
    say(f"owner       {details.common_name} <{details.email}>{careful(details.common_name)}")
    say(f"enrolled by {details.caller}")
    say(f"archived    {when(key.receipt.event.time_us / 1e6)}, log entry {key.receipt.index}")
    say_unconfirmed(unconfirmed)
    say("unproven    the archive says this without proof:")
    say(f"  state     {KeyState.Name(view.state).removeprefix('KEY_STATE_')}")
    if view.deactivated_reason:
        say(f"  reason    {view.deactivated_reason}{careful(view.deactivated_reason)}")
    if view.certificate_serial:
        say(f"  serial    {view.certificate_serial.hex()}")
    if view.failed_time_us:
        say(f"  failed    {when(view.failed_time_us / 1e6)}: it did not open when a quorum wanted it")


@keys.command("deactivate")
@click.argument("key_id")
@click.option("--reason", required=True, help="The reason. It is logged.")
@person_options("agent/alice")
def deactivate_key(key_id: str, reason: str, **options: Any) -> None:
    """Keep a key from being recovered until an agent activates it."""

    async def deactivate(session: Session) -> ArchivedKey:
        return await administration.deactivate_key(
            session, await whole_key_id(session, key_id), reason=reason
        )

    print_one(options, "drm", deactivate, key_line)


@keys.command("activate")
@click.argument("key_id")
@click.option("--reason", required=True, help="The reason. It is logged.")
@person_options("agent/alice")
def activate_key(key_id: str, reason: str, **options: Any) -> None:
    """Allow a deactivated key to be recovered again."""

    async def activate(session: Session) -> ArchivedKey:
        return await administration.activate_key(session, await whole_key_id(session, key_id), reason=reason)

    print_one(options, "drm", activate, key_line)


def check_named_once(text: str | None, certificate: Path | None) -> None:
    """Raise UsageError unless a key is named either by its id or by its certificate."""
    if (text is None) == (certificate is None):
        raise UsageError("Name the key by its id or by its certificate.")


async def key_id_of(session: Session, text: str | None, certificate: Path | None) -> bytes:
    """Return the key id (32 bytes) that digits, which may be abbreviated, or else a certificate file name."""
    if certificate is not None:
        return public_key_id(_encryption_certificate(certificate).public_key())
    return await whole_key_id(session, text or "")


def _encryption_certificate(path: Path) -> x509.Certificate:
    """Load a certificate that others encrypt to; raises UsageError for another one."""
    certificate = load_certificates(path)[0]
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return certificate  # of another CA, perhaps: the archive knows the key or does not
    if not (usage.key_encipherment or usage.key_agreement):
        raise UsageError(f"{path} is not an encryption certificate; name the person's encryption.pem.")
    return certificate


def key_line(key: ArchivedKey) -> str:
    """Return an archived key in one line."""
    state = KeyState.Name(key.state).removeprefix("KEY_STATE_")
    reason = f"  ({key.deactivated_reason})" if key.deactivated_reason else ""
    if key.failed_time_us:
        reason += f"  (did not open on {when(key.failed_time_us / 1e6)})"
    return (
        f"{key.key_id.hex()}  {state}  {when(key.archived_time_us / 1e6)}  log index {key.log_index}  "
        f"{key.common_name} <{key.email}>{reason}{careful(key.common_name)}"
    )


def _microseconds(moment: datetime | None) -> int:
    return 0 if moment is None else round(moment.replace(tzinfo=UTC).timestamp() * 1_000_000)
