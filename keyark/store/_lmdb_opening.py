"""Opens a store's files together, B-tree and row keys, takes over what older releases wrote, and copies both.

The row ``schema_version`` says how the file is written: ``2`` by a release without vanishing tables, or for a service
that has none; ``2+row-keys`` with them; ``2+rewriting`` where the rows were taken over and the file still has to be
written anew, because its free pages hold what they were.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import lmdb

from keyark.erasure import erase_file, sync_folder
from keyark.errors.services import StoreError
from keyark.store import _lmdb_files as files
from keyark.store._lmdb_transactions import Writer
from keyark.store._row_keys import RowChanges, RowKeys, VanishedError, decrypt, lost_key, slot_of
from keyark.store.interface import Backups, Row, SchemaVersionError, row_keys_beside

META: Final = b"_meta"
SCHEMA_KEY: Final = b"schema_version"
_WITH_KEYS: Final = "+row-keys"
_REWRITING: Final = "+rewriting"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OpenFiles:
    """The environment, the databases of its tables, and the keys of its vanishing rows."""

    environment: lmdb.Environment
    tables: Mapping[str, lmdb._Database]
    row_keys: RowKeys


def open_files(path: Path, *, tables: Sequence[str], schema_version: int, map_size: int) -> OpenFiles:
    """Open or make the files of a store in a locked folder.

    Raises SchemaVersionError, StoreCorruptError, StoreFullError, lmdb.Error and OSError.
    """
    files.finish_rewriting(path)
    with contextlib.ExitStack() as undo:
        row_keys = RowKeys(path, tables)
        undo.callback(row_keys.close)
        environment = files.open_environment(path, map_size=map_size, tables=len(tables) + 1)
        undo.callback(environment.close)
        plain = str(schema_version)
        wanted, rewriting = (plain + _WITH_KEYS, plain + _REWRITING) if row_keys.tables else (plain, plain)
        found = _read_schema(environment, path, (wanted, rewriting, plain))
        opened = _with_tables(environment, tables, row_keys)
        if found == plain != wanted:
            files.check_room(path)
            _take_over(opened, rewriting)
        if found != wanted:
            environment.close()
            files.rewrite_file(path, map_size=map_size, table=META, row=(SCHEMA_KEY, wanted.encode()))
            environment = files.open_environment(path, map_size=map_size, tables=len(tables) + 1)
            undo.callback(environment.close)
            opened = _with_tables(environment, tables, row_keys)
        _check_rows(opened)
        sync_folder(path)
        undo.pop_all()
    return opened


def _with_tables(environment: lmdb.Environment, tables: Sequence[str], row_keys: RowKeys) -> OpenFiles:
    databases = {str(name): environment.open_db(name.encode()) for name in tables}
    return OpenFiles(environment=environment, tables=databases, row_keys=row_keys)


def _read_schema(environment: lmdb.Environment, path: Path, readable: Sequence[str]) -> str:
    """Return how the file is written, the first of ``readable`` if it is new; raises SchemaVersionError."""
    meta = environment.open_db(META)
    with environment.begin(write=True) as txn:
        found = (txn.get(SCHEMA_KEY, db=meta) or b"").decode()
        if not found:
            txn.put(SCHEMA_KEY, readable[0].encode(), db=meta)
            return readable[0]
    if found not in readable:
        raise SchemaVersionError(
            f"{path} has schema {found} and this release reads {readable[0]}; use the release that wrote it, or "
            "migrate."
        )
    return found


def _take_over(opened: OpenFiles, schema: str) -> None:
    """Seal the rows of a release that did not, and move what it kept elsewhere; all of it or nothing."""
    changes, meta = RowChanges(opened.row_keys), opened.environment.open_db(META)
    with opened.environment.begin(write=True) as txn:
        for name, table in opened.row_keys.tables.items():
            database = opened.tables[name]
            with txn.cursor(database) as cursor:
                plain = list(cursor)
            for key, value in plain:
                txn.put(key, changes.seal(name, key, value), db=database)
            table.take_over(Writer(txn, opened.tables, changes))
        txn.put(SCHEMA_KEY, schema.encode(), db=meta)
        changes.keep()


def _check_rows(opened: OpenFiles) -> None:
    """Hold every vanishing row against its key, and destroy keys that no row names.

    A row that backups leave without its key is deleted where it does not open; any other raises StoreCorruptError, and
    then nothing was changed.
    """
    lost = []
    with opened.environment.begin() as txn:
        for name, table in opened.row_keys.tables.items():
            for key, stored in txn.cursor(opened.tables[name]):
                try:
                    opened.row_keys.open(name, key, stored)
                except VanishedError:
                    if table.backups is Backups.WITH_KEYS:
                        raise lost_key(name, opened.row_keys.path) from None
                    lost.append((name, key))
    if lost:
        with opened.environment.begin(write=True) as txn:
            for name, key in lost:
                txn.delete(key, db=opened.tables[name])
        logger.warning("%d rows were restored from a backup that leaves their contents out", len(lost))
    if opened.row_keys.tables:
        opened.row_keys.settle(named_slots(opened.environment, opened.tables, opened.row_keys))


def named_slots(
    environment: lmdb.Environment, tables: Mapping[str, lmdb._Database], row_keys: RowKeys
) -> set[int]:
    """Return the slots that rows name."""
    with environment.begin() as txn:
        return {slot_of(stored) for name in row_keys.tables for _, stored in txn.cursor(tables[name])}


def copy_store(
    environment: lmdb.Environment, row_keys: RowKeys, target: Path, rows: Sequence[Row] = ()
) -> None:
    """Copy the newest snapshot to a new folder, and the row keys that belong to a backup beside it, or nothing.

    ``rows`` are written into the copy alone. Raises StoreError.
    """
    if any(table in row_keys.tables for table, _, _ in rows):
        raise StoreError("A row of a vanishing table cannot be written into a copy alone.")
    beside = row_keys_beside(target)
    if beside.exists():
        raise StoreError(f"{beside} exists and is not overwritten; name another folder.")
    files.copy_environment(environment, target, rows)
    try:
        with files.translated(target):
            _copy_row_keys(row_keys, target, beside)
    except BaseException:
        files.remove_copy(target)
        raise


def _copy_row_keys(row_keys: RowKeys, target: Path, beside: Path) -> None:
    """Write the keys that open rows of a copy; slots of other rows stay empty."""
    kept = [name for name, table in row_keys.tables.items() if table.backups is Backups.WITH_KEYS]
    if not kept:
        return
    keys: dict[int, bytes] = {}
    with (
        lmdb.open(str(target), readonly=True, lock=False, max_dbs=len(kept)) as copy,
        copy.begin() as txn,
    ):
        for name in kept:
            for key, stored in txn.cursor(copy.open_db(name.encode(), txn=txn, create=False)):
                keys[slot_of(stored)] = _key_of(row_keys, name, key, stored)
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        RowKeys.write_to(descriptor, keys)
    except BaseException:
        erase_file(beside)
        raise
    finally:
        os.close(descriptor)
    sync_folder(beside.parent)


def _key_of(row_keys: RowKeys, table: str, key: bytes, stored: bytes) -> bytes:
    try:
        row_key = row_keys.key_of(stored)
        decrypt(row_key, table, key, stored)
    except VanishedError:
        raise StoreError("A row vanished while the store was copied; make the backup again.") from None
    return row_key
