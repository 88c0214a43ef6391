"""P4, P10, thieves of the archive's disk and backups, with every share that former agents had."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError

from drm_service.__main__ import PROGRAM
from drm_service.ceremony_rows import CEREMONY_SECRETS
from drm_service.records import TOKENS
from keyark.client import KeyarkError
from keyark.custody.agents import ShareKey
from keyark.custody.storage import StoragePrivateKey
from keyark.custody.token import open_share, open_software_token
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.initialize import DeploymentPlan, make_person
from keyark.identity.spiffe import SpiffeId
from keyark.records.v1.drm_pb2 import CeremonyRecord, SoftwareToken
from keyark.rpc.calling.channels import call
from keyark.store import row_keys_beside
from keyark.v1 import recovery_pb2
from tests.recovery.test_key_ceremonies import share_key
from tests.support.running.deployment import running
from tests.support.stories.recovering import REASON, agents, approve, identity_file, lose_key, raw_stub, state
from tests.support.stories.vanishing import found_values

FORMER = ("alice", "bob", "carol")


class Thief:
    """Has the share keys of agents, as they were before the change, and copies of the DRM's store."""

    def __init__(self, folder: Path) -> None:
        self.share_keys = {
            f"spiffe://example.org/agent/{name}": ShareKey.from_pem(
                identity_file(folder, name, "share-key.pem").read_bytes(), password=None
            )
            for name in FORMER
        }

    def storage_keys(self, store: Path, *other_copies: Path) -> list[StoragePrivateKey]:
        """Look for tokens on every page of every copy, and open them with all shares."""
        found = [self._token(v) for v in found_values(store, TOKENS, *other_copies)]
        waiting = [self._waiting(v) for v in found_values(store, CEREMONY_SECRETS, *other_copies)]
        opened = [self._open(token) for token in found + waiting if token is not None]
        return [key for key in opened if key is not None]

    @staticmethod
    def _token(value: bytes) -> SoftwareToken | None:
        with contextlib.suppress(DecodeError):
            token = SoftwareToken.FromString(value)
            return token if token.public_key and token.shares else None
        return None

    def _waiting(self, value: bytes) -> SoftwareToken | None:
        with contextlib.suppress(DecodeError):
            record = CeremonyRecord.FromString(value)
            return self._token(record.new_token.SerializeToString())
        return None

    def _open(self, token: SoftwareToken) -> StoragePrivateKey | None:
        shares = []
        for agent, key in self.share_keys.items():
            with contextlib.suppress(KeyarkError):
                shares.append(open_share(token, key, agent))
        with contextlib.suppress(KeyarkError):
            return open_software_token(token, shares)
        return None


def copied(folder: Path, name: str) -> Path:
    """Copy the DRM's store byte for byte, while it runs."""
    return shutil.copytree(folder / "drm" / "store", folder.parent / name)


async def test_former_agents_open_nothing_that_is_in_the_folder_after_the_change(
    deployment_folder: Path,
) -> None:
    authority, plan = (
        DeploymentAuthority.load(deployment_folder / "authority"),
        DeploymentPlan(folder=deployment_folder),
    )
    for name in ("dave", "erin", "frank"):
        make_person(plan, authority, SpiffeId("example.org", f"agent/{name}"))
    thief = Thief(deployment_folder)
    async with running(deployment_folder) as deployment, agents(deployment, *FORMER) as (alice, bob, carol):
        rotation = await alice.rotate_storage_key(reason="yearly")
        waits = copied(deployment_folder, "waits")
        assert len(thief.storage_keys(waits)) == 2  # the key in force, and the one that waits
        assert state(await approve(rotation.ceremony_id, bob, carol)) == "COMPLETED"
        before = copied(deployment_folder, "before")
        assert len(thief.storage_keys(before)) == 2
        new = [share_key(deployment_folder, name) for name in ("dave", "erin", "frank")]
        asked = await alice.change_agents(new, 2, reason="all leave")
        assert state(await approve(asked.ceremony_id, bob, carol)) == "COMPLETED"
        after = copied(deployment_folder, "after")
    stopped = copied(deployment_folder, "stopped")
    for copy in (after, stopped):  # nor with every copy of the B-tree that there ever was
        assert thief.storage_keys(copy) == []
        assert thief.storage_keys(copy, before, waits) == []
    (before / "data.mdb").replace(after / "data.mdb")
    assert thief.storage_keys(after) == []
    shutil.copy(before / "row-keys", after / "row-keys")  # an old copy of this one is what must be destroyed
    assert len(thief.storage_keys(after)) == 2


@pytest.mark.parametrize("end", ["cancel", "reject"])
async def test_a_storage_key_that_was_given_up_leaves_no_token(deployment_folder: Path, end: str) -> None:
    thief = Thief(deployment_folder)
    async with running(deployment_folder) as deployment, agents(deployment, *FORMER) as (alice, bob, _):
        rotation = await alice.rotate_storage_key(reason="yearly")
        waits = copied(deployment_folder, "waits")
        assert len(thief.storage_keys(waits)) == 2
        if end == "cancel":
            await alice.cancel(rotation.ceremony_id)
        else:
            await bob.reject(await bob.review(rotation.ceremony_id), reason="no")  # no quorum is left
        over = copied(deployment_folder, "over")
        assert len(thief.storage_keys(over, waits)) == 1


async def test_a_restored_backup_recovers_and_has_no_recovered_keys_in_it(
    deployment_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(deployment_folder) as deployment, agents(deployment, *FORMER) as (alice, bob, carol):
        lost = await lose_key(deployment)
        ready = await alice.request_keys([lost.key_id], reason=REASON)
        await approve(ready.ceremony_id, bob, carol)
        rotation = await alice.rotate_storage_key(reason="yearly")
        before = (await bob.review(rotation.ceremony_id)).view.new_storage_key.public_key
    target, store = tmp_path / "backup", deployment_folder / "drm" / "store"
    config = str(deployment_folder / "drm" / "drm.toml")
    assert await asyncio.to_thread(PROGRAM.main, ["backup", config, str(target)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"store: {target}"
    shutil.rmtree(store)
    shutil.copytree(target, store)
    assert await asyncio.to_thread(PROGRAM.main, ["check", config]) == 1
    assert "put back the copy of that file" in capsys.readouterr().err
    shutil.copy(row_keys_beside(target), store / "row-keys")
    assert await asyncio.to_thread(PROGRAM.main, ["check", config]) == 0
    assert "restored: " in capsys.readouterr().out  # nothing is archived, and what was archived is recovered
    async with running(deployment_folder) as deployment, agents(deployment, *FORMER) as (alice, bob, carol):
        with pytest.raises(KeyarkError) as refused:
            await alice.collect(ready.ceremony_id)
        assert refused.value.reason == "RECOVERED_KEYS_LOST"
        await alice.cancel(ready.ceremony_id)
        again = await alice.request_keys([lost.key_id], reason=REASON)
        await approve(again.ceremony_id, bob, carol)
        assert (await alice.collect(again.ceremony_id))[0].private_key == lost.private_key
        # the storage key that waited is another one now, which agents approve anew
        assert (await bob.review(rotation.ceremony_id)).view.new_storage_key.public_key not in (b"", before)
        assert state(await approve(rotation.ceremony_id, bob, carol)) == "COMPLETED"


async def test_recovered_keys_are_gone_once_they_were_acknowledged(deployment_folder: Path) -> None:
    async with running(deployment_folder) as deployment, agents(deployment, *FORMER) as (alice, bob, carol):
        lost = await lose_key(deployment)
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        assert state(await approve(asked.ceremony_id, bob, carol)) == "READY"
        request = recovery_pb2.GetRecoveredKeysRequest(ceremony_id=asked.ceremony_id)
        answer = await call(raw_stub(alice).GetRecoveredKeys, request, timeout=30)
        sealed = answer.keys[0].ciphertext
        ready = copied(deployment_folder, "ready")
        assert any(sealed in value for value in found_values(ready, CEREMONY_SECRETS))
        assert (await alice.collect(asked.ceremony_id))[0].private_key == lost.private_key
        await alice.acknowledge(asked.ceremony_id)
        gone = copied(deployment_folder, "gone")
        assert not any(sealed in value for value in found_values(gone, CEREMONY_SECRETS, ready))
