"""P4, P7: a DRM was restored from a backup that lacks the newest change of agents; all go on from what it holds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cm_service import __main__ as cm_program
from keyark.client.access.passwords import no_password
from keyark.client.access.sessions import open_session
from keyark.client.audit.findings import Severity
from keyark.client.audit.log_heads import audit_logs
from keyark.client.recovery.archive_pins import ArchivePins
from keyark.client.trust.receipts import list_entries
from keyark.client.trust.witnesses import Witnesses
from keyark.custody.agents import AgentShareKey
from keyark.custody.shares import QuorumRule
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.initialize import DeploymentPlan, make_person
from keyark.errors import KeyarkError
from keyark.identity.spiffe import SpiffeId
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from rm_service import __main__ as rm_program
from tests.e2e.running.test_doctor import about, findings
from tests.support.running.deployment import Deployment, running
from tests.support.stories.attacks import refusals_of
from tests.support.stories.recovering import agents, approve, identity_file, lose_key, state
from tests.support.stories.restoring import (
    back_up,
    confirm,
    confirm_all,
    log_first_start_after_restore,
    newest_change,
    restore,
    told_by_check,
)

FIRST = ("alice", "bob", "carol")
LATER = ("alice", "bob", "dave")


def share_key(folder: Path, agent: str) -> AgentShareKey:
    return AgentShareKey.from_json(identity_file(folder, agent, "share-key.json").read_text())


async def change_agents(deployment: Deployment, names: tuple[str, ...]) -> None:
    new = [share_key(deployment.folder, name) for name in names]
    async with agents(deployment, *FIRST) as (alice, bob, carol):
        asked = await alice.change_agents(new, 2, reason="others take over")
        assert state(await approve(asked.ceremony_id, bob, carol)) == "COMPLETED"


def pin_anew(folder: Path, *names: str) -> None:
    """What `keyark agents pin` does, from what the operators read out of `keyark-drm check`."""
    told = told_by_check(folder)
    keys = re.findall("^storage key: ([0-9a-f]{64}), PIN epoch ([0-9]+)$", told, re.MULTILINE)
    change = newest_change(folder)
    for name in names:
        pins = ArchivePins.first(
            [share_key(folder, agent) for agent in FIRST],
            quorum=2,
            rule=QuorumRule.SEPARATE,
            storage_keys=[bytes.fromhex(key_id) for key_id, _ in keys],
            pin_epochs=[int(epoch) for _, epoch in keys],
            newest_change=b"" if change == "none" else bytes.fromhex(change),
        )
        pins.save(folder / "identities" / "agent" / name)
    (folder / "checkpoints" / "drm.note").unlink(missing_ok=True)


async def trust_entries(deployment: Deployment, role: str) -> list[str]:
    async with open_session(deployment.home(), role, identity="auditor/auditor") as session:
        return [
            AuditDetails.FromString(entry.event.details).message
            async for entry in list_entries(session)
            if AuditEvent.FromString(entry.event.leaf).type == EventType.EVENT_TYPE_ARCHIVE_TRUST_CHANGED
        ]


async def lose_a_change(folder: Path) -> list[object]:
    """Make a backup, let the agents change, restore the backup; returns the words for RM and CM."""
    authority = DeploymentAuthority.load(folder / "authority")
    make_person(DeploymentPlan(folder=folder), authority, SpiffeId("example.org", "agent/dave"))
    async with running(folder) as deployment:
        await lose_key(deployment)
    await back_up(folder, backup := folder.parent / "backup")
    async with running(folder) as deployment:
        await change_agents(deployment, LATER)
        for email in ("b@example.org", "b2@example.org"):  # RM and CM hear of the change
            await lose_key(deployment, email=email)
    return await log_first_start_after_restore(folder, backup)


async def test_after_a_restore_without_the_newest_change_agents_change_again(
    deployment_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = deployment_folder
    words = await lose_a_change(folder)
    assert words[-1] == "none"
    async with running(folder) as deployment:
        found = about(await findings(deployment), "that the DRM does not know")
        assert [(one.severity, one.subject) for one in found] == [(Severity.ERROR, r) for r in ("rm", "cm")]
    for program, role in ((rm_program, "rm"), (cm_program, "cm")):
        config = folder / role / f"{role}.toml"
        never = [*words[:-1], "ab" * 32]
        for given in (words[:-2], words, [*words, "--believe", "00" * 32], never):
            assert await asyncio.to_thread(confirm, program, config, *given) == 1
        shown = capsys.readouterr()
        assert shown.err.count("Nothing was changed") == 2
        assert "never accepted the change" in shown.err
        believed, _, left = shown.out.rpartition("trusted from then on: 2 of")[2].partition("and no longer:")
        assert re.findall("agent/([a-z]+)", believed) == [*FIRST]
        assert re.findall("agent/([a-z]+)", left) == ["dave"]
        (believe,) = {*re.findall("--believe ([0-9a-f]{64})", shown.err)}
        for _ in range(2):  # the second time it changes nothing
            given = [*words, "--believe", believe]
            assert await asyncio.to_thread(confirm_all, program, config, *given) == 0
    await asyncio.to_thread(pin_anew, folder, *FIRST)
    async with running(folder) as deployment:
        assert about(await findings(deployment), "that the DRM does not know") == []
        lost = await lose_key(deployment, email="c@example.org")
        for role in ("rm", "cm"):
            _, back = await trust_entries(deployment, role)
            assert back.startswith("The operator confirmed a restore.")
        await change_agents(deployment, LATER)
        for email in ("d@example.org", "d2@example.org"):
            await lose_key(deployment, email=email)
        for role in ("rm", "cm"):
            assert len(await trust_entries(deployment, role)) == 3
        async with agents(deployment, "bob", "alice") as (bob, alice):
            rotation = await bob.rotate_storage_key(reason="and a storage key after it")
            async with agents(deployment, "dave") as (dave,):
                pin_as(folder, alice="alice", dave="dave")
                assert state(await approve(rotation.ceremony_id, alice, dave)) == "COMPLETED"
            await lose_key(deployment, email="e@example.org")
            asked = await alice.request_keys([lost.key_id], reason="lost")
            async with agents(deployment, "dave") as (dave,):
                assert state(await approve(asked.ceremony_id, bob, dave)) == "READY"


def pin_as(folder: Path, *, alice: str, dave: str) -> None:
    pins = identity_file(folder, alice, "archive-pins.json").read_bytes()
    identity_file(folder, dave, "archive-pins.json").write_bytes(pins)
    identity_file(folder, dave, "archive-pins.json").chmod(0o600)


async def test_without_that_word_rm_and_cm_believe_no_further_change(deployment_folder: Path) -> None:
    """The head and the key alone would be taken, and the next new storage key would stop every enrollment."""
    words = await lose_a_change(deployment_folder)
    for program, role in ((rm_program, "rm"), (cm_program, "cm")):
        config = deployment_folder / role / f"{role}.toml"
        assert await asyncio.to_thread(confirm, program, config, *words[:-2]) == 1
    async with running(deployment_folder) as deployment:
        with pytest.raises(KeyarkError):
            await lose_key(deployment, email="c@example.org")


async def agents_recover(deployment: Deployment, key_id: bytes) -> None:
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.request_keys([key_id], reason="lost")
        assert state(await approve(asked.ceremony_id, bob, carol)) == "READY"


async def an_auditor_verifies(deployment: Deployment, _: bytes) -> None:
    home = deployment.home()
    async with Witnesses.open(home, identity="auditor/auditor", password=no_password) as witnesses:
        audited = await audit_logs(witnesses)
    audited.check()
    assert (set(audited.logs), audited.unconfirmed) == ({"rm", "cm", "drm"}, {})


@pytest.mark.parametrize("first", [agents_recover, an_auditor_verifies])
async def test_after_a_restore_nobody_has_to_enroll_before_others_go_on(
    deployment_folder: Path, first: Callable[[Deployment, bytes], Awaitable[None]]
) -> None:
    """RM and CM hold the head that the operator named without a note that they could cosign."""
    folder = deployment_folder
    async with running(folder) as deployment:
        lost = await lose_key(deployment)
    await back_up(folder, backup := folder.parent / "backup")
    async with running(folder) as deployment:
        await lose_key(deployment, email="b@example.org")
    await restore(folder, backup)
    (folder / "checkpoints" / "drm.note").unlink(missing_ok=True)
    async with running(folder) as deployment:
        before = [await refusals_of(deployment.home(), role) for role in ("rm", "cm")]
        await first(deployment, lost.key_id)
        assert [await refusals_of(deployment.home(), role) for role in ("rm", "cm")] == before
