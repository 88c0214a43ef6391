"""Who holds the RM's identity cannot have anything issued without a genuine, fitting receipt (P1, P5)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec

from keyark.client import EnrollmentClient
from keyark.errors import KeyarkError
from keyark.rpc.calling.channels import call, open_channel
from keyark.rpc.errors import error_from_status
from keyark.rpc.identities import LocalIdentity
from keyark.statements.enrollment import parse_statement
from keyark.transparency.checkpoint import Checkpoint, NoteSigner
from keyark.transparency.events import new_event
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.receipts import format_proof, parse_proof
from keyark.v1 import archive_pb2, certificates_pb2
from keyark.v1.archive_pb2_grpc import KeyArchiveServiceStub
from keyark.v1.audit_pb2 import (
    AuditDetails,
    AuditEvent,
    CheckpointLink,
    GetConsistencyProofRequest,
    LoggedEvent,
)
from keyark.v1.audit_pb2_grpc import AuditServiceStub
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.v1.certificates_pb2_grpc import CertificateServiceStub
from keyark.x509.certificates import encode_certificate
from tests.support.running.deployment import Deployment, copy_deployment, running
from tests.support.stories.enrolling import Enroller, enrolling, holdings
from tests.support.stories.rotation import forked_receipt

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(deployment_template, tmp_path_factory) -> AsyncIterator[Deployment]:
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("direct") / "deployment")
    async with running(folder) as deployment:
        yield deployment


Captured = Callable[[Any], SignedStatement | None]
"""What the client of a request signed when it sent it; None where nobody sent it."""


class HostileRm:
    """The RM's identity in other hands, and the signed calls that came through it."""

    def __init__(self, deployment: Deployment, captured: Captured = lambda _: None) -> None:
        home, folder = deployment.home(), deployment.folder
        self.captured = captured
        self.identity = LocalIdentity.load(
            key=folder / "rm" / "identity-key.pem",
            certificate=folder / "rm" / "identity.pem",
            trust_anchor=folder / "trust-anchor.pem",
        )
        self.cm = open_channel(home.config.cm, self.identity, server_role="cm", trust_domain="example.org")
        self.drm = open_channel(home.config.drm, self.identity, server_role="drm", trust_domain="example.org")
        self.certificates = CertificateServiceStub(self.cm)
        self.archive_service = KeyArchiveServiceStub(self.drm)

    async def archive(self, request: Any, *, known_tree_size: int = 0) -> Any:
        """Ask the DRM; returns the receipt with the link that the CM will want, or the error of the item."""
        call_of_it = self.captured(request)
        message = archive_pb2.ArchiveKeysRequest(
            items=[
                archive_pb2.ArchiveItem(
                    statement=request.statement,
                    signature=request.signature,
                    wrapped_private_key=request.wrapped_private_key,
                    call=1 if call_of_it else 0,
                )
            ],
            calls=[call_of_it] if call_of_it else [],
            known_tree_size=known_tree_size,
        )
        response = await call(self.archive_service.ArchiveKeys, message, timeout=30)
        outcome = response.outcomes[0]
        return (
            error_from_status(outcome.error)
            if outcome.HasField("error")
            else (outcome.receipt, response.link)
        )

    async def archived(self, request: Any, *, known_tree_size: int = 0) -> tuple[bytes, CheckpointLink]:
        """Have a key archived."""
        outcome = await self.archive(request, known_tree_size=known_tree_size)
        assert isinstance(outcome, tuple), outcome
        return outcome

    async def issue(self, request: Any, receipt: bytes, link: CheckpointLink | None) -> Any:
        """Ask the CM; returns a pair, or the error of the item or the call."""
        transport = await call(
            self.archive_service.GetTransportCertificate,
            archive_pb2.GetTransportCertificateRequest(),
            timeout=30,
        )
        call_of_it = self.captured(request)
        message = certificates_pb2.IssueCertificatePairsRequest(
            items=[
                certificates_pb2.PairRequest(
                    statement=request.statement,
                    signature=request.signature,
                    receipt=receipt,
                    call=1 if call_of_it else 0,
                )
            ],
            calls=[call_of_it] if call_of_it else [],
            links=[link] if link else [],
            transport_certificates=[transport.transport_certificate],
        )
        try:
            response = await call(self.certificates.IssueCertificatePairs, message, timeout=30)
        except KeyarkError as error:
            return error
        outcome = response.outcomes[0]
        return error_from_status(outcome.error) if outcome.HasField("error") else outcome.pair

    async def close(self) -> None:
        await self.cm.close()
        await self.drm.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def enroller(deployment: Deployment) -> AsyncIterator[Enroller]:
    async with enrolling(deployment.home()) as enroller:
        yield enroller


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rm(deployment: Deployment, enroller: Enroller) -> AsyncIterator[HostileRm]:
    hostile = HostileRm(deployment, enroller.call)
    yield hostile
    await hostile.close()


async def refused(
    deployment: Deployment, rm: HostileRm, request: Any, receipt: bytes, link: Any
) -> KeyarkError:
    before = await holdings(deployment.home(), refused_by="cm")
    outcome = await rm.issue(request, receipt, link)
    after = await holdings(deployment.home(), refused_by="cm")
    assert isinstance(outcome, KeyarkError), outcome
    assert after.certificates == before.certificates
    assert len(after.rejections) == len(before.rejections) + 1
    return outcome


async def test_nothing_is_issued_without_a_receipt(deployment, rm, enroller) -> None:
    assert (await refused(deployment, rm, enroller.request(), b"", None)).reason == "RECEIPT_REQUIRED"


async def test_a_receipt_of_another_enrollment_is_refused(deployment, rm, enroller) -> None:
    receipt, link = await rm.archived(enroller.request())
    error = await refused(deployment, rm, enroller.request(), receipt, link)
    assert error.reason == "RECEIPT_MISMATCH"


@pytest.mark.parametrize("position", [30, 200, -200, -20])
async def test_an_altered_receipt_is_refused(deployment, rm, enroller, position: int) -> None:
    request = enroller.request()
    receipt, link = await rm.archived(request)
    altered = bytearray(receipt)
    altered[position] = ord("A") if altered[position] != ord("A") else ord("B")
    await refused(deployment, rm, request, bytes(altered), link)


@pytest.mark.parametrize("receipt", [b"garbage", b"c2sp.org/tlog-proof@v1\n", bytes(100_000)])
async def test_what_is_no_receipt_is_refused(deployment, rm, enroller, receipt: bytes) -> None:
    assert (await refused(deployment, rm, enroller.request(), receipt, None)).reason == "RECEIPT_FORMAT"


async def test_a_receipt_under_a_key_of_ones_own_is_refused(deployment, rm, enroller) -> None:
    """Forged: everything is right but the signature, which is of another key."""
    request = enroller.request()
    receipt, _ = await rm.archived(request)
    proof = parse_proof(receipt)
    leaf = LoggedEvent.FromString(proof.extra).leaf
    signer = NoteSigner.from_private_key("example.org/drm", ec.generate_private_key(ec.SECP256R1()))
    note = signer.sign(Checkpoint("example.org/drm", 1, leaf_hash(leaf)))
    forged = format_proof(extra=proof.extra, index=0, proof=[], checkpoint=note)
    await refused(deployment, rm, enroller.request(), forged, None)
    await refused(deployment, rm, request, forged, None)


async def test_a_receipt_that_names_a_storage_key_of_ones_own_is_refused(deployment, rm, enroller) -> None:
    """Even the DRM's own signature does not help a storage key that nobody here was told to trust."""
    request = enroller.request()
    receipt, _ = await rm.archived(request)
    event = AuditEvent.FromString(LoggedEvent.FromString(parse_proof(receipt).extra).leaf)
    event.storage_key_id = bytes(32)
    foreign = new_event(
        event, AuditDetails(caller=enroller.caller, common_name="Alice Example", email="alice@example.org")
    )
    forged = format_proof(
        extra=foreign.SerializeToString(), index=0, proof=[], checkpoint=parse_proof(receipt).checkpoint
    )
    await refused(deployment, rm, request, forged, None)


async def test_links_that_do_not_lead_on_are_refused_and_the_right_ones_taken(
    deployment, rm, enroller
) -> None:
    request = enroller.request()
    receipt, link = await rm.archived(request)
    missing = await rm.issue(request, receipt, None)
    assert isinstance(missing, KeyarkError)
    assert missing.reason == "CHECKPOINT_GAP"
    pair = await rm.issue(request, receipt, await _link_from(rm, int(missing.metadata["tree_size"]), link))
    assert not isinstance(pair, KeyarkError), pair
    assert await rm.issue(request, b"", None) == pair  # the first outcome, whatever comes along (P9)


async def _link_from(rm: HostileRm, size: int, link: CheckpointLink) -> CheckpointLink:
    request = GetConsistencyProofRequest(first_size=size, second_size=link.second_size)
    return (await call(AuditServiceStub(rm.drm).GetConsistencyProof, request, timeout=30)).link


async def test_a_certificate_that_does_not_fit_is_not_linked(deployment, rm, enroller) -> None:
    async with EnrollmentClient.open(deployment.home()) as client:
        alice = await client.enroll(common_name="Alice Example", email="alice@example.org")
    request = enroller.request()
    await rm.archived(request)
    for enrollment_id in (parse_statement(request.statement).enrollment_id, bytes(32)):
        for certificate in (encode_certificate(alice.encryption_certificate), b"garbage"):
            message = archive_pb2.LinkCertificatesRequest(
                items=[archive_pb2.CertificateLink(enrollment_id=enrollment_id, certificate=certificate)]
            )
            response = await call(rm.archive_service.LinkCertificates, message, timeout=30)
            assert response.outcomes[0].code != 0


async def test_a_bogus_link_is_refused_and_frames_nobody(deployment, rm, enroller) -> None:
    """P6: the RM made the link up; the CM refuses the call, logs it, and goes on with the right link."""
    request = enroller.request()
    receipt, link = await rm.archived(request)
    gap = await rm.issue(enroller.request(), b"", CheckpointLink(first_size=999, second_size=1000))
    assert isinstance(gap, KeyarkError)
    size = int(gap.metadata["tree_size"])
    bogus = CheckpointLink(first_size=size, second_size=size + 1, second_root=bytes(32), proof=[bytes(32)])
    error = await refused(deployment, rm, request, receipt, bogus)
    assert error.reason == "CHECKPOINT_MISMATCH"
    pair = await rm.issue(request, receipt, await _link_from(rm, size, link))
    assert not isinstance(pair, KeyarkError), pair


async def test_a_forked_log_stops_the_cm_for_good(deployment_template, tmp_path) -> None:
    """P6: a DRM that signs two trees of one size is an alarm that no retry and no restart clears."""
    folder = copy_deployment(deployment_template, tmp_path / "deployment")
    async with running(folder) as deployment, enrolling(deployment.home()) as enroller:
        await enroller.send(enroller.request())
        rm = HostileRm(deployment, enroller.call)
        request = enroller.request()
        receipt, link = await rm.archived(request)
        link = await _link_from(rm, int((await rm.issue(request, receipt, None)).metadata["tree_size"]), link)
        assert not isinstance(await rm.issue(request, receipt, link), KeyarkError)
        forged = forked_receipt(folder, receipt)
        before = await holdings(deployment.home(), refused_by="cm")
        assert (await rm.issue(enroller.request(), forged, None)).reason == "LOG_INCONSISTENT"
        after = await holdings(deployment.home(), refused_by="cm")
        assert len(after.rejections) == len(before.rejections) + 1
        assert isinstance((await enroller.send(enroller.request()))[0], KeyarkError)
        await rm.close()
    async with running(folder) as deployment, enrolling(deployment.home()) as enroller:
        outcome = (await enroller.send(enroller.request()))[0]
        assert isinstance(outcome, KeyarkError)
        assert outcome.reason == "LOG_INCONSISTENT"
