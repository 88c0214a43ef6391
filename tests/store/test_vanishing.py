"""P4, P10: what was replaced or deleted vanishes from the raw files, and nothing that lives is lost on the way."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import lmdb
import pytest

from keyark.errors.services import StoreCorruptError, StoreError, StoreFullError
from keyark.store import (
    Backups,
    SchemaVersionError,
    Store,
    VanishingTable,
    WriteTransaction,
    open_store,
    row_keys_beside,
)
from keyark.store._row_keys import SLOT_SIZE, RowKeys, VanishedError
from tests.support.running.store import one_group
from tests.support.stories.vanishing import opening_rows, rows_on_pages

TOKENS = VanishingTable("tokens", backups=Backups.WITH_KEYS)
WAITING = VanishingTable("waiting", backups=Backups.WITHOUT_KEYS)
TABLES = ("rows", TOKENS, WAITING)
SECRETS = [random.Random(number).randbytes(size) for number, size in enumerate((90, 300, 900, 6000, 6000))]


def opened(path: Path, tables=TABLES, **options) -> Store:
    return open_store(path, tables=tables, map_size=1 << 26, **options)


async def put(store: Store, table: str, key: bytes, value: bytes) -> None:
    await store.update(lambda txn: txn.put(table, key, value))


async def delete(store: Store, table: str, key: bytes) -> None:
    await store.update(lambda txn: txn.delete(table, key))


def slots_in_use(folder: Path) -> int:
    """How many slots of the file hold anything."""
    data = (folder / "row-keys").read_bytes()
    return sum(any(data[start : start + SLOT_SIZE]) for start in range(0, len(data), SLOT_SIZE))


def everything(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()) if file.is_file())


def in_the_clear(folder: Path, secrets=SECRETS) -> list[int]:
    """Which secrets any file of a folder has, whole or in part."""
    raw = everything(folder)
    return [
        number for number, s in enumerate(secrets) if any(s[i : i + 24] in raw for i in range(len(s) - 24))
    ]


@pytest.mark.parametrize("how", ["replaced", "deleted"])
async def test_nothing_in_the_folder_opens_what_was_replaced_or_deleted(tmp_path: Path, how: str) -> None:
    store = opened(tmp_path / "store")
    for number, secret in enumerate(SECRETS):
        await put(store, TOKENS, b"%d" % number, secret)
        await put(store, "rows", b"%d" % number, b"neighbour" * 20)
    earlier = rows_on_pages(tmp_path / "store")  # what a thief may have kept of the B-tree
    assert set(opening_rows(tmp_path / "store", TOKENS, earlier)) == set(SECRETS)
    for number in range(len(SECRETS)):
        if how == "replaced":
            await put(store, TOKENS, b"%d" % number, b"successor")
        else:
            await delete(store, TOKENS, b"%d" % number)
        # the caller has its answer: now it is gone, whatever happens next
        copy = shutil.copytree(tmp_path / "store", tmp_path / f"copy-{number}")
        rows = [*earlier, *rows_on_pages(copy)]
        assert set(opening_rows(copy, TOKENS, rows)) - {b"successor"} == set(SECRETS[number + 1 :])
    assert in_the_clear(tmp_path / "store") == []
    await store.close()
    assert slots_in_use(tmp_path / "store") == (len(SECRETS) if how == "replaced" else 0)


async def test_rows_read_as_others_do_and_survive_a_restart(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")

    def write(txn: WriteTransaction) -> list[tuple[bytes, bytes]]:
        txn.append(TOKENS, b"a", b"1")
        txn.insert(TOKENS, b"b", b"")
        txn.put(TOKENS, b"c", b"3")
        txn.put(TOKENS, b"c", b"4")
        txn.delete(TOKENS, b"d")
        for refused in (lambda: txn.append(TOKENS, b"b", b"9"), lambda: txn.insert(TOKENS, b"a", b"9")):
            with pytest.raises(StoreError):
                refused()
        return txn.scan(TOKENS, limit=9)

    expected = [(b"a", b"1"), (b"b", b""), (b"c", b"4")]
    assert await store.update(write) == expected
    for _ in range(2):
        assert store.read(lambda txn: txn.scan(TOKENS, limit=9)) == expected
        assert store.read(lambda txn: txn.last(TOKENS)) == (b"c", b"4")
        assert store.get(TOKENS, b"b") == b""
        assert (await store.check())[TOKENS] == 3
        await store.close()
        assert slots_in_use(tmp_path / "store") == 3
        store = opened(tmp_path / "store")
    await store.close()


async def test_a_member_that_is_undone_leaves_what_it_took_away(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")
    await put(store, TOKENS, b"kept", b"1")

    def failing(txn: WriteTransaction) -> None:
        txn.put(TOKENS, b"new", b"never")
        txn.delete(TOKENS, b"kept")
        txn.delete(TOKENS, b"first")
        raise ValueError("no")

    outcomes = await one_group(
        store,
        lambda txn: txn.put(TOKENS, b"first", b"2"),
        failing,
        lambda txn: txn.put(TOKENS, b"last", b"3"),
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), ValueError, type(None)]
    assert store.read(lambda txn: txn.scan(TOKENS, limit=9)) == [
        (b"first", b"2"),
        (b"kept", b"1"),
        (b"last", b"3"),
    ]
    await store.close()
    assert slots_in_use(tmp_path / "store") == 3


async def test_a_commit_that_fails_loses_nothing_and_the_next_one_clears_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def finish(txn: WriteTransaction, items) -> None:
        if items == ["refuse"]:
            raise StoreError("the finisher refuses")

    store = opened(tmp_path / "store", finisher=finish)
    await put(store, TOKENS, b"a", b"1")

    def refused(txn: WriteTransaction) -> None:
        txn.put(TOKENS, b"a", b"2")
        txn.emit("refuse")

    for _ in range(3):
        with pytest.raises(StoreError):
            await store.update(refused)
    assert store.get(TOKENS, b"a") == b"1"
    await put(store, TOKENS, b"a", b"3")
    await put(store, TOKENS, b"b", b"4")
    assert store.read(lambda txn: txn.scan(TOKENS, limit=9)) == [(b"a", b"3"), (b"b", b"4")]
    await store.close()
    assert slots_in_use(tmp_path / "store") == 2
    assert (tmp_path / "store" / "row-keys").stat().st_size <= 3 * SLOT_SIZE  # slots are used again
    assert not caplog.records


async def test_a_reader_of_an_older_snapshot_reads_what_is_there_now(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")
    await put(store, TOKENS, b"a", b"1")
    loop, reads = asyncio.get_running_loop(), []

    def read(txn) -> bytes:
        reads.append(1)
        if len(reads) == 1:
            asyncio.run_coroutine_threadsafe(put(store, TOKENS, b"a", b"2"), loop).result()
        return txn.get(TOKENS, b"a")

    assert await store.view(read) == b"2"
    assert len(reads) == 2
    await store.close()


async def returncode(script: str, *arguments: str) -> int:
    """Run a script to its end, which it may make itself."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, *arguments)
    return await process.wait()


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from keyark.store import Backups, VanishingTable, open_store
from keyark.store._row_keys import RowKeys
TOKENS = VanishingTable("tokens", backups=Backups.WITH_KEYS)
store = open_store(Path(sys.argv[1]), tables=("rows", TOKENS))
write_to, calls = RowKeys.write_to, []

def dying(descriptor, keys):
    # one call makes keys durable, the next one destroys those of the former row
    calls.append(keys)
    if sys.argv[2] == "before" and len(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    write_to(descriptor, keys)
    if sys.argv[2] == "after" and len(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    await store.update(lambda txn: txn.put(TOKENS, b"a", b"first"))
    RowKeys.write_to = staticmethod(dying)
    await store.update(lambda txn: txn.put(TOKENS, b"a", b"second"))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (("before", "1"), b"first"),
        (("after", "1"), b"first"),
        (("before", "2"), b"second"),
        (("after", "2"), b"second"),
    ],
)
async def test_killed_at_any_step_one_of_two_rows_is_there_and_the_other_is_gone(
    tmp_path: Path, moment: tuple[str, str], expected: bytes
) -> None:
    folder = tmp_path / "store"
    assert await returncode(KILLED, str(folder), *moment) == -signal.SIGKILL
    store = opened(folder, tables=("rows", TOKENS))
    assert store.get(TOKENS, b"a") == expected
    await store.close()
    assert set(opening_rows(folder, TOKENS, rows_on_pages(folder))) == {expected}
    assert slots_in_use(folder) == 1


async def test_a_disk_without_room_for_a_key_keeps_the_row_that_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path / "store")
    await put(store, TOKENS, b"a", b"1")
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", lambda descriptor, data, offset: 0)
        with pytest.raises(StoreFullError):
            await put(store, TOKENS, b"a", b"2")
    assert store.get(TOKENS, b"a") == b"1"
    await put(store, TOKENS, b"a", b"3")
    assert store.get(TOKENS, b"a") == b"3"
    await store.close()
    assert slots_in_use(tmp_path / "store") == 1


async def test_a_key_that_could_not_be_destroyed_is_destroyed_with_the_next_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(tmp_path / "store")
    await put(store, TOKENS, b"a", b"1")

    def broken(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as disk:
        disk.setattr(os, "pwrite", broken)
        await delete(store, TOKENS, b"a")  # it is gone from the tree, durably
    assert "still there: Input/output error" in caplog.text
    assert slots_in_use(tmp_path / "store") == 1
    await put(store, "rows", b"any", b"")
    assert slots_in_use(tmp_path / "store") == 0
    await store.close()


async def test_a_backup_takes_rows_that_the_store_does_not_get(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")
    await put(store, "rows", b"a", b"of both")
    await put(store, TOKENS, b"a", b"token")
    target = tmp_path / "copy"
    for row in ((TOKENS, b"b", b"token"), ("rows", bytes(600), b"too long a key")):
        with pytest.raises(StoreError):
            await store.backup(target, rows=[row])
        assert not target.exists()
        assert not row_keys_beside(target).exists()
    await store.backup(target, rows=[("rows", b"b", b"of the copy"), ("rows", b"a", b"newer")])
    assert [store.get("rows", key) for key in (b"a", b"b")] == [b"of both", None]
    await store.close()
    assert [entry.name for entry in target.iterdir()] == ["data.mdb"]
    shutil.copy(row_keys_beside(target), target / "row-keys")
    copy = opened(target)
    assert [copy.get("rows", key) for key in (b"a", b"b")] == [b"newer", b"of the copy"]
    assert copy.get(TOKENS, b"a") == b"token"
    await copy.close()


async def test_a_backup_has_the_keys_of_what_belongs_in_it_beside_it(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")
    await put(store, TOKENS, b"a", b"old token")
    await put(store, TOKENS, b"a", b"token")
    await put(store, WAITING, b"a", b"wrapped")
    await put(store, "rows", b"a", b"row")
    target = tmp_path / "backups" / "today"
    await store.backup(target)
    keys = row_keys_beside(target)
    assert [entry.name for entry in target.iterdir()] == ["data.mdb"]
    assert keys.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StoreError, match="exists"):
        await store.backup(target.with_name("today"))
    await put(store, TOKENS, b"a", b"newer token")
    await store.close()
    restored = tmp_path / "restored"
    shutil.copytree(target, restored)
    with pytest.raises(StoreCorruptError, match="row-keys"):  # the copy alone opens no token ...
        opened(restored)
    shutil.copy(keys, restored / "row-keys")
    again = opened(restored)
    assert again.get(TOKENS, b"a") == b"token"
    assert again.get(WAITING, b"a") is None  # ... and what waits is in no backup
    assert again.get("rows", b"a") == b"row"
    await again.close()
    assert slots_in_use(restored) == 1


async def test_other_keys_than_the_rows_are_refused_and_nothing_is_destroyed(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = opened(folder)
    await put(store, TOKENS, b"a", b"1")
    await store.close()
    good = (folder / "row-keys").read_bytes()
    for wrong in (b"", bytes(SLOT_SIZE), os.urandom(SLOT_SIZE)):
        (folder / "row-keys").write_bytes(wrong)
        with pytest.raises(StoreCorruptError):
            opened(folder)
        assert (folder / "row-keys").read_bytes() == wrong
    (folder / "row-keys").write_bytes(good)
    store = opened(folder)
    (folder / "row-keys").write_bytes(bytes(SLOT_SIZE))  # under the running store
    for read in (lambda: store.get(TOKENS, b"a"), lambda: store.read(lambda txn: txn.scan(TOKENS, limit=1))):
        with pytest.raises(StoreCorruptError):
            read()
    with pytest.raises(StoreCorruptError):
        await store.update(lambda txn: txn.get(TOKENS, b"a"))
    await store.close()


def older(path: Path) -> None:
    """Make a store as earlier releases did, with rows that were replaced and deleted."""
    path.mkdir(mode=0o700)
    with lmdb.open(str(path), max_dbs=9, map_size=1 << 26) as environment:
        meta = environment.open_db(b"_meta")
        tables = {name: environment.open_db(name.encode()) for name in ("rows", "tokens", "elsewhere")}
        for value in (SECRETS[3], SECRETS[1], b"token"):
            with environment.begin(write=True) as txn:
                txn.put(b"schema_version", b"1", db=meta)
                txn.put(b"a", value, db=tables["tokens"])
                txn.put(b"a", b"row" + SECRETS[0], db=tables["elsewhere"])
                for number in range(400):
                    txn.put(b"%04d" % number, b"row" * 20, db=tables["rows"])
        with environment.begin(write=True) as txn:
            txn.put(b"b", SECRETS[2], db=tables["tokens"])
            txn.put(b"b-gone", SECRETS[2], db=tables["tokens"])
        with environment.begin(write=True) as txn:
            txn.delete(b"b-gone", db=tables["tokens"])


def move(txn: WriteTransaction) -> None:
    for key, value in txn.scan("elsewhere", limit=9):
        txn.put("waiting", key, value.removeprefix(b"row"))
        txn.put("elsewhere", key, b"row")


MOVED = VanishingTable("waiting", backups=Backups.WITHOUT_KEYS, take_over=move)


async def test_a_store_of_an_earlier_release_is_taken_over_and_its_pages_are_gone(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    older(folder)
    assert {0, 1, 2} <= set(in_the_clear(folder))  # SECRETS[1] was replaced long ago
    tables = ("rows", "elsewhere", TOKENS, MOVED)
    for _ in range(2):
        store = opened(folder, tables=tables)
        assert store.read(lambda txn: txn.scan(TOKENS, limit=9)) == [(b"a", b"token"), (b"b", SECRETS[2])]
        assert store.get("waiting", b"a") == SECRETS[0]
        assert store.get("elsewhere", b"a") == b"row"
        assert store.read(lambda txn: txn.count("rows")) == 400
        await store.check()
        await store.close()
        assert in_the_clear(folder) == []
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "data.mdb",
        "lock.mdb",
        "row-keys",
        "store.lock",
    ]
    with pytest.raises(SchemaVersionError, match=r"1\+row-keys"):  # as an earlier release would look at it
        opened(folder, tables=("rows", "tokens"))


DIES = """
import os, signal, sys
from pathlib import Path
from keyark import erasure
from keyark.store import Backups, VanishingTable, _lmdb_files, _lmdb_opening, open_store

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

where = sys.argv[2]
if where == "before the rewriting":
    _lmdb_files.rewrite_file = die
elif where == "before the exchange":
    Path.replace = die
elif where == "before the erasure":
    erasure._overwrite = die
elif where == "while it is taken over":
    _lmdb_opening.RowChanges.keep = die
open_store(Path(sys.argv[1]), tables=("rows", VanishingTable("tokens", backups=Backups.WITH_KEYS)), map_size=1 << 26)
"""


@pytest.mark.parametrize(
    "where",
    ["while it is taken over", "before the rewriting", "before the exchange", "before the erasure"],
)
async def test_a_taking_over_that_is_killed_goes_on_with_the_next_start(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "store"
    older(folder)
    assert await returncode(DIES, str(folder), where) == -signal.SIGKILL
    store = opened(folder, tables=("rows", TOKENS))
    assert store.read(lambda txn: txn.scan(TOKENS, limit=9)) == [(b"a", b"token"), (b"b", SECRETS[2])]
    assert store.read(lambda txn: txn.count("rows")) == 400
    await store.close()
    assert in_the_clear(folder, SECRETS[1:]) == []
    assert slots_in_use(folder) == 2
    assert not list(folder.glob("data.mdb.*"))


async def test_without_room_for_a_second_file_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store"
    older(folder)
    before = (folder / "data.mdb").read_bytes()
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 20, 1 << 20, 0))
        with pytest.raises(StoreFullError, match=r"free \d+ MiB"):
            opened(folder, tables=("rows", TOKENS))
    assert (folder / "data.mdb").read_bytes() == before
    await opened(folder, tables=("rows", TOKENS)).close()


async def test_a_vanished_row_opens_for_nobody_who_kept_its_place(tmp_path: Path) -> None:
    """A row that is put where another one stands, or under another key, does not open."""
    store = opened(tmp_path / "store")
    await put(store, TOKENS, b"mine", b"1")
    await put(store, WAITING, b"other", b"2")
    await store.close()
    keys = RowKeys(tmp_path / "store", TABLES)
    stored = next(row.stored for row in rows_on_pages(tmp_path / "store") if row.key == b"mine")
    assert keys.open(TOKENS, b"mine", stored) == b"1"
    for table, key in ((WAITING, b"mine"), (TOKENS, b"other")):
        with pytest.raises(VanishedError):
            keys.open(table, key, stored)
    keys.close()


async def test_a_store_without_vanishing_tables_has_no_row_keys(tmp_path: Path) -> None:
    store = opened(tmp_path / "store", tables=("rows",))
    await put(store, "rows", b"a", b"")
    await store.backup(tmp_path / "copy")
    await store.close()
    assert not (tmp_path / "store" / "row-keys").exists()
    assert not row_keys_beside(tmp_path / "copy").exists()
