"""Tells a command of the operator's, for mail or a ticket, which certificates expire soon: never twice for one event.

An event is a certificate and one of the configured numbers of days. It is marked durably before the command is run, so
that no crash sends two notices; a command that fails is logged, and `keyark certificates expiring` still shows the
certificate. One for which its owner has a newer one is not announced.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import Field

from cm_service.certificates.search import search
from cm_service.records import EXPIRY_NOTICES
from keyark.clock import SECONDS_PER_DAY, Clock
from keyark.config import Config
from keyark.programs import WORKING_FOLDER, without_python_settings
from keyark.service.paging import page_of
from keyark.store import Store, WriteTransaction
from keyark.v1.certificates_pb2 import Certificate, CertificateFilter, CertificateState, KeyRole
from keyark.v1.common_pb2 import PageRequest

PAGE: Final = 200
VALID: Final = CertificateState.CERTIFICATE_STATE_VALID

logger = logging.getLogger(__name__)


class ExpirySettings(Config):
    """[expiry_notices]: the command and its arguments, how many days before the expiry, and how often to look."""

    command: Annotated[list[str], Field(min_length=1)]
    days: Annotated[list[Annotated[int, Field(ge=1, le=3650)]], Field(min_length=1)] = [30, 7]
    every_hours: Annotated[float, Field(gt=0, le=168)] = 6
    seconds: Annotated[float, Field(gt=0, le=600)] = 30


@dataclass(frozen=True, kw_only=True)
class ExpiryNotices:
    """Announces certificates that expire."""

    settings: ExpirySettings
    store: Store
    clock: Clock

    async def announce_due(self) -> None:
        """Announce every certificate in force that comes close enough to its end, the closest limit only."""
        now = self._now()
        async for certificate in self._matching(
            CertificateFilter(state=VALID, expires_until=now + max(self.settings.days) * SECONDS_PER_DAY)
        ):
            left = certificate.not_after - now
            days = min(day for day in self.settings.days if left <= day * SECONDS_PER_DAY)
            if await self._has_successor(certificate) or not await self._mark(certificate, days):
                continue
            await self._run(certificate, days)

    def _now(self) -> int:
        return self.clock.now_us() // 1_000_000

    async def _matching(self, wanted: CertificateFilter) -> AsyncIterator[Certificate]:
        token = ""
        while True:
            page = page_of(PageRequest(page_size=PAGE, page_token=token), query=wanted)
            found = await self.store.view(lambda txn, page=page: search(txn, wanted, page, self._now()))  # type: ignore[misc]
            for certificate in found.certificates:
                yield certificate
            token = found.next_token
            if not token:
                return

    async def _has_successor(self, certificate: Certificate) -> bool:
        """Whether the same address has a later certificate of this profile and role, in force."""
        wanted = CertificateFilter(
            email=certificate.email,
            profile=certificate.profile,
            state=VALID,
            expires_from=certificate.not_after + 1,
        )
        async for other in self._matching(wanted):
            if other.role == certificate.role:
                return True
        return False

    async def _mark(self, certificate: Certificate, days: int) -> bool:
        """Mark the event; says whether it is new. A closer limit makes all wider ones old."""
        passed = [day for day in self.settings.days if day >= days]
        when = self.clock.now_us().to_bytes(8, "big")

        def write(txn: WriteTransaction) -> bool:
            if txn.get(EXPIRY_NOTICES, _key(certificate, days)) is not None:
                return False
            for day in passed:
                txn.put(EXPIRY_NOTICES, _key(certificate, day), when)
            return True

        return await self.store.update(write)

    async def _run(self, certificate: Certificate, days: int) -> None:
        """Run the command with the certificate as JSON on its input; what goes wrong is logged."""
        notice = json.dumps(_describe(certificate, days)).encode()
        try:
            done = await asyncio.to_thread(
                subprocess.run,
                self.settings.command,
                input=notice,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=self.settings.seconds,
                cwd=WORKING_FOLDER,
                env=without_python_settings(),
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            outcome = type(error).__name__
        else:
            outcome = f"exit code {done.returncode}" if done.returncode else ""
        if outcome:
            logger.error("the expiry notice of certificate %s failed (%s)", certificate.serial.hex(), outcome)


def _key(certificate: Certificate, days: int) -> bytes:
    return certificate.serial + days.to_bytes(2, "big")


def _describe(certificate: Certificate, days: int) -> dict[str, Any]:
    return {
        "serial": certificate.serial.hex(),
        "role": KeyRole.Name(certificate.role).removeprefix("KEY_ROLE_").lower(),
        "common_name": certificate.common_name,
        "email": certificate.email,
        "profile": certificate.profile,
        "not_after": datetime.fromtimestamp(certificate.not_after, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "days": days,
    }
