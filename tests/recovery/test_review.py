"""An archive that shows an agent anything but what its log says gets no share: the agent's own client refuses."""

from __future__ import annotations

import os
from hashlib import sha256
from typing import Any

import pytest

from keyark.client import KeyarkError
from keyark.client.access.home import Home
from keyark.client.recovery.review import CeremonyReview
from keyark.custody.storage import HybridPrivateKey
from keyark.v1.recovery_pb2 import Ceremony
from tests.support.running.deployment import Deployment
from tests.support.stories.recovering import REASON, agents, approve, lose_key


def altered(view: Ceremony, **fields: Any) -> Ceremony:
    copy = Ceremony.FromString(view.SerializeToString())
    for name, value in fields.items():
        if isinstance(value, bytes | int):
            setattr(copy, name, value)
        elif isinstance(value, list):
            del getattr(copy, name)[:]
            getattr(copy, name).extend(value)
        else:
            getattr(copy, name).CopyFrom(value)
    return copy


def refused(home: Home, view: Ceremony) -> str:
    with pytest.raises(KeyarkError) as refusal:
        CeremonyReview(home).review(view)
    return refusal.value.reason


async def test_what_does_not_fit_its_leaf_is_refused(deployment: Deployment) -> None:
    home = deployment.home()
    one, two = [await lose_key(deployment, email=f"user{i}@example.org") for i in range(2)]
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, _):
        first = await alice.request_keys([one.key_id], reason=REASON)
        second = await bob.request_keys([two.key_id], reason="another")
        view, other = first.view, second.view
        CeremonyReview(home).review(view)
        friend = HybridPrivateKey.generate().public_key.to_bytes()
        for wrong in (
            altered(view, share_recipient_key=friend),
            altered(view, opening_proof=other.opening_proof),
            altered(view, ceremony_id=other.ceremony_id),
            altered(view, request=other.request),
            altered(view, keys=list(other.keys)),
            altered(view, keys=[]),
            altered(view, keys=[*view.keys, *other.keys]),
        ):
            assert refused(home, wrong) == "CEREMONY_MISMATCH"
        for signature in (b"", os.urandom(70), other.request.signature):
            wrong = altered(view)
            wrong.request.signature = signature
            assert refused(home, wrong) == "CEREMONY_SIGNATURE"
        wrong = altered(view)
        wrong.keys[0].receipt = view.opening_proof
        assert refused(home, wrong) == "RECEIPT_FORMAT"


async def test_an_opening_that_is_not_in_the_signed_log_is_refused(deployment: Deployment) -> None:
    home = deployment.home()
    lost = await lose_key(deployment)
    async with agents(deployment, "alice") as (alice,):
        view = (await alice.request_keys([lost.key_id], reason=REASON)).view
    proof = view.opening_proof
    seen = set()
    for position in range(0, len(proof), 7):
        broken = bytearray(proof)
        broken[position] ^= 1
        seen.add(refused(home, altered(view, opening_proof=bytes(broken))))
    assert "CHECKPOINT_SIGNATURE" in seen
    assert seen <= {
        "RECEIPT_FORMAT",
        "AUDIT_EVENT_INVALID",
        "CHECKPOINT_SIGNATURE",
        "CHECKPOINT_FORMAT",
        "CHECKPOINT_ORIGIN",
        "INCLUSION_PROOF_INVALID",
        "CEREMONY_MISMATCH",
    }
    assert refused(home, altered(view, opening_proof=b"")) == "RECEIPT_FORMAT"


async def test_what_is_shown_of_storage_keys_must_be_what_the_leaf_binds(deployment: Deployment) -> None:
    home = deployment.home()
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.rotate_storage_key(reason="yearly")
        view = (await bob.review(asked.ceremony_id)).view
        new = view.new_storage_key
        assert sha256(new.public_key).digest() == asked.opened.event.storage_key_id
        assert [share.agent for share in asked.facts.new_storage_key.shares] == [
            share.holder.agent for share in new.shares
        ]
        friend = HybridPrivateKey.generate().public_key.to_bytes()
        for change in (
            lambda key: key.shares.pop(),
            lambda key: setattr(key, "quorum", 1),
            lambda key: setattr(key, "generation", 3),
            lambda key: setattr(key, "public_key", friend),
            lambda key: key.shares[2].holder.CopyFrom(key.shares[0].holder),
            lambda key: setattr(key.shares[0].holder, "share_public_key", friend),
            lambda key: setattr(key.shares[0], "commitment", bytes(32)),
            lambda key: setattr(key.shares[0], "index", 2),
        ):
            wrong = altered(view)
            change(wrong.new_storage_key)
            assert refused(home, wrong) == "CEREMONY_MISMATCH"
        for facts in (b"", view.opening_facts + b"\x00", view.opening_facts[:-1]):
            assert refused(home, altered(view, opening_facts=facts)) == "CEREMONY_MISMATCH"
        await approve(asked.ceremony_id, bob, carol)
