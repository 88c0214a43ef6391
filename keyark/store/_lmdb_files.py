"""What lies below LMDB's transactions: folder, lock, file, damage, copies, and the errors that it reports."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import lmdb

from keyark.erasure import exchange_file, finish_exchange, sync_folder
from keyark.errors.services import StoreCorruptError, StoreError, StoreFullError
from keyark.store.interface import Row, StoreLockedError

MAX_READERS: Final = 512
DATA_FILE: Final = "data.mdb"
_FIRST_FILE: Final = "data.mdb.first"
_NEW_FILE: Final = "data.mdb.new"
_LOCK_FILE: Final = "store.lock"
_READERS_FILE: Final = "lock.mdb"
_READERS_SIZE: Final = (MAX_READERS + 64) * 64
"""A cache line for each reader, and what stands before them."""
_MAX_TABLES: Final = 256
_ROWS_AT_ONCE: Final = 10_000
_PROBE_SIZE: Final = 1 << 20
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DAMAGED: Final = (
    lmdb.CorruptedError,
    lmdb.IncompatibleError,  # a copy counted other pages than the file says it has
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
)
_WALK: Final = """
import os, resource, sys
import lmdb
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
environment = lmdb.open(sys.argv[1], map_size=int(sys.argv[2]), readonly=True, lock=False)
environment.copyfd(os.open(os.devnull, os.O_WRONLY), compact=True)
"""


def lock_folder(path: Path) -> int:
    """Make the folder (0700) if need be and lock it for this process; returns the lock's descriptor."""
    try:
        if not path.is_dir():
            path.mkdir(mode=0o700, parents=True)
            sync_folder(path.parent)
        descriptor = os.open(path / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path} cannot be used: {error.strerror}; make this user its owner.") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise StoreLockedError(f"{path} is open in another process; stop that one first.") from None
        raise StoreError(f"{path} cannot be locked: {error.strerror}; use a local file system.") from None
    return descriptor


def open_environment(path: Path, *, map_size: int, tables: int) -> lmdb.Environment:
    """Open or create the file (0600) in a locked folder; raises lmdb.Error and StoreCorruptError."""
    data = path / DATA_FILE
    if not data.exists():
        _begin(path, map_size)
    if not data.stat().st_size:
        # LMDB would begin a new store in its place, and all would seem well.
        raise StoreCorruptError(f"{data} is empty; restore it from a backup.")
    _make_room_for_readers(path / _READERS_FILE)
    environment = lmdb.open(
        str(path),
        map_size=map_size,
        max_dbs=tables,
        max_readers=MAX_READERS,
        max_spare_txns=1,
        mode=0o600,
    )
    try:
        environment.reader_check()
        _check_length(environment, data, map_size)
    except BaseException:
        environment.close()
        raise
    return environment


def _begin(path: Path, map_size: int) -> None:
    """Put a new file in place with its first pages, in one durable step; raises lmdb.Error and OSError.

    LMDB itself makes the file empty and then writes them: after a crash or on a full disk in between, nobody could tell
    that file from one that lost all its pages.
    """
    first = path / _FIRST_FILE
    first.unlink(missing_ok=True)
    try:
        lmdb.open(str(first), subdir=False, map_size=map_size, lock=False, mode=0o600).close()
        with first.open("rb") as file:
            os.fsync(file.fileno())
        first.rename(path / DATA_FILE)
    except BaseException:
        first.unlink(missing_ok=True)
        raise
    sync_folder(path)


def _make_room_for_readers(path: Path) -> None:
    """Write LMDB's table of readers out, so that it has its blocks; raises OSError.

    LMDB makes it sparse and maps it: on a full disk its first use would kill this process (SIGBUS).
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, _READERS_SIZE)
    finally:
        os.close(descriptor)


def _check_length(environment: lmdb.Environment, data: Path, map_size: int) -> None:
    """Refuse a file that was cut off: reading a page beyond its end would kill this process (SIGBUS).

    A healthy file may end early too, where the last pages were never written because they were freed in the
    transaction that made them. So a disposable process walks all pages that the file refers to.
    """
    pages = environment.info()["last_pgno"] + 1
    if data.stat().st_size >= pages * environment.stat()["psize"]:
        return
    command = [sys.executable, "-I", "-c", _WALK, str(data.parent), str(map_size)]
    if subprocess.run(command, check=False, capture_output=True).returncode:  # noqa: S603 — our own script
        raise StoreCorruptError(f"{data} is damaged: its end is missing; restore it from a backup.")


def check_room(path: Path) -> None:
    """Raise StoreFullError where the file could not be written a second time beside itself."""
    needed = (path / DATA_FILE).stat().st_blocks * 512
    if shutil.disk_usage(path).free < needed:
        raise StoreFullError(
            f"{path / DATA_FILE} must be converted once, and the disk has too little space for that: free "
            f"{needed >> 20} MiB."
        )


def rewrite_file(path: Path, *, map_size: int, table: bytes, row: tuple[bytes, bytes]) -> None:
    """Write every row anew into another file, with one row changed, put that in place, and erase the former file.

    LMDB's own copy would not do: it takes pages as they are, with what was deleted between their rows. No environment
    of the folder may be open. Raises lmdb.Error and OSError; done again after a crash, it goes on.
    """
    new = path / _NEW_FILE
    new.unlink(missing_ok=True)
    source = lmdb.open(str(path), map_size=map_size, max_dbs=_MAX_TABLES, readonly=True, lock=False)
    target = lmdb.open(
        str(new), subdir=False, map_size=map_size, max_dbs=_MAX_TABLES, lock=False, sync=False, mode=0o600
    )
    with source, target:
        _copy_rows(source, target)
        with target.begin(write=True) as txn:
            txn.put(*row, db=target.open_db(table, txn=txn))
        target.sync(force=True)
    exchange_file(new, path / DATA_FILE)


def _copy_rows(source: lmdb.Environment, target: lmdb.Environment) -> None:
    with source.begin() as reading:
        with reading.cursor() as names:
            tables = [bytes(name) for name in names.iternext(keys=True, values=False)]
        for name in tables:
            written = target.open_db(name)
            with reading.cursor(source.open_db(name, txn=reading, create=False)) as cursor:
                rows = iter(cursor)
                while page := list(islice(rows, _ROWS_AT_ONCE)):
                    with target.begin(write=True) as txn, txn.cursor(written) as writing:
                        writing.putmulti(page, append=True)


def finish_rewriting(path: Path) -> None:
    """Erase what an interrupted ``rewrite_file`` left beside the file that is in place. Raises OSError."""
    (path / _NEW_FILE).unlink(missing_ok=True)
    finish_exchange(path / DATA_FILE)


def walk_pages(environment: lmdb.Environment) -> None:
    """Let LMDB visit and count every page of the newest snapshot; raises lmdb.Error."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        environment.copyfd(null, compact=True)
    finally:
        os.close(null)


def copy_environment(environment: lmdb.Environment, target: Path, rows: Sequence[Row]) -> None:
    """Copy the newest snapshot, compacted and durable, to a new folder (0700); leaves nothing if it fails.

    The copy has its name only once ``rows`` are written into it.
    """
    try:
        target.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise StoreError(
            f"{target} cannot be made: {error.strerror}; name a folder that does not exist."
        ) from None
    partial = target / f"{DATA_FILE}.partial"
    try:
        with translated(target):
            _copy_file(environment, partial)
            _write_rows(partial, environment.info()["map_size"], rows)
            partial.rename(target / DATA_FILE)
            sync_folder(target)
            sync_folder(target.parent)
    except BaseException:
        remove_copy(target)
        raise


def remove_copy(target: Path) -> None:
    """Delete a folder that ``copy_environment`` made."""
    for left in target.iterdir():
        left.unlink()
    target.rmdir()


def _copy_file(environment: lmdb.Environment, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        environment.copyfd(descriptor, compact=True)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_rows(path: Path, map_size: int, rows: Sequence[Row]) -> None:
    if not rows:
        return
    with lmdb.open(str(path), subdir=False, map_size=map_size, max_dbs=_MAX_TABLES, lock=False) as copy:
        for table, key, value in rows:
            database = copy.open_db(table.encode())
            with copy.begin(write=True) as txn:
                txn.put(key, value, db=database)
        copy.sync(force=True)


@contextlib.contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Turn errors of LMDB and the system into the store's; ``folder`` is where it wrote."""
    try:
        yield
    except (lmdb.Error, OSError) as error:
        raise store_error(error, folder) from error


def store_error(error: lmdb.Error | OSError, folder: Path) -> StoreError:
    """Return the store's error for one of LMDB or the system; ``folder`` is where it wrote."""
    code = error.errno if isinstance(error, OSError) else getattr(error, "code", 0)
    if isinstance(error, lmdb.MapFullError):
        return StoreFullError("The store's map is full; raise map_gib and start again.")
    if code in _FULL or (code == errno.EIO and _is_full(folder)):
        return StoreFullError("The disk is full. Free some space; the store then works again by itself.")
    if isinstance(error, _DAMAGED):
        return StoreCorruptError("The store's file is damaged; restore it from a backup.")
    cause = error.strerror if isinstance(error, OSError) else getattr(error, "reason", type(error).__name__)
    return StoreError(f"The store failed ({cause}); look at its disk, then start the service again.")


def _is_full(folder: Path) -> bool:
    """Whether a file could not grow now: LMDB reports a short write as an I/O error."""
    try:
        size = max((entry.stat().st_size for entry in folder.iterdir()), default=0)
        with tempfile.TemporaryFile(dir=folder) as probe:
            os.posix_fallocate(probe.fileno(), size, _PROBE_SIZE)
    except OSError as error:
        return error.errno in _FULL
    return False
