"""P1, P6: receipts that are stale, foreign or forged, shown to the CM by who holds the RM's identity."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from keyark.errors import KeyarkError
from keyark.identity.certificates import issue_identity, request_identity
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType, generate, generate_signing
from keyark.rpc.calling.channels import call
from keyark.rpc.errors import error_from_status
from keyark.transparency.checkpoint import Checkpoint, NoteSigner
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.receipts import format_proof, parse_proof
from keyark.v1 import archive_pb2, certificates_pb2
from keyark.v1.archive_pb2_grpc import KeyArchiveServiceStub
from keyark.v1.audit_pb2 import AuditDetails, CheckpointLink, GetConsistencyProofRequest, LoggedEvent
from keyark.v1.audit_pb2_grpc import AuditServiceStub
from keyark.v1.certificates_pb2_grpc import CertificateServiceStub
from keyark.v1.common_pb2 import TransportCertificate
from keyark.x509.certificates import Validity, encode_certificate, load_certificates
from tests.e2e.test_direct_attacks import Captured
from tests.support.running.deployment import Deployment, copy_deployment, make_deployment, running
from tests.support.stories.attacks import TRUST_DOMAIN, another_ca, internal_ca, take_stock
from tests.support.stories.enrolling import Enroller, enrolling
from tests.support.stories.relays import channel, service_identity

pytestmark = pytest.mark.asyncio(loop_scope="module")

ORIGIN = f"{TRUST_DOMAIN}/drm"


class Rm:
    """The RM's identity in other hands."""

    def __init__(self, deployment: Deployment) -> None:
        self.home, who = deployment.home(), service_identity(deployment.folder, "rm")
        self.cm = channel(self.home.config.cm, who, "cm")
        self.drm = channel(self.home.config.drm, who, "drm")
        self.captured: Captured = lambda _: None

    async def __aenter__(self) -> Rm:
        stub = KeyArchiveServiceStub(self.drm)
        request = archive_pb2.GetTransportCertificateRequest()
        self.transport = (await call(stub.GetTransportCertificate, request, timeout=30)).transport_certificate
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cm.close()
        await self.drm.close()

    async def archive(self, request: Any) -> tuple[bytes, CheckpointLink]:
        """Have a key archived; returns the receipt and the link to its tree."""
        item = archive_pb2.ArchiveItem(
            statement=request.statement,
            signature=request.signature,
            wrapped_private_key=request.wrapped_private_key,
            call=1,
        )
        message = archive_pb2.ArchiveKeysRequest(items=[item], calls=[self.captured(request)])
        answer = await call(KeyArchiveServiceStub(self.drm).ArchiveKeys, message, timeout=30)
        return answer.outcomes[0].receipt, answer.link

    async def link(self, first: int, second: int) -> CheckpointLink:
        """A consistency proof of the DRM's log."""
        request = GetConsistencyProofRequest(first_size=first, second_size=second)
        return (await call(AuditServiceStub(self.drm).GetConsistencyProof, request, timeout=30)).link

    async def issue(
        self, request: Any, receipt: bytes, *links: CheckpointLink, transports: Any = None
    ) -> certificates_pb2.PairOutcome | KeyarkError:
        """Ask the CM for a pair; returns it, or the error of the item or of the call."""
        item = certificates_pb2.PairRequest(
            statement=request.statement, signature=request.signature, receipt=receipt, call=1
        )
        message = certificates_pb2.IssueCertificatePairsRequest(
            items=[item],
            calls=[self.captured(request)],
            links=links,
            transport_certificates=[self.transport] if transports is None else transports,
        )
        try:
            answer = await call(CertificateServiceStub(self.cm).IssueCertificatePairs, message, timeout=30)
        except KeyarkError as error:
            return error
        return (
            error_from_status(answer.outcomes[0].error)
            if answer.outcomes[0].HasField("error")
            else answer.outcomes[0]
        )

    async def issue_anyhow(self, request: Any, receipt: bytes) -> Any:
        """Ask as the real RM does: on a gap, again with the link that is missing."""
        size = int(parse_proof(receipt).checkpoint.split(b"\n")[1])
        answer = await self.issue(request, receipt)
        if isinstance(answer, KeyarkError) and answer.reason == "CHECKPOINT_GAP":
            link = await self.link(int(answer.metadata["tree_size"]), size)
            answer = await self.issue(request, receipt, link)
        return answer

    async def refused(self, request: Any, receipt: bytes, *links: CheckpointLink, **options: Any) -> str:
        """Ask for what has to be refused, with an entry in the CM's log; returns the reason."""
        before = await take_stock(self.home)
        answer = await self.issue(request, receipt, *links, **options)
        after = await take_stock(self.home)
        assert isinstance(answer, KeyarkError), answer
        assert after.counts == before.counts
        entry = (f"spiffe://{TRUST_DOMAIN}/rm", answer.reason)
        assert after.refusals["cm"] == [*before.refusals["cm"], entry]
        return answer.reason


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(deployment_template, tmp_path_factory) -> AsyncIterator[Deployment]:
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("receipts") / "deployment")
    async with running(folder) as deployment:
        yield deployment


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rm(deployment: Deployment) -> AsyncIterator[Rm]:
    async with Rm(deployment) as rm:
        yield rm


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def enroller(deployment: Deployment, rm: Rm) -> AsyncIterator[Enroller]:
    async with enrolling(deployment.home()) as enroller:
        rm.captured = enroller.call
        yield enroller


async def test_a_stale_receipt_is_refused_and_a_new_one_of_the_same_key_taken(
    rm: Rm, enroller: Enroller
) -> None:
    early, late = enroller.request(), enroller.request()
    stale, _ = await rm.archive(early)
    receipt, _ = await rm.archive(late)
    assert not isinstance(await rm.issue_anyhow(late, receipt), KeyarkError)
    assert await rm.refused(early, stale) == "CHECKPOINT_STALE"
    renewed, _ = await rm.archive(early)
    assert not isinstance(await rm.issue_anyhow(early, renewed), KeyarkError)


async def test_a_receipt_under_a_transport_certificate_of_ones_own_is_refused(
    deployment: Deployment, rm: Rm, enroller: Enroller
) -> None:
    """Forged in every part but the CA's key; and the RM's own certificate serves no better."""
    request = enroller.request()
    receipt, _ = await rm.archive(request)
    key, identity = generate_signing(KeyType.EC_P256), SpiffeId(TRUST_DOMAIN, "drm/transport")
    authority = another_ca(deployment.folder)
    certificate = issue_identity(
        authority,
        request_identity(key, identity),
        identity=identity,
        validity=Validity.starting(int(time.time()), lifetime_seconds=86_400),
    )
    proof = parse_proof(receipt)
    root = leaf_hash(LoggedEvent.FromString(proof.extra).leaf)
    note = NoteSigner.from_private_key(ORIGIN, key).sign(Checkpoint(ORIGIN, 1, root))
    forged = format_proof(extra=proof.extra, index=0, proof=[], checkpoint=note)
    own = TransportCertificate(
        certificate=encode_certificate(certificate), chain=[encode_certificate(authority.certificate)]
    )
    rms = TransportCertificate(
        certificate=encode_certificate(load_certificates(deployment.folder / "rm" / "identity.pem")[0]),
        chain=[encode_certificate(internal_ca(deployment.folder).certificate)],
    )
    assert await rm.refused(request, forged, transports=[own]) == "CERTIFICATE_CHAIN"
    assert await rm.refused(request, forged, transports=[rms]) == "TRANSPORT_CERTIFICATE"
    assert await rm.refused(request, forged, transports=[]) in (
        "CHECKPOINT_SIGNATURE",
        "TRANSPORT_KEY_UNPROVEN",
    )


async def test_a_receipt_for_the_same_keys_in_another_name_is_refused(rm: Rm, enroller: Enroller) -> None:
    """P5: the key is archived for Alice; Bob's statement for the very same keys has no receipt."""
    signing, encryption = generate(KeyType.EC_P256), generate(KeyType.EC_P256)
    alices = enroller.request(signing_key=signing, encryption_key=encryption)
    receipt, _ = await rm.archive(alices)
    bobs = enroller.request(
        signing_key=signing,
        encryption_key=encryption,
        fields={"common_name": "Bob", "email": "bob@example.org"},
    )
    other = await rm.issue_anyhow(enroller.request(), receipt)  # leads the CM to the receipt's tree
    assert isinstance(other, KeyarkError)
    assert await rm.refused(bobs, receipt) == "RECEIPT_MISMATCH"


async def test_a_receipt_with_other_details_is_refused(rm: Rm, enroller: Enroller) -> None:
    """The leaf binds owner and address by hash; the ones beside it cannot be exchanged."""
    request = enroller.request()
    receipt, _ = await rm.archive(request)
    proof = parse_proof(receipt)
    event = LoggedEvent.FromString(proof.extra)
    details = AuditDetails.FromString(event.details)
    details.email = "mallory@example.org"
    event.details = details.SerializeToString()
    altered = format_proof(
        extra=event.SerializeToString(), index=proof.index, proof=proof.proof, checkpoint=proof.checkpoint
    )
    assert await rm.refused(request, altered) == "AUDIT_EVENT_INVALID"


@pytest.mark.parametrize("part", ["index", "proof"])
async def test_a_receipt_for_another_place_in_the_tree_is_refused(
    rm: Rm, enroller: Enroller, part: str
) -> None:
    request = enroller.request()
    proof = parse_proof((await rm.archive(request))[0])
    parts = {"extra": proof.extra, "index": proof.index, "proof": proof.proof, "checkpoint": proof.checkpoint}
    wrong = {"index": proof.index - 1, "proof": proof.proof[:-1]}
    assert (
        await rm.refused(request, format_proof(**(parts | {part: wrong[part]}))) == "INCLUSION_PROOF_INVALID"
    )


async def test_a_statement_is_checked_though_its_receipt_is_good(rm: Rm, enroller: Enroller) -> None:
    """The CM takes the RM's word for nothing: the proof of possession is verified again."""
    request = enroller.request()
    receipt, _ = await rm.archive(request)
    request.signature = enroller.request().signature
    assert await rm.refused(request, receipt) == "STATEMENT_SIGNATURE"
    assert await rm.refused(enroller.request(fields={"profile": "other"}), receipt) == "UNKNOWN_PROFILE"


async def test_a_receipt_of_another_deployment_is_refused(rm: Rm, enroller: Enroller, tmp_path) -> None:
    """Same trust domain, same request, a genuine receipt of a genuine DRM: only not of this one."""
    foreign = make_deployment(tmp_path / "foreign")
    async with running(foreign) as elsewhere, Rm(elsewhere) as other, enrolling(elsewhere.home()) as there:
        other.captured = there.call
        key = generate(KeyType.EC_P256)
        request = there.request(encryption_key=key)
        receipt, _ = await other.archive(request)
        assert await rm.refused(request, receipt, transports=[other.transport]) == "CERTIFICATE_CHAIN"
        assert await rm.refused(request, receipt) == "CHECKPOINT_SIGNATURE"
        assert not isinstance(await other.issue_anyhow(request, receipt), KeyarkError)
