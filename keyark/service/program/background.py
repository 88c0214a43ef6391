"""What a running service does now and then, beside its calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from keyark.errors import KeyarkError

logger = logging.getLogger(__name__)


@asynccontextmanager
async def repeating(
    action: Callable[[], Awaitable[None]], *, seconds: float, name: str
) -> AsyncIterator[None]:
    """Do something every so many seconds while the context lasts; a typed error is logged and it goes on."""
    task = asyncio.create_task(_repeat(action, seconds, name))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _repeat(action: Callable[[], Awaitable[None]], seconds: float, name: str) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await action()
        except KeyarkError as error:
            logger.warning("%s failed and will be tried again: %s (%s)", name, error.message, error.reason)
