"""Every end of a ceremony is final and logged; policy and key state are asked at the request and at the opening."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from keyark.client import KeyarkError, RecoveryClient
from keyark.client.recovery.review import ReviewedCeremony
from keyark.clock import ManualClock
from keyark.errors import PolicyRejectedError
from keyark.rpc.calling.channels import call
from keyark.v1 import recovery_pb2
from tests.support.running.deployment import Deployment, edit, running
from tests.support.stories.recovering import (
    REASON,
    agents,
    approve,
    ceremony_steps,
    drm_log,
    identity_file,
    lose_key,
    raw_stub,
    state,
)

DAY = 86_400


async def assert_over(ceremony_id: bytes, requester: RecoveryClient, *others: RecoveryClient) -> None:
    """Nothing can be done about a ceremony that ended."""
    for agent in others:
        seen = await agent.review(ceremony_id)
        for attempt in (agent.approve(seen), agent.reject(seen, reason="no")):
            with pytest.raises(KeyarkError) as refused:
                await attempt
            assert refused.value.reason == "CEREMONY_CLOSED"
    with pytest.raises(KeyarkError) as refused:
        request = recovery_pb2.GetRecoveredKeysRequest(ceremony_id=ceremony_id)
        await call(raw_stub(requester).GetRecoveredKeys, request, timeout=30)
    assert refused.value.reason == "CEREMONY_CLOSED"


def why(ceremony: ReviewedCeremony) -> str:
    return ceremony.view.failure.message


async def test_it_expires_after_its_time(deployment_folder: Path) -> None:
    edit(deployment_folder / "drm" / "drm.toml", "expiry_hours = 24", "expiry_hours = 1")
    clock = ManualClock(time.time_ns() // 1000)
    async with running(deployment_folder, clock) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
            asked = await alice.request_keys([lost.key_id], reason=REASON)
            await approve(asked.ceremony_id, bob)
            clock.advance(3599)
            assert state(await alice.review(asked.ceremony_id)) == "OPEN"
            seen = await carol.review(asked.ceremony_id)
            clock.advance(1)
            with pytest.raises(KeyarkError) as refused:
                await carol.approve(seen)
            assert refused.value.reason == "CEREMONY_CLOSED"
            one_time_key = identity_file(
                deployment_folder, "alice", f"recoveries/{asked.ceremony_id.hex()}.pem"
            )
            assert one_time_key.exists()
            assert state(await alice.review(asked.ceremony_id)) == "EXPIRED"
            assert not one_time_key.exists()
            await assert_over(asked.ceremony_id, alice, bob, carol)
        assert (await ceremony_steps(deployment, asked.ceremony_id))[-1] == "RECOVERY_CLOSED"


async def test_the_requester_cancels_and_nobody_else(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        with pytest.raises(KeyarkError) as refused:
            await bob.cancel(asked.ceremony_id)
        assert refused.value.reason == "PERMISSION_DENIED"
        assert state(await alice.cancel(asked.ceremony_id)) == "CANCELED"
        assert state(await alice.cancel(asked.ceremony_id)) == "CANCELED"
        await assert_over(asked.ceremony_id, alice, bob, carol)

        ready = await alice.request_keys([lost.key_id], reason=REASON)
        await approve(ready.ceremony_id, bob, carol)
        await alice.cancel(ready.ceremony_id)  # what was recovered is erased
        await assert_over(ready.ceremony_id, alice, bob, carol)
    steps = await ceremony_steps(deployment, asked.ceremony_id)
    assert steps == ["RECOVERY_OPENED", "RECOVERY_CLOSED"]


async def test_the_one_time_key_is_erased_once_delivery_is_proven(deployment: Deployment) -> None:
    """Alice's client ended after the archive had heard that she has the keys, and before it erased its own key."""
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        await approve(asked.ceremony_id, bob, carol)
        one_time_key = identity_file(deployment.folder, "alice", f"recoveries/{asked.ceremony_id.hex()}.pem")
        await alice.review(asked.ceremony_id)
        assert one_time_key.exists()
        done = recovery_pb2.AcknowledgeRecoveredKeysRequest(ceremony_id=asked.ceremony_id)
        for _ in range(2):
            await call(raw_stub(alice).AcknowledgeRecoveredKeys, done, timeout=30)
        seen = await alice.review(asked.ceremony_id)
        assert (state(seen), seen.closed is not None) == ("COMPLETED", True)
        assert not one_time_key.exists()


async def test_it_ends_when_rejections_leave_no_quorum(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        await approve(asked.ceremony_id, bob)
        with pytest.raises(KeyarkError) as refused:
            await bob.reject(await bob.review(asked.ceremony_id), reason="changed my mind")
        assert refused.value.reason == "ALREADY_DECIDED"
        rejected = await carol.reject(await carol.review(asked.ceremony_id), reason="never heard of it")
        assert state(rejected) == "REJECTED"
        assert "carol" in why(rejected)
        await assert_over(asked.ceremony_id, alice, bob, carol)
    steps = await ceremony_steps(deployment, asked.ceremony_id)
    assert steps[-2:] == ["RECOVERY_REJECTED", "RECOVERY_CLOSED"]


async def test_rejections_survive_a_restart(deployment_folder: Path) -> None:
    edit(deployment_folder / "drm" / "drm.toml", '"separate"', '"self-approval"')
    async with running(deployment_folder) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
            asked = await alice.request_keys([lost.key_id], reason=REASON)
            await carol.reject(await carol.review(asked.ceremony_id), reason="no")
    async with (
        running(deployment_folder) as deployment,
        agents(deployment, "alice", "bob", "carol") as (alice, bob, carol),
    ):
        with pytest.raises(KeyarkError) as refused:
            await approve(asked.ceremony_id, carol)
        assert refused.value.reason == "ALREADY_DECIDED"
        rejected = await bob.reject(await bob.review(asked.ceremony_id), reason="no")
        assert state(rejected) == "REJECTED"


async def test_a_deactivated_key_is_refused_at_the_request_and_at_the_opening(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        stub = raw_stub(carol)
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        await approve(asked.ceremony_id, bob)
        off = recovery_pb2.DeactivateKeyRequest(key_id=lost.key_id, reason="litigation hold")
        answer = await call(stub.DeactivateKey, off, timeout=30)
        assert answer.key.deactivated_reason == "litigation hold"
        failed = await approve(asked.ceremony_id, carol)
        assert (state(failed), "litigation hold" in why(failed)) == ("FAILED", True)
        await assert_over(asked.ceremony_id, alice, bob, carol)
        with pytest.raises(KeyarkError) as refused:
            await alice.request_keys([lost.key_id], reason=REASON)
        assert refused.value.reason == "KEY_DEACTIVATED"
        on = recovery_pb2.ActivateKeyRequest(key_id=lost.key_id, reason="hold is over")
        await call(stub.ActivateKey, on, timeout=30)
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        assert state(await approve(asked.ceremony_id, bob, carol)) == "READY"
    said = [(name, d.message) for name, _, d in await drm_log(deployment) if name.endswith("ACTIVATED")]
    assert said == [("KEY_DEACTIVATED", "litigation hold"), ("KEY_ACTIVATED", "hold is over")]


async def test_a_key_that_is_not_known_or_not_certified_is_refused(deployment: Deployment) -> None:
    async with agents(deployment, "alice") as (alice,):
        with pytest.raises(KeyarkError) as refused:
            await alice.request_keys([bytes(32)], reason=REASON)
        assert refused.value.reason == "NOT_FOUND"
        for reason in ("", " ", "two\nlines", "x" * 501):
            with pytest.raises(KeyarkError) as refused:
                await alice.request_keys([bytes(32)], reason=reason)
            assert refused.value.reason == "INVALID_INPUT"


RULE = """
[[policy.rule]]
name = "{name}"
type = "Recovery"
stage = "recover"
{what}
"""


@pytest.mark.parametrize(
    "what", ['requesters = ["agent/bob"]', "min_archived_days = 1", "max_archived_days = 0.000000001"]
)
async def test_policy_rejects_with_the_rules_name(deployment_folder: Path, what: str) -> None:
    config = deployment_folder / "drm" / "drm.toml"
    config.write_text(config.read_text() + RULE.format(name="house-rule", what=what))
    async with running(deployment_folder) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice") as (alice,):
            with pytest.raises(PolicyRejectedError) as refused:
                await alice.request_keys([lost.key_id], reason=REASON)
        assert [v.rule for v in refused.value.violations] == ["house-rule"]


async def test_policy_is_asked_again_when_the_key_is_opened(deployment_folder: Path) -> None:
    config = deployment_folder / "drm" / "drm.toml"
    config.write_text(config.read_text() + RULE.format(name="not-too-old", what="max_archived_days = 0.5"))
    clock = ManualClock(time.time_ns() // 1000)
    async with running(deployment_folder, clock) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
            asked = await alice.request_keys([lost.key_id], reason=REASON)
            await approve(asked.ceremony_id, bob)
            clock.advance(DAY * 0.75)
            failed = await approve(asked.ceremony_id, carol)
            assert state(failed) == "FAILED"
            await assert_over(asked.ceremony_id, alice, bob, carol)


async def test_an_agent_asks_so_many_times_a_day(deployment_folder: Path) -> None:
    edit(deployment_folder / "drm" / "drm.toml", "per_day = 100", "per_day = 2")
    clock = ManualClock(time.time_ns() // 1000)
    async with running(deployment_folder, clock) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice", "bob") as (alice, bob):
            for _ in range(2):
                await alice.request_keys([lost.key_id], reason=REASON)
                clock.advance(0.001)
            with pytest.raises(PolicyRejectedError) as refused:
                await alice.request_keys([lost.key_id], reason=REASON)
            assert [v.rule for v in refused.value.violations] == ["recoveries-per-day"]
            await bob.request_keys([lost.key_id], reason=REASON)  # the others may still
            clock.advance(DAY)
            await alice.request_keys([lost.key_id], reason=REASON)
