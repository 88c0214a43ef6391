"""An archive that shows an agent anything but what its log says gets no share: the agent's own client refuses."""

from __future__ import annotations

import os
from hashlib import sha256
from typing import Any

import pytest

from keyark.client import KeyarkError
from keyark.client.ceremony_review import CeremonyReview, check_new_holders
from keyark.client.home import Home
from keyark.crypto.storage import HybridPrivateKey
from keyark.v1.recovery_pb2 import Ceremony
from tests.support.deployment import Deployment
from tests.support.recovering import REASON, agents, approve, lose_key


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


async def test_a_new_storage_key_must_be_the_logged_one_among_the_present_agents(
    deployment: Deployment,
) -> None:
    home = deployment.home()
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.rotate_storage_key(reason="yearly")
        (present,) = await bob.storage_keys()
        view = (await bob.review(asked.ceremony_id)).view
        new, at = view.new_storage_key, asked.opened.event.time_us // 1_000_000
        assert sha256(new.public_key).digest() == asked.opened.event.storage_key_id
        check_new_holders(home, new, present, at=at)

        swapped = altered(view)
        swapped.new_storage_key.public_key = HybridPrivateKey.generate().public_key.to_bytes()
        assert refused(home, swapped) == "CEREMONY_MISMATCH"
        for change in (
            lambda key: key.shares.pop(),
            lambda key: setattr(key, "quorum", 1),
            lambda key: key.shares[2].holder.CopyFrom(key.shares[0].holder),
        ):
            other = altered(view).new_storage_key
            change(other)
            with pytest.raises(KeyarkError) as refusal:
                check_new_holders(home, other, present, at=at)
            assert refusal.value.reason == "CEREMONY_MISMATCH"
        forged = altered(view).new_storage_key
        forged.shares[0].holder.share_public_key = HybridPrivateKey.generate().public_key.to_bytes()
        with pytest.raises(KeyarkError) as refusal:
            check_new_holders(home, forged, present, at=at)
        assert refusal.value.reason == "SHARE_KEY"
        await approve(asked.ceremony_id, bob, carol)
