"""The running DRM, put together from its configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from drm_service import servicer
from drm_service.archival.linking import CertificateLinks, IssuingCas
from drm_service.archival.steps import KeyArchive
from drm_service.ceremonies import servicer as recovery_servicer
from drm_service.ceremonies.assembly import build_ceremonies
from drm_service.ceremonies.key_states import KeyStates
from drm_service.ceremonies.recovery import RecoveredKeyDelivery
from drm_service.ceremonies.servicer import KeyRecoveryServicer
from drm_service.ceremonies.steps import Ceremonies
from drm_service.ceremonies.views import CeremonyViews
from drm_service.config import DrmConfig
from drm_service.keys.storage_keys import StorageKeys, read_tokens
from drm_service.records import SCHEMA_VERSION, TABLES
from drm_service.servicer import KeyArchiveServicer, TransportKeyServicer
from drm_service.transport.commands import transport_key_command
from drm_service.transport.files import TransportFiles
from drm_service.transport.keys import TransportKeys
from drm_service.transport.restored import describe_mark, log_first_start_after_restore
from drm_service.workers.key_worker import FACTORY, worker_setup
from drm_service.workers.pool import ArchiveWorkers
from keyark.clock import Clock, SystemClock
from keyark.identity.revoked import NOBODY_REVOKED
from keyark.rpc.serving.server import ServedService
from keyark.service.checks.callers import open_caller_checks
from keyark.service.checks.live_policy import open_policy
from keyark.service.program.assembly import AUDIT_METHODS, Foundation, RunningService, open_foundation, serve
from keyark.service.program.background import repeating
from keyark.service.program.pools import open_pool
from keyark.statements.approvals import OfficerTrust
from keyark.transparency.succession import SuccessionSigner
from keyark.v1 import archive_pb2, recovery_pb2
from keyark.v1.archive_pb2_grpc import (
    add_KeyArchiveServiceServicer_to_server,
    add_TransportKeyServiceServicer_to_server,
)
from keyark.v1.recovery_pb2_grpc import add_KeyRecoveryServiceServicer_to_server
from keyark.x509.certificates import load_certificates

EXPIRY_SECONDS: Final = 30.0
RETIRING_SECONDS: Final = 3600.0
LOG_READERS: Final = {
    **{method: {"rm", "cm"} for method in AUDIT_METHODS},
    "GetConsistencyProof": {"rm", "cm", "agent"},
}
"""RM and CM follow the log; agents bring them up to date before they release a share."""


@asynccontextmanager
async def run(config: DrmConfig, clock: Clock | None = None) -> AsyncIterator[RunningService]:
    """Run the DRM until the end of the context, then drain it.

    Raises ConfigurationError and the errors of the store, the log and the workers where it cannot start.
    """
    clock = clock or SystemClock()
    signer = SuccessionSigner()
    issuers = IssuingCas.load(config.certificates.issuers)
    async with AsyncExitStack() as stack:
        opening = open_foundation(
            "drm",
            config,
            tables=TABLES,
            schema_version=SCHEMA_VERSION,
            signer=signer,
            clock=clock,
        )
        foundation = await stack.enter_async_context(opening)
        policy = await open_policy("drm", config, store=foundation.store, log=foundation.log, clock=clock)
        transport_keys = TransportKeys(
            files=TransportFiles.of(config),
            store=foundation.store,
            log=foundation.log,
            clock=clock,
            signer=signer,
            origin=foundation.log.origin,
        )
        await log_first_start_after_restore(
            foundation.store, foundation.log, TransportFiles.of(config), clock
        )
        transport_keys.begin()
        await transport_keys.finish_handover()
        storage_keys = StorageKeys(foundation.store.read(read_tokens))
        setup = worker_setup(
            transport_key_uris=transport_keys.key_uris,
            base=config.service.folder,
            storage_public_keys=storage_keys.public_keys,
        )
        pool = await stack.enter_async_context(open_pool(FACTORY, setup, config.workers))
        foundation.meters.add("workers", pool.stats)
        workers = ArchiveWorkers(
            pool=pool,
            base=config.service.folder,
            transport_key_uris=transport_keys.key_uris,
            storage_public_keys=storage_keys.public_keys,
        )
        transport_keys.workers = workers
        await stack.enter_async_context(
            repeating(transport_keys.retire_ended, seconds=RETIRING_SECONDS, name="retiring transport keys")
        )
        archive = KeyArchive(
            trust_domain=config.service.trust_domain,
            storage_keys=storage_keys,
            store=foundation.store,
            log=foundation.log,
            policy=policy.engine,
            clock=clock,
            callers=open_caller_checks(
                config.service, config.callers, revoked=foundation.revoked, clock=clock
            ),
            waived_profiles=config.callers.waived_profiles,
            pool=pool,
            turns=foundation.turns,
            known_keys=config.service.load_known_keys(),
        )
        officers = OfficerTrust(
            trust_domain=config.service.trust_domain,
            anchors=load_certificates(config.service.trust_anchor),
            revoked=NOBODY_REVOKED,  # the CM took the approval, and the key of what it issued must stay recoverable
        )
        links = CertificateLinks(
            issuers=issuers,
            officers=officers,
            store=foundation.store,
            log=foundation.log,
            clock=clock,
            turns=foundation.turns,
        )
        ceremonies = build_ceremonies(
            config, foundation, policy=policy.engine, storage_keys=storage_keys, workers=workers
        )
        stack.push_async_callback(ceremonies.close)
        await ceremonies.leave_former_agents()
        await ceremonies.reopen_all("the archive was restarted")
        await stack.enter_async_context(
            repeating(ceremonies.expire, seconds=EXPIRY_SECONDS, name="ending ceremonies whose time ran out")
        )
        services = [
            _archive_service(foundation, archive, links, transport_keys),
            ServedService(
                descriptor=archive_pb2.DESCRIPTOR.services_by_name["TransportKeyService"],
                add=add_TransportKeyServiceServicer_to_server,
                servicer=TransportKeyServicer(transport_keys),
            ),
            _recovery_service(foundation, ceremonies),
        ]
        server = await stack.enter_async_context(
            serve(
                foundation,
                settings=config.service,
                services=services,
                allowed={**servicer.ALLOWED, **recovery_servicer.ALLOWED},
                log_readers=LOG_READERS,
                policy=policy.engine,
                waits_for=lambda: foundation.store.read(describe_mark),
            )
        )
        yield RunningService(
            server=server,
            policy=policy,
            reloads=[
                *foundation.reloads,
                issuers.reload,
                transport_keys.reload,
                workers.recycle,
            ],
            commands={"transport-key": partial(transport_key_command, transport_keys)},
        )


def _archive_service(
    foundation: Foundation, archive: KeyArchive, links: CertificateLinks, transport_keys: TransportKeys
) -> ServedService:
    return ServedService(
        descriptor=archive_pb2.DESCRIPTOR.services_by_name["KeyArchiveService"],
        add=add_KeyArchiveServiceServicer_to_server,
        servicer=KeyArchiveServicer(
            archive=archive,
            links=links,
            transport_keys=transport_keys,
            refusals=foundation.refusals,
            store=foundation.store,
            log=foundation.log,
        ),
    )


def _recovery_service(foundation: Foundation, ceremonies: Ceremonies) -> ServedService:
    store, log, clock = foundation.store, foundation.log, foundation.clock
    return ServedService(
        descriptor=recovery_pb2.DESCRIPTOR.services_by_name["KeyRecoveryService"],
        add=add_KeyRecoveryServiceServicer_to_server,
        servicer=KeyRecoveryServicer(
            store=store,
            key_states=KeyStates(store=store, log=log, clock=clock),
            ceremonies=ceremonies,
            views=CeremonyViews(
                store=store,
                log=log,
                quorum_rule=ceremonies.settings.quorum_rule,
                is_running=ceremonies.is_running,
            ),
            delivery=RecoveredKeyDelivery(store=store, log=log, clock=clock),
        ),
        admission=recovery_servicer.admission(store),
    )
