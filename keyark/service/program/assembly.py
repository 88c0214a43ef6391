"""What every running subsystem is put together from: identity, store, log, refusals, server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from keyark.clock import Clock
from keyark.custody.uris import load_private_key_by_uri
from keyark.files import check_own_folder, check_private_folder
from keyark.identity.bundles import BUNDLE
from keyark.identity.revoked import RevokedIdentities
from keyark.meters import Meters
from keyark.policy.engine import PolicyEngine
from keyark.rpc.calling.renewal import CurrentIdentity
from keyark.rpc.identities import LocalIdentity, PeerReader
from keyark.rpc.serving.audit import AuditServicer, Witness
from keyark.rpc.serving.budgets import Budgets
from keyark.rpc.serving.guard import MAX_MESSAGE
from keyark.rpc.serving.outcomes import Refusals
from keyark.rpc.serving.server import ServedService, Server, build_server
from keyark.service.checks.live_policy import LivePolicy
from keyark.service.control import Command
from keyark.service.program.background import repeating
from keyark.service.program.identity_list import IdentityListFile
from keyark.service.program.served_bundle import METHOD, READERS, DeploymentServicer, ServedBundle
from keyark.service.settings import ServiceConfig, ServiceSettings
from keyark.store import Store, open_store
from keyark.transparency.checkpoint import CheckpointSigner, NoteSigner
from keyark.transparency.log import Log
from keyark.transparency.rejections import RejectionLog
from keyark.v1 import audit_pb2, deployment_pb2
from keyark.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from keyark.v1.deployment_pb2_grpc import add_DeploymentServiceServicer_to_server
from keyark.workers.turns import Turns
from keyark.x509.certificates import load_certificates

FLUSH_SECONDS: Final = 60.0
IDENTITY_SECONDS: Final = 30.0
"""How soon a renewed certificate is presented without a `reload`."""
IDENTITY_LIST_SECONDS: Final = 1.0
"""How soon a new list of revoked identities is in force without a `reload`."""
AUDIT: Final = "/keyark.v1.AuditService"
AUDIT_METHODS: Final = ("GetCheckpoint", "GetConsistencyProof", "GetInclusionProof", "ListEntries")
COSIGN: Final = f"{AUDIT}/CosignCheckpoint"
COSIGN_READERS: Final = frozenset({"auditor", "agent", "client", "officer", "rm"})
"""Who may ask a witness: whoever has to rely on the DRM's log."""


@dataclass(frozen=True, kw_only=True)
class Foundation:
    """An open store with its log, and who we are."""

    identity: CurrentIdentity
    clock: Clock
    store: Store
    log: Log
    refusals: Refusals
    meters: Meters
    identity_list: IdentityListFile
    turns: Turns = field(default_factory=Turns)

    @property
    def revoked(self) -> RevokedIdentities:
        """Whose certificates are not in force any more."""
        return self.identity_list.revoked

    @property
    def reloads(self) -> Sequence[Callable[[], Awaitable[str]]]:
        """What every service reads again at a `reload`."""
        return [self.identity.reload, self.identity_list.reload]

    def now(self) -> int:
        """Seconds UTC."""
        return self.clock.now_us() // 1_000_000


@dataclass(frozen=True, kw_only=True)
class RunningService:
    """A subsystem that takes calls; ``reloads`` are its steps of `reload` after the policy's; each says what it did."""

    server: Server
    policy: LivePolicy
    reloads: Sequence[Callable[[], Awaitable[str]]]
    commands: Mapping[str, Command] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.port

    @property
    def meters(self) -> Meters:
        """What it counts."""
        return self.server.meters

    @property
    def ready_line(self) -> str:
        """What the program prints once it takes calls."""
        return self.server.ready_line

    async def reload(self) -> list[str]:
        """Read again what can be read again and replace all workers; raises what a step raises, and stops there."""
        return [await step() for step in (self.policy.reload, *self.reloads)]


def load_identity(settings: ServiceSettings) -> LocalIdentity:
    """Load the service's own identity; refuses lax permissions and another user's folder."""
    check_own_folder(settings.identity_key.parent)
    return LocalIdentity.load(
        key=settings.identity_key,
        certificate=settings.identity_certificate,
        trust_anchor=settings.trust_anchor,
    )


def load_log_key(role: str, settings: ServiceSettings, uri: str) -> NoteSigner:
    """Load the key that signs the log of a subsystem; raises the errors of ``load_private_key_by_uri``."""
    key = load_private_key_by_uri(uri, settings.folder)
    return NoteSigner.from_private_key(f"{settings.trust_domain}/{role}", key)


@asynccontextmanager
async def open_foundation(
    role: str,
    config: ServiceConfig,
    *,
    tables: Sequence[str],
    schema_version: int,
    signer: CheckpointSigner,
    clock: Clock,
) -> AsyncIterator[Foundation]:
    """Open store and log; they are closed at the end, with all that waits written."""
    identity = CurrentIdentity(
        load_identity(config.service),
        read=partial(load_identity, config.service),
        now=lambda: clock.now_us() // 1_000_000,
    )
    origin = f"{config.service.trust_domain}/{role}"
    log = Log(origin=origin, signer=signer, clock=clock)
    make_store_folder(config.store.path)
    opened = open_store(
        config.store.path,
        tables=tables,
        finisher=log.finisher,
        schema_version=schema_version,
        map_size=config.store.map_size,
    )
    try:
        await log.open(opened)
        meters = Meters(config.store.path)
        meters.add("store", opened.stats)
        identity_list = IdentityListFile(
            config.service.identity_list,
            RevokedIdentities(load_certificates(config.service.trust_anchor)),
            store=opened,
            log=log,
            clock=clock,
        )
        await identity_list.start()
        rejections = RejectionLog(
            log=log, store=opened, clock=clock, quota=config.service.rejections_per_hour
        )
        try:
            async with (
                repeating(rejections.flush, seconds=FLUSH_SECONDS, name="logging counts of refusals"),
                repeating(identity.refresh, seconds=IDENTITY_SECONDS, name="taking a renewed identity"),
                repeating(
                    identity_list.refresh,
                    seconds=IDENTITY_LIST_SECONDS,
                    name="taking the list of revoked identities",
                ),
            ):
                yield Foundation(
                    identity=identity,
                    clock=clock,
                    store=opened,
                    log=log,
                    refusals=Refusals(rejections),
                    meters=meters,
                    identity_list=identity_list,
                )
        finally:
            await rejections.close()
    finally:
        await log.close()
        await opened.close()


def make_store_folder(path: Path) -> None:
    """Refuse a store's folder that another user owns or may open; one that does not exist is made by the store."""
    if path.exists():
        check_private_folder(path)


@asynccontextmanager
async def serve(
    foundation: Foundation,
    *,
    settings: ServiceSettings,
    services: Sequence[ServedService],
    allowed: Mapping[str, set[str]],
    log_readers: Mapping[str, set[str]],
    policy: PolicyEngine,
    witness: Witness | None = None,
    waits_for: Callable[[], str] = str,
) -> AsyncIterator[Server]:
    """Serve until the end, then drain; AuditService comes with every subsystem, for auditors.

    ``log_readers`` names further roles for some of its methods, and ``policy`` says who sees the details of entries. A
    ``witness`` cosigns the DRM's log for clients. ``waits_for`` says why the service stands still until its operator
    acts; an empty text where it does not.
    """
    audit = ServedService(
        descriptor=audit_pb2.DESCRIPTOR.services_by_name["AuditService"],
        add=add_AuditServiceServicer_to_server,
        servicer=AuditServicer(
            foundation.log, foundation.clock, witness, waits_for=waits_for, discloses=policy.discloses
        ),
    )
    bundle = ServedBundle(settings.folder / BUNDLE, lambda: load_certificates(settings.trust_anchor))
    deployment = ServedService(
        descriptor=deployment_pb2.DESCRIPTOR.services_by_name["DeploymentService"],
        add=add_DeploymentServiceServicer_to_server,
        servicer=DeploymentServicer(bundle),
    )
    rows = {
        METHOD: set(READERS),
        **{f"{AUDIT}/{m}": {"auditor", *log_readers.get(m, set())} for m in AUDIT_METHODS},
        COSIGN: set(COSIGN_READERS),
    }
    server = build_server(
        address=settings.listen,
        services=[*services, audit, deployment],
        allow={**allowed, **rows},
        peers=PeerReader(foundation.now, foundation.revoked),
        budgets=Budgets.of(
            max_calls=settings.max_in_flight,
            max_bytes=settings.max_request_mib << 20,
            max_readers=settings.max_request_mib * 2**20 // MAX_MESSAGE,
        ),
        on_rejected=foundation.refusals.record,
        meters=foundation.meters,
        present=lambda: foundation.identity.value,
    )
    await server.start()
    try:
        yield server
    finally:
        await server.drain(settings.drain_seconds)
