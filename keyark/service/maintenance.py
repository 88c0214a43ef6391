"""`check` and `backup` of every service: what can be said of it while it does not run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from keyark.service.assembly import load_identity, make_store_folder
from keyark.service.settings import ServiceConfig
from keyark.store import ReadTransaction, open_store
from keyark.transparency.integrity import verify_stored_log


def nothing_more(_: ReadTransaction) -> list[str]:
    """The check of rows for a service whose rows the log does not stand for one by one."""
    return []


def check(
    role: str,
    config: ServiceConfig,
    *,
    tables: Sequence[str],
    schema_version: int,
    check_rows: Callable[[ReadTransaction], list[str]] = nothing_more,
) -> list[str]:
    """Check identity, permissions, store and the whole log; returns what to print, raises what is wrong.

    The service must be stopped: a store is open in one process at a time.
    """
    identity = load_identity(config.service)
    make_store_folder(config.store.path)

    async def verify() -> str:
        store = open_store(config.store.path, tables=tables, schema_version=schema_version)
        try:
            counts = await store.check()
            head = await verify_stored_log(store)
            lines = await store.view(check_rows)
        finally:
            await store.close()
        rows = ", ".join(f"{name} {count}" for name, count in counts.items())
        tree = f"log: {head.size} entries make the tree {head.root.hex()}"
        return "\n".join([*lines, f"store: {rows}", tree])

    return [f"identity: {identity.spiffe_id}", asyncio.run(verify()), f"{role} is fit to run"]


def backup(config: ServiceConfig, target: Path, *, tables: Sequence[str], schema_version: int) -> None:
    """Write a consistent copy of the store, and beside it what opens the tokens in it: no other key.

    Raises StoreError.
    """

    async def copy() -> None:
        store = open_store(config.store.path, tables=tables, schema_version=schema_version)
        try:
            await store.backup(target)
        finally:
            await store.close()

    asyncio.run(copy())
