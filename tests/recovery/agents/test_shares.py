"""P4: a wrong or stale share is refused by the name of its agent before the quorum, and the recovery goes on."""

from __future__ import annotations

import os
from hashlib import sha256
from typing import Any

import pytest

from keyark.client import KeyarkError
from keyark.client.recovery.review import token_of
from keyark.custody.agents import AgentShareKey
from keyark.custody.shares import Share
from keyark.custody.token import open_share
from keyark.statements.ceremonies import Opening
from keyark.v1.recovery_pb2 import ReleasedShare
from tests.support.running.deployment import Deployment
from tests.support.stories.recovering import (
    REASON,
    agent_keys,
    agents,
    approval,
    approve,
    identity_file,
    lose_key,
    released,
    send_approval,
    state,
)


async def test_a_share_that_is_not_the_agents_own_is_refused_by_name(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        seen, carols = await bob.review(asked.ceremony_id), await carol.review(asked.ceremony_id)
        (key,) = seen.view.storage_keys
        own = open_share(token_of(key), agent_keys(bob).share_key, "spiffe://example.org/agent/bob")
        other_opening = Opening(digest=seen.opening.digest, leaf_hash=os.urandom(32))
        wrong: list[list[Any]] = [
            [released(bob, seen, key, share=Share(own.index, os.urandom(32)))],
            [released(bob, seen, key, share=Share(own.index % 3 + 1, own.value))],
            [released(bob, seen, key, opening=other_opening)],
            [released(carol, carols, carols.view.storage_keys[0])],
            [ReleasedShare(storage_key_id=sha256(key.public_key).digest(), ciphertext=os.urandom(1200))],
            [ReleasedShare(storage_key_id=sha256(key.public_key).digest())],
        ]
        for shares in wrong:
            with pytest.raises(KeyarkError) as refused:
                await send_approval(bob, approval(bob, seen, shares=shares))
            assert refused.value.reason == "WRONG_SHARE"
            assert "spiffe://example.org/agent/bob" in refused.value.message
            assert own.value.hex() not in refused.value.message
        good = released(bob, seen, key)
        unknown = ReleasedShare(storage_key_id=os.urandom(32), ciphertext=good.ciphertext)
        for shares in ([], [good, good], [unknown], [good, unknown]):
            with pytest.raises(KeyarkError) as refused:
                await send_approval(bob, approval(bob, seen, shares=shares))
            assert refused.value.reason == "INVALID_INPUT"
        assert not (await alice.review(asked.ceremony_id)).view.decisions
        assert state(await approve(asked.ceremony_id, carol, bob)) == "READY"
        assert (await alice.collect(asked.ceremony_id))[0].private_key == lost.private_key


async def test_a_share_of_an_older_pin_is_stale(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    names = ("alice", "bob", "carol")
    async with agents(deployment, *names) as (alice, bob, carol):
        (old_key,) = await bob.storage_keys()
        old_share = open_share(token_of(old_key), agent_keys(bob).share_key, "spiffe://example.org/agent/bob")
        same = [
            AgentShareKey.from_json(identity_file(deployment.folder, name, "share-key.json").read_text())
            for name in names
        ]
        change = await alice.change_agents(same, 2, reason="fresh PIN")
        assert state(await approve(change.ceremony_id, bob, carol)) == "COMPLETED"
        (new_key,) = await bob.storage_keys()
        assert (new_key.generation, new_key.pin_epoch) == (1, 2)
        assert new_key.public_key == old_key.public_key

        asked = await alice.request_keys([lost.key_id], reason=REASON)
        seen = await bob.review(asked.ceremony_id)
        stale = released(bob, seen, seen.view.storage_keys[0], share=old_share)
        with pytest.raises(KeyarkError) as refused:
            await send_approval(bob, approval(bob, seen, shares=[stale]))
        assert refused.value.reason == "WRONG_SHARE"
        assert "agent/bob" in refused.value.message
        assert state(await approve(asked.ceremony_id, bob, carol)) == "READY"


async def test_an_agents_share_is_shown_to_nobody_else(deployment: Deployment) -> None:
    async with agents(deployment, "alice", "bob", "carol") as everyone:
        for agent, name in zip(everyone, ("alice", "bob", "carol"), strict=True):
            (key,) = await agent.storage_keys()
            shown = [s.holder.agent.rsplit("/", 1)[-1] for s in key.shares if s.ciphertext]
            assert shown == [name]
