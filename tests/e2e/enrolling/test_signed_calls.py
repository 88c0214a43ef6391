"""How long a client's signed call counts: minutes, and as long as a request waits for an officer (P5, P9)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keyark.client import EnrollmentClient, PendingApprovalError
from keyark.clock import ManualClock, SystemClock
from keyark.rpc.calling.channels import call
from keyark.rpc.identities import LocalIdentity
from keyark.statements.approvals import Edits
from keyark.statements.enrollment import Statement
from keyark.store import open_store
from keyark.v1 import registration_pb2 as pb
from keyark.x509.certificates import encode_certificate
from rm_service.records import TABLES, read_enrollment
from tests.support.running.deployment import Deployment, edit, running
from tests.support.stories.attacks import forge_identity, refusals_of
from tests.support.stories.queue import defer, officer_of, signer_of

DAY = 86_400
ALICE = {"common_name": "Alice Guest", "email": "alice@example.org"}
NAME = "client/enroller"


@pytest.fixture
def folder(deployment_folder: Path) -> Path:
    return defer(deployment_folder)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(SystemClock().now_us())


def take_identity(folder: Path, identity: LocalIdentity) -> None:
    """Put another key and certificate in the place of the client's."""
    own = folder / "identities" / NAME
    (own / "cert.pem").write_bytes(identity.certificate)
    (own / "key.pem").write_bytes(identity.private_key)


async def deferred(client: EnrollmentClient) -> Any:
    prepared = await client.prepare(**ALICE)
    with pytest.raises(PendingApprovalError):
        await client.submit(prepared)
    return prepared


async def approve(deployment: Deployment, statement: Statement, clock: ManualClock) -> pb.Enrollment:
    """An officer approves, at the time that the services have."""
    approval = signer_of(deployment.folder).approve(statement, Edits(), time=clock.now_us() // 1_000_000)
    request = pb.ApproveEnrollmentRequest(enrollment_id=statement.enrollment_id, approval=approval)
    async with officer_of(deployment) as jo:
        return (await call(jo._stub.ApproveEnrollment, request, timeout=30)).enrollment


async def kept_call(folder: Path, enrollment_id: bytes) -> bool:
    """Whether a stopped RM has the signed call of a request."""
    store: Any = open_store(folder / "rm" / "store", tables=TABLES, finisher=lambda txn, items: None)
    try:
        return store.read(lambda txn: read_enrollment(txn, enrollment_id)).HasField("call")
    finally:
        await store.close()


async def test_what_was_signed_before_the_certificate_ended_is_issued_days_later(
    folder: Path, clock: ManualClock
) -> None:
    """The time that the client signed is what its certificate has to be valid at; the RM keeps the call until then."""
    take_identity(folder, forge_identity(folder, uris=[f"spiffe://example.org/{NAME}"], seconds=600))
    async with running(folder, clock) as deployment, deployment.client() as client:
        prepared = await deferred(client)
    wanted = prepared.statement.enrollment_id
    assert await kept_call(folder, wanted)
    clock.advance(6 * DAY)
    async with running(folder, clock) as deployment:
        done = await approve(deployment, prepared.statement, clock)
        assert done.state == pb.ENROLLMENT_STATE_ISSUED
        for role in ("cm", "drm"):
            assert await refusals_of(deployment.home(), role) == []
    assert not await kept_call(folder, wanted)


async def test_a_call_that_grew_too_old_is_replaced_by_the_one_of_the_same_request_sent_again(
    folder: Path, clock: ManualClock
) -> None:
    """The DRM is told that requests wait for one day, and this one waits for three."""
    edit(folder / "drm" / "drm.toml", "request_days = 7", "request_days = 1")
    async with running(folder, clock) as deployment, deployment.client() as client:
        prepared = await deferred(client)
        clock.advance(3 * DAY)
        waits = await approve(deployment, prepared.statement, clock)
        assert waits.state == pb.ENROLLMENT_STATE_APPROVED
        assert "send the same request again" in waits.review.reason
        refusals = await refusals_of(deployment.home(), "drm")
        assert refusals == [("spiffe://example.org/rm", "CALL_TIME")]
        issued, again = [
            (await client.send([prepared], await client._transport_certificates([prepared])))[0]
            for _ in range(2)
        ]
        assert issued.state == pb.ENROLLMENT_STATE_ISSUED
        assert again.certificates == issued.certificates


async def test_a_client_whose_identity_was_renewed_goes_on_with_its_request(
    deployment_folder: Path,
) -> None:
    """Another key signs the call now, and the request gets its first outcome (P9)."""
    async with running(deployment_folder) as deployment:
        async with deployment.client() as client:
            prepared = await client.prepare(**ALICE)
            first = await client.submit(prepared)
        renewed = forge_identity(deployment_folder, uris=[f"spiffe://example.org/{NAME}"])
        take_identity(deployment_folder, renewed)
        async with deployment.client() as client:
            assert client._signed([b"x"]).certificate == encode_certificate(renewed.leaf)
            assert (await client.submit(prepared)).signing_certificate == first.signing_certificate
            assert (await client.enroll(**ALICE)).receipt is not None
