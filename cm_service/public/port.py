"""The CM's HTTP port, put together: lists, CA certificates and OCSP."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cm_service.config import CmConfig, OcspSettings
from cm_service.issuer.generations import EarlierIssuer, suffix
from cm_service.public.crls import AllCrls
from cm_service.public.http import HttpLimits, HttpServer
from cm_service.public.ocsp import AllOcsp, Ocsp
from cm_service.public.ocsp_worker import MAKING_FACTORY, SIGNING_FACTORY, maker_setup, signer_setup
from cm_service.public.responder import Responder
from cm_service.public.web import Pages
from keyark.clock import SECONDS_PER_DAY
from keyark.service.program.assembly import Foundation
from keyark.service.program.background import repeating
from keyark.service.program.pools import open_pool
from keyark.x509.certificates import Validity, load_certificates

logger = logging.getLogger(__name__)

RENEWAL_CHECK_SECONDS: Final = 60.0
OCSP_WAITING: Final = 1024
"""Requests that wait for a worker at most; clients may try again later."""


@dataclass(frozen=True, kw_only=True)
class PublicPort:
    """The port while it is open, and the OCSP behind it, where there is any."""

    port: int
    ocsp: AllOcsp | None

    async def reload(self) -> str:
        """Follow another CA certificate; returns what was done. Raises what ``Ocsp.renew`` raises."""
        if self.ocsp is None:
            return "the HTTP port has nothing to read again"
        await self.ocsp.renew()
        return "OCSP answers for the CA certificate in its file"


@asynccontextmanager
async def serving_http(
    config: CmConfig, foundation: Foundation, crls: AllCrls | None
) -> AsyncIterator[PublicPort | None]:
    """Serve the public documents while the context lasts, where [http] says so.

    Raises ConfigurationError, WorkerStartError and the errors of making a responder.
    """
    if config.http is None:
        yield None
        return
    async with answering_ocsp(config, foundation) as ocsp:
        pages = Pages(
            crls=crls,
            ocsp=ocsp,
            chain=config.issuer.chain,
            clock=foundation.clock,
            max_age=config.http.max_age_seconds,
            chains={issuer.generation: issuer.chain for issuer in config.issuer.all()},
        )
        limits = HttpLimits(connections=config.http.max_connections)
        server = await HttpServer.start(config.http.listen, answer=pages.answer, now=pages.now, limits=limits)
        try:
            yield PublicPort(port=server.port, ocsp=ocsp)
        finally:
            await server.close()


@asynccontextmanager
async def answering_ocsp(config: CmConfig, foundation: Foundation) -> AsyncIterator[AllOcsp | None]:
    """Keep a responder and its workers for each CA key while the context lasts, where [ocsp] is configured."""
    if config.ocsp is None:
        yield None
        return
    async with AsyncExitStack() as stack:
        each = [
            await stack.enter_async_context(_answering(config, config.ocsp, foundation, issuer))
            for issuer in config.issuer.all()
            if not _has_ended(issuer, foundation)
        ]
        ocsp = AllOcsp(each, foundation.clock)
        async with repeating(ocsp.renew, seconds=RENEWAL_CHECK_SECONDS, name="renewing the OCSP responders"):
            yield ocsp


def _has_ended(issuer: EarlierIssuer, foundation: Foundation) -> bool:
    """Whether the certificate of a CA key has ended: no responder can be certified, and all that it signed has ended.

    The CM starts without it, for lists, revocation, and the other keys; the next start takes a new certificate.
    """
    ended = Validity.of(load_certificates(issuer.chain)[0]).not_after < foundation.clock.now_us() // 1_000_000
    if ended:
        logger.warning("%s has ended: there is no OCSP for that CA key", issuer.chain)
    return ended


@asynccontextmanager
async def _answering(
    config: CmConfig, settings: OcspSettings, foundation: Foundation, issuer: EarlierIssuer
) -> AsyncIterator[Ocsp]:
    """Keep the responder of one CA key, and its workers."""
    responder = _responder(config, settings, foundation, issuer)
    await responder.renew_due()
    workers = config.workers.model_copy(update={"count": settings.workers, "max_waiting": OCSP_WAITING})
    async with open_pool(SIGNING_FACTORY, signer_setup(responder.path), workers) as pool:
        foundation.meters.add(f"ocsp{suffix(issuer.generation)}", pool.stats)
        yield Ocsp(
            responder=responder,
            store=foundation.store,
            clock=foundation.clock,
            pool=pool,
            valid=settings.valid_minutes * 60,
            generation=issuer.generation,
        )


def _responder(
    config: CmConfig, settings: OcspSettings, foundation: Foundation, issuer: EarlierIssuer
) -> Responder:
    setup = maker_setup(issuer_key_uri=issuer.key, base=config.service.folder, chain=issuer.chain)
    one = config.workers.model_copy(update={"count": 1})
    return Responder(
        path=responder_path(settings, issuer.generation),
        chain=issuer.chain,
        lifetime=settings.responder_days * SECONDS_PER_DAY,
        store=foundation.store,
        log=foundation.log,
        clock=foundation.clock,
        open_maker=lambda: open_pool(MAKING_FACTORY, setup, one),
    )


def responder_path(settings: OcspSettings, generation: int) -> Path:
    """Return where the responder of a generation of the CA key is."""
    path = settings.responder
    return path.with_name(f"{path.stem}{suffix(generation)}{path.suffix}")
