"""Re-sealing killed with SIGKILL goes on where it stopped, each key moved once; a damaged one harms no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path

import pytest
import pytest_asyncio

from drm_service.records import SCHEMA_VERSION, TABLES, find_by_key_id, put_sealed_key
from keyark.client import KeyarkError, RecoveryClient
from keyark.client.access.sessions import open_session
from keyark.client.administration.lists import list_keys
from keyark.store import open_store
from keyark.v1.recovery_pb2 import KeyFilter
from tests.support.running.deployment import Deployment, copy_deployment, running
from tests.support.running.drm_process import drm_check, drm_process
from tests.support.stories.recovering import REASON, Lost, agents, approve, drm_log, lose_key, state

NAMES = ("alice", "bob", "carol")
MANY = 150


async def many_keys(folder: Path, count: int) -> list[Lost]:
    """Archive keys, and put a new storage key in force."""
    async with running(folder) as deployment, agents(deployment, *NAMES) as (alice, bob, carol):
        lost = [await lose_key(deployment, email=f"user{i}@example.org") for i in range(count)]
        rotation = await alice.rotate_storage_key(reason="yearly")
        assert state(await approve(rotation.ceremony_id, bob, carol)) == "COMPLETED"
    return lost


async def _try(agent: RecoveryClient, ceremony_id: bytes) -> None:
    with contextlib.suppress(KeyarkError):  # the answer may be lost
        await approve(ceremony_id, agent)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def archive(
    deployment_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Lost]]:
    """A deployment that was stopped after it archived many keys; copy it."""
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("archive") / "deployment")
    return folder, await many_keys(folder, MANY)


@pytest.mark.parametrize("moment", [0.3, 0.5])
async def test_killed_in_the_middle(archive: tuple[Path, list[Lost]], tmp_path: Path, moment: float) -> None:
    lost = archive[1]
    deployment_folder = copy_deployment(archive[0], tmp_path / "deployment")
    deployment = Deployment(folder=deployment_folder, services={})
    async with drm_process(deployment_folder) as process, agents(deployment, *NAMES) as (alice, bob, carol):
        asked = await alice.reseal_keys(reason="yearly")
        await approve(asked.ceremony_id, bob)
        last = asyncio.create_task(_try(carol, asked.ceremony_id))
        await asyncio.wait([last], timeout=moment)
        process.kill()
        process.wait()
        await last
    drm_check(deployment_folder)
    async with drm_process(deployment_folder):
        async with agents(deployment, *NAMES) as (alice, bob, carol):
            seen = await alice.review(asked.ceremony_id)
            if state(seen) == "OPEN":
                seen = await approve(asked.ceremony_id, bob, carol)
            assert state(seen) == "COMPLETED"
            assert (seen.view.resealed, seen.view.looked_at) == (MANY, MANY)
            again = await alice.request_keys([lost[0].key_id, lost[-1].key_id], reason=REASON)
            await approve(again.ceremony_id, bob, carol)
            recovered = {key.key_id: key.private_key for key in await alice.collect(again.ceremony_id)}
            assert recovered == {one.key_id: one.private_key for one in (lost[0], lost[-1])}
        moved = Counter(
            event.enrollment_id for name, event, _ in await drm_log(deployment) if name == "KEY_RESEALED"
        )
    assert set(moved) == {one.enrollment_id for one in lost}
    assert set(moved.values()) == {1}
    drm_check(deployment_folder)


async def test_a_damaged_key_stays_behind_and_all_others_move(deployment_folder: Path) -> None:
    lost = await many_keys(deployment_folder, 5)
    store = open_store(deployment_folder / "drm" / "store", tables=TABLES, schema_version=SCHEMA_VERSION)
    record = store.read(lambda txn: find_by_key_id(txn, lost[2].key_id))
    sealed = record.sealed_key
    sealed.ciphertext = sealed.ciphertext[:-1] + bytes([sealed.ciphertext[-1] ^ 1])
    await store.update(lambda txn: put_sealed_key(txn, record.log_index, sealed))
    await store.close()
    async with (
        running(deployment_folder) as deployment,
        agents(deployment, *NAMES) as (alice, bob, carol),
    ):
        asked = await alice.reseal_keys(reason="yearly")
        failed = await approve(asked.ceremony_id, bob, carol)
        assert (state(failed), failed.view.resealed) == ("FAILED", 4)
        assert lost[2].enrollment_id.hex() in failed.view.failure.message
        entries = [event for name, event, _ in await drm_log(deployment) if name == "KEY_DID_NOT_OPEN"]
        assert [entry.enrollment_id for entry in entries] == [lost[2].enrollment_id]
        async with open_session(deployment.home(), "drm", identity="agent/alice") as session:
            found = [key.key_id async for key in list_keys(session, KeyFilter(failed=True))]
        assert found == [lost[2].key_id]
        again = await alice.request_keys([lost[i].key_id for i in (0, 1, 3, 4)], reason=REASON)
        assert len(again.view.storage_keys) == 1
        await approve(again.ceremony_id, bob, carol)
        recovered = {key.key_id: key.private_key for key in await alice.collect(again.ceremony_id)}
    assert recovered == {lost[i].key_id: lost[i].private_key for i in (0, 1, 3, 4)}
