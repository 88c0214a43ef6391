"""The embedded store: LMDB with one writer thread, group commit, and one process per store.

A commit group is one write transaction with a child transaction per member, so that a member that fails is undone
alone, and one fsync for all. Results are delivered only after it, with one wake-up of the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import lmdb

from keyark.errors import OverloadedError
from keyark.store.interface import (
    Finisher,
    KeyExistsError,
    ReadTransaction,
    SchemaVersionError,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreStats,
    WriteTransaction,
)

T = TypeVar("T")

META: Final = "_meta"
SCHEMA_KEY: Final = b"schema_version"
MAX_READERS: Final = 512
MAX_GROUP: Final = 256
MAX_WAITING: Final = 65_536
_PROBE_SIZE: Final = 1 << 20
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _Reader:
    """A snapshot; table names become LMDB databases here and nowhere else."""

    def __init__(self, txn: Any, databases: dict[str, Any]) -> None:
        self._txn = txn
        self._databases = databases

    def _db(self, table: str) -> Any:
        if table not in self._databases:
            raise StoreError(f"There is no table {table!r}.")
        return self._databases[table]

    def get(self, table: str, key: bytes) -> bytes | None:
        value: bytes | None = self._txn.get(key, db=self._db(table))
        return value

    def scan(
        self, table: str, *, prefix: bytes = b"", after: bytes | None = None, limit: int
    ) -> list[tuple[bytes, bytes]]:
        rows: list[tuple[bytes, bytes]] = []
        start = prefix if after is None or after < prefix else after
        with self._txn.cursor(self._db(table)) as cursor:
            if not (cursor.set_range(start) if start else cursor.first()):
                return rows
            for key, value in cursor.iternext(keys=True, values=True):
                if not key.startswith(prefix) or len(rows) >= limit:
                    break
                if key != after:
                    rows.append((key, value))
        return rows

    def last(self, table: str) -> tuple[bytes, bytes] | None:
        with self._txn.cursor(self._db(table)) as cursor:
            return cursor.item() if cursor.last() else None

    def count(self, table: str) -> int:
        entries: int = self._txn.stat(self._db(table))["entries"]
        return entries


class _Writer(_Reader):
    """A write transaction or a member of one."""

    def __init__(self, txn: Any, databases: dict[str, Any]) -> None:
        super().__init__(txn, databases)
        self.emitted: list[object] = []

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._txn.put(key, value, db=self._db(table))

    def insert(self, table: str, key: bytes, value: bytes) -> None:
        if not self._txn.put(key, value, db=self._db(table), overwrite=False):
            raise KeyExistsError(f"The key exists in table {table!r}.")

    def delete(self, table: str, key: bytes) -> bool:
        deleted: bool = self._txn.delete(key, db=self._db(table))
        return deleted

    def emit(self, item: object) -> None:
        self.emitted.append(item)


@dataclass(slots=True)
class _Member:
    """An update in a commit group."""

    fn: Callable[[WriteTransaction], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


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
        self._finisher = finisher
        self._path = path
        self._lock = _lock_folder(path)
        try:
            with _translated(self._path):
                self._env = lmdb.open(
                    str(path), map_size=map_size, max_dbs=len(tables) + 1, max_readers=MAX_READERS, mode=0o600
                )
                self._env.reader_check()
                self._databases = {name: self._env.open_db(name.encode()) for name in (META, *tables)}
            self._check_schema(schema_version)
        except BaseException:
            os.close(self._lock)
            raise
        self._condition = threading.Condition()
        self._waiting: deque[_Member] = deque()
        self._closing = False
        self._thread = threading.Thread(target=self._write_groups, name=f"store-{path.name}", daemon=True)
        self._thread.start()

    def _check_schema(self, version: int) -> None:
        wanted = str(version).encode()
        with self._env.begin(write=True) as txn:
            found = txn.get(SCHEMA_KEY, db=self._databases[META])
            if found is None:
                txn.put(SCHEMA_KEY, wanted, db=self._databases[META])
            elif found != wanted:
                raise SchemaVersionError(
                    f"{self._path} has schema {found.decode()} and this release reads {version}; use the release "
                    "that wrote it, or migrate."
                )

    def get(self, table: str, key: bytes) -> bytes | None:
        """Read one committed row, inline."""
        return self.read(lambda txn: txn.get(table, key))

    def read(self, fn: Callable[[ReadTransaction], T]) -> T:
        """Run ``fn`` on a snapshot, inline."""
        with _translated(self._path), self._env.begin() as txn:
            return fn(_Reader(txn, self._databases))

    async def view(self, fn: Callable[[ReadTransaction], T]) -> T:
        """Run ``fn`` on a snapshot in a thread."""
        return await asyncio.to_thread(self.read, fn)

    async def update(self, fn: Callable[[WriteTransaction], T]) -> T:
        """Run ``fn`` in a member of the next commit group; durable when this returns."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._condition:
            if self._closing:
                raise StoreClosedError("The store is closed; start the service again.")
            if len(self._waiting) >= MAX_WAITING:
                raise OverloadedError("Too many writes are waiting; try again later.")
            self._waiting.append(_Member(fn, future))
            self._condition.notify()
        return await asyncio.shield(future)

    def _write_groups(self) -> None:
        """The writer thread: one group after the other, of whatever waits when it begins."""
        while True:
            with self._condition:
                while not self._waiting and not self._closing:
                    self._condition.wait()
                if not self._waiting:
                    return
                group = [self._waiting.popleft() for _ in range(min(MAX_GROUP, len(self._waiting)))]
            self._commit_group(group)
            _deliver(group)

    def _commit_group(self, group: Sequence[_Member]) -> None:
        started = time.perf_counter()
        try:
            with _translated(self._path), self._env.begin(write=True) as txn:
                emitted: list[object] = []
                for member in group:
                    self._run_member(txn, member, emitted)
                if emitted and self._finisher is not None:
                    self._finisher(_Writer(txn, self._databases), emitted)
        except Exception as error:
            for member in group:
                member.error = member.error or error
        self.stats.commits += 1
        self.stats.updates += len(group)
        self.stats.commit_seconds += time.perf_counter() - started

    def _run_member(self, parent: Any, member: _Member, emitted: list[object]) -> None:
        """Run one member in a child transaction; what it raises undoes the child alone."""
        try:
            with self._env.begin(write=True, parent=parent) as txn:
                writer = _Writer(txn, self._databases)
                member.result = member.fn(writer)
        except lmdb.Error:
            raise  # the group cannot go on
        except Exception as error:
            member.error = error
            return
        emitted.extend(writer.emitted)

    async def backup(self, target: Path) -> None:
        """Write a consistent, compacted copy to a folder that does not exist yet."""
        await asyncio.to_thread(self._copy, target)

    def _copy(self, target: Path) -> None:
        try:
            target.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise StoreError(
                f"{target} cannot be made: {error.strerror}; name a folder that does not exist."
            ) from None
        with _translated(self._path):
            self._env.copy(str(target), compact=True)

    async def close(self) -> None:
        """Finish what is waiting, and close."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        await asyncio.to_thread(self._thread.join)
        self._env.close()
        os.close(self._lock)


def _deliver(group: Sequence[_Member]) -> None:
    """Hand every member its outcome, with one wake-up per event loop."""
    loops = {member.future.get_loop() for member in group}
    for loop in loops:
        members = [member for member in group if member.future.get_loop() is loop]
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, members)


def _settle(members: Sequence[_Member]) -> None:
    for member in members:
        if member.future.cancelled():
            continue
        if member.error is None:
            member.future.set_result(member.result)
        else:
            member.future.set_exception(member.error)
            member.future.exception()  # retrieved here: the caller may have been cancelled


def _lock_folder(path: Path) -> int:
    """Make the folder (0700) and take its lock for this process; returns the lock's descriptor."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StoreLockedError(f"{path} is open in another process; stop that one first.") from None
    return descriptor


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn LMDB's errors into those of the store."""
    try:
        yield
    except lmdb.MapFullError:
        raise StoreFullError("The store's map is full; raise map_gib and start again.") from None
    except (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.VersionMismatchError):
        raise StoreCorruptError("The store's file is damaged; restore it from a backup.") from None
    except lmdb.Error as error:
        text = str(error)
        if any(os.strerror(number) in text for number in _FULL) or (
            os.strerror(errno.EIO) in text and _is_full(path)
        ):
            raise StoreFullError("The disk is full; the store goes on once there is room.") from None
        raise StoreError(f"The store failed: {text}.") from None


def _is_full(path: Path) -> bool:
    """Whether the store's file could not grow now: LMDB reports a short write as an I/O error."""
    size = (path / "data.mdb").stat().st_size
    with tempfile.TemporaryFile(dir=path) as probe:
        try:
            os.posix_fallocate(probe.fileno(), size, _PROBE_SIZE)
        except OSError as error:
            return error.errno in _FULL
    return False
