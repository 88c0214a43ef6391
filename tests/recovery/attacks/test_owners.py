"""Whose keys are asked for: an address is exact, and a name that two people have is refused with both addresses."""

from __future__ import annotations

from typing import Any

import pytest

from keyark.cli.agents.ceremonies import state_name
from keyark.client import KeyarkError, RecoveryClient
from keyark.client.administration.lists import (
    AmbiguousOwnerError,
    OwnerMismatchError,
    keys_of_person,
    list_keys,
)
from keyark.errors import InvalidInputError, NotFoundError
from keyark.v1.recovery_pb2 import KeyState
from tests.support.running.deployment import Deployment
from tests.support.stories.recovering import agents, identity_file, lose_key
from tests.support.stories.relays import lying_archive

PEOPLE = (
    ("Alice Example", "alice@example.org"),
    ("Alice Example", "Alice.Example@example.org"),
    ("Alice Example", "alice.example@example.org"),
    ("Bob Example", "bob@example.org"),
    ("José Combining", "jose@example.org"),
    ("Same Name", "same.one@example.org"),
    ("same name", "same.two@example.org"),
    ("bob@example.org", "mallory@example.org"),
)


async def test_an_address_is_exact_and_a_name_must_be_one_persons(deployment: Deployment) -> None:
    async with deployment.client() as client:
        for name, email in PEOPLE:
            await client.enroll(common_name=name, email=email)
    async with agents(deployment, "alice") as (alice,):
        while any(
            [key.state != KeyState.KEY_STATE_CERTIFIED async for key in list_keys(alice.session)]
        ):  # the outbox is on its way
            pass

        async def emails(owner: str) -> list[str]:
            return [key.email for key in await keys_of_person(alice.session, owner)]

        assert await emails("ALICE@example.org") == ["alice@example.org"]
        assert await emails("alice.example@example.org") == [
            "Alice.Example@example.org",
            "alice.example@example.org",
        ]
        assert await emails("BOB example") == await emails("Bob Example") == ["bob@example.org"]
        assert await emails("JOSÉ COMBINING") == ["jose@example.org"]
        with pytest.raises(AmbiguousOwnerError, match=r"same\.one@example\.org"):
            await emails("Same Name")
        for empty in ("", " "):
            with pytest.raises(InvalidInputError, match="everybody"):
                await emails(empty)
        assert await emails("bob@example.org") == ["bob@example.org"]
        with pytest.raises(AmbiguousOwnerError) as refused:
            await emails("Alice Example")
        assert "alice.example@example.org (2 keys), alice@example.org (1 key)" in refused.value.message
        with pytest.raises(NotFoundError):
            await emails("nobody@example.org")


async def test_a_recovery_of_another_persons_key_than_the_one_named_is_canceled(
    deployment: Deployment,
) -> None:
    """P6: the archive lists mallory's key as alice's; the receipt in its answer says whose it is."""
    mallorys = await lose_key(deployment, email="mallory@example.org")

    def lie(method: str, request: Any, response: Any) -> Any:
        if method == "ListKeys":
            response.keys.add(key_id=mallorys.key_id, common_name="Alice", email="alice@example.org")
        return response

    folder = identity_file(deployment.folder, "alice", "recoveries")
    async with (
        lying_archive(deployment, "alice", lie) as home,
        RecoveryClient.open(home, identity="agent/alice") as alice,
    ):
        for owner in ("alice@example.org", "Alice"):
            (key,) = await keys_of_person(alice.session, owner)
            with pytest.raises(OwnerMismatchError) as refused:
                await alice.request_keys([key.key_id], reason="disk broke", owner=owner)
            assert "Alice Example <mallory@example.org>" in refused.value.message
            assert "was canceled" in refused.value.message
        assert [state_name(c.state) async for c in alice.ceremonies()] == ["CANCELED", "CANCELED"]
        assert list(folder.iterdir()) == []
        for owner in ("Mallory@example.org", "Alice Example", ""):
            await alice.request_keys([mallorys.key_id], reason="it is mallory's", owner=owner)


async def test_the_ceremony_that_the_archive_opens_is_the_one_that_was_asked_for(
    deployment: Deployment,
) -> None:
    """P6: the id that alice passes on to the other agents is that of her own request."""
    one, two = [await lose_key(deployment, email=f"user{i}@example.org") for i in range(2)]

    def swap(method: str, request: Any, response: Any) -> Any:
        if method == "RequestCeremony":
            opened.append(response)
            return opened[0]
        return response

    opened: list[Any] = []
    async with (
        lying_archive(deployment, "alice", swap) as home,
        RecoveryClient.open(home, identity="agent/alice") as alice,
    ):
        await alice.request_keys([one.key_id], reason="disk broke")
        with pytest.raises(KeyarkError) as refused:
            await alice.request_keys([two.key_id], reason="disk broke")
        assert refused.value.reason == "UNEXPECTED_ANSWER"
