"""Whose keys are asked for: an address is exact, and a name that two people have is refused with both addresses."""

from __future__ import annotations

import pytest

from keyark.client.administration import AmbiguousOwnerError, keys_of_person, list_keys
from keyark.errors import NotFoundError
from keyark.v1.recovery_pb2 import KeyState
from tests.support.deployment import Deployment
from tests.support.recovering import agents

PEOPLE = (
    ("Alice Example", "alice@example.org"),
    ("Alice Example", "Alice.Example@example.org"),
    ("Alice Example", "alice.example@example.org"),
    ("Bob Example", "bob@example.org"),
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
        assert await emails("Bob Example") == ["bob@example.org"]
        assert await emails("bob@example.org") == ["bob@example.org"]
        with pytest.raises(AmbiguousOwnerError) as refused:
            await emails("Alice Example")
        assert "alice.example@example.org (2 keys), alice@example.org (1 keys)" in refused.value.message
        with pytest.raises(NotFoundError):
            await emails("nobody@example.org")
