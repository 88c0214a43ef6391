"""How commands show ceremonies, and what they share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from google.protobuf.message import DecodeError
from rich.progress import Progress

from keyark.cli.options import password_source
from keyark.cli.output import careful, print_json, say
from keyark.cli.shape import rfc3339
from keyark.client.recovery.client import RecoveryClient
from keyark.client.recovery.decisions import quorum_of
from keyark.client.recovery.review import ReviewedCeremony
from keyark.client.trust.verification import UnexpectedAnswerError
from keyark.client.trust.witnesses import Unconfirmed
from keyark.errors.commands import UsageError
from keyark.rpc.calling.retries import NO_RETRIES
from keyark.text.characters import resemblances
from keyark.text.console import SafeConsole
from keyark.transparency.opening_facts import change_id
from keyark.transparency.receipts import ProvenEntry
from keyark.v1.audit_pb2 import EventType
from keyark.v1.ceremony_pb2 import (
    CeremonyStatement,
    CeremonyType,
    StorageKeyFacts,
)
from keyark.v1.recovery_pb2 import Ceremony, CeremonyState

POLL_SECONDS: Final = 0.3
RUNNING: Final = CeremonyState.CEREMONY_STATE_RUNNING
CARRIED_OUT: Final = (
    RUNNING,
    CeremonyState.CEREMONY_STATE_READY,
    CeremonyState.CEREMONY_STATE_COMPLETED,
)
UNPROVEN: Final = ("state", "approvals_to_repeat", "resealed", "failure")
UNCONFIRMED: Final = "log"
CHANGES: Final = (
    CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS,
    CeremonyType.CEREMONY_TYPE_ROTATE_STORAGE_KEY,
)
WORDS: Final = {
    CeremonyType.CEREMONY_TYPE_RECOVER_KEYS: "recover",
    CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS: "change agents",
    CeremonyType.CEREMONY_TYPE_ROTATE_STORAGE_KEY: "rotate the storage key",
    CeremonyType.CEREMONY_TYPE_RESEAL_KEYS: "re-seal older keys",
}


@asynccontextmanager
async def recovery_client(options: dict[str, Any]) -> AsyncIterator[RecoveryClient]:
    """Open a client as the agent that the options name."""
    password = password_source(options["identity_password_file"])
    async with RecoveryClient.open(
        options["home"], identity=options["identity"], password=password, retries=NO_RETRIES
    ) as client:
        yield client


def parse_ceremony_id(text: str) -> bytes:
    """Return the 16 bytes of a whole ceremony id in hexadecimal; raises UsageError."""
    try:
        ceremony_id = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        ceremony_id = b""
    if len(ceremony_id) != 16:
        raise UsageError(
            f"{text!r} is not a whole ceremony id. A decision is signed, so name the ceremony by its "
            "whole id, as `keyark recover show` prints it."
        )
    return ceremony_id


def show_line(view: Ceremony) -> str:
    """One line of a list; all of it is the archive's word until the ceremony is shown by itself."""
    try:
        statement = CeremonyStatement.FromString(view.request.statement)
    except DecodeError:
        raise UnexpectedAnswerError(
            "The archive lists something that is not a ceremony; ask its operator."
        ) from None
    return (
        f"{view.ceremony_id.hex()}  {state_name(view.state):9}  {WORDS.get(statement.type, '?')}  "
        f"asked by {_short(statement.requester)}: {statement.reason}"
    )


def show_ceremony(ceremony: ReviewedCeremony, *, as_json: bool) -> None:
    """Print all that an agent has to see before it decides: what was verified, then what only the archive says."""
    if as_json:
        print_json(ceremony_facts(ceremony))
        return
    _show_request(ceremony)
    for decision in ceremony.decisions.made:
        word = "approved" if decision.approves else f"rejected: {decision.message.reason}"
        say(f"decided     {_short(str(decision.agent))} {word}{careful(decision.message.reason)}")
    for agent in ceremony.decisions.unlogged:
        say(
            f"careful     the archive shows no log entry of what {_short(agent)} decided; have an auditor look at it"
        )
    if ceremony.decisions.revoked:
        say(f"revoked     {ceremony.decisions.revoked} decided whose identities were revoked since")
    say(f"counted     {len(ceremony.decisions.approved)} of {quorum_of(ceremony.facts)} approvals")
    if ceremony.closed is not None:
        ended = ceremony.closed
        say(f"ended       {when(ended.event.time_us)}, log entry {ended.index}: {_ending(ended)}")
    _show_unproven(ceremony)


def _ending(closed: ProvenEntry) -> str:
    if closed.event.type == EventType.EVENT_TYPE_KEYS_DELIVERED:
        return "the requester has the recovered keys"
    return closed.details.message


def _show_request(ceremony: ReviewedCeremony) -> None:
    """Print what was asked for: the requester's signed words, the leaf that opened it, the keys' receipts."""
    message = ceremony.request.message
    say(f"ceremony    {ceremony.ceremony_id.hex()}")
    say(f"to          {WORDS[message.type]}")
    say(f"asked by    {message.requester}")
    say(f"reason      {message.reason}{careful(message.reason)}")
    say(f"opened      {when(ceremony.opened.event.time_us)}, log entry {ceremony.opened.index}")
    say(f"expires     {when(ceremony.opened.event.expires_time_us)}")
    for owner, told in zip(ceremony.owners, owners_of(ceremony), strict=True):
        say(f"key         {owner.event.encryption_spki_sha256.hex()} of {told}")
    for key in ceremony.facts.storage_keys:
        _show_storage_key("opens", key)
    if ceremony.facts.HasField("new_storage_key"):
        _show_storage_key("makes", ceremony.facts.new_storage_key)
    for agent in message.agents:
        say(f"new agent   {agent.agent}, share key {sha256(agent.share_public_key).hexdigest()}")
    if message.quorum:
        say(f"new quorum  {message.quorum} of {len(message.agents)}")


def owners_of(ceremony: ReviewedCeremony) -> list[str]:
    """Return whose keys a recovery is for, by their receipts, each with when it was archived."""
    return [
        f"{owner.details.common_name} <{owner.details.email}>, archived {when(owner.event.time_us)}"
        f"{careful(owner.details.common_name)}"
        for owner in ceremony.owners
    ]


def _show_unproven(ceremony: ReviewedCeremony) -> None:
    """Print what rests on the archive's word alone, and say so."""
    view = ceremony.view
    say_unconfirmed(ceremony.unconfirmed)
    say("unproven    the archive says this without proof:")
    say(f"  state     {state_name(view.state)}")
    if view.state in CARRIED_OUT and len(ceremony.decisions.approved) < quorum_of(ceremony.facts):
        say("  careful   that takes a quorum of approvals, which the archive does not show")
    for agent_id in view.approvals_to_repeat:
        say(f"  to repeat {_short(agent_id)} approved before it was opened anew; approve again")
    if view.archived_keys:
        say(f"  progress  {view.looked_at} of {view.archived_keys} keys, {view.resealed} sealed anew")
    if view.failure.message:
        say(f"  ended     {view.failure.message}")


def say_unconfirmed(unconfirmed: Unconfirmed) -> None:
    """Say plainly which witnesses did not confirm that what is shown is in the log that they follow."""
    if not unconfirmed:
        return
    names = " and ".join(role.upper() for role in unconfirmed)
    say(f"unproven    {names} did not confirm that the log entries above are in the log that everybody sees:")
    for role, why in unconfirmed.items():
        say(f"  {role:9} {why}")


def _show_storage_key(what: str, key: StorageKeyFacts) -> None:
    """Tell a storage key by its id, and who holds shares of it: the leaf that opened the ceremony binds all of it."""
    holders = ", ".join(_short(share.agent) for share in key.shares)
    say(f"{what:11} storage key {key.generation}  {key.storage_key_id.hex()}")
    say(f"            {key.quorum} of {len(key.shares)}: {holders}")


def _storage_key_values(key: StorageKeyFacts) -> dict[str, Any]:
    return {
        "storage_key_id": key.storage_key_id.hex(),
        "generation": key.generation,
        "quorum": key.quorum,
        "holders": [share.agent for share in key.shares],
    }


def ceremony_facts(ceremony: ReviewedCeremony) -> dict[str, Any]:
    """Return a reviewed ceremony for scripts; ``unproven`` names what rests on the archive's word alone."""
    message, view = ceremony.request.message, ceremony.view
    return {
        "ceremony_id": ceremony.ceremony_id.hex(),
        "digest": ceremony.request.digest.hex(),
        "type": CeremonyType.Name(message.type).removeprefix("CEREMONY_TYPE_"),
        "state": state_name(view.state),
        "requester": message.requester,
        "reason": message.reason,
        "opened_log_index": ceremony.opened.index,
        "expires_time": rfc3339(ceremony.opened.event.expires_time_us / 1e6),
        "keys": [
            {
                "key_id": owner.event.encryption_spki_sha256.hex(),
                "common_name": owner.details.common_name,
                "email": owner.details.email,
                "careful": resemblances(owner.details.common_name),
            }
            for owner in ceremony.owners
        ],
        "opens": [_storage_key_values(key) for key in ceremony.facts.storage_keys],
        "makes": [
            _storage_key_values(key)
            for key in [ceremony.facts.new_storage_key]
            if ceremony.facts.HasField("new_storage_key")
        ],
        "agents": [agent.agent for agent in message.agents],
        "quorum": quorum_of(ceremony.facts),
        "approved": ceremony.decisions.approved,
        "rejected": ceremony.decisions.rejected,
        "not_in_log": ceremony.decisions.unlogged,
        "approvals_to_repeat": list(view.approvals_to_repeat),
        "resealed": view.resealed,
        "failure": view.failure.message,
        "change": change_id(ceremony.opened.leaf).hex() if is_change(ceremony) else None,
        "ended_log_index": None if ceremony.closed is None else ceremony.closed.index,
        "unconfirmed": dict(ceremony.unconfirmed),
        "unproven": [*UNPROVEN, *([UNCONFIRMED] if ceremony.unconfirmed else [])],
    }


def is_change(ceremony: ReviewedCeremony) -> bool:
    """Whether a ceremony changes agents or storage keys, so that every agent follows it once it is carried out."""
    return ceremony.request.type in CHANGES


async def wait_until_carried_out(client: RecoveryClient, ceremony: ReviewedCeremony) -> ReviewedCeremony:
    """Show the progress of what goes on, and return the ceremony once it is over or waits for agents."""
    console = SafeConsole(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("sealing keys anew", total=None)
        while ceremony.state == RUNNING:
            progress.update(bar, total=ceremony.view.archived_keys or None, completed=ceremony.view.looked_at)
            await asyncio.sleep(POLL_SECONDS)
            ceremony = await client.look(ceremony.ceremony_id)
    return ceremony


def state_name(state: CeremonyState.ValueType) -> str:
    """Return a state's name for people."""
    return CeremonyState.Name(state).removeprefix("CEREMONY_STATE_")


def when(time_us: int) -> str:
    """Return a time for people, UTC."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _short(spiffe_id: str) -> str:
    return spiffe_id.removeprefix("spiffe://").partition("/")[2] or spiffe_id
