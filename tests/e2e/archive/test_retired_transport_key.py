"""P5, P6: a thief with the RM's identity and an old disk of the DRM: the transport key on it was retired since.

The RM offers the old certificate, opens what a client wraps to it, and wraps it anew; or it forges receipts. Client, CM
and RM learned of the next key from the DRM's log, and refuse the old one, after a restart too.
"""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from keyark.client import KeyDelivery
from keyark.client.access.sessions import open_session
from keyark.client.access.transport_memory import FILE
from keyark.client.audit.log_heads import LogHead
from keyark.client.trust.receipts import list_entries, log_verifier
from keyark.errors import KeyarkError
from keyark.keys.key_types import KeyType
from keyark.rpc.calling.channels import call
from keyark.service.checks.leaves import enrollment_leaf
from keyark.statements.enrollment import parse_statement
from keyark.transparency.checkpoint import Checkpoint, CheckpointSignatureError
from keyark.transparency.receipts import format_proof, parse_proof
from keyark.v1.audit_pb2 import AuditEvent, CheckpointLink, CosignCheckpointRequest, EventType
from keyark.v1.audit_pb2_grpc import AuditServiceStub
from keyark.v1.certificates_pb2 import IssueCertificatePairsRequest, PairRequest
from keyark.v1.common_pb2 import TransportCertificate
from tests.client.test_hostile_rm import hostile_rm
from tests.e2e.test_direct_attacks import HostileRm
from tests.service.test_archive_trust import Agents, rotation
from tests.support.running.deployment import Deployment, copy_deployment, running
from tests.support.stories.enrolling import enrolling, holdings
from tests.support.stories.relays import Alter
from tests.support.stories.rotation import ask, key_file, rotate, sign_head
from tests.support.stories.transparency import reference_path, reference_root, reference_subproof

pytestmark = pytest.mark.asyncio(loop_scope="module")

ALICE = {"common_name": "Alice Example", "email": "alice@example.org", "signing_key_type": KeyType.EC_P256}


NEWEST = 2


@dataclass(frozen=True)
class Thief:
    """The first transport key, private half and certificate, and the RM's identity."""

    deployment: Deployment
    certificate: TransportCertificate

    async def forged(
        self, request: Any, *, generation: int, follower: str = "cm"
    ) -> tuple[bytes, CheckpointLink]:
        """A receipt for a key that nobody archived, in a tree that leads on from a follower's, and the link to it."""
        home = self.deployment.home()
        async with open_session(home, "drm", identity="auditor/auditor") as session:
            leaves = [entry.event.leaf async for entry in list_entries(session)]
        async with open_session(home, follower, identity="auditor/auditor") as session:
            size = (await LogHead.fetch(session)).told.followed_size
        storage_key = next(filter(None, (AuditEvent.FromString(leaf).storage_key_id for leaf in leaves)))
        logged = enrollment_leaf(
            EventType.EVENT_TYPE_KEY_ARCHIVED,
            parse_statement(request.statement),
            time_us=time.time_ns() // 1000,
            storage_key_id=storage_key,
        )
        leaves.append(logged.leaf)
        head = Checkpoint("example.org/drm", len(leaves), reference_root(leaves))
        receipt = format_proof(
            extra=logged.SerializeToString(deterministic=True),
            index=len(leaves) - 1,
            proof=reference_path(len(leaves) - 1, leaves),
            checkpoint=sign_head(self.deployment.folder, head, generation),
        )
        link = CheckpointLink(
            first_size=size,
            second_size=len(leaves),
            second_root=head.root,
            proof=reference_subproof(size, leaves),
        )
        return receipt, link


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def thief(deployment_template: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Thief]:
    """A deployment whose first transport key was stolen, then retired; all saw the next one, and were restarted."""
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("retired") / "deployment")
    async with running(folder) as deployment, deployment.client() as client:
        certificate = (await client.form()).transport_certificate
        await client.enroll(**ALICE)
        stolen = key_file(folder, 1).read_bytes()
        await rotate(deployment)
        await ask(deployment, "retire", "1")
        await client.enroll(**ALICE)
    async with running(folder) as deployment:
        key_file(folder, 1).write_bytes(stolen)  # where the helpers look for it; the DRM does not any more
        key_file(folder, 1).chmod(0o600)
        yield Thief(deployment, certificate)


def offering(certificate: TransportCertificate, sent: list[Any]) -> Alter:
    """An RM that offers one transport certificate for ever and keeps quiet about changes."""

    def alter(method: str, request: Any, response: Any) -> Any:
        if method == "GetEnrollmentForm":
            response.form.transport_certificate.CopyFrom(certificate)
            del response.form.transport_key_changes[:]
        else:
            sent.append(request)
        return response

    return alter


async def test_a_client_that_saw_the_next_key_does_not_wrap_to_the_retired_one(thief: Thief) -> None:
    """The client is a new process: what it learned lies in its home."""
    assert (thief.deployment.folder / FILE).exists()
    sent: list[Any] = []
    async with hostile_rm(thief.deployment, offering(thief.certificate, sent)) as client:
        with pytest.raises(KeyarkError) as caught:
            await client.enroll(**ALICE)
    assert caught.value.reason == "TRANSPORT_KEY_RETIRED"
    assert sent == []


async def test_the_retired_key_is_not_wrapped_to_when_it_is_asked_for_either(thief: Thief) -> None:
    sent = []

    def alter(method: str, request: Any, response: Any) -> Any:
        if method == "SubmitEnrollments":
            sent.append([bool(item.wrapped_private_key) for item in request.items])
            response.outcomes[0].enrollment.transport_certificate.CopyFrom(thief.certificate)
        return response

    async with hostile_rm(thief.deployment, alter) as client:
        prepared = await client.prepare(**ALICE)
        with pytest.raises(KeyarkError) as caught:
            await client.submit(prepared, delivery=KeyDelivery.WHEN_ASKED)
    assert caught.value.reason == "TRANSPORT_KEY_RETIRED"
    assert sent == [[False]]


async def test_a_receipt_that_the_retired_key_signed_is_none_for_a_newer_request(thief: Thief) -> None:
    def alter(method: str, request: Any, response: Any) -> Any:
        if method == "SubmitEnrollments":
            answer = response.outcomes[0].enrollment
            proof = parse_proof(answer.receipt)
            size, root = int(proof.checkpoint.split(b"\n")[1]), b64decode(proof.checkpoint.split(b"\n")[2])
            note = sign_head(thief.deployment.folder, Checkpoint("example.org/drm", size, root), 1)
            answer.receipt = format_proof(
                extra=proof.extra, index=proof.index, proof=proof.proof, checkpoint=note
            )
        return response

    async with hostile_rm(thief.deployment, alter) as client:
        prepared = await client.prepare(**ALICE)
        long_after = (
            bytes.fromhex(f"{(time.time_ns() // 10**6) + 86_400_000:012x}")
            + prepared.statement.request_id[6:]
        )
        prepared = await client.prepare(**ALICE, request_id=long_after)
        with pytest.raises(KeyarkError) as caught:
            await client.submit(prepared)
    assert caught.value.reason == "TRANSPORT_KEY_RETIRED"


async def test_the_cm_takes_no_receipt_that_the_retired_key_signed_over_a_consistent_fork(
    thief: Thief,
) -> None:
    """P1, P6: refused and logged; the same fork, signed by the key in force, would be taken."""
    home = thief.deployment.home()
    async with enrolling(home) as enroller:
        request = enroller.request()
        rm = HostileRm(thief.deployment, captured=enroller.call)
    try:
        before = await holdings(home, refused_by="cm")
        receipt, link = await thief.forged(request, generation=1)
        outcome = await rm.issue(request, receipt, link)
        assert isinstance(outcome, KeyarkError), outcome
        assert outcome.reason == "TRANSPORT_KEY_RETIRED"
        after = await holdings(home, refused_by="cm")
        assert after.certificates == before.certificates
        assert after.rejections == [*before.rejections, "TRANSPORT_KEY_RETIRED"]
    finally:
        await rm.close()


async def test_no_head_of_the_retired_key_convinces_an_agent_or_auditor(thief: Thief) -> None:
    head = Checkpoint("example.org/drm", 99, bytes(32))
    note = sign_head(thief.deployment.folder, head, 1)
    home = thief.deployment.home()
    with pytest.raises(CheckpointSignatureError):
        log_verifier(home, "drm").verify(note)
    assert log_verifier(home, "drm").verify(sign_head(thief.deployment.folder, head, NEWEST)) == head


@pytest.mark.parametrize("role", ["rm", "cm"])
async def test_a_witness_cosigns_no_head_that_the_retired_key_signed(thief: Thief, role: str) -> None:
    """P6: shown by an agent; the witness follows its own word for which key is in force, and logs the refusal."""
    home = thief.deployment.home()
    async with enrolling(home) as enroller:
        receipt, link = await thief.forged(enroller.request(), generation=1, follower=role)
    before = await holdings(home, refused_by=role)
    async with open_session(home, role, identity="agent/alice") as session:
        request = CosignCheckpointRequest(
            checkpoint=parse_proof(receipt).checkpoint, link=link, transport_certificates=[thief.certificate]
        )
        with pytest.raises(KeyarkError) as caught:
            await call(AuditServiceStub(session.channel).CosignCheckpoint, request, timeout=30)
    assert caught.value.reason == "TRANSPORT_KEY_RETIRED"
    after = await holdings(home, refused_by=role)
    assert after.rejections == [*before.rejections, "TRANSPORT_KEY_RETIRED"]


async def test_a_change_of_agents_that_is_in_no_log_is_refused_by_the_cm(thief: Thief) -> None:
    """P4, P6: even a whole quorum's keys, with the RM's identity, make up no change."""
    agents = Agents(thief.deployment.folder)
    change = agents.proof(rotation(), storage_key_id=bytes(range(32)))
    rm = HostileRm(thief.deployment)
    try:
        before = await holdings(thief.deployment.home(), refused_by="cm")
        message = IssueCertificatePairsRequest(items=[PairRequest(statement=b"any")], trust_changes=[change])
        with pytest.raises(KeyarkError) as caught:
            await call(rm.certificates.IssueCertificatePairs, message, timeout=30)
        after = await holdings(thief.deployment.home(), refused_by="cm")
    finally:
        await rm.close()
    assert caught.value.reason == "CHECKPOINT_SIGNATURE"
    assert after.rejections == [*before.rejections, "CHECKPOINT_SIGNATURE"]
