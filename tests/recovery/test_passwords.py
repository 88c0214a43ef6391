"""P10: where agents' keys are encrypted, recovery takes the password, and the one-time key lies under it too."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyark.client import KeyarkError, RecoveryClient
from keyark.custody.agents import ShareKey
from keyark.keys.private_keys import WrongPasswordError
from tests.support.running.deployment import make_deployment, running
from tests.support.stories.recovering import REASON, identity_file, lose_key, state

PASSWORD = b"a password of the agents"


async def test_encrypted_keys_need_their_password_once(tmp_path: Path) -> None:
    folder = make_deployment(tmp_path / "deployment", password=PASSWORD)
    asked_for: list[Path] = []

    def tell(key: Path) -> bytes:
        asked_for.append(key)
        return PASSWORD

    async with running(folder) as deployment:
        home = deployment.home()
        lost = await lose_key(deployment, client_password=PASSWORD)
        async with (
            RecoveryClient.open(home, identity="agent/alice", password=tell) as alice,
            RecoveryClient.open(home, identity="agent/bob", password=tell) as bob,
            RecoveryClient.open(home, identity="agent/carol", password=tell) as carol,
        ):
            assert [path.parent.name for path in asked_for] == ["alice", "bob", "carol"]
            asked = await alice.request_keys([lost.key_id], reason=REASON)
            (waiting,) = identity_file(folder, "alice", "recoveries").iterdir()
            assert waiting.stat().st_mode & 0o777 == 0o600
            with pytest.raises(KeyarkError):
                ShareKey.from_pem(waiting.read_bytes(), password=None)
            for agent in (bob, carol):
                done = await agent.approve(await agent.review(asked.ceremony_id))
            assert state(done) == "READY"
            assert (await alice.collect(asked.ceremony_id))[0].private_key == lost.private_key
            await alice.acknowledge(asked.ceremony_id)
        assert not waiting.exists()
        with pytest.raises(WrongPasswordError):
            async with RecoveryClient.open(home, identity="agent/bob", password=lambda _: b"wrong"):
                pass


async def test_a_refused_request_leaves_no_one_time_key_behind(tmp_path: Path) -> None:
    folder = make_deployment(tmp_path / "deployment")
    async with (
        running(folder) as deployment,
        RecoveryClient.open(deployment.home(), identity="agent/alice") as alice,
    ):
        with pytest.raises(KeyarkError):
            await alice.request_keys([bytes(32)], reason=REASON)
    assert not list(identity_file(folder, "alice", "recoveries").iterdir())
