"""P6: one malformed item never fails its batch, and one client's noise hides no refusal of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keyark.client.access.home import Home
from keyark.client.access.sessions import open_session
from keyark.client.trust.receipts import list_entries
from keyark.errors import KeyarkError
from keyark.rpc.calling.channels import call
from keyark.rpc.errors import error_from_status
from keyark.statements.enrollment import parse_statement
from keyark.v1 import archive_pb2, certificates_pb2
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.v1.ceremony_pb2 import SignedStatement
from tests.e2e.test_direct_attacks import HostileRm
from tests.fuzz.targets import SEEDS
from tests.support.running.deployment import Deployment, edit, running
from tests.support.stories.attacks import add_person, grant
from tests.support.stories.enrolling import enrolling

MALFORMED = [
    path.read_bytes()
    for name in ("certificate", "transport", "call", "approval", "decision")
    for path in (SEEDS / name).glob("found-*")
]
"""Certificates over which the library raises other errors than ValueError, and where."""


def outcome(answer: Any, taken: str) -> Any:
    """What an item came to: the reason of its refusal, or what was taken."""
    return error_from_status(answer.error).reason if answer.HasField("error") else getattr(answer, taken)


async def test_a_malformed_item_is_refused_alone_in_every_batch(deployment: Deployment) -> None:
    async with enrolling(deployment.home()) as enroller:
        good, other = enroller.request(), enroller.request()
        bad = [
            enroller.request(statement=good.statement[:-1]),
            enroller.request(envelope=b"\xff" * 40),
            enroller.request(signature=b"\x30\x80"),
        ]
        rm = HostileRm(deployment, enroller.call)
        calls = [
            enroller.call(good),
            enroller.call(other),
            *(_signed_with(enroller.call(good), m) for m in MALFORMED),
        ]
        receipts = await _archive(rm, [good, *bad, *[good] * len(MALFORMED), other], calls)
        assert await _issue(rm, good, other, receipts, calls) == 2
        assert await _link(rm, good) == 1
        sent = await enroller.send(enroller.request(), *bad, enroller.request())
        assert [isinstance(one, KeyarkError) for one in sent] == [False, True, True, True, False]
        assert "INTERNAL_ERROR" not in {one.reason for one in sent if isinstance(one, KeyarkError)}
        await rm.close()
    reasons = [details.reason for details in await refusals(deployment.home(), "drm")]
    assert len(reasons) >= len(bad) + 2 * len(MALFORMED)


def _signed_with(signed: SignedStatement, certificate: bytes) -> SignedStatement:
    return SignedStatement(statement=signed.statement, signature=signed.signature, certificate=certificate)


async def _archive(rm: HostileRm, requests: list[Any], calls: list[SignedStatement]) -> Any:
    """The first and the last request are good; the others follow with bad ones of their own or bad calls."""
    places = [1, *[1] * 3, *range(3, len(calls) + 1), 2]
    items = [
        archive_pb2.ArchiveItem(
            statement=request.statement,
            signature=request.signature,
            wrapped_private_key=request.wrapped_private_key,
            call=place,
        )
        for request, place in zip(requests, places, strict=True)
    ]
    # those with bad calls come first, so that no earlier outcome answers them
    order = [*range(1, len(items) - 1), 0, len(items) - 1]
    message = archive_pb2.ArchiveKeysRequest(items=[items[place] for place in order], calls=calls)
    response = await call(rm.archive_service.ArchiveKeys, message, timeout=30)
    told = [outcome(answer, "receipt") for answer in response.outcomes]
    assert all(isinstance(one, str) and one != "INTERNAL_ERROR" for one in told[:-2]), told
    assert all(isinstance(one, bytes) for one in told[-2:]), told
    return told[-2:], response.link


async def _issue(rm: HostileRm, good: Any, other: Any, receipts: Any, calls: list[SignedStatement]) -> int:
    (first, second), link = receipts
    transport = await call(
        rm.archive_service.GetTransportCertificate, archive_pb2.GetTransportCertificateRequest(), timeout=30
    )

    def item(request: Any, receipt: bytes, place: int) -> Any:
        return certificates_pb2.PairRequest(
            statement=request.statement, signature=request.signature, receipt=receipt, call=place
        )

    bad = [item(good, first, place) for place in range(3, len(calls) + 1)]
    bad += [
        item(good, receipt, 1)
        for receipt in (first[:-1], b"\xff", b"c2sp.org/tlog-proof@v1\nextra =\nindex 0\n\n")
    ]
    items = [*bad, item(good, first, 1), item(other, second, 2)]
    message = certificates_pb2.IssueCertificatePairsRequest(
        items=items, calls=calls, links=[link], transport_certificates=[transport.transport_certificate]
    )
    response = await call(rm.certificates.IssueCertificatePairs, message, timeout=30)
    told = [outcome(answer, "pair") for answer in response.outcomes]
    assert all(isinstance(one, str) and one != "INTERNAL_ERROR" for one in told[:-2]), told
    rm.pair = told[-2]  # type: ignore[attr-defined]
    return sum(not isinstance(one, str) for one in told)


async def _link(rm: HostileRm, good: Any) -> int:
    certificate = rm.pair.encryption_certificate  # type: ignore[attr-defined]
    identifier = parse_statement(good.statement).enrollment_id
    links = [*MALFORMED, certificate[:-1], b"", certificate]
    message = archive_pb2.LinkCertificatesRequest(
        items=[archive_pb2.CertificateLink(enrollment_id=identifier, certificate=one) for one in links]
    )
    response = await call(rm.archive_service.LinkCertificates, message, timeout=30)
    reasons = [error_from_status(status).reason if status.code else "" for status in response.outcomes]
    assert "INTERNAL_ERROR" not in reasons
    return reasons.count("")


async def test_noise_of_one_client_hides_no_refusal_of_another(deployment_folder: Path) -> None:
    for role in ("drm", "cm"):
        edit(
            deployment_folder / role / f"{role}.toml", "rejections_per_hour = 100", "rejections_per_hour = 2"
        )
    add_person(deployment_folder, "client/bob")
    grant(deployment_folder, "client/bob", "example.org")
    async with running(deployment_folder) as deployment:
        home = deployment.home()
        async with enrolling(home) as noisy, enrolling(home, "client/bob") as bob:
            await noisy.send(*(noisy.request(envelope=b"\xff" * 40) for _ in range(10)))
            await bob.send(bob.request(envelope=b"\xff" * 40))
        told = [(details.caller, details.on_behalf_of) for details in await refusals(home, "drm")]
    rm = "spiffe://example.org/rm"
    assert told.count((rm, noisy.caller)) == 2
    assert told.count((rm, bob.caller)) == 1


async def refusals(home: Home, role: str) -> list[AuditDetails]:
    """What a subsystem's log says of refusals."""
    async with open_session(home, role, identity="auditor/auditor") as session:
        return [
            AuditDetails.FromString(entry.event.details)
            async for entry in list_entries(session)
            if AuditEvent.FromString(entry.event.leaf).type == EventType.EVENT_TYPE_REQUEST_REJECTED
        ]
