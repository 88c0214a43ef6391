"""P4: a share key that a change of agents took out may be lost or stolen; nobody lets it come back."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from keyark.client import KeyarkError, RecoveryClient
from keyark.client.access.home import Home
from keyark.client.access.passwords import no_password
from keyark.client.recovery.agent_keys import AgentKeys
from keyark.client.recovery.archive_pins import ArchivePins
from keyark.custody.agents import AgentShareKey
from keyark.custody.shares import QuorumRule
from keyark.deployment.access.agents import make_share_key
from keyark.records.v1.drm_pb2 import SoftwareToken
from keyark.statements.ceremonies import agent_key_of
from keyark.transparency.opening_facts import change_id
from keyark.v1.ceremony_pb2 import CeremonyStatement, CeremonyType
from keyark.v1.recovery_pb2 import ArchiveChange
from tests.support.running.deployment import Deployment, running
from tests.support.stories.hostile_archive import AGENTS, HostileArchive, hostile_archive, share_key
from tests.support.stories.recovering import agents, approve, identity_file, state


def replace_share_key(folder: Path, agent: str) -> AgentShareKey:
    """An agent lost its share key, and made another one; returns the former one's public file."""
    former = share_key(folder, agent)
    signer = AgentKeys.of(Home.load(folder), f"agent/{agent}", no_password).signer
    for name in ("share-key.pem", "share-key.json"):
        identity_file(folder, agent, name).unlink()
    make_share_key(identity_file(folder, agent, "share-key.json").parent, signer.private_key, password=None)
    return former


async def asks(client: RecoveryClient, former: AgentShareKey, *present: AgentShareKey) -> str:
    """Ask for a change that brings a share key back; returns the reason of the refusal."""
    with pytest.raises(KeyarkError) as refused:
        await client.change_agents([former, *present], 2, reason="the same agents, once more")
    return refused.value.reason


async def test_the_archive_opens_no_change_that_brings_a_share_key_back(deployment: Deployment) -> None:
    """Alice has bob's lost share key, and its public file still verifies: she asks for the same three agents."""
    folder = deployment.folder
    lost = replace_share_key(folder, "bob")
    present = [share_key(folder, name) for name in AGENTS]
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        change = await bob.change_agents(present, 2, reason="bob's laptop is gone")
        assert state(await approve(change.ceremony_id, alice, carol)) == "COMPLETED"
        assert await asks(alice, lost, present[0], present[2]) == "FORMER_SHARE_KEY"
        assert [c.request.statement async for c in alice.ceremonies()] == [change.view.request.statement]


async def test_an_agents_client_neither_approves_nor_follows_such_a_change(deployment_folder: Path) -> None:
    """The archive is hostile, and a quorum has clients that do not look."""
    async with running(deployment_folder), hostile_archive(deployment_folder) as archive:
        first = archive.token()
        archive.pin(first)
        lost = replace_share_key(deployment_folder, "carol")
        present = [share_key(deployment_folder, name) for name in AGENTS]
        replaced = await quorums_change(archive, first, *present)
        now = archive.token()
        now.public_key, now.pin_epoch = first.public_key, 2
        archive.changes = [replaced, await quorums_change(archive, now, *present[:2], lost)]
        async with RecoveryClient.open(archive.home, identity="agent/bob") as bob:
            with pytest.raises(KeyarkError) as refused:
                await bob.pins()
            assert refused.value.reason == "FORMER_SHARE_KEY"
            archive.changes, archive.newest_change = [replaced], change_id(replaced.change.opening_leaf)
            asked = await archive.open(change_to(*present[:2], lost), opens=[now])
            with pytest.raises(KeyarkError) as refused:
                await bob.approve(await bob.review(asked))
            assert (refused.value.reason, archive.approvals) == ("FORMER_SHARE_KEY", [])


def change_to(*keys: AgentShareKey) -> CeremonyStatement:
    return CeremonyStatement(
        type=CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS, agents=[agent_key_of(key) for key in keys], quorum=2
    )


async def quorums_change(
    archive: HostileArchive, token: SoftwareToken, *keys: AgentShareKey
) -> ArchiveChange:
    """A change that bob asked for, and the two others approved."""
    return await archive.change(
        change_to(*keys), approve=["alice", "carol"], opens=[token], signer=archive.signer("bob")
    )


def test_pins_that_are_written_anew_forget_no_former_share_key(
    deployment_folder: Path, tmp_path: Path
) -> None:
    lost = replace_share_key(deployment_folder, "bob")
    present = [share_key(deployment_folder, name) for name in AGENTS]

    def pinned(*keys: AgentShareKey, change: bytes = b"") -> ArchivePins:
        return ArchivePins.first(
            keys, quorum=2, rule=QuorumRule.SEPARATE, storage_keys=[bytes(32)], newest_change=change
        )

    with_lost, change = (present[0], lost, present[2]), bytes(32)
    after = pinned(*present, change=change).after(pinned(*with_lost))
    assert after.former_share_keys == {sha256(lost.public_key).digest()}
    assert pinned(*present, change=change).after(after).former_share_keys == after.former_share_keys
    after.save(tmp_path)
    assert ArchivePins.load(tmp_path) == after
    assert after.fingerprint == pinned(*present, change=change).fingerprint  # a new agent's pins know none
    restored = pinned(*with_lost).after(after)
    assert restored.former_share_keys == frozenset()  # so the same change can be made again
