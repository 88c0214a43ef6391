"""P4, recovery: a quorum of agents brings a key back to who asked, each step in the log, and fewer bring nothing."""

from __future__ import annotations

from hashlib import sha256

import pytest

from keyark.client import KeyarkError
from keyark.errors import PermissionDeniedError
from keyark.identity.revoked import NOBODY_REVOKED
from keyark.statements.ceremonies import AgentTrust, verify_decision
from keyark.v1.ceremony_pb2 import SignedStatement
from tests.support.running.deployment import Deployment
from tests.support.stories.recovering import (
    REASON,
    agents,
    approve,
    ceremony_steps,
    drm_log,
    identity_file,
    lose_key,
    state,
)


async def test_two_of_three_agents_bring_a_key_back_and_every_step_is_logged(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        assert state(asked) == "OPEN"
        seen = await bob.review(asked.ceremony_id)
        assert seen.request.message.reason == REASON
        assert str(seen.request.requester).endswith("agent/alice")
        assert [owner.details.email for owner in seen.owners] == ["alice@example.org"]

        assert state(await bob.approve(seen)) == "OPEN"
        with pytest.raises(KeyarkError, match="OPEN") as refused:
            await alice.collect(asked.ceremony_id)
        assert refused.value.reason == "CEREMONY_CLOSED"
        assert state(await approve(asked.ceremony_id, carol)) == "READY"

        (recovered,) = await alice.collect(asked.ceremony_id)
        assert recovered.private_key == lost.private_key
        assert recovered.certificate.serial_number == lost.serial
        assert (await alice.collect(asked.ceremony_id))[0].private_key == lost.private_key
        await alice.acknowledge(asked.ceremony_id)
        with pytest.raises(KeyarkError) as gone:
            await alice.collect(asked.ceremony_id)
        assert gone.value.reason in ("RECIPIENT_KEY_MISSING", "CEREMONY_CLOSED")
        await alice.acknowledge(asked.ceremony_id)  # an answer that was lost is asked for again
    assert await ceremony_steps(deployment, asked.ceremony_id) == [
        "RECOVERY_OPENED",
        "RECOVERY_APPROVED",
        "RECOVERY_APPROVED",
        "KEYS_RECOVERED",
        "KEYS_DELIVERED",
    ]
    assert not list(identity_file(deployment.folder, "alice", "recoveries").iterdir())


async def test_every_approval_is_logged_with_the_agents_own_signature(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        await approve(asked.ceremony_id, bob, carol)
    trust = AgentTrust(
        trust_domain="example.org", anchors=[deployment.home().trust_anchor], revoked=NOBODY_REVOKED
    )
    log = [entry for entry in await drm_log(deployment) if entry[0] == "RECOVERY_APPROVED"]
    for (_, event, details), name in zip(log, ("bob", "carol"), strict=True):
        signed = SignedStatement.FromString(details.decision)
        decision = verify_decision(signed, asked.opening, trust)
        assert decision.approves
        assert str(decision.agent) == f"spiffe://example.org/agent/{name}"
        assert sha256(signed.statement).digest() == event.decision_sha256


async def test_keys_go_to_who_asked_and_nobody_else(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        await approve(asked.ceremony_id, bob, carol)
        for other in (bob, carol):
            with pytest.raises(PermissionDeniedError):
                await other.acknowledge(asked.ceremony_id)
            with pytest.raises(KeyarkError) as refused:
                await other.collect(asked.ceremony_id)
            assert refused.value.reason in ("PERMISSION_DENIED", "RECIPIENT_KEY_MISSING")
        assert (await alice.collect(asked.ceremony_id))[0].private_key == lost.private_key
