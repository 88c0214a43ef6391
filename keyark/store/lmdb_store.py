"""The embedded store: LMDB with one writer thread, group commit, and one process per store.

A commit group is one write transaction and one fsync. Its members write into it one after the other; only where one
fails that has written already, the group begins anew with a child transaction per member, so that this one is undone
alone (a child costs 20 µs, and hardly any member fails late). Results are delivered after the fsync, with one wake-up
of the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeAlias, TypeVar

import lmdb

from keyark.errors import OverloadedError
from keyark.errors.services import StoreClosedError, StoreCorruptError
from keyark.store import _lmdb_files as files
from keyark.store._lmdb_opening import copy_store, named_slots, open_files
from keyark.store._lmdb_transactions import Reader, Writer
from keyark.store._outcomes import settle
from keyark.store._row_keys import RowChanges, VanishedError
from keyark.store.interface import Finisher, ReadTransaction, Row, StoreStats, WriteTransaction

T = TypeVar("T")

MAX_GROUP: Final = 256
MAX_WAITING: Final = 8_192
VIEW_THREADS: Final = 4

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Member:
    """An update in a commit group."""

    fn: Callable[[WriteTransaction], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


_RunMember: TypeAlias = Callable[["lmdb.Transaction[bytes]", RowChanges, _Member], Sequence[object]]


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
                opened = open_files(path, tables=tables, schema_version=schema_version, map_size=map_size)
            except (lmdb.Error, OSError) as error:
                raise files.store_error(error, path) from error
            undo.pop_all()
        self._env, self._tables, self._row_keys = opened.environment, opened.tables, opened.row_keys
        self._released = self._closing = False
        self._views = ThreadPoolExecutor(VIEW_THREADS, thread_name_prefix=f"view-{path.name}")
        self._queue: SimpleQueue[Sequence[_Member] | None] = SimpleQueue()
        self._fresh: list[_Member] = []
        self._asked = self._taken = 0  # each is counted by one thread
        self._thread = threading.Thread(target=self._write_groups, name=f"store-{path.name}", daemon=True)
        self._thread.start()

    def get(self, table: str, key: bytes) -> bytes | None:
        return self.read(lambda txn: txn.get(table, key))

    def read(self, fn: Callable[[Reader], T]) -> T:
        if self._released:
            raise StoreClosedError("The store is closed; start the service again.")
        vanished = b""
        while True:
            try:
                with self._env.begin() as txn:
                    return fn(Reader(txn, self._tables, self._row_keys))
            except VanishedError as gone:  # since the snapshot was taken: a newer one is without it
                if gone.stored == vanished:
                    raise StoreCorruptError(
                        f"A row does not open with {self._row_keys.path}; restore both from a backup."
                    ) from None
                vanished = gone.stored
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
            failure = (
                files.store_error(error, self._path) if isinstance(error, lmdb.Error | OSError) else error
            )
            for member in group:
                member.error = failure if member.error is None else member.error
            return
        kept = sum(member.error is None for member in group)
        self.stats.committed(updates=kept, seconds=time.perf_counter() - started)

    def _commit_members(self, group: Sequence[_Member], run: _RunMember) -> None:
        changes = RowChanges(self._row_keys)
        try:
            with self._env.begin(write=True) as txn:
                emitted = [item for member in group for item in run(txn, changes, member)]
                if emitted and self._finisher is not None:
                    self._finisher(Writer(txn, self._tables, changes), emitted)
                changes.keep()
        except BaseException:
            changes.forget()
            raise
        try:
            changes.finish(partial(named_slots, self._env, self._tables, self._row_keys))
        except OSError as error:  # what was written is durable all the same
            logger.error("%s: keys of rows that vanished are still there: %s", self._path, error.strerror)  # noqa: TRY400

    def _run_member(
        self, txn: lmdb.Transaction[bytes], changes: RowChanges, member: _Member
    ) -> Sequence[object]:
        """Run a member in the group's own transaction; raises _LateFailure where something has to be undone."""
        writer = Writer(txn, self._tables, changes)
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

    def _run_member_alone(
        self, parent: lmdb.Transaction[bytes], changes: RowChanges, member: _Member
    ) -> Sequence[object]:
        """Run a member in a child transaction, which what it raises undoes alone; returns what it emitted."""
        member.error, mark = None, changes.mark()
        try:
            with self._env.begin(write=True, parent=parent) as txn:
                writer = Writer(txn, self._tables, changes)
                member.result = member.fn(writer)
        except lmdb.MapFullError as error:  # this one was too large; the parent is as before
            member.error = files.store_error(error, self._path)
        except lmdb.Error:
            raise  # the disk or the file: the group cannot go on
        except BaseException as error:  # it belongs to the caller, whatever it is
            member.error = error
        else:
            return writer.emitted
        changes.undo(mark)
        return ()

    async def backup(self, target: Path, *, rows: Sequence[Row] = ()) -> None:
        await self._in_thread(partial(copy_store, self._env, self._row_keys, target, rows))

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
            self._row_keys.close()
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
