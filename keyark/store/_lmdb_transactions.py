"""Transactions on LMDB: table names become databases here, and vanishing rows are sealed and opened."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import lmdb

from keyark.errors.services import StoreCorruptError, StoreError
from keyark.store._row_keys import RowChanges
from keyark.store.interface import KeyExistsError, check_key


class VanishingRows(Protocol):
    """What opens the rows of vanishing tables."""

    @property
    def tables(self) -> Collection[str]:
        """The vanishing tables."""

    def open(self, table: str, key: bytes, stored: bytes) -> bytes:
        """Return the value of a stored row."""


class Reader:
    """A snapshot; table names become LMDB databases here and nowhere else."""

    def __init__(
        self, txn: lmdb.Transaction[bytes], tables: Mapping[str, lmdb._Database], rows: VanishingRows
    ) -> None:
        self._txn = txn
        self._tables = tables
        self._rows = rows

    def _table(self, name: str) -> lmdb._Database:
        try:
            return self._tables[name]
        except KeyError:
            raise StoreError(f"There is no table {name!r}; name it when the store is opened.") from None

    def get(self, table: str, key: bytes) -> bytes | None:
        database = self._table(table)
        value = self._txn.get(key, db=database) if key else None  # LMDB refuses to look for an empty key
        return self._rows.open(table, key, value) if table in self._rows.tables and value else value

    def scan(
        self, table: str, *, prefix: bytes = b"", after: bytes | None = None, limit: int
    ) -> list[tuple[bytes, bytes]]:
        rows: list[tuple[bytes, bytes]] = []
        start = prefix if after is None or after < prefix else after
        with self._txn.cursor(self._table(table)) as cursor:
            if not (cursor.set_range(start) if start else cursor.first()):
                return rows
            for key, value in cursor.iternext(keys=True, values=True):
                if len(rows) >= limit or not key.startswith(prefix):
                    break
                if key != after:
                    rows.append((key, value))
        if table in self._rows.tables:
            return [(key, self._rows.open(table, key, value)) for key, value in rows]
        return rows

    def last(self, table: str) -> tuple[bytes, bytes] | None:
        with self._txn.cursor(self._table(table)) as cursor:
            if not cursor.last():
                return None
            key, value = cursor.item()
        return key, self._rows.open(table, key, value) if table in self._rows.tables else value

    def count(self, table: str) -> int:
        return self._txn.stat(self._table(table))["entries"]

    def walk(self, table: str) -> int:
        """Visit every row; returns their number. Raises StoreCorruptError."""
        walked, before = 0, b""
        with self._txn.cursor(self._table(table)) as cursor:
            for key, value in cursor.iternext(keys=True, values=True):
                if table in self._rows.tables:
                    self._rows.open(table, key, value)
                if key <= before:
                    raise StoreCorruptError(f"Table {table!r} is out of order; restore a backup.")
                walked, before = walked + 1, key
        if walked != self.count(table):
            raise StoreCorruptError(f"Table {table!r} lacks rows; restore a backup.")
        return walked


class Writer(Reader):
    """A write transaction or a member of one."""

    def __init__(
        self, txn: lmdb.Transaction[bytes], tables: Mapping[str, lmdb._Database], changes: RowChanges
    ) -> None:
        super().__init__(txn, tables, changes)
        self._changes = changes
        self.emitted: list[object] = []
        self.has_written = False

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.has_written = True
        database = self._table(table)
        if table in self._changes.tables:
            self._drop(self._txn.get(check_key(key), db=database))
        self._txn.put(check_key(key), self._stored(table, key, value), db=database)

    def append(self, table: str, key: bytes, value: bytes) -> None:
        self.has_written = True
        stored = self._stored(table, check_key(key), value)
        if not self._txn.put(key, stored, db=self._table(table), append=True):
            self._discard(table, stored)
            raise KeyExistsError(f"The key does not come after the others of table {table!r}.")

    def insert(self, table: str, key: bytes, value: bytes) -> None:
        self.has_written = True
        stored = self._stored(table, check_key(key), value)
        if not self._txn.put(key, stored, db=self._table(table), overwrite=False):
            self._discard(table, stored)
            raise KeyExistsError(f"The key exists in table {table!r}.")

    def delete(self, table: str, key: bytes) -> bool:
        self.has_written = True
        database = self._table(table)
        if key and table in self._changes.tables:
            self._drop(self._txn.get(key, db=database))
        return self._txn.delete(key, db=database) if key else False

    def _stored(self, table: str, key: bytes, value: bytes) -> bytes:
        return self._changes.seal(table, key, value) if table in self._changes.tables else value

    def _drop(self, stored: bytes | None) -> None:
        if stored is not None:
            self._changes.drop(stored)

    def _discard(self, table: str, stored: bytes) -> None:
        if table in self._changes.tables:
            self._changes.drop(stored)

    def emit(self, item: object) -> None:
        self.emitted.append(item)
