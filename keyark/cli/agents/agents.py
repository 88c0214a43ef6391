"""`keyark agents` and `keyark storage-key`: who holds shares of which storage key, and how that changes."""

from __future__ import annotations

import asyncio
import contextlib
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import click

from keyark.cli.agents.ceremonies import ceremony_facts, is_change, recovery_client
from keyark.cli.listing import session_of
from keyark.cli.options import (
    home_option,
    identity_option,
    json_option,
    person_options,
)
from keyark.cli.output import KeyarkGroup, print_json, say, say_aside
from keyark.cli.shape import to_json
from keyark.client.access.home import Home
from keyark.client.administration import lists as administration
from keyark.client.recovery.archive_pins import ArchivePins, PinsMissingError
from keyark.client.recovery.review import CeremonyMismatchError, ReviewedCeremony, token_of
from keyark.custody.agents import AgentShareKey
from keyark.custody.shares import QuorumRule
from keyark.errors import ConfigurationError, KeyarkError
from keyark.errors.commands import UsageError
from keyark.files import read_file
from keyark.transparency.opening_facts import change_id, storage_key_facts
from keyark.v1.recovery_pb2 import StorageKey

MAX_JSON = 1 << 16


@click.group(cls=KeyarkGroup)
def agents() -> None:
    """Show and change the recovery agents, their quorum, and which agents this agent trusts."""


@agents.command("list")
@person_options("agent/alice")
def list_(**options: Any) -> None:
    """Show each storage key with its quorum and the agents who hold its shares."""
    _list_storage_keys(options)


@agents.command()
@click.option(
    "--agent",
    "files",
    multiple=True,
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The share-key.json of an agent in the new set. Repeat it for each agent, including those who stay.",
)
@click.option("--quorum", required=True, type=int, help="How many agents must approve from then on.")
@click.option("--reason", required=True, help="The reason, for the other agents to judge. It is logged.")
@person_options("agent/alice")
def rotate(**options: Any) -> None:
    """Ask for a new set of agents or a new quorum. The current agents approve it with `keyark recover approve`."""
    new = [_share_key(path) for path in options["files"]]

    async def run() -> ReviewedCeremony:
        async with recovery_client(options) as client:
            return await client.change_agents(new, options["quorum"], reason=options["reason"])

    _opened(asyncio.run(run()), options)


@agents.command()
@click.option(
    "--agent",
    "files",
    multiple=True,
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The share-key.json of an agent, received from that agent. Repeat it for each agent, "
    "including this one.",
)
@click.option("--quorum", required=True, type=int, help="How many agents must approve.")
@click.option(
    "--quorum-rule",
    type=click.Choice([rule.value for rule in QuorumRule]),
    default=QuorumRule.SEPARATE.value,
    show_default=True,
    help="The quorum rule of drm.toml.",
)
@click.option(
    "--storage-key",
    "storage_keys",
    multiple=True,
    required=True,
    help="The id of a storage key (64 hexadecimal digits), with its PIN epoch if that is not 1 "
    "(ID:2). Repeat it for each generation, oldest first.",
)
@click.option(
    "--newest-change",
    default="",
    help="The newest change of agents or storage keys, if there was any, as `keyark agents pins` of "
    "another agent shows it.",
)
@home_option
@identity_option("agent/alice")
@json_option
def pin(**options: Any) -> None:
    """Record on this agent's own disk who the agents are.

    The agent's client releases its share to these agents only. Run it once, before the first approval and while
    no change of agents or storage keys is open. Use files that came from the agents themselves, not from the
    archive. Afterwards the client follows approved changes by itself. Compare the fingerprint with the other
    agents.
    """
    home = Home.load(options["home"])
    folder = home.identity_folder(options["identity"])
    share_keys = [_share_key(path) for path in options["files"]]
    for share_key in share_keys:
        share_key.verify(home.trust_anchor)
    pins = ArchivePins.first(
        share_keys,
        quorum=options["quorum"],
        rule=QuorumRule(options["quorum_rule"]),
        storage_keys=[_hexadecimal_id(text.partition(":")[0]) for text in options["storage_keys"]],
        pin_epochs=[_pin_epoch(text.partition(":")[2]) for text in options["storage_keys"]],
        newest_change=_hexadecimal_id(options["newest_change"]) if options["newest_change"] else b"",
    )
    with contextlib.suppress(ConfigurationError):  # nothing was pinned before, or it cannot be read any more
        pins = pins.after(ArchivePins.load(folder))
    pins.save(folder)
    if options["as_json"]:
        print_json(_pin_facts(pins))
    else:
        _show_pins(pins)


@agents.command()
@click.option(
    "--offline",
    is_flag=True,
    help="Contact no service. The result may lack newer changes.",
)
@person_options("agent/alice")
def pins(**options: Any) -> None:
    """Show who the agents are according to this agent's own disk.

    Compare the fingerprint with the other agents. The command first follows the changes that the archive can
    prove. If that fails, standard error says why.
    """
    pinned, behind = asyncio.run(_followed(options))
    if behind:
        say_aside(
            f"warning: the command could not check for newer changes of agents or storage keys: {behind} "
            "The result may be out of date; run the command again when RM, CM and DRM answer."
        )
    if options["as_json"]:
        print_json(_pin_facts(pinned) | {"followed": not behind})
    else:
        _show_pins(pinned)


def _pin_facts(pinned: ArchivePins) -> dict[str, Any]:
    return {
        "fingerprint": pinned.fingerprint,
        "quorum": pinned.quorum,
        "agents": sorted(pinned.agents),
        "storage_keys": [key_id.hex() for key_id in pinned.storage_keys],
        "pin_epochs": list(pinned.pin_epochs),
        "newest_change": pinned.newest_change.hex(),
    }


async def _followed(options: dict[str, Any]) -> tuple[ArchivePins, str]:
    """Return the pins after all changes that the archive proves; otherwise those of the disk, and why they may be old.

    An agent has to see its pins whatever the archive does: they are what it compares with the others then.
    """
    pinned = ArchivePins.load(Home.load(options["home"]).identity_folder(options["identity"]))
    if options["offline"]:
        return pinned, "No service was asked (--offline)."
    try:
        async with recovery_client(options) as client:
            return await client.pins(), ""
    except KeyarkError as error:
        return pinned, error.message


def _share_key(path: Path) -> AgentShareKey:
    return AgentShareKey.from_json(read_file(path, max_size=MAX_JSON).decode(errors="replace"))


def _hexadecimal_id(text: str) -> bytes:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise UsageError(
            f"{text!r} is not an id of 64 hexadecimal digits; `keyark agents pins` shows the current ones."
        )
    return bytes.fromhex(text)


def _pin_epoch(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,8}|", text):
        raise UsageError(f"{text!r} is not a PIN epoch; `keyark agents pins` shows the current ones.")
    return int(text or 1)


def _show_pins(pinned: ArchivePins) -> None:
    say(f"quorum       {pinned.quorum} of {len(pinned.agents)}")
    for agent, share_key_id in sorted(pinned.agents.items()):
        say(f"agent        {agent}  share key {share_key_id.hex()}")
    for generation, (key_id, epoch) in enumerate(
        zip(pinned.storage_keys, pinned.pin_epochs, strict=True), start=1
    ):
        say(f"storage key  {generation}  {key_id.hex()}:{epoch}")
    say(f"newest change  {pinned.newest_change.hex() or 'none so far'}")
    say(f"fingerprint  {pinned.fingerprint}")


@click.group("storage-key", cls=KeyarkGroup)
def storage_key() -> None:
    """Show and rotate the storage keys, which encrypt all archived keys."""


@storage_key.command("list")
@person_options("agent/alice")
def list_storage_keys(**options: Any) -> None:
    """Show each storage key with its quorum and the agents who hold its shares."""
    _list_storage_keys(options)


@storage_key.command("rotate")
@click.option(
    "--reseal", is_flag=True, help="Instead, seal the keys of older storage keys under the newest one."
)
@click.option("--reason", required=True, help="The reason, for the other agents to judge. It is logged.")
@person_options("agent/alice")
def rotate_storage_key(**options: Any) -> None:
    """Ask for a new storage key. Keys under older ones stay recoverable. Agents approve it with `keyark recover
    approve`.
    """

    async def run() -> ReviewedCeremony:
        async with recovery_client(options) as client:
            if options["reseal"]:
                return await client.reseal_keys(reason=options["reason"])
            return await client.rotate_storage_key(reason=options["reason"])

    _opened(asyncio.run(run()), options)


def _opened(ceremony: ReviewedCeremony, options: dict[str, Any]) -> None:
    if options["as_json"]:
        print_json(ceremony_facts(ceremony))
        return
    say(ceremony.ceremony_id.hex())
    if is_change(ceremony):
        say_aside(
            f"once it is carried out, the newest change is {change_id(ceremony.opened.leaf).hex()}, as "
            "`keyark agents pins` shows it then; new agents pin it"
        )


def _list_storage_keys(options: dict[str, Any]) -> None:
    keys, pins = asyncio.run(_storage_keys(options))
    if options["as_json"]:
        print_json([{**to_json(key), "pinned": _is_pinned(key, pins)} for key in keys])
        return
    for key in keys:
        holders = ", ".join(share.holder.agent for share in key.shares)
        word = "as pinned here" if _is_pinned(key, pins) else ("unproven: differs from what this home pins")
        say(f"storage key {key.generation} (PIN epoch {key.pin_epoch})  {sha256(key.public_key).hexdigest()}")
        say(f"  {key.quorum} of {len(key.shares)}: {holders}  [{word}]")


async def _storage_keys(options: dict[str, Any]) -> tuple[list[StorageKey], ArchivePins | None]:
    """Return what the archive shows, and what the agent pins; whoever is no agent, or pinned nothing, pins nothing."""
    if not options["identity"].startswith("agent/"):
        async with session_of(options, "drm") as session:
            return await administration.list_storage_keys(session), None
    async with recovery_client(options) as client:
        keys = await client.storage_keys()
        try:
            return keys, await client.pins()
        except PinsMissingError:
            return keys, None


def _is_pinned(key: StorageKey, pins: ArchivePins | None) -> bool:
    """Whether a storage key, its holders and its quorum are those that the agent pins."""
    if pins is None:
        return False
    try:
        pins.check_storage_key(storage_key_facts(token_of(key)))
    except CeremonyMismatchError:
        return False
    return True
