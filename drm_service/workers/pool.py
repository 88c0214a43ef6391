"""The archival workers of a running DRM, and what they know of keys."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drm_service.workers.key_worker import worker_setup
from keyark.errors import KeyarkError
from keyark.workers.pool import WorkerPool


@dataclass(kw_only=True)
class ArchiveWorkers:
    """Gives the workers other keys without a stop: each is replaced after the batch that it works."""

    pool: WorkerPool = field(repr=False)
    base: Path
    transport_key_uris: Sequence[str]
    storage_public_keys: Sequence[bytes]
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    async def take_storage_keys(self, storage_public_keys: Sequence[bytes]) -> None:
        """Let every worker seal under these storage keys; raises WorkerStartError, after which one may call again."""
        self.storage_public_keys = list(storage_public_keys)
        await self.replace()

    async def take_transport_keys(self, transport_key_uris: Sequence[str]) -> None:
        """Let every worker open envelopes with these keys only; raises WorkerStartError, and nothing changed."""
        before, self.transport_key_uris = self.transport_key_uris, list(transport_key_uris)
        try:
            await self.replace()
        except KeyarkError:
            self.transport_key_uris = before
            raise

    async def recycle(self) -> str:
        """Replace every worker, and say so; raises WorkerStartError."""
        await self.replace()
        return "all archival workers were replaced"

    async def replace(self) -> None:
        """Replace every worker, and so forget what its memory holds; raises WorkerStartError."""
        async with self._turn:
            await self.pool.reconfigure(
                worker_setup(
                    transport_key_uris=self.transport_key_uris,
                    base=self.base,
                    storage_public_keys=self.storage_public_keys,
                )
            )
