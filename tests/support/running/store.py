"""Commit groups whose members a test chooses, for either store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from keyark.store import MemoryStore, Store, WriteTransaction


async def one_group(store: Store, *updates: Callable[[WriteTransaction], Any]) -> list[Any]:
    """Commit these updates in one group; returns results and exceptions in their order."""
    if isinstance(store, MemoryStore):
        return await asyncio.gather(*map(store.update, updates), return_exceptions=True)
    async with held(store):
        tasks = [asyncio.create_task(store.update(update)) for update in updates]
        await asyncio.sleep(0)
    return await asyncio.gather(*tasks, return_exceptions=True)


class held:  # noqa: N801 — reads as a context
    """Keep the writer thread of a durable store busy, so that what comes now waits and is one group."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._begun, self._ended = threading.Event(), threading.Event()

    def _hold(self, txn: WriteTransaction) -> None:
        self._begun.set()
        self._ended.wait()

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._store.update(self._hold))
        await asyncio.to_thread(self._begun.wait)

    async def __aexit__(self, *exception: object) -> None:
        self._ended.set()
        await self._task
