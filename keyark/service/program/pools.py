"""A worker pool as a service's configuration sets it up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from keyark.service.settings import WorkerSettings
from keyark.workers.pool import WorkerPool


@asynccontextmanager
async def open_pool(factory: str, setup: bytes, settings: WorkerSettings) -> AsyncIterator[WorkerPool]:
    """Start the workers; at the end they work what waits and stop. Raises WorkerStartError."""
    pool = WorkerPool(
        factory,
        setup,
        workers=settings.count,
        batch_seconds=settings.batch_seconds,
        max_batch=settings.max_batch,
        max_waiting=settings.max_waiting,
        recycle_after=settings.recycle_after,
    )
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()
