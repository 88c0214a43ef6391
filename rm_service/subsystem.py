"""The running RM, put together from its configuration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, NamedTuple, cast

from keyark.clock import Clock, SystemClock
from keyark.errors import KeyarkError
from keyark.policy.engine import PolicyEngine
from keyark.rpc.calling.channels import Channel, call, open_channel
from keyark.rpc.calling.pinning import ServerPin
from keyark.rpc.calling.renewal import RenewableChannel
from keyark.rpc.errors import error_from_status
from keyark.rpc.serving.server import ServedService
from keyark.service.checks.evidence import ReceiptChecks, open_receipt_checks
from keyark.service.checks.live_policy import open_policy
from keyark.service.program.assembly import Foundation, RunningService, load_log_key, open_foundation, serve
from keyark.service.program.background import repeating
from keyark.service.witness.witness import Witness
from keyark.statements.approvals import OfficerTrust
from keyark.statements.calls import CallTrust
from keyark.transparency.cosignatures import Cosigner
from keyark.v1 import archive_pb2, audit_pb2, certificates_pb2, registration_pb2
from keyark.v1.archive_pb2_grpc import KeyArchiveServiceStub, TransportKeyServiceStub
from keyark.v1.audit_pb2_grpc import AuditServiceStub
from keyark.v1.certificates_pb2_grpc import CertificateServiceStub
from keyark.v1.registration_pb2_grpc import (
    add_RegistrationAdminServiceServicer_to_server,
    add_RegistrationServiceServicer_to_server,
)
from rm_service.config import RmConfig
from rm_service.downstream.archive import BATCH_SECONDS, ArchiveClient
from rm_service.downstream.archive_head import ArchiveHead
from rm_service.downstream.issuer import EvidenceSource, IssuerClient
from rm_service.downstream.outbox import LinkOutbox
from rm_service.downstream.relinking import RELINK, relink
from rm_service.enrollment.forms import FormSource
from rm_service.enrollment.queue import ApprovalQueue
from rm_service.enrollment.steps import Enrollments
from rm_service.enrollment.under_way import UnderWay
from rm_service.officers.approvals import Approvals
from rm_service.officers.duties import Duties
from rm_service.records import SCHEMA_VERSION, TABLES
from rm_service.servicer import ALLOWED, RegistrationAdminServicer, RegistrationServicer

SWEEP_SECONDS: Final = 60.0


class Downstream:
    """The RM's calls to CM and DRM that are no batches of enrollments."""

    def __init__(self, cm: Channel, drm: Channel) -> None:
        self.archive = KeyArchiveServiceStub(drm)
        self.audit = AuditServiceStub(drm)
        self.issuer = CertificateServiceStub(cm)
        self._issuer_audit = AuditServiceStub(cm)
        self._transport_keys = TransportKeyServiceStub(drm)

    async def profiles(self) -> list[certificates_pb2.Profile]:
        """Return the CM's profiles."""
        response = await call(
            self.issuer.GetIssuer, certificates_pb2.GetIssuerRequest(), timeout=BATCH_SECONDS
        )
        return list(response.profiles)

    async def transport_keys(
        self, *, known: bytes = b"", tree_size: int
    ) -> archive_pb2.ListTransportKeyChangesResponse:
        """Return the DRM's transport certificate, and what shows each key after a known one to follow it."""
        request = archive_pb2.ListTransportKeyChangesRequest(known_key_id=known, known_tree_size=tree_size)
        return await call(self._transport_keys.ListTransportKeyChanges, request, timeout=BATCH_SECONDS)

    async def cosign(self, request: audit_pb2.CosignCheckpointRequest) -> audit_pb2.CosignCheckpointResponse:
        """Have the CM accept a head of the DRM's log, and cosign the newest."""
        return await call(self._issuer_audit.CosignCheckpoint, request, timeout=BATCH_SECONDS)

    async def tree_link(self, first_size: int, second_size: int) -> audit_pb2.CheckpointLink:
        """Ask the DRM to prove that one of its trees leads on from another."""
        request = audit_pb2.GetConsistencyProofRequest(first_size=first_size, second_size=second_size)
        return (await call(self.audit.GetConsistencyProof, request, timeout=BATCH_SECONDS)).link

    async def link(self, links: Sequence[archive_pb2.CertificateLink]) -> list[KeyarkError | None]:
        """Tell the DRM which certificates belong to which keys."""
        request = archive_pb2.LinkCertificatesRequest(items=links)
        response = await call(self.archive.LinkCertificates, request, timeout=BATCH_SECONDS)
        return [error_from_status(status) if status.code else None for status in response.outcomes]


@asynccontextmanager
async def run(config: RmConfig, clock: Clock | None = None) -> AsyncIterator[RunningService]:
    """Run the RM until the end of the context, then drain it: every accepted enrollment gets its outcome.

    Raises ConfigurationError and the errors of the store and the log where it cannot start.
    """
    clock = clock or SystemClock()
    signer = load_log_key("rm", config.service, config.log.key)
    opening = open_foundation(
        "rm",
        config,
        tables=TABLES,
        schema_version=SCHEMA_VERSION,
        signer=signer,
        clock=clock,
    )
    async with opening as foundation, _downstream(config, foundation) as downstream:
        outbox = LinkOutbox(store=foundation.store, send=downstream.link)
        policy = await open_policy("rm", config, store=foundation.store, log=foundation.log, clock=clock)
        checks = open_receipt_checks(
            config.service,
            config.archive,
            revoked=foundation.revoked,
            store=foundation.store,
            log=foundation.log,
            clock=foundation.clock,
            turns=foundation.turns,
        )
        ways = _ways(config, foundation, downstream, checks)
        enrollments = _enrollments(config, foundation, ways, outbox, policy.engine, checks)
        approvals = _approvals(config, enrollments, checks)
        witness = Witness(checks=checks, cosigner=Cosigner(signer.origin, signer.key))
        head = ArchiveHead(witness=witness, cosign_at_cm=ways.issuer.cosign_at_cm, link=downstream.tree_link)
        sending = asyncio.create_task(outbox.run())

        async def forget_forms() -> str:
            enrollments.forms.forget()
            return "enrollment forms will be fetched again"

        async def retry_links() -> str:
            outbox.retry()
            return "the DRM is told again of every certificate that it did not take"

        try:
            async with (
                serve(
                    foundation,
                    settings=config.service,
                    services=_services(foundation, enrollments, approvals, head),
                    allowed=ALLOWED,
                    log_readers={},
                    policy=policy.engine,
                    witness=witness,
                ) as server,
                repeating(approvals.sweep, seconds=SWEEP_SECONDS, name="going through the officers' queue"),
            ):
                yield RunningService(
                    server=server,
                    policy=policy,
                    reloads=[*foundation.reloads, forget_forms, retry_links],
                    commands={RELINK: partial(relink, outbox)},
                )
            await enrollments.drain()
        finally:
            sending.cancel()
            await asyncio.wait([sending])


@asynccontextmanager
async def _downstream(config: RmConfig, foundation: Foundation) -> AsyncIterator[Downstream]:
    def reach(role: str, addresses: str) -> RenewableChannel:
        domain = config.service.trust_domain
        pin = ServerPin(addresses, f"{role}.{domain}", foundation.revoked)
        channel = RenewableChannel(
            lambda: foundation.identity.value,
            lambda identity: open_channel(pin.address, identity, server_role=role, trust_domain=domain),
            pin=pin,
        )
        foundation.identity.on_change(channel.renew)
        return channel

    cm, drm = reach("cm", config.downstream.cm), reach("drm", config.downstream.drm)
    try:
        yield Downstream(cast("Channel", cm), cast("Channel", drm))
    finally:
        await asyncio.gather(cm.close(), drm.close())


class _Ways(NamedTuple):
    """The ways to DRM and CM, and the forms that come from both."""

    forms: FormSource
    archiver: ArchiveClient
    issuer: IssuerClient


def _ways(config: RmConfig, foundation: Foundation, downstream: Downstream, checks: ReceiptChecks) -> _Ways:
    forms = FormSource(
        trust_domain=config.service.trust_domain,
        clock=foundation.clock,
        fetch_profiles=downstream.profiles,
        fetch_transport_keys=lambda: downstream.transport_keys(tree_size=checks.heads.size),
        keys=checks.keys,
        follow=checks.follow,
    )
    archiver = ArchiveClient(
        archive=downstream.archive,
        audit=downstream.audit,
        checks=checks,
        transports=forms,
        max_waiting=config.downstream.max_waiting,
    )
    issuer = IssuerClient(
        issuer=downstream.issuer,
        cosign=downstream.cosign,
        evidence=EvidenceSource(
            links_from=archiver.links_from,
            transport_certificate=forms.transport_certificate,
            transport_keys=downstream.transport_keys,
            trust_changes=archiver.trust_changes,
            newest_change=lambda: archiver.newest_change,
            transport_key_id=lambda: checks.keys.newest_id,
        ),
        max_waiting=config.downstream.max_waiting,
    )
    foundation.meters.add("archive_batches", archiver.batches.stats)
    foundation.meters.add("issue_batches", issuer.batches.stats)
    return _Ways(forms, archiver, issuer)


def _enrollments(
    config: RmConfig,
    foundation: Foundation,
    ways: _Ways,
    outbox: LinkOutbox,
    policy: PolicyEngine,
    checks: ReceiptChecks,
) -> Enrollments:
    return Enrollments(
        trust_domain=config.service.trust_domain,
        store=foundation.store,
        log=foundation.log,
        policy=policy,
        clock=foundation.clock,
        forms=ways.forms,
        archiver=ways.archiver,
        issuer=ways.issuer,
        outbox=outbox,
        accepted_heads=checks.heads,
        queue=ApprovalQueue(
            store=foundation.store,
            log=foundation.log,
            clock=foundation.clock,
            settings=config.approvals,
        ),
        turns=foundation.turns,
        calls=CallTrust(
            trust_domain=config.service.trust_domain, anchors=checks.trust.anchors, revoked=foundation.revoked
        ),
        enrollment_seconds=config.enrollment.seconds,
        known_keys=config.service.load_known_keys(),
        under_way=UnderWay(config.enrollment.max_items_per_caller),
    )


def _approvals(config: RmConfig, enrollments: Enrollments, checks: ReceiptChecks) -> Approvals:
    domain = config.service.trust_domain
    return Approvals(
        enrollments=enrollments,
        queue=enrollments.queue,
        duties=Duties(
            trust_domain=domain,
            separated=config.approvals.separation_of_duties,
            agents=lambda: checks.storage_keys.agents,
        ),
        trust=OfficerTrust(trust_domain=domain, anchors=checks.trust.anchors, revoked=checks.revoked),
        policy=enrollments.policy,
        store=enrollments.store,
        clock=enrollments.clock,
    )


def _services(
    foundation: Foundation, enrollments: Enrollments, approvals: Approvals, head: ArchiveHead
) -> list[ServedService]:
    named = registration_pb2.DESCRIPTOR.services_by_name
    return [
        ServedService(
            descriptor=named["RegistrationService"],
            add=add_RegistrationServiceServicer_to_server,
            servicer=RegistrationServicer(enrollments, foundation.refusals, head),
        ),
        ServedService(
            descriptor=named["RegistrationAdminService"],
            add=add_RegistrationAdminServiceServicer_to_server,
            servicer=RegistrationAdminServicer(foundation.store, approvals),
        ),
    ]
