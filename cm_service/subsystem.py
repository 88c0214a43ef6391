"""The running CM, put together from its configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cm_service.certificate_index import complete_index
from cm_service.config import CmConfig
from cm_service.issuance import Issuance
from cm_service.records import SCHEMA_VERSION, TABLES
from cm_service.revocation import Revocations
from cm_service.servicer import (
    ALLOWED,
    CertificateAdminServicer,
    CertificateServicer,
    CertificateStatusServicer,
)
from cm_service.signing_worker import FACTORY, worker_setup
from keyark.clock import Clock, SystemClock
from keyark.pki.certificates import Validity, encode_certificate, load_certificates
from keyark.policy.config import build_engine
from keyark.rpc.server import ServedService
from keyark.service.assembly import Foundation, RunningService, load_log_key, open_foundation, serve
from keyark.service.evidence import open_receipt_checks
from keyark.service.pools import open_pool
from keyark.v1 import certificates_pb2
from keyark.v1.certificates_pb2_grpc import (
    add_CertificateAdminServiceServicer_to_server,
    add_CertificateServiceServicer_to_server,
    add_CertificateStatusServiceServicer_to_server,
)
from keyark.workers.pool import WorkerPool


@asynccontextmanager
async def run(config: CmConfig, clock: Clock | None = None) -> AsyncIterator[RunningService]:
    """Run the CM until the end of the context, then drain it.

    Raises ConfigurationError and the errors of the store, the log and the workers where it cannot start.
    """
    clock = clock or SystemClock()
    setup = worker_setup(
        issuer_key_uri=config.issuer.key,
        base=config.service.folder,
        chain=config.issuer.chain,
        profiles=config.profiles,
    )
    opening = open_foundation(
        "cm",
        config,
        tables=TABLES,
        schema_version=SCHEMA_VERSION,
        signer=load_log_key("cm", config.service, config.log.key),
        clock=clock,
    )
    async with opening as foundation, open_pool(FACTORY, setup, config.workers) as pool:
        foundation.meters.add("workers", pool.stats)
        await complete_index(foundation.store)
        issuance = _issuance(config, foundation, pool)

        async def replace_workers() -> str:
            await pool.reconfigure(setup)
            return "all signing workers were replaced"

        async with serve(
            foundation,
            settings=config.service,
            services=_services(foundation, issuance),
            allowed=ALLOWED,
            log_readers=set(),
        ) as server:
            yield RunningService(server=server, reloads=[replace_workers])


def _issuance(config: CmConfig, foundation: Foundation, pool: WorkerPool) -> Issuance:
    store, log, clock = foundation.store, foundation.log, foundation.clock
    chain = load_certificates(config.issuer.chain)
    return Issuance(
        trust_domain=config.service.trust_domain,
        chain=[encode_certificate(certificate) for certificate in chain],
        issuer_validity=Validity.of(chain[0]),
        profiles=config.profiles,
        store=store,
        log=log,
        policy=build_engine("cm", config.policy),
        clock=clock,
        receipts=open_receipt_checks(config.service, config.archive, store=store, log=log, clock=clock),
        pool=pool,
    )


def _services(foundation: Foundation, issuance: Issuance) -> list[ServedService]:
    revocations = Revocations(
        trust_domain=issuance.trust_domain,
        store=foundation.store,
        log=foundation.log,
        clock=foundation.clock,
    )
    named = certificates_pb2.DESCRIPTOR.services_by_name
    return [
        ServedService(
            descriptor=named["CertificateService"],
            add=add_CertificateServiceServicer_to_server,
            servicer=CertificateServicer(issuance, foundation.refusals),
        ),
        ServedService(
            descriptor=named["CertificateStatusService"],
            add=add_CertificateStatusServiceServicer_to_server,
            servicer=CertificateStatusServicer(
                store=foundation.store, clock=foundation.clock, revocations=revocations
            ),
        ),
        ServedService(
            descriptor=named["CertificateAdminService"],
            add=add_CertificateAdminServiceServicer_to_server,
            servicer=CertificateAdminServicer(
                store=foundation.store, clock=foundation.clock, revocations=revocations
            ),
        ),
    ]
