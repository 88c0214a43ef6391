"""A worker process for one piece of work: it is ended afterwards, and its memory with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from keyark.workers.process import Worker


@asynccontextmanager
async def disposable_worker(factory: str, setup: bytes) -> AsyncIterator[Worker]:
    """Start a worker and end it with the context, whatever happened; raises WorkerStartError."""
    worker = await Worker.start(factory, setup)
    try:
        yield worker
    finally:
        await worker.kill()
