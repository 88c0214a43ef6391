"""The embedded store: LMDB with one writer thread, group commit, and one process per store.

A commit group is one write transaction and one fsync. Its members write into it one after the other; only where one
fails that has written already, the group begins anew with a child transaction per member, so that this one is undone
alone (a child costs 20 µs, and hardly any member fails late). Results are delivered after the fsync, with one wake-up
of the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeAlias, TypeVar

import lmdb

from keyark.errors import OverloadedError
from keyark.store import _lmdb_files as files
from keyark.store._outcomes import settle
from keyark.store.interface import (
    Finisher,
    KeyExistsError,
    ReadTransaction,
    SchemaVersionError,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreStats,
    WriteTransaction,
    check_key,
)

T = TypeVar("T")

META: Final = b"_meta"
SCHEMA_KEY: Final = b"schema_version"
MAX_GROUP: Final = 256
MAX_WAITING: Final = 8_192
VIEW_THREADS: Final = 4


class _Reader:
    """A snapshot; table names become LMDB databases here and nowhere else."""

    def __init__(self, txn: lmdb.Transaction[bytes], tables: Mapping[str, lmdb._Database]) -> None:
        self._txn = txn
        self._tables = tables

    def _table(self, name: str) -> lmdb._Database:
        try:
            return self._tables[name]
        except KeyError:
            raise StoreError(f"There is no table {name!r}; name it when the store is opened.") from None

    def get(self, table: str, key: bytes) -> bytes | None:
        database = self._table(table)
        return self._txn.get(key, db=database) if key else None  # LMDB refuses to look for an empty key

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
        return rows

    def last(self, table: str) -> tuple[bytes, bytes] | None:
        with self._txn.cursor(self._table(table)) as cursor:
            return cursor.item() if cursor.last() else None

    def count(self, table: str) -> int:
        return self._txn.stat(self._table(table))["entries"]

    def walk(self, table: str) -> int:
        """Visit every row; returns their number. Raises StoreCorruptError."""
        walked, before = 0, b""
        with self._txn.cursor(self._table(table)) as cursor:
            for key, _ in cursor.iternext(keys=True, values=True):
                if key <= before:
                    raise StoreCorruptError(f"Table {table!r} is out of order; restore a backup.")
                walked, before = walked + 1, key
        if walked != self.count(table):
            raise StoreCorruptError(f"Table {table!r} lacks rows; restore a backup.")
        return walked


class _Writer(_Reader):
    """A write transaction or a member of one."""

    def __init__(self, txn: lmdb.Transaction[bytes], tables: Mapping[str, lmdb._Database]) -> None:
        super().__init__(txn, tables)
        self.emitted: list[object] = []
        self.has_written = False

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.has_written = True
        self._txn.put(check_key(key), value, db=self._table(table))

    def append(self, table: str, key: bytes, value: bytes) -> None:
        self.has_written = True
        if not self._txn.put(check_key(key), value, db=self._table(table), append=True):
            raise KeyExistsError(f"The key does not come after the others of table {table!r}.")

    def insert(self, table: str, key: bytes, value: bytes) -> None:
        self.has_written = True
        if not self._txn.put(check_key(key), value, db=self._table(table), overwrite=False):
            raise KeyExistsError(f"The key exists in table {table!r}.")

    def delete(self, table: str, key: bytes) -> bool:
        self.has_written = True
        database = self._table(table)
        return self._txn.delete(key, db=database) if key else False

    def emit(self, item: object) -> None:
        self.emitted.append(item)


@dataclass(slots=True)
class _Member:
    """An update in a commit group."""

    fn: Callable[[WriteTransaction], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


_RunMember: TypeAlias = Callable[["lmdb.Transaction[bytes]", _Member], Sequence[object]]


class _LateFailure(Exception):  # noqa: N818 — no error that leaves the store
    """A member failed after it had written; the group's transaction must not be committed."""


class LmdbStore:
    """See ``keyark.store.interface.Store``; open it with ``keyark.store.open_store``."""

    def __init__(
        self,
        path: Path,
        *,
        tables: Sequence[str],
        finisher: Finisher | None,
        schema_version: int,
        map_size: int,
    ) -> None:
        self.stats = StoreStats()
        self._path = path
        self._finisher = finisher
        with contextlib.ExitStack() as undo:
            self._lock = files.lock_folder(path)
            undo.callback(os.close, self._lock)
            try:
                self._env = files.open_environment(path, map_size=map_size, tables=len(tables) + 1)
                undo.callback(self._env.close)
                self._check_schema(schema_version)
                self._tables = {name: self._env.open_db(name.encode()) for name in tables}
                files.sync_folder(path)
            except (lmdb.Error, OSError) as error:
                raise files.store_error(error, path) from error
            undo.pop_all()
        self._released = self._closing = False
        self._views = ThreadPoolExecutor(VIEW_THREADS, thread_name_prefix=f"view-{path.name}")
        self._queue: SimpleQueue[Sequence[_Member] | None] = SimpleQueue()
        self._fresh: list[_Member] = []
        self._asked = self._taken = 0  # each is counted by one thread
        self._thread = threading.Thread(target=self._write_groups, name=f"store-{path.name}", daemon=True)
        self._thread.start()

    def _check_schema(self, version: int) -> None:
        meta = self._env.open_db(META)
        wanted = str(version).encode()
        with self._env.begin(write=True) as txn:
            found = txn.get(SCHEMA_KEY, db=meta)
            if found is None:
                txn.put(SCHEMA_KEY, wanted, db=meta)
            elif found != wanted:
                raise SchemaVersionError(
                    f"{self._path} has schema {found.decode()} and this release reads {version}; use the release "
                    "that wrote it, or migrate."
                )

    def get(self, table: str, key: bytes) -> bytes | None:
        return self.read(lambda txn: txn.get(table, key))

    def read(self, fn: Callable[[_Reader], T]) -> T:
        if self._released:
            raise StoreClosedError("The store is closed; start the service again.")
        try:
            with self._env.begin() as txn:
                return fn(_Reader(txn, self._tables))
        except lmdb.Error as error:
            raise files.store_error(error, self._path) from error

    async def view(self, fn: Callable[[ReadTransaction], T]) -> T:
        return await self._in_thread(lambda: self.read(fn))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run work in a thread that ``close`` waits for: LMDB must not be closed under it."""
        if self._closing:
            raise StoreClosedError("The store is closed; start the service again.")
        return await asyncio.get_running_loop().run_in_executor(self._views, work)

    async def update(self, fn: Callable[[WriteTransaction], T]) -> T:
        if self._closing:
            raise StoreClosedError("The store is closed; start the service again.")
        if self._asked - self._taken >= MAX_WAITING:
            raise OverloadedError("Too many writes are waiting; try again later.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._fresh.append(_Member(fn, future))
        self._asked += 1
        loop.call_soon(self._hand_over)
        return await future

    def _hand_over(self) -> None:
        """Give the writer thread, at once, all updates that were asked for in one round of the event loop."""
        if self._fresh:
            self._queue.put(self._fresh)
            self._fresh = []

    def _write_groups(self) -> None:
        """The writer thread: one group after the other, of whatever waits when it begins."""
        closing = False
        while not closing:
            group: list[_Member] = []
            while not closing and (not group or (len(group) < MAX_GROUP and not self._queue.empty())):
                members = self._queue.get()
                closing = members is None
                group += members or ()
            self._taken += len(group)
            if group:
                self._commit_group(group)
                _deliver(group)

    def _commit_group(self, group: Sequence[_Member]) -> None:
        started = time.perf_counter()
        try:
            try:
                self._commit_members(group, self._run_member)
            except _LateFailure:
                self._commit_members(group, self._run_member_alone)
        except BaseException as error:  # all of it: without this thread every caller would wait for ever
            failure = files.store_error(error, self._path) if isinstance(error, lmdb.Error) else error
            for member in group:
                member.error = failure if member.error is None else member.error
            return
        kept = sum(member.error is None for member in group)
        self.stats.committed(updates=kept, seconds=time.perf_counter() - started)

    def _commit_members(self, group: Sequence[_Member], run: _RunMember) -> None:
        with self._env.begin(write=True) as txn:
            emitted = [item for member in group for item in run(txn, member)]
            if emitted and self._finisher is not None:
                self._finisher(_Writer(txn, self._tables), emitted)

    def _run_member(self, txn: lmdb.Transaction[bytes], member: _Member) -> Sequence[object]:
        """Run a member in the group's own transaction; raises _LateFailure where something has to be undone."""
        writer = _Writer(txn, self._tables)
        try:
            member.result = member.fn(writer)
        except lmdb.MapFullError:
            raise _LateFailure from None
        except lmdb.Error:
            raise  # the disk or the file: the group cannot go on
        except BaseException as error:  # it belongs to the caller, whatever it is
            if writer.has_written:
                raise _LateFailure from None
            member.error = error
            return ()
        return writer.emitted

    def _run_member_alone(self, parent: lmdb.Transaction[bytes], member: _Member) -> Sequence[object]:
        """Run a member in a child transaction, which what it raises undoes alone; returns what it emitted."""
        member.error = None
        try:
            with self._env.begin(write=True, parent=parent) as txn:
                writer = _Writer(txn, self._tables)
                member.result = member.fn(writer)
        except lmdb.MapFullError as error:  # this one was too large; the parent is as before
            member.error = files.store_error(error, self._path)
        except lmdb.Error:
            raise  # the disk or the file: the group cannot go on
        except BaseException as error:  # it belongs to the caller, whatever it is
            member.error = error
        else:
            return writer.emitted
        return ()

    async def backup(self, target: Path) -> None:
        await self._in_thread(lambda: files.copy_environment(self._env, target))

    async def check(self) -> dict[str, int]:
        return await self._in_thread(self._walk)

    def _walk(self) -> dict[str, int]:
        counts = self.read(lambda txn: {table: txn.walk(table) for table in self._tables})
        try:
            files.walk_pages(self._env)
        except lmdb.Error as error:
            raise files.store_error(error, self._path) from error
        return counts

    async def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._hand_over()
            self._queue.put(None)
        await asyncio.to_thread(self._finish_work)
        if not self._released:
            self._released = True
            self._env.close()
            os.close(self._lock)

    def _finish_work(self) -> None:
        self._thread.join()
        self._views.shutdown(wait=True)


def _deliver(group: Sequence[_Member]) -> None:
    """Hand every member its outcome, with one wake-up per event loop."""
    loops = {member.future.get_loop() for member in group}
    for loop in loops:
        members = [member for member in group if member.future.get_loop() is loop]
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, members)


def _settle(members: Sequence[_Member]) -> None:
    for member in members:
        settle(member.future, member.result, member.error)
