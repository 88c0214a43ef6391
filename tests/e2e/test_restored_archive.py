"""P1, P6: what an RM kept of the log that was lost counts for nothing once the DRM was restored from a backup.

The restored log leads on from the same head as the lost one did, so only the transport key tells them apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cm_service import __main__ as cm_program
from keyark.errors import KeyarkError
from keyark.pki.key_types import KeyType
from keyark.rpc.channels import call
from keyark.transparency.receipts import parse_proof
from keyark.v1.audit_pb2 import CheckpointLink, CosignCheckpointRequest
from keyark.v1.audit_pb2_grpc import AuditServiceStub
from tests.e2e.test_direct_attacks import HostileRm
from tests.e2e.test_doctor import about, findings
from tests.support.deployment import copy_deployment, running
from tests.support.enrolling import enrolling, holdings
from tests.support.restoring import back_up, confirm, head_of, put_in_place, restore
from tests.support.rotation import certificate_file

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
    back_up(folder, backup)
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
    for more in ((), ("--transport-key", certificate_file(folder, 1))):
        assert await asyncio.to_thread(confirm, cm_program, config, "--restored", head, *more) == 1
    head = await restore(folder, backup)
    again = ("--restored", head, "--transport-key", certificate_file(folder, 2))
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


async def cosigned(rm: HostileRm, hoard: Hoard) -> None:
    """Ask the CM as a witness to take the kept head."""
    note = parse_proof(hoard.receipt).checkpoint
    message = CosignCheckpointRequest(checkpoint=note, link=hoard.link)
    await call(AuditServiceStub(rm.cm).CosignCheckpoint, message, timeout=30)
