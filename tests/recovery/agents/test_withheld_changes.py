"""P4, P7: what one agent saw of agents and storage keys is hidden from no other: RM and CM are told, and tell it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from keyark.client import KeyarkError, RecoveryClient
from keyark.client.access.home import Home
from keyark.client.access.sessions import open_session
from keyark.client.recovery.archive_pins import ArchivePins
from keyark.client.recovery.review import CeremonyReview
from keyark.client.trust.witnesses import Witnesses
from keyark.custody.shares import QuorumRule
from keyark.custody.storage import HybridPrivateKey
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.initialize import DeploymentPlan, make_person
from keyark.files import write_file
from keyark.identity.spiffe import SpiffeId
from keyark.rpc.calling.channels import call
from keyark.statements.ceremonies import agent_key_of
from keyark.transparency.opening_facts import change_id
from keyark.v1.audit_pb2 import CosignCheckpointRequest
from keyark.v1.audit_pb2_grpc import AuditServiceStub
from keyark.v1.ceremony_pb2 import CeremonyProof, CeremonyStatement, CeremonyType
from tests.recovery.attacks.test_hostile_archive import lying_witness
from tests.support.running.deployment import running
from tests.support.stories.hostile_archive import HostileArchive, hostile_archive, share_key
from tests.support.stories.recovering import (
    REASON,
    agents,
    approval,
    approve,
    identity_file,
    lose_key,
    revoke,
    send_approval,
    state,
)

FOLLOWERS = ("rm", "cm")


def people(folder: Path, *names: str) -> None:
    """Further agents by certificate, who pin what alice pins."""
    plan, authority = DeploymentPlan(folder=folder), DeploymentAuthority.load(folder / "authority")
    pins = identity_file(folder, "alice", "archive-pins.json").read_bytes()
    for name in names:
        make_person(plan, authority, SpiffeId("example.org", f"agent/{name}"))
        write_file(identity_file(folder, name, "archive-pins.json"), pins, mode=0o600)


@asynccontextmanager
async def witnesses(home: Home, identity: str) -> AsyncIterator[Witnesses]:
    """The DRM, RM and CM as somebody reaches them."""
    async with AsyncExitStack() as stack:
        archive, *followers = [
            await stack.enter_async_context(open_session(home, role, identity=identity))
            for role in ("drm", *FOLLOWERS)
        ]
        yield Witnesses(archive=archive, followers=followers)


async def believed(home: Home) -> list[bytes]:
    """The newest change that RM and CM believe."""
    async with witnesses(home, "auditor/auditor") as asked:
        return [await asked.believed_change(follower) for follower in asked.followers]


@pytest.fixture
def folder(deployment_folder: Path) -> Path:
    """With mallory, an agent by certificate, who is the archive's friend."""
    people(deployment_folder, "mallory")
    return deployment_folder


async def refusal(archive: HostileArchive, ceremony_id: bytes) -> KeyarkError:
    """What bob's client refuses to approve with; no share leaves it."""
    async with RecoveryClient.open(archive.home, identity="agent/bob") as bob:
        with pytest.raises(KeyarkError) as refused:
            await bob.approve(await bob.review(ceremony_id))
    assert archive.approvals == []
    return refused.value


async def removal_of_alice(archive: HostileArchive) -> CeremonyProof:
    """Bob asked that mallory takes alice's place; alice and carol approved. Only carol is shown that it was done.

    RM and CM have seen more of the log meanwhile. Then the archive opens a recovery as if all that had never been.
    """
    first = archive.token()
    archive.pin(first)
    names = ("bob", "carol", "mallory")
    statement = CeremonyStatement(
        type=CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS,
        agents=[agent_key_of(share_key(archive.folder, name)) for name in names],
        quorum=2,
    )
    signer = archive.signer("bob")
    shown = await archive.change(statement, approve=["alice", "carol"], opens=[first], signer=signer)
    wanted, key = await archive.archive(first)
    async with witnesses(archive.home, "agent/alice") as alice:
        await alice.confirm([CeremonyReview(archive.home).verifier.verify_entry(key.receipt)])
    archive.changes = [shown]
    async with RecoveryClient.open(archive.home, identity="agent/carol") as carol:
        await carol.pins()
    archive.changes, archive.newest_change = [], b""
    recovery = CeremonyStatement(
        type=CeremonyType.CEREMONY_TYPE_RECOVER_KEYS,
        key_ids=[wanted],
        recipient_public_key=HybridPrivateKey.generate().public_key.to_bytes(),
    )
    await archive.open(recovery, opens=[first], keys=[key])
    shown.change.opening_proof = shown.opening_proof
    return shown.change


async def test_a_change_that_one_agent_followed_is_hidden_from_no_other(folder: Path) -> None:
    """The archive shows bob no change, and opens a former agent's recovery in a leaf that names none."""
    async with running(folder) as deployment, hostile_archive(folder) as archive:
        change = await removal_of_alice(archive)
        assert await believed(archive.home) == [change_id(change.opening_leaf)] * 2
        error = await refusal(archive, archive.view.ceremony_id)
        assert (error.reason, "The RM has accepted a change" in error.message) == ("PINS_BEHIND", True)

        def forget(method: str, request: Any, response: Any) -> Any:
            if method == "CosignCheckpoint":
                response.ClearField("newest_change")
            return response

        for forgets in FOLLOWERS:  # one that works with the archive is not enough
            async with lying_witness(deployment, forgets, forget) as port:
                honest = archive.home.config
                object.__setattr__(
                    archive.home, "config", honest.model_copy(update={forgets: f"127.0.0.1:{port}"})
                )
                assert (await refusal(archive, archive.view.ceremony_id)).reason == "PINS_BEHIND"
                object.__setattr__(archive.home, "config", honest)


async def test_a_former_agent_brings_no_head_with_a_change_that_is_believed(folder: Path) -> None:
    """P7: anybody may show what a quorum said; a forged head that comes along raises no alarm."""
    async with running(folder), hostile_archive(folder) as archive:
        change = await removal_of_alice(archive)
        async with hostile_archive(folder) as fork, witnesses(archive.home, "agent/alice") as alice:
            while fork.log.size < archive.log.size:
                await fork.archive(fork.token())
            request = CosignCheckpointRequest(
                trust_changes=[change], checkpoint=(await fork.log.checkpoint()).note
            )
            for follower in alice.followers:
                with pytest.raises(KeyarkError) as denied:
                    await call(AuditServiceStub(follower.channel).CosignCheckpoint, request, timeout=30)
                assert denied.value.reason == "PERMISSION_DENIED"
        assert await believed(archive.home) == [change_id(change.opening_leaf)] * 2


async def test_rm_and_cm_hear_of_a_change_from_the_approval_that_carries_it_out(
    deployment_folder: Path,
) -> None:
    """P7: both approvers leave with it and are revoked at once; enrollment and the next change go on."""
    people(deployment_folder, "dave", "erin")
    async with running(deployment_folder) as deployment:
        await lose_key(deployment)
        async with agents(deployment, "alice", "bob", "carol", "dave", "erin") as everybody:
            alice, bob, carol, dave, erin = everybody
            keys = [share_key(deployment_folder, name) for name in ("alice", "dave", "erin")]
            asked = await alice.change_agents(keys, 2, reason="bob and carol leave")
            await approve(asked.ceremony_id, bob)
            assert await believed(deployment.home()) == [b"", b""]
            assert state(await approve(asked.ceremony_id, carol)) == "COMPLETED"
            assert await believed(deployment.home()) == [change_id(asked.opened.leaf)] * 2
            for present in (alice, dave, erin):
                await present.pins()
            await revoke(deployment, "agent/bob", "agent/carol")
            for role in FOLLOWERS:
                await deployment.services[role].reloads[1]()
            rotation = await alice.rotate_storage_key(reason="new agents, new key")
            assert state(await approve(rotation.ceremony_id, dave, erin)) == "COMPLETED"
        assert await believed(deployment.home()) == [change_id(rotation.opened.leaf)] * 2
        await lose_key(deployment, email="later@example.org")


async def test_an_agent_whose_pins_are_newer_brings_rm_and_cm_up_to_date(deployment_folder: Path) -> None:
    """P7: they were away when it was carried out, and the agent pinned it by hand."""
    people(deployment_folder, "dave")
    async with running(deployment_folder) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice", "bob", "carol") as (alice, *others):
            keys = [share_key(deployment_folder, name) for name in ("alice", "bob", "dave")]
            asked = await alice.change_agents(keys, 2, reason="carol leaves")
            for approver in others:
                reviewed = await approver.review(asked.ceremony_id)
                await send_approval(approver, approval(approver, reviewed))
            assert await believed(deployment.home()) == [b"", b""]
            recovery = await alice.request_keys([lost.key_id], reason=REASON)
            async with agents(deployment, "dave") as (dave,):
                (token,) = await dave.storage_keys()
                ArchivePins.first(
                    keys,
                    quorum=2,
                    rule=QuorumRule.SEPARATE,
                    storage_keys=[sha256(token.public_key).digest()],
                    pin_epochs=[2],
                    newest_change=change_id(asked.opened.leaf),
                ).save(identity_file(deployment_folder, "dave", "archive-pins.json").parent)
                assert state(await approve(recovery.ceremony_id, dave)) == "OPEN"
        assert await believed(deployment.home()) == [change_id(asked.opened.leaf)] * 2


async def test_the_remaining_agents_make_a_change_again_that_rm_and_cm_heard_of_too_late(
    deployment_folder: Path,
) -> None:
    """P7: carol approved her own leaving, and was revoked before anybody told RM and CM of the change."""
    people(deployment_folder, "dave")
    async with running(deployment_folder) as deployment:
        await lose_key(deployment)
        async with agents(deployment, "alice", "bob", "carol", "dave") as (alice, bob, carol, dave):
            keys = [share_key(deployment_folder, name) for name in ("alice", "bob", "dave")]
            asked = await alice.change_agents(keys, 2, reason="carol leaves")
            for approver in (bob, carol):
                await send_approval(approver, approval(approver, await approver.review(asked.ceremony_id)))
            await revoke(deployment, "agent/carol")
            for role in FOLLOWERS:
                await deployment.services[role].reloads[1]()
            for present in (alice, bob, dave):
                await present.pins()  # they do not know yet who was revoked, and RM and CM refuse the change
            assert await believed(deployment.home()) == [b"", b""]
            again = await dave.change_agents(keys, 2, reason="once more")
            await approve(again.ceremony_id, bob)
            assert state(await approve(again.ceremony_id, alice)) == "COMPLETED"
            assert await believed(deployment.home()) == [change_id(again.opened.leaf)] * 2
            rotation = await alice.rotate_storage_key(reason="a key that carol has no share of")
            await approve(rotation.ceremony_id, bob, dave)
        await lose_key(deployment, email="later@example.org")
