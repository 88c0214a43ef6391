"""P4, the archive's own keys: agents and storage keys change by a quorum only, and RM and CM believe nobody else."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from keyark.client import KeyarkError
from keyark.client.access.sessions import open_session
from keyark.client.trust.receipts import list_entries
from keyark.custody.agents import AgentShareKey
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.initialize import DeploymentPlan, make_person
from keyark.files import write_file
from keyark.identity.spiffe import SpiffeId
from keyark.v1.audit_pb2 import AuditEvent, EventType
from tests.support.running.deployment import Deployment, running
from tests.support.stories.recovering import (
    REASON,
    agents,
    approve,
    ceremony_steps,
    drm_log,
    identity_file,
    lose_key,
    revoke,
    state,
)

TRUST_CHANGED = EventType.EVENT_TYPE_ARCHIVE_TRUST_CHANGED


def share_key(folder: Path, agent: str) -> AgentShareKey:
    return AgentShareKey.from_json(identity_file(folder, agent, "share-key.json").read_text())


async def recovers(deployment: Deployment, key_id: bytes, *names: str) -> bytes:
    """Let the first agent ask and the others approve; returns the private key."""
    async with agents(deployment, *names) as (requester, *others):
        asked = await requester.request_keys([key_id], reason=REASON)
        await approve(asked.ceremony_id, *others)
        return (await requester.collect(asked.ceremony_id))[0].private_key


async def test_a_new_storage_key_is_used_and_believed_once_a_quorum_approved_it(
    deployment_folder: Path,
) -> None:
    async with running(deployment_folder) as deployment:
        old = await lose_key(deployment)
        async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
            before = await alice.storage_keys()
            asked = await alice.rotate_storage_key(reason="yearly")
            with pytest.raises(KeyarkError) as refused:
                await bob.rotate_storage_key(reason="me too")
            assert refused.value.reason == "ANOTHER_CEREMONY"
            assert state(await approve(asked.ceremony_id, bob)) == "OPEN"
            assert len(await alice.storage_keys()) == 1
            assert state(await approve(asked.ceremony_id, carol)) == "COMPLETED"
            after = await alice.storage_keys()
        assert [key.generation for key in after] == [1, 2]
        assert after[0] == before[0]
        new = await lose_key(deployment, email="new@example.org")  # RM and CM follow
        archived = {
            event.encryption_spki_sha256: event.storage_key_id
            for name, event, _ in await drm_log(deployment)
            if name == "KEY_ARCHIVED"
        }
        assert archived[old.key_id] == sha256(after[0].public_key).digest()
        assert archived[new.key_id] == sha256(after[1].public_key).digest()
    async with running(deployment_folder) as deployment:  # and all of them go on doing so
        again = await lose_key(deployment, email="again@example.org")
        for lost in (old, new, again):
            assert await recovers(deployment, lost.key_id, "alice", "bob", "carol") == lost.private_key


async def test_resealing_moves_old_keys_and_they_stay_recoverable(deployment: Deployment) -> None:
    losses = [await lose_key(deployment, email=f"user{i}@example.org") for i in range(3)]
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        with pytest.raises(KeyarkError) as refused:
            await alice.reseal_keys(reason="nothing to do")
        assert refused.value.reason == "NOTHING_TO_RESEAL"
        rotation = await alice.rotate_storage_key(reason="bob was burgled")
        await approve(rotation.ceremony_id, bob, carol)
        open_recovery = await bob.request_keys([losses[0].key_id], reason=REASON)
        await approve(open_recovery.ceremony_id, carol)
        asked = await alice.reseal_keys(reason="bob was burgled")
        done = await approve(asked.ceremony_id, bob, carol)
        assert state(done) == "COMPLETED"
        assert (done.view.resealed, done.view.looked_at, done.view.archived_keys) == (3, 3, 3)
        # what was approved for the older storage key is asked for anew
        reopened = await bob.review(open_recovery.ceremony_id)
        assert (state(reopened), reopened.view.openings) == ("OPEN", 2)
        assert [a.rsplit("/", 1)[-1] for a in reopened.view.approvals_to_repeat] == ["carol"]
        await approve(open_recovery.ceremony_id, alice, carol)
        assert (await bob.collect(open_recovery.ceremony_id))[0].private_key == losses[0].private_key
    for lost in losses:
        assert await recovers(deployment, lost.key_id, "alice", "bob", "carol") == lost.private_key
    steps = await ceremony_steps(deployment, asked.ceremony_id)
    assert steps[-4:] == ["KEY_RESEALED"] * 3 + ["RESEAL_COMPLETED"]


async def test_other_agents_take_over_and_the_former_ones_open_nothing(
    deployment_folder: Path, tmp_path: Path
) -> None:

    authority = DeploymentAuthority.load(deployment_folder / "authority")
    plan = DeploymentPlan(folder=deployment_folder)
    for name in ("dave", "erin"):
        make_person(plan, authority, SpiffeId("example.org", f"agent/{name}"))
        pins = identity_file(deployment_folder, "alice", "archive-pins.json").read_bytes()
        write_file(identity_file(deployment_folder, name, "archive-pins.json"), pins, mode=0o600)
    async with running(deployment_folder) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice", "bob", "carol", "dave", "erin") as (
            alice,
            bob,
            carol,
            dave,
            erin,
        ):
            # one who holds no share yet sees nothing and counts for nothing
            with pytest.raises(KeyarkError) as refused:
                await approve((await alice.rotate_storage_key(reason="x")).ceremony_id, dave)
            assert refused.value.reason in ("NO_SHARE", "WRONG_SHARE")
            (rotation,) = [c async for c in alice.ceremonies()]
            await alice.cancel(rotation.ceremony_id)

            new = [share_key(deployment_folder, name) for name in ("alice", "dave", "erin")]
            asked = await alice.change_agents(new, 2, reason="bob and carol leave")
            assert state(await approve(asked.ceremony_id, bob, carol)) == "COMPLETED"
            holders = [s.holder.agent.rsplit("/", 1)[-1] for s in (await dave.storage_keys())[0].shares]
            assert holders == ["alice", "dave", "erin"]

            recovery = await alice.request_keys([lost.key_id], reason=REASON)
            for former in (bob, carol):
                with pytest.raises(KeyarkError) as refused:
                    await approve(recovery.ceremony_id, former)
                assert refused.value.reason in ("NO_SHARE", "WRONG_SHARE")
            assert state(await approve(recovery.ceremony_id, dave, erin)) == "READY"
            assert (await alice.collect(recovery.ceremony_id))[0].private_key == lost.private_key

            # RM and CM follow both changes, in their order
            rotation2 = await dave.rotate_storage_key(reason="new agents, new key")
            assert state(await approve(rotation2.ceremony_id, alice, erin)) == "COMPLETED"
        fresh = await lose_key(deployment, email="fresh@example.org")
        assert await recovers(deployment, fresh.key_id, "dave", "alice", "erin") == fresh.private_key


async def test_a_quorum_that_cannot_be_reached_is_refused_at_the_request(deployment: Deployment) -> None:
    folder = deployment.folder
    async with agents(deployment, "alice") as (alice,):
        everyone = [share_key(folder, name) for name in ("alice", "bob", "carol")]
        for chosen, quorum in ((everyone, 1), (everyone, 3), (everyone[:1], 1), (everyone, 4)):
            with pytest.raises(KeyarkError) as refused:
                await alice.change_agents(chosen, quorum, reason="x")
            assert refused.value.reason == "QUORUM"
        forged = AgentShareKey(
            agent=everyone[1].agent,
            certificate=everyone[1].certificate,
            public_key=everyone[0].public_key,
            signature=everyone[1].signature,
        )
        with pytest.raises(KeyarkError) as refused:
            await alice.change_agents([everyone[0], forged, everyone[2]], 2, reason="x")
        assert refused.value.reason == "SHARE_KEY"
        assert [c async for c in alice.ceremonies()] == []


async def test_an_agent_goes_on_once_a_change_that_it_approved_is_proven_to_have_ended(
    deployment: Deployment,
) -> None:
    lost = await lose_key(deployment)
    keys = [share_key(deployment.folder, name) for name in ("alice", "bob", "carol")]
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        change = await alice.change_agents(keys, 2, reason=REASON)
        await approve(change.ceremony_id, bob)
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        with pytest.raises(KeyarkError) as waiting:
            await approve(asked.ceremony_id, bob)
        assert waiting.value.reason == "CHANGE_PENDING"
        await alice.cancel(change.ceremony_id)
        assert state(await approve(asked.ceremony_id, bob, carol)) == "READY"


async def test_a_new_storage_key_that_lies_open_holds_up_no_recovery(deployment: Deployment) -> None:
    """P7: one agent could otherwise keep those who approved it from all their work."""
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        rotation = await alice.rotate_storage_key(reason=REASON)
        await approve(rotation.ceremony_id, bob)
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        assert state(await approve(asked.ceremony_id, bob, carol)) == "READY"


async def test_a_change_is_heard_of_with_the_next_enrollment_and_stands_though_who_asked_was_revoked(
    deployment_folder: Path,
) -> None:
    """P7: RM and CM do not wait for a new storage key, and agents who were away follow."""
    make_person(
        DeploymentPlan(folder=deployment_folder),
        DeploymentAuthority.load(deployment_folder / "authority"),
        SpiffeId("example.org", "agent/dave"),
    )
    async with running(deployment_folder) as deployment:
        await lose_key(deployment)
        async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
            keys = [share_key(deployment_folder, name) for name in ("bob", "carol", "dave")]
            asked = await alice.change_agents(keys, 2, reason="alice leaves")
            await approve(asked.ceremony_id, bob, carol)
        await revoke(deployment, "agent/alice")
        for email in ("b@example.org", "c@example.org"):
            await lose_key(deployment, email=email)
        for role in ("rm", "cm"):
            async with open_session(deployment.home(), role, identity="auditor/auditor") as session:
                events = [AuditEvent.FromString(e.event.leaf) async for e in list_entries(session)]
            digests = [e.ceremony_digest for e in events if e.type == TRUST_CHANGED]
            assert digests == [asked.request.digest]
        async with agents(deployment, "bob") as (bob,):
            pins = await bob.pins()
        assert {agent.rpartition("/")[2] for agent in pins.agents} == {"bob", "carol", "dave"}
        assert pins.pin_epochs == (2,)
