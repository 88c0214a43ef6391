"""P4: any m of n agents open, whoever they are; fewer, the same one twice, or words meant for something else do not."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from keyark.client import KeyarkError
from keyark.custody.shares import QuorumRule
from keyark.identity.revoked import IdentityRevokedError
from keyark.keys.key_types import KeyType, generate_signing
from keyark.statements.ceremonies import AgentSigner, Opening
from tests.support.running.deployment import Deployment, make_deployment, running
from tests.support.stories.recovering import (
    REASON,
    agent_keys,
    agents,
    approval,
    approve,
    ceremony_steps,
    lose_key,
    revoke,
    send_approval,
    state,
)

NAMES = tuple(f"a{i}" for i in range(1, 11))


@pytest.mark.parametrize(
    ("n", "m", "rule"),
    [
        (3, 2, QuorumRule.SEPARATE),
        (5, 3, QuorumRule.SEPARATE),
        (2, 2, QuorumRule.SELF_APPROVAL),
        (4, 3, QuorumRule.SELF_APPROVAL),
        (1, 1, QuorumRule.SINGLE_AGENT),
    ],
)
async def test_every_subset_of_m_agents_opens_and_none_of_fewer(
    tmp_path: Path, n: int, m: int, rule: QuorumRule
) -> None:
    folder = make_deployment(tmp_path / "deployment", agents=NAMES[:n], quorum=m, quorum_rule=rule)
    async with running(folder) as deployment, agents(deployment, *NAMES[:n]) as everyone:
        lost = await lose_key(deployment)
        others = everyone[1:] if rule is QuorumRule.SEPARATE else everyone
        for chosen in combinations(others, m):
            asked = await everyone[0].request_keys([lost.key_id], reason=REASON)
            for agent in chosen[:-1]:
                assert state(await approve(asked.ceremony_id, agent)) == "OPEN"
            with pytest.raises(KeyarkError) as refused:
                await everyone[0].collect(asked.ceremony_id)
            assert refused.value.reason == "CEREMONY_CLOSED"
            assert state(await approve(asked.ceremony_id, chosen[-1])) == "READY"
            assert (await everyone[0].collect(asked.ceremony_id))[0].private_key == lost.private_key


async def test_seven_of_ten(tmp_path: Path) -> None:
    folder = make_deployment(tmp_path / "deployment", agents=NAMES, quorum=7)
    async with running(folder) as deployment, agents(deployment, *NAMES) as everyone:
        lost = await lose_key(deployment)
        asked = await everyone[0].request_keys([lost.key_id], reason=REASON)
        assert state(await approve(asked.ceremony_id, *everyone[1:7])) == "OPEN"
        assert state(await approve(asked.ceremony_id, everyone[9])) == "READY"
        assert (await everyone[0].collect(asked.ceremony_id))[0].private_key == lost.private_key


async def test_one_agent_counts_once_however_often_it_approves(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "bob") as (alice, bob, bob_again):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        assert state(await approve(asked.ceremony_id, bob, bob_again, bob, bob_again)) == "OPEN"
        with pytest.raises(KeyarkError) as refused:
            await alice.approve(await alice.review(asked.ceremony_id))
        assert refused.value.reason == "OWN_REQUEST"
        assert state(await alice.review(asked.ceremony_id)) == "OPEN"
    steps = await ceremony_steps(deployment, asked.ceremony_id)
    assert steps == ["RECOVERY_OPENED", "RECOVERY_APPROVED"]


async def test_an_approval_is_for_one_ceremony_one_opening_and_its_own_sender(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        first = await alice.request_keys([lost.key_id], reason=REASON)
        second = await alice.request_keys([lost.key_id], reason=REASON)
        seen = await bob.review(first.ceremony_id)
        made = approval(bob, seen)
        other_leaf = Opening(digest=second.opening.digest, leaf_hash=first.opening.leaf_hash)
        carols = agent_keys(carol).signer
        stranger = AgentSigner(certificate=carols.certificate, private_key=generate_signing(KeyType.EC_P256))
        foreign = approval(bob, await bob.review(second.ceremony_id), opening=other_leaf)
        attempts: list[tuple[Any, Any, str]] = [
            (bob, approval(bob, seen, ceremony_id=second.ceremony_id), "DECISION_MISMATCH"),
            (bob, foreign, "DECISION_MISMATCH"),
            (carol, made, "PERMISSION_DENIED"),
            (bob, approval(bob, seen, signer=carols), "PERMISSION_DENIED"),
            (
                carol,
                approval(carol, await carol.review(first.ceremony_id), signer=stranger),
                "CEREMONY_SIGNATURE",
            ),
        ]
        for sender, request, reason in attempts:
            with pytest.raises(KeyarkError) as refused:
                await send_approval(sender, request)
            assert refused.value.reason == reason
        tampered = approval(carol, await carol.review(first.ceremony_id))
        statement = bytearray(tampered.approval.statement)
        for position in range(
            0, len(statement), len(statement) // 10
        ):  # an agent has 20 such refusals an hour
            altered = bytearray(statement)
            altered[position] ^= 1
            tampered.approval.statement = bytes(altered)
            with pytest.raises(KeyarkError) as refused:
                await send_approval(carol, tampered)
            assert refused.value.reason in ("CEREMONY_SIGNATURE", "INVALID_INPUT")
        for ceremony in (first, second):
            assert not (await alice.review(ceremony.ceremony_id)).view.decisions
        assert state(await approve(first.ceremony_id, bob, carol)) == "READY"


async def test_after_a_restart_old_approvals_open_nothing(deployment_folder: Path) -> None:
    async with running(deployment_folder) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
            asked = await alice.request_keys([lost.key_id], reason=REASON)
            replayed = approval(bob, await bob.review(asked.ceremony_id))
            await send_approval(bob, replayed)
            await carol.reject(await carol.review(asked.ceremony_id), reason="who is this for?")
            assert state(await alice.review(asked.ceremony_id)) == "REJECTED"
            asked = await alice.request_keys([lost.key_id], reason=REASON)
            replayed = approval(bob, await bob.review(asked.ceremony_id))
            await send_approval(bob, replayed)
    async with (
        running(deployment_folder) as deployment,
        agents(deployment, "alice", "bob", "carol") as (alice, bob, carol),
    ):
        seen = await alice.review(asked.ceremony_id)
        assert (state(seen), seen.view.openings, list(seen.view.decisions)) == ("OPEN", 2, [])
        assert list(seen.view.approvals_to_repeat) == ["spiffe://example.org/agent/bob"]
        assert state(await approve(asked.ceremony_id, carol)) == "OPEN"
        with pytest.raises(KeyarkError) as refused:
            await send_approval(bob, replayed)
        assert refused.value.reason == "DECISION_MISMATCH"
        assert state(await approve(asked.ceremony_id, bob)) == "READY"
        assert (await alice.collect(asked.ceremony_id))[0].private_key == lost.private_key
    async with running(deployment_folder) as deployment, agents(deployment, "alice") as (alice,):
        assert (await alice.collect(asked.ceremony_id))[0].private_key == lost.private_key  # still waiting
        await alice.acknowledge(asked.ceremony_id)


async def test_the_share_of_an_agent_that_was_revoked_since_is_none_of_a_quorum(
    deployment: Deployment,
) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        assert state(await approve(asked.ceremony_id, bob)) == "OPEN"
        await revoke(deployment, "agent/bob")
        assert state(await approve(asked.ceremony_id, carol)) == "OPEN"
        with pytest.raises(IdentityRevokedError):
            await bob.review(asked.ceremony_id)
    assert "KEYS_RECOVERED" not in await ceremony_steps(deployment, asked.ceremony_id)


async def test_a_ceremony_whose_requester_was_revoked_ends_without_keys(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        assert state(await approve(asked.ceremony_id, bob)) == "OPEN"
        await revoke(deployment, "agent/alice")
        with pytest.raises(KeyarkError) as refused:
            await approve(asked.ceremony_id, carol)
        assert refused.value.reason == "CEREMONY_CLOSED"
    steps = await ceremony_steps(deployment, asked.ceremony_id)
    assert steps == ["RECOVERY_OPENED", "RECOVERY_APPROVED", "RECOVERY_CLOSED"]
