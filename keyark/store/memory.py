"""A store in memory for tests, with the semantics of the durable one.

It runs every function twice, the first time undone, so that a function with an effect outside its transaction shows.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from keyark.store.interface import (
    Finisher,
    KeyExistsError,
    ReadTransaction,
    StoreClosedError,
    StoreError,
    StoreStats,
    WriteTransaction,
)

T = TypeVar("T")
Tables = dict[str, dict[bytes, bytes]]


class _Transaction:
    """Reads and writes a private copy of the tables."""

    def __init__(self, tables: Tables) -> None:
        self.tables = {name: dict(rows) for name, rows in tables.items()}
        self.emitted: list[object] = []

    def _rows(self, table: str) -> dict[bytes, bytes]:
        if table not in self.tables:
            raise StoreError(f"There is no table {table!r}.")
        return self.tables[table]

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._rows(table).get(key)

    def scan(
        self, table: str, *, prefix: bytes = b"", after: bytes | None = None, limit: int
    ) -> list[tuple[bytes, bytes]]:
        rows = self._rows(table)
        keys = sorted(rows)
        start = (
            bisect_left(keys, prefix)
            if after is None
            else max(bisect_right(keys, after), bisect_left(keys, prefix))
        )
        found = [key for key in keys[start:] if key.startswith(prefix)]
        return [(key, rows[key]) for key in found[:limit]]

    def last(self, table: str) -> tuple[bytes, bytes] | None:
        rows = self._rows(table)
        return (key := max(rows), rows[key]) if rows else None

    def count(self, table: str) -> int:
        return len(self._rows(table))

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._rows(table)[key] = value

    def insert(self, table: str, key: bytes, value: bytes) -> None:
        if key in self._rows(table):
            raise KeyExistsError(f"The key exists in table {table!r}.")
        self.put(table, key, value)

    def delete(self, table: str, key: bytes) -> bool:
        return self._rows(table).pop(key, None) is not None

    def emit(self, item: object) -> None:
        self.emitted.append(item)


class MemoryStore:
    """Keeps tables in dictionaries; updates that wait at the same time are one commit group."""

    def __init__(self, *, tables: Sequence[str], finisher: Finisher | None = None) -> None:
        self.stats = StoreStats()
        self._tables: Tables = {name: {} for name in tables}
        self._finisher = finisher
        self._waiting: list[tuple[Callable[[WriteTransaction], Any], asyncio.Future[Any]]] = []
        self._closed = False

    def get(self, table: str, key: bytes) -> bytes | None:
        return self.read(lambda txn: txn.get(table, key))

    def read(self, fn: Callable[[ReadTransaction], T]) -> T:
        return fn(_Transaction(self._tables))

    async def view(self, fn: Callable[[ReadTransaction], T]) -> T:
        return self.read(fn)

    async def update(self, fn: Callable[[WriteTransaction], T]) -> T:
        if self._closed:
            raise StoreClosedError("The store is closed.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._commit_group)
        self._waiting.append((fn, future))
        return await asyncio.shield(future)

    def _commit_group(self) -> None:
        group, self._waiting = self._waiting, []
        tables: Tables = self._tables
        emitted: list[object] = []
        results: list[tuple[asyncio.Future[Any], Any, Exception | None]] = []
        for fn, future in group:
            try:
                fn(_Transaction(tables))  # undone
                txn = _Transaction(tables)
                result = fn(txn)
            except Exception as error:
                results.append((future, None, error))
                continue
            tables, emitted = txn.tables, [*emitted, *txn.emitted]
            results.append((future, result, None))
        failure: Exception | None = None
        try:
            tables = self._finish(tables, emitted)
            self.commit(tables)
        except Exception as error:
            failure = error
        self.stats.updates += len(group)
        for future, outcome, raised in results:
            _settle(future, outcome, raised or failure)

    def _finish(self, tables: Tables, emitted: Sequence[object]) -> Tables:
        if self._finisher is None or not emitted:
            return tables
        self._finisher(_Transaction(tables), emitted)  # undone
        txn = _Transaction(tables)
        self._finisher(txn, emitted)
        return txn.tables

    def commit(self, tables: Tables) -> None:
        """Make a group's tables the committed ones; a test overrides it to let a commit fail."""
        self._tables = tables
        self.stats.commits += 1

    async def backup(self, target: Path) -> None:
        raise StoreError(f"A store in memory has nothing to copy to {target}.")

    async def close(self) -> None:
        self._closed = True
        if self._waiting:
            await asyncio.wait([future for _, future in self._waiting])


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
        return
    future.set_exception(error)
    future.exception()  # retrieved here: the caller may have been cancelled
