"""P4, P9: the DRM killed with SIGKILL at every step of a recovery: nothing counts twice, is lost or given again."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import pytest_asyncio

from keyark.client import KeyarkError, RecoveryClient
from keyark.v1.ceremony_pb2 import DecisionStatement, SignedStatement
from tests.support.running.deployment import Deployment, copy_deployment, running
from tests.support.running.drm_process import drm_check, drm_process
from tests.support.stories.recovering import REASON, Lost, agents, approve, drm_log, lose_key, state

NAMES = ("alice", "bob", "carol")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def archive(deployment_template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lost]:
    """A deployment that was stopped after it archived a key; copy it."""
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("archive") / "deployment")
    async with running(folder) as deployment:
        return folder, await lose_key(deployment)


@pytest.fixture
def lost(archive: tuple[Path, Lost]) -> Lost:
    """The key that is archived."""
    return archive[1]


@pytest.fixture
def folder(archive: tuple[Path, Lost], tmp_path: Path) -> Path:
    """The test's own copy of the deployment, not running yet."""
    return copy_deployment(archive[0], tmp_path / "deployment")


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


async def assert_each_counts_once(deployment: Deployment) -> None:
    """In one opening of a ceremony, an agent's approval stands in the log once at most."""
    opening, counted = 0, Counter[tuple[int, bytes, str]]()
    for name, event, details in await drm_log(deployment):
        if name == "RECOVERY_OPENED":
            opening += 1
        elif name == "RECOVERY_APPROVED":
            signed = SignedStatement.FromString(details.decision)
            agent = DecisionStatement.FromString(signed.statement).agent
            counted[opening, event.ceremony_id, agent] += 1
    assert set(counted.values()) <= {1}


@pytest.mark.parametrize("step", ["requested", "approved", "ready", "collected", "acknowledged"])
async def test_killed_after_each_step(folder: Path, lost: Lost, step: str) -> None:
    deployment = Deployment(folder=folder, services={})
    async with drm_process(folder) as process, agents(deployment, *NAMES) as (alice, bob, carol):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        if step != "requested":
            await approve(asked.ceremony_id, bob)
        if step in ("ready", "collected", "acknowledged"):
            assert state(await approve(asked.ceremony_id, carol)) == "READY"
        if step in ("collected", "acknowledged"):
            assert (await alice.collect(asked.ceremony_id))[0].private_key == lost.private_key
        if step == "acknowledged":
            await alice.acknowledge(asked.ceremony_id)
        kill(process)
    drm_check(folder)
    async with drm_process(folder):
        async with agents(deployment, *NAMES) as (alice, bob, carol):
            seen = await alice.review(asked.ceremony_id)
            if step == "acknowledged":
                assert state(seen) == "COMPLETED"
                with pytest.raises(KeyarkError) as gone:
                    await alice.collect(asked.ceremony_id)
                assert gone.value.reason in ("RECIPIENT_KEY_MISSING", "CEREMONY_CLOSED")
                return
            if step in ("requested", "approved"):
                assert (state(seen), len(seen.view.decisions)) == ("OPEN", 0)
                assert state(await approve(asked.ceremony_id, carol)) == "OPEN"  # one, whoever came before
                assert state(await approve(asked.ceremony_id, bob)) == "READY"
            assert (await alice.collect(asked.ceremony_id))[0].private_key == lost.private_key
            await alice.acknowledge(asked.ceremony_id)
        await assert_each_counts_once(deployment)


@pytest.mark.parametrize("moment", [0.0, 0.02, 0.1, 0.3, 0.6])
async def test_killed_while_the_last_approval_is_carried_out(folder: Path, lost: Lost, moment: float) -> None:
    """Whatever moment it is, the request is there afterwards, open or ready, and comes to its end."""
    deployment = Deployment(folder=folder, services={})
    async with drm_process(folder) as process, agents(deployment, *NAMES) as (alice, bob, carol):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        await approve(asked.ceremony_id, bob)
        last = asyncio.create_task(_try(carol, asked.ceremony_id))
        await asyncio.wait([last], timeout=moment)
        kill(process)
        await last
    drm_check(folder)
    async with drm_process(folder):
        async with agents(deployment, *NAMES) as (alice, bob, carol):
            seen = await alice.review(asked.ceremony_id)
            assert state(seen) in ("OPEN", "READY")
            if state(seen) == "OPEN":
                assert state(await approve(asked.ceremony_id, bob, carol)) == "READY"
            assert (await alice.collect(asked.ceremony_id))[0].private_key == lost.private_key
            await alice.acknowledge(asked.ceremony_id)
        await assert_each_counts_once(deployment)
    drm_check(folder)


async def _try(agent: RecoveryClient, ceremony_id: bytes) -> None:
    with contextlib.suppress(KeyarkError):  # the answer may be lost, and all else is looked at afterwards
        await approve(ceremony_id, agent)
