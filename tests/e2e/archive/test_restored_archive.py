"""P1, P6: what an RM kept of the log that was lost counts for nothing once the DRM was restored from a backup.

The restored log leads on from the same head as the lost one did, so only the transport key tells them apart.
"""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cm_service import __main__ as cm_program
from drm_service.config import DrmConfig
from drm_service.subsystem import run as run_drm
from drm_service.transport.loss import OFFERED, WAITING, replace_lost_key
from keyark.client.access.sessions import open_session
from keyark.client.audit.findings import Severity
from keyark.client.trust.receipts import list_entries
from keyark.config import load_config
from keyark.errors import KeyarkError
from keyark.keys.key_types import KeyType
from keyark.rpc.calling.channels import call
from keyark.transparency.receipts import parse_proof
from keyark.v1.audit_pb2 import AuditEvent, CheckpointLink, CosignCheckpointRequest, EventType
from keyark.v1.audit_pb2_grpc import AuditServiceStub
from tests.e2e.running.test_doctor import about, findings
from tests.e2e.test_direct_attacks import HostileRm
from tests.support.running.deployment import Deployment, copy_deployment, on_a_free_port, running
from tests.support.stories.enrolling import enrolling, holdings
from tests.support.stories.restoring import back_up, confirm, head_of, put_in_place, restore, told_by_check
from tests.support.stories.rotation import certificate_file, rotate, sign

pytestmark = pytest.mark.asyncio(loop_scope="module")


ALICE = {"common_name": "Alice Example", "email": "alice@example.org", "signing_key_type": KeyType.EC_P256}


@dataclass(frozen=True)
class Hoard:
    """A deployment whose DRM was restored by the book, and what a hostile RM kept of the log that was lost."""

    folder: Path
    request: Any
    receipt: bytes
    link: CheckpointLink
    head: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hoard(deployment_template: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hoard]:
    """One key is archived after the backup was made; the RM keeps its receipt. CM and RM go on with another one."""
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("restored") / "deployment")
    backup = folder.parent / "backup"
    async with running(folder) as deployment, enrolling(deployment.home()) as client:
        await client.send(client.request())
    await back_up(folder, backup)
    size = int((await asyncio.to_thread(head_of, folder)).partition(":")[0])
    async with running(folder) as deployment, enrolling(deployment.home()) as client:
        rm = HostileRm(deployment, client.call)
        kept = client.request()
        receipt, link = await rm.archived(kept, known_tree_size=size)
        await rm.close()
        async with deployment.client() as person:  # this home sees the log that will be lost
            await person.enroll(**ALICE)
    # one that nobody rotated: the head alone says nothing of which log leads on from it
    put_in_place(folder, backup)
    head, config = await asyncio.to_thread(head_of, folder), folder / "cm" / "cm.toml"
    await nothing_is_archived(folder)
    key = ("--transport-key", certificate_file(folder, 1))
    for more in ((), key, (*key, "--newest-change", "none")):
        assert await asyncio.to_thread(confirm, cm_program, config, "--restored", head, *more) == 1
    head = await restore(folder, backup)
    again = ("--restored", head, "--transport-key", certificate_file(folder, 2), "--newest-change", "none")
    assert await asyncio.to_thread(confirm, cm_program, config, *again) == 0
    yield Hoard(folder, kept, receipt, link, head)


async def test_a_kept_receipt_certifies_nothing_and_frames_nobody(hoard: Hoard) -> None:
    async with running(hoard.folder) as deployment, enrolling(deployment.home()) as client:
        before, rm = await holdings(deployment.home()), HostileRm(deployment, client.call)
        got = await rm.issue(hoard.request, hoard.receipt, hoard.link)
        assert got.reason == "TRANSPORT_KEY_RETIRED"
        assert (await holdings(deployment.home())).certificates == before.certificates
        with pytest.raises(KeyarkError) as caught:
            await cosigned(rm, hoard)
        assert caught.value.reason == "TRANSPORT_KEY_RETIRED"
        for _ in range(3):
            (outcome,) = await client.send(client.request())
            assert not isinstance(outcome, KeyarkError), outcome
        assert isinstance(await rm.issue(hoard.request, hoard.receipt, None), KeyarkError)
        (outcome,) = await client.send(client.request())
        assert not isinstance(outcome, KeyarkError), outcome
        assert about(await findings(deployment), "contradicts itself") == []
        await rm.close()


async def test_a_home_that_saw_the_lost_log_refuses_until_its_owner_takes_the_operators_word(
    hoard: Hoard,
) -> None:
    """It follows to the new transport key by itself; the tree that it saw is what no proof can bring it away from."""
    async with running(hoard.folder) as deployment, deployment.client() as person:
        with pytest.raises(KeyarkError) as caught:
            await person.enroll(**ALICE)
        assert caught.value.reason == "PRIVATE_LOG"
    (hoard.folder / "checkpoints" / "drm.note").unlink()
    async with running(hoard.folder) as deployment, deployment.client() as person:
        await person.enroll(**ALICE)


async def nothing_is_archived(folder: Path) -> None:
    """P1, P6: an operator who skips the steps after a restore cannot: no receipt is given, at no start; it is told."""
    for _ in range(2):
        async with running(folder) as deployment, enrolling(deployment.home()) as client:
            (outcome,) = await client.send(client.request())
            assert isinstance(outcome, KeyarkError)
            assert outcome.reason == "ARCHIVE_RESTORED"
            (found,) = about(await findings(deployment), "was restored from a backup")
            assert (found.subject, found.severity) == ("drm", Severity.ERROR)
            assert shlex.split(found.command, comments=True)[:3] == ["keyark", "transport-key", "rotate"]
            async with open_session(deployment.home(), "drm", identity="auditor/auditor") as session:
                types = [AuditEvent.FromString(e.event.leaf).type async for e in list_entries(session)]
            assert types.count(EventType.EVENT_TYPE_ARCHIVE_RESTORED) == 1
    told = await asyncio.to_thread(told_by_check, folder)
    assert re.search("^restored: .*transport-key rotate", told, re.MULTILINE)


async def a_restored_drm_that_lost_a_rotation(deployment_folder: Path) -> bytes:
    """Put a backup of before a rotation in place; the folder of the key that came into force since stays."""
    await back_up(deployment_folder, backup := deployment_folder.parent / "backup")
    async with run_drm(on_a_free_port(load_config(deployment_folder / "drm" / "drm.toml", DrmConfig))) as drm:
        await rotate(Deployment(folder=deployment_folder, services={"drm": drm}))
    put_in_place(deployment_folder, backup)
    return certificate_file(deployment_folder, 2).read_bytes()


async def test_a_transport_key_of_the_lost_log_ends_no_restore(deployment_folder: Path) -> None:
    """What it signed since the backup would count for the restored log as well."""
    lost = await a_restored_drm_that_lost_a_rotation(deployment_folder)
    config = on_a_free_port(load_config(deployment_folder / "drm" / "drm.toml", DrmConfig))
    async with run_drm(config) as drm:
        assert "transport key 1 stays in force" in await drm.reload()
        (aside,) = config.transport.folder.glob("2.lost-*")
        assert (aside / "transport.pem").read_bytes() == lost
    async with run_drm(config) as drm:
        await rotate(Deployment(folder=deployment_folder, services={"drm": drm}))
    assert certificate_file(deployment_folder, 2).read_bytes() != lost
    assert "restored" not in await asyncio.to_thread(told_by_check, deployment_folder)


async def test_a_restored_drm_whose_transport_key_is_lost_too_makes_one_of_its_own(
    deployment_folder: Path,
) -> None:
    lost = await a_restored_drm_that_lost_a_rotation(deployment_folder)
    config = on_a_free_port(load_config(deployment_folder / "drm" / "drm.toml", DrmConfig))
    (config.transport.folder / "1" / "key.pem").unlink()
    for state in (WAITING, OFFERED):
        told = await asyncio.to_thread(replace_lost_key, config, KeyType.EC_P256)
        assert told["state"] == state
        if state == WAITING:
            sign(deployment_folder, told["request"], told["certificate"])
    assert certificate_file(deployment_folder, 2).read_bytes() != lost
    assert "restored" not in await asyncio.to_thread(told_by_check, deployment_folder)


async def cosigned(rm: HostileRm, hoard: Hoard) -> None:
    """Ask the CM as a witness to take the kept head."""
    note = parse_proof(hoard.receipt).checkpoint
    message = CosignCheckpointRequest(checkpoint=note, link=hoard.link)
    await call(AuditServiceStub(rm.cm).CosignCheckpoint, message, timeout=30)
