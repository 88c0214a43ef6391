"""P1, P6: RM and CM believe the DRM nothing that they cannot check, and trust named storage keys only."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from keyark.client.access.home import Home
from keyark.config import load_config
from keyark.errors import KeyarkError
from keyark.keys.key_types import KeyType, generate_signing
from keyark.rpc.calling.channels import call
from keyark.statements.enrollment import parse_statement
from keyark.v1 import archive_pb2, audit_pb2
from keyark.v1.archive_pb2_grpc import (
    KeyArchiveServiceStub,
    add_KeyArchiveServiceServicer_to_server,
    add_TransportKeyServiceServicer_to_server,
)
from keyark.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from keyark.x509.authority import create_root
from keyark.x509.certificates import Validity, load_certificates
from keyark.x509.end_entity import EndEntityIssuer
from keyark.x509.end_entity_profile import EndEntityProfile
from keyark.x509.serials import new_serial
from rm_service.config import RmConfig
from rm_service.subsystem import run
from tests.support.running.deployment import running
from tests.support.stories.enrolling import Enroller, enrolling, holdings
from tests.support.stories.relays import channel, relaying, service_identity

SERVICES = [
    (
        archive_pb2.DESCRIPTOR.services_by_name["TransportKeyService"],
        add_TransportKeyServiceServicer_to_server,
    ),
    (archive_pb2.DESCRIPTOR.services_by_name["KeyArchiveService"], add_KeyArchiveServiceServicer_to_server),
    (audit_pb2.DESCRIPTOR.services_by_name["AuditService"], add_AuditServiceServicer_to_server),
]


@pytest.mark.parametrize(("role", "reason"), [("rm", "ARCHIVE_ANSWER"), ("cm", "UNKNOWN_STORAGE_KEY")])
async def test_a_storage_key_that_nobody_was_told_to_trust_is_refused(
    deployment_folder: Path, role: str, reason: str
) -> None:
    config = deployment_folder / role / f"{role}.toml"
    config.write_text(re.sub(r'\["[0-9a-f]{64}"\]', f'["{"ab" * 32}"]', config.read_text()))
    async with running(deployment_folder) as deployment:
        async with enrolling(deployment.home()) as enroller:
            outcome = (await enroller.send(enroller.request()))[0]
        assert (await holdings(deployment.home())).certificates == 0
    assert isinstance(outcome, KeyarkError)
    assert outcome.reason == reason
    assert role == "cm" or "UNKNOWN_STORAGE_KEY" in outcome.message


@pytest.mark.parametrize("what", ["swapped", "missing", "garbage", "fewer"])
async def test_a_receipt_that_is_not_the_requests_own_goes_no_further(
    deployment_folder: Path, what: str
) -> None:
    """The DRM's identity in other hands: its answers are altered on their way to the RM."""

    def alter(method: str, request: Any, response: Any) -> Any:
        if method == "ArchiveKeys" and len(response.outcomes) == 2:
            first, second = response.outcomes
            if what == "swapped":
                first.receipt, second.receipt = second.receipt, first.receipt
            elif what == "missing":
                first.receipt = second.receipt = b""
            elif what == "garbage":
                first.receipt = second.receipt = b"garbage"
            else:
                del response.outcomes[1]
        return response

    async with running(deployment_folder) as real:
        upstream = channel(real.home().config.drm, service_identity(deployment_folder, "rm"), "drm")
        relay = relaying(
            identity=service_identity(deployment_folder, "drm"),
            upstream=upstream,
            services=SERVICES,
            alter=alter,
        )
        async with upstream, relay as server:
            outcomes = await _enroll_two_through(deployment_folder, server.port, real.home().config.cm)
        assert (await holdings(real.home())).certificates == 0
    for outcome in outcomes:
        assert isinstance(outcome, KeyarkError)
        assert outcome.reason in ("ARCHIVE_ANSWER", "UNAVAILABLE")


@pytest.mark.parametrize(("stale_answers", "reason"), [(1, None), (99, "ARCHIVE_ANSWER")])
async def test_a_receipt_that_a_newer_checkpoint_overtook_is_asked_for_again(
    deployment_folder: Path, stale_answers: int, reason: str | None
) -> None:
    """Answers to two batches may come in the other order; a DRM that never sends a newer receipt is refused."""
    early: dict[bytes, bytes] = {}
    left = stale_answers

    def alter(method: str, request: Any, response: Any) -> Any:
        nonlocal left
        if method == "ArchiveKeys" and request.items[0].statement in early and left:
            left -= 1
            response.outcomes[0].receipt = early[request.items[0].statement]
        return response

    async with running(deployment_folder) as real:
        upstream = channel(real.home().config.drm, service_identity(deployment_folder, "rm"), "drm")
        relay = relaying(
            identity=service_identity(deployment_folder, "drm"),
            upstream=upstream,
            services=SERVICES,
            alter=alter,
        )
        async with upstream, relay as server:
            through = _second_rm(deployment_folder, server.port, real.home().config.cm)
            async with through as enroller:
                overtaken = enroller.request()
                message = archive_pb2.ArchiveKeysRequest(
                    items=[
                        archive_pb2.ArchiveItem(
                            statement=overtaken.statement,
                            signature=overtaken.signature,
                            wrapped_private_key=overtaken.wrapped_private_key,
                            call=1,
                        )
                    ],
                    calls=[enroller.call(overtaken)],
                )
                archived = await call(KeyArchiveServiceStub(upstream).ArchiveKeys, message, timeout=30)
                early[overtaken.statement] = archived.outcomes[0].receipt
                await enroller.send(enroller.request())  # the RM accepts a newer checkpoint
                outcome = (await enroller.send(overtaken))[0]
    assert left == (0 if reason is None else stale_answers - 4)
    if reason is None:
        assert not isinstance(outcome, KeyarkError), outcome
        assert outcome.receipt
        assert outcome.receipt != early[overtaken.statement]
    else:
        assert isinstance(outcome, KeyarkError)
        assert outcome.reason == reason
        assert "CHECKPOINT_STALE" in outcome.message


async def _enroll_two_through(folder: Path, drm_port: int, cm_address: str) -> list[Any]:
    async with _second_rm(folder, drm_port, cm_address) as enroller:
        return await enroller.send(enroller.request(), enroller.request())


@asynccontextmanager
async def _second_rm(folder: Path, drm_port: int, cm_address: str) -> AsyncIterator[Enroller]:
    """Run a second RM, with the same identity, whose DRM is the relay."""
    config = load_config(folder / "rm" / "rm.toml", RmConfig)
    downstream = config.downstream.model_copy(update={"cm": cm_address, "drm": f"127.0.0.1:{drm_port}"})
    service = config.service.model_copy(update={"listen": "127.0.0.1:0"})
    store = config.store.model_copy(update={"path": folder / "second-rm-store"})
    second = config.model_copy(update={"downstream": downstream, "service": service, "store": store})
    async with run(second) as server:
        home = Home.load(folder)
        moved = home.config.model_copy(update={"rm": f"127.0.0.1:{server.port}"})
        object.__setattr__(home, "config", moved)
        async with enrolling(home) as enroller:
            yield enroller


async def test_a_certificate_of_another_ca_is_not_linked(deployment_folder: Path) -> None:
    """Right key, right owner, right issuer's name: only the CA's signature is missing."""
    async with running(deployment_folder) as deployment:
        drm = channel(deployment.home().config.drm, service_identity(deployment_folder, "rm"), "drm")
        async with drm, enrolling(deployment.home()) as enroller:
            request = enroller.request()
            stub = KeyArchiveServiceStub(drm)
            item = archive_pb2.ArchiveItem(
                statement=request.statement,
                signature=request.signature,
                wrapped_private_key=request.wrapped_private_key,
                call=1,
            )
            message = archive_pb2.ArchiveKeysRequest(items=[item], calls=[enroller.call(request)])
            await call(stub.ArchiveKeys, message, timeout=30)
            statement = parse_statement(request.statement)
            link = archive_pb2.CertificateLink(
                enrollment_id=statement.enrollment_id, certificate=_forged(deployment_folder, statement)
            )
            answer = await call(
                stub.LinkCertificates, archive_pb2.LinkCertificatesRequest(items=[link]), timeout=30
            )
        assert answer.outcomes[0].code != 0
        assert "CERTIFICATE_CHAIN" in (await holdings(deployment.home(), refused_by="drm")).rejections


def _forged(folder: Path, statement: Any) -> bytes:
    issuing = load_certificates(folder / "ca.pem")[0]
    now = int(time.time())
    forger = create_root(
        generate_signing(KeyType.EC_P256),
        subject=issuing.subject,
        validity=Validity.starting(now, lifetime_seconds=86_400 * 30),
    )
    issuer = EndEntityIssuer(
        certificate=forger.certificate, private_key=forger.private_key, profile=EndEntityProfile()
    )
    return issuer.issue_pair(
        common_name=statement.common_name,
        email=statement.email,
        signing_spki=statement.signing_spki,
        encryption_spki=statement.encryption_spki,
        signing_serial=new_serial(),
        encryption_serial=new_serial(),
        validity=Validity.starting(now, lifetime_seconds=86_400, within=forger.validity),
    ).encryption
