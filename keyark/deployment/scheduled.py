"""Renews services and rotates the transport key on schedule, where the internal CA's key is on the same machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from keyark.clock import SECONDS_PER_DAY
from keyark.deployment.access.identities import IdentityRenewal
from keyark.deployment.transport import TransportKeyRotation
from keyark.errors import KeyarkError
from keyark.identity.spiffe import SERVICE_ROLES
from keyark.service.program.background import repeating

HOUR: Final = 3600.0


@asynccontextmanager
async def renewing_services(
    renewal: IdentityRenewal, *, within: int, say: Callable[[str], None], every: float = SECONDS_PER_DAY
) -> AsyncIterator[None]:
    """Renew services whose certificates end within so many seconds: now, and again while the context lasts.

    ``say`` is told of each, and of what could not be renewed, which does not end anything; ``every`` is in seconds.
    """

    def renew() -> list[str]:
        due = [name for name in renewal.due(within) if name in SERVICE_ROLES]
        return [f"{one.name} renewed; {one.note}" for one in renewal.renew(due)]

    async def renew_and_say() -> None:
        try:
            lines = await asyncio.to_thread(renew)
        except KeyarkError as error:
            lines = [f"renewing services failed and will be tried again: {error.message}"]
        for line in lines:
            say(line)

    await renew_and_say()
    async with repeating(renew_and_say, seconds=every, name="renewing services"):
        yield


@asynccontextmanager
async def rotating_transport_keys(
    rotation: TransportKeyRotation, *, say: Callable[[str], None], every: float = HOUR
) -> AsyncIterator[None]:
    """Rotate the transport key when its certificate is due: looked at now, and again while the context lasts.

    ``say`` is told what was done and what failed, which ends nothing; ``every`` is in seconds.
    """

    async def rotate_or_renew_when_due() -> None:
        try:
            lines = await asyncio.to_thread(rotation.rotate_or_renew_when_due)
        except KeyarkError as error:
            lines = [f"rotating the transport key failed and will be tried again: {error.message}"]
        for line in lines:
            say(line)

    await rotate_or_renew_when_due()
    async with repeating(rotate_or_renew_when_due, seconds=every, name="rotating the transport key"):
        yield
