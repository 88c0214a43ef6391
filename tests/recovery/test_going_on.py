"""What a quorum approved goes on by itself where it failed for now; no agent has to approve again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from drm_service import subsystem
from drm_service.ceremonies import assembly as ceremony_assembly
from keyark.client import KeyarkError
from keyark.errors.services import WorkerStartError
from keyark.workers.disposable import disposable_worker
from keyark.workers.process import Worker
from tests.support.running.deployment import running
from tests.support.stories.recovering import REASON, agents, approve, lose_key, state


async def test_a_recovery_whose_worker_did_not_start_is_carried_out_later(
    deployment_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts, again = 0, asyncio.Event()

    @asynccontextmanager
    async def busy(factory: str, setup: bytes) -> AsyncIterator[Worker]:
        """Two workers check shares; the machine has no room for the two that follow."""
        nonlocal starts
        starts += 1
        if starts in (3, 4):
            raise WorkerStartError("The worker did not start; try again.")
        async with disposable_worker(factory, setup) as worker:
            yield worker
        if starts > 4:
            again.set()

    monkeypatch.setattr(ceremony_assembly, "disposable_worker", busy)
    monkeypatch.setattr(subsystem, "EXPIRY_SECONDS", 0.1)
    async with running(deployment_folder) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
            asked = await alice.request_keys([lost.key_id], reason=REASON)
            await approve(asked.ceremony_id, bob)
            with pytest.raises(KeyarkError) as failed:
                await approve(asked.ceremony_id, carol)
            assert failed.value.reason == "WORKER_START"
            async with asyncio.timeout(60):
                await again.wait()
                while state(await alice.review(asked.ceremony_id)) in ("OPEN", "RUNNING"):
                    """The worker is done, and its result is being written."""
            assert len(await alice.collect(asked.ceremony_id)) == 1
    assert starts == 5
