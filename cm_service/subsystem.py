"""The running CM, put together from its configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from cm_service.certificates.expiry_notices import ExpiryNotices
from cm_service.certificates.index import complete_index
from cm_service.config import CmConfig
from cm_service.crl_settings import CrlSettings, list_urls, sharded_profiles
from cm_service.issuance.serial_blocks import SerialBlocks
from cm_service.issuance.signing_worker import FACTORY, worker_setup
from cm_service.issuance.steps import Issuance
from cm_service.issuer.generations import EarlierIssuer, IssuerRegister, for_issuer
from cm_service.public import crl_worker
from cm_service.public.crls import AllCrls, Crls
from cm_service.public.port import serving_http
from cm_service.records import SCHEMA_VERSION, TABLES, has_issued
from cm_service.revocation.steps import Revocations
from cm_service.rollover import ISSUED
from cm_service.servicer import (
    ALLOWED,
    CertificateAdminServicer,
    CertificateServicer,
    CertificateStatusServicer,
)
from keyark.clock import Clock, SystemClock
from keyark.keys.key_types import key_type_of
from keyark.policy.engine import PolicyEngine
from keyark.rpc.serving.server import ServedService
from keyark.service.checks.callers import open_caller_checks
from keyark.service.checks.evidence import open_receipt_checks
from keyark.service.checks.live_policy import open_policy
from keyark.service.program.assembly import Foundation, RunningService, load_log_key, open_foundation, serve
from keyark.service.program.background import repeating
from keyark.service.program.pools import open_pool
from keyark.service.witness.witness import Witness
from keyark.store import Store
from keyark.transparency.cosignatures import Cosigner
from keyark.v1 import certificates_pb2
from keyark.v1.certificates_pb2_grpc import (
    add_CertificateAdminServiceServicer_to_server,
    add_CertificateServiceServicer_to_server,
    add_CertificateStatusServiceServicer_to_server,
)
from keyark.workers.pool import WorkerPool
from keyark.x509.certificates import Validity, encode_certificate, load_certificates
from keyark.x509.chains import path_in_force


@dataclass(frozen=True, kw_only=True)
class RunningCm(RunningService):
    """A CM that takes calls; ``http_port`` is where it serves plain HTTP, where it does."""

    http_port: int | None

    @property
    def ready_line(self) -> str:
        """What the program prints once it takes calls."""
        http = f"; http at port {self.http_port}" if self.http_port else ""
        return super().ready_line + http


CRL_CHECK_SECONDS: Final = 5.0
CRL_SECONDS: Final = 300.0
"""How long a worker may take to sign one list."""


@asynccontextmanager
async def run(config: CmConfig, clock: Clock | None = None) -> AsyncIterator[RunningCm]:
    """Run the CM until the end of the context, then drain it.

    Raises ConfigurationError and the errors of the store, the log and the workers where it cannot start.
    """
    clock = clock or SystemClock()
    setup = signing_setup(config)
    signer = load_log_key("cm", config.service, config.log.key)
    opening = open_foundation(
        "cm",
        config,
        tables=TABLES,
        schema_version=SCHEMA_VERSION,
        signer=signer,
        clock=clock,
    )
    async with opening as foundation, open_pool(FACTORY, setup, config.workers) as pool:
        foundation.meters.add("workers", pool.stats)
        await complete_index(foundation.store)
        register = IssuerRegister(store=foundation.store, log=foundation.log, clock=clock)
        await register.record(config.issuer)
        policy = await open_policy("cm", config, store=foundation.store, log=foundation.log, clock=clock)
        issuance = _issuance(config, foundation, pool, policy.engine)
        crls = _crls(config, foundation)

        async def replace_workers() -> str:
            await pool.reconfigure(setup)
            return "all signing workers were replaced"

        async with (
            publishing(crls),
            announcing(config, foundation),
            serve(
                foundation,
                settings=config.service,
                services=_services(foundation, issuance, crls),
                allowed=ALLOWED,
                log_readers={},
                policy=policy.engine,
                witness=Witness(checks=issuance.receipts, cosigner=Cosigner(signer.origin, signer.key)),
            ) as server,
            serving_http(config, foundation, crls) as http,
        ):
            yield RunningCm(
                server=server,
                policy=policy,
                reloads=[
                    *foundation.reloads,
                    replace_workers,
                    *([http.reload] if http else []),
                ],
                http_port=http.port if http else None,
                commands={ISSUED: partial(_tell_issued, foundation.store)},
            )


def signing_setup(config: CmConfig) -> bytes:
    """Return the set-up of the workers that sign certificates. Raises ConfigurationError where URLs do not fit."""
    shards = config.crl.shards if config.crl else 1
    profiles = sharded_profiles(for_issuer(config.profiles, config.issuer.generation), shards)
    return worker_setup(
        issuer_key_uri=config.issuer.key,
        base=config.service.folder,
        chain=config.issuer.chain,
        profiles={name: profile.content for name, profile in profiles.items()},
    )


async def _tell_issued(store: Store, _: Sequence[str]) -> bool:
    return store.read(has_issued)


def _issuance(config: CmConfig, foundation: Foundation, pool: WorkerPool, policy: PolicyEngine) -> Issuance:
    store, log, clock = foundation.store, foundation.log, foundation.clock
    chain = path_in_force(load_certificates(config.issuer.chain))
    crl_shards = config.crl.shards if config.crl else 1
    return Issuance(
        trust_domain=config.service.trust_domain,
        chain=[encode_certificate(certificate) for certificate in chain],
        issuer_validity=Validity.of(chain[0]),
        issuer_key_type=key_type_of(chain[0].public_key()).value,
        profiles=config.profiles,
        store=store,
        log=log,
        policy=policy,
        clock=clock,
        receipts=open_receipt_checks(
            config.service,
            config.archive,
            revoked=foundation.revoked,
            store=store,
            log=log,
            clock=clock,
            turns=foundation.turns,
        ),
        callers=open_caller_checks(config.service, config.callers, revoked=foundation.revoked, clock=clock),
        pool=pool,
        known_keys=config.service.load_known_keys(),
        turns=foundation.turns,
        serials=SerialBlocks(store=store, log=log, clock=clock, crl_shards=crl_shards),
        crl_shards=crl_shards,
        generation=config.issuer.generation,
        chains=config.issuer.chains(),
    )


def _crls(config: CmConfig, foundation: Foundation) -> AllCrls | None:
    """Return what publishes lists, where they are configured; their workers run only while it does."""
    if config.crl is None:
        return None
    return AllCrls([_crls_of(config, config.crl, foundation, issuer) for issuer in config.issuer.all()])


def _crls_of(config: CmConfig, settings: CrlSettings, foundation: Foundation, issuer: EarlierIssuer) -> Crls:
    setup = crl_worker.worker_setup(issuer_key_uri=issuer.key, base=config.service.folder, chain=issuer.chain)
    workers = config.workers.model_copy(update={"count": 1, "batch_seconds": CRL_SECONDS})
    return Crls(
        settings=settings,
        urls=list_urls(for_issuer(config.profiles, issuer.generation), settings),
        store=foundation.store,
        clock=foundation.clock,
        open_pool=lambda: open_pool(crl_worker.FACTORY, setup, workers),
        generation=issuer.generation,
    )


@asynccontextmanager
async def publishing(crls: AllCrls | None) -> AsyncIterator[None]:
    """Publish what is due, now and then, while the context lasts."""
    if crls is None:
        yield
        return
    async with repeating(crls.publish_due, seconds=CRL_CHECK_SECONDS, name="publishing CRLs"):
        yield


@asynccontextmanager
async def announcing(config: CmConfig, foundation: Foundation) -> AsyncIterator[None]:
    """Announce certificates that expire, where that is configured, while the context lasts."""
    if config.expiry_notices is None:
        yield
        return
    settings = config.expiry_notices
    notices = ExpiryNotices(settings=settings, store=foundation.store, clock=foundation.clock)
    async with repeating(notices.announce_due, seconds=settings.every_hours * 3600, name="expiry notices"):
        yield


def _services(foundation: Foundation, issuance: Issuance, crls: AllCrls | None) -> list[ServedService]:
    revocations = Revocations(
        trust_domain=issuance.trust_domain,
        store=foundation.store,
        log=foundation.log,
        clock=foundation.clock,
        policy=issuance.policy,
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
                store=foundation.store, clock=foundation.clock, revocations=revocations, crls=crls
            ),
        ),
    ]
