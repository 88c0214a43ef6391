"""A store in memory for tests, with the semantics of the durable one.

It runs every function twice, the first time undone, so that a function with an effect outside its transaction shows.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from keyark.errors.services import StoreClosedError, StoreError
from keyark.store._outcomes import settle
from keyark.store.interface import (
    Finisher,
    KeyExistsError,
    ReadTransaction,
    Row,
    StoreStats,
    WriteTransaction,
    check_key,
)

T = TypeVar("T")
Tables = dict[str, dict[bytes, bytes]]


class _Reader:
    """Reads tables that nobody changes: a commit replaces them."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def _rows(self, table: str) -> dict[bytes, bytes]:
        if table not in self.tables:
            raise StoreError(f"There is no table {table!r}; name it when the store is made.")
        return self.tables[table]

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._rows(table).get(key)

    def scan(
        self, table: str, *, prefix: bytes = b"", after: bytes | None = None, limit: int
    ) -> list[tuple[bytes, bytes]]:
        rows = self._rows(table)
        keys = sorted(rows)
        start = bisect_left(keys, prefix)
        if after is not None:
            start = max(start, bisect_right(keys, after))
        found = [key for key in keys[start:] if key.startswith(prefix)]
        return [(key, rows[key]) for key in found[:limit]]

    def last(self, table: str) -> tuple[bytes, bytes] | None:
        rows = self._rows(table)
        return (key := max(rows), rows[key]) if rows else None

    def count(self, table: str) -> int:
        return len(self._rows(table))


class _Writer(_Reader):
    """Writes to copies of its own, so that to undo it is to forget it."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(dict(tables))
        self._copied: set[str] = set()
        self.emitted: list[object] = []

    def _own_rows(self, table: str) -> dict[bytes, bytes]:
        if table not in self._copied:
            self.tables[table] = dict(self._rows(table))
            self._copied.add(table)
        return self.tables[table]

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._own_rows(table)[check_key(key)] = value

    def append(self, table: str, key: bytes, value: bytes) -> None:
        rows = self._rows(table)
        if rows and check_key(key) <= max(rows):
            raise KeyExistsError(f"The key does not come after the others of table {table!r}.")
        self.put(table, key, value)

    def insert(self, table: str, key: bytes, value: bytes) -> None:
        if check_key(key) in self._rows(table):
            raise KeyExistsError(f"The key exists in table {table!r}.")
        self.put(table, key, value)

    def delete(self, table: str, key: bytes) -> bool:
        return self._own_rows(table).pop(key, None) is not None

    def emit(self, item: object) -> None:
        self.emitted.append(item)


class MemoryStore:
    """Keeps tables in dictionaries; updates that wait at the same time are one commit group."""

    def __init__(self, *, tables: Sequence[str], finisher: Finisher | None = None) -> None:
        self.stats = StoreStats()
        self._tables: Tables = {name: {} for name in tables}
        self._finisher = finisher
        self._waiting: list[tuple[Callable[[WriteTransaction], Any], asyncio.Future[Any]]] = []
        self._closing = self._closed = False

    def get(self, table: str, key: bytes) -> bytes | None:
        return self.read(lambda txn: txn.get(table, key))

    def read(self, fn: Callable[[ReadTransaction], T]) -> T:
        if self._closed:
            raise StoreClosedError("The store is closed.")
        return fn(_Reader(self._tables))

    async def view(self, fn: Callable[[ReadTransaction], T]) -> T:
        return self.read(fn)

    async def update(self, fn: Callable[[WriteTransaction], T]) -> T:
        if self._closing:
            raise StoreClosedError("The store is closed.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._commit_group)
        self._waiting.append((fn, future))
        return await future

    def _commit_group(self) -> None:
        started = time.perf_counter()
        group, self._waiting = self._waiting, []
        tables, emitted = self._tables, list[object]()
        outcomes: list[tuple[Any, Exception | None]] = []
        for fn, _ in group:
            try:
                result, txn = _run_twice(fn, tables)
            except Exception as error:
                outcomes.append((None, error))
                continue
            tables = txn.tables
            emitted += txn.emitted
            outcomes.append((result, None))
        failure: Exception | None = None
        try:
            self.commit(self._finish(tables, emitted))
        except Exception as error:
            failure = error
        else:
            kept = sum(raised is None for _, raised in outcomes)
            self.stats.committed(updates=kept, seconds=time.perf_counter() - started)
        for (_, future), (outcome, raised) in zip(group, outcomes, strict=True):
            settle(future, outcome, failure if raised is None else raised)

    def _finish(self, tables: Tables, emitted: Sequence[object]) -> Tables:
        if self._finisher is None or not emitted:
            return tables
        finisher = self._finisher
        return _run_twice(lambda txn: finisher(txn, emitted), tables)[1].tables

    def commit(self, tables: Tables) -> None:
        """Make a group's tables the committed ones; a test overrides it to let a commit fail."""
        self._tables = tables

    async def backup(self, target: Path, *, rows: Sequence[Row] = ()) -> None:
        raise StoreError(f"A store in memory has nothing to copy to {target}.")

    async def check(self) -> dict[str, int]:
        return self.read(lambda txn: {table: txn.count(table) for table in self._tables})

    async def close(self) -> None:
        self._closing = True
        await asyncio.sleep(0)  # what waits was scheduled before
        self._closed = True


def _run_twice(fn: Callable[[WriteTransaction], T], tables: Tables) -> tuple[T, _Writer]:
    """Run ``fn`` for nothing, then for good: an effect outside its transaction happens twice and shows."""
    fn(_Writer(tables))
    txn = _Writer(tables)
    return fn(txn), txn
