"""P3: the store's folder, lock, schema, damage, fullness and backups; what cannot be read is said, not guessed."""

from __future__ import annotations

import asyncio
import os
import random
import stat
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from keyark.errors.services import StoreCorruptError, StoreError, StoreFullError
from keyark.store import (
    MemoryStore,
    SchemaVersionError,
    Store,
    StoreLockedError,
    WriteTransaction,
    open_store,
)
from tests.support.running.store import one_group

TABLES = ("rows", "more")
PAGE = os.sysconf("SC_PAGE_SIZE")


def opened(path: Path, **options) -> Store:
    return open_store(path, tables=TABLES, **options)


def putting(key: bytes, value: bytes = b""):
    return lambda txn: txn.put("rows", key, value)


async def filled(path: Path) -> bytes:
    """Make and close a store with small and large values; returns its file."""
    store = opened(path)
    values = random.Random(1)

    def fill(txn: WriteTransaction, start: int) -> None:
        for number in range(start, start + 40):
            txn.put("rows", b"%05d" % number, values.randbytes(values.choice((50, 900, 6000))))

    for start in range(0, 400, 40):
        await store.update(lambda txn, start=start: fill(txn, start))
    await store.close()
    return (path / "data.mdb").read_bytes()


def open_in_another_process(path: Path) -> str:
    """Return what it says on standard error."""
    script = "import sys; from pathlib import Path; from keyark.store import open_store\n"
    script += "open_store(Path(sys.argv[1]), tables=['rows', 'more'])"
    command = [sys.executable, "-c", script, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


async def test_folder_and_files_are_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        store = opened(tmp_path / "store")
        await store.update(putting(b"a"))
        await store.backup(tmp_path / "copy")
        await store.close()
    finally:
        os.umask(old)
    for folder in (tmp_path / "store", tmp_path / "copy"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(entry.stat().st_mode) for entry in folder.iterdir()} == {0o600}


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")
    assert "StoreLockedError" in open_in_another_process(tmp_path / "store")
    with pytest.raises(StoreLockedError):
        opened(tmp_path / "store")
    await store.update(putting(b"a"))
    await store.close()
    await opened(tmp_path / "store").close()


async def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be used"):
        opened(tmp_path / "file" / "store")


async def test_another_schema_is_refused(tmp_path: Path) -> None:
    await opened(tmp_path / "store", schema_version=1).close()
    refusals = []  # kept: a refused store must not stay open for as long as somebody holds the error
    for version in (2, 0, 11):
        with pytest.raises(SchemaVersionError) as refused:
            opened(tmp_path / "store", schema_version=version)
        refusals.append(refused)
    await opened(tmp_path / "store", schema_version=1).close()


async def test_the_schema_is_no_table(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")
    with pytest.raises(StoreError, match="no table"):
        store.get("_meta", b"schema_version")
    await store.close()


@pytest.mark.parametrize("garbage", [b"", b"\x5a" * 65536, bytes(65536), b"short"])
async def test_a_garbage_file_is_refused(tmp_path: Path, garbage: bytes) -> None:
    await filled(tmp_path / "store")
    (tmp_path / "store" / "data.mdb").write_bytes(garbage)
    with pytest.raises(StoreCorruptError):
        opened(tmp_path / "store")


async def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    data = await filled(tmp_path / "store")
    pages = len(data) // PAGE
    for keep in (1, 2, 3, pages // 2, pages - 2, pages - 1):
        (tmp_path / "store" / "data.mdb").write_bytes(data[: keep * PAGE])
        with pytest.raises(StoreCorruptError):
            opened(tmp_path / "store")
    (tmp_path / "store" / "data.mdb").write_bytes(data)
    await opened(tmp_path / "store").close()


async def test_a_healthy_file_that_ends_early_is_taken(tmp_path: Path) -> None:
    def come_and_go(txn: WriteTransaction) -> None:
        for number in range(200):
            txn.put("rows", b"%05d" % number, bytes(1000))
        for number in reversed(range(200)):
            txn.delete("rows", b"%05d" % number)

    store = opened(tmp_path / "store")
    await store.update(putting(b"stays", b"here"))
    await store.update(come_and_go)
    await store.close()
    with lmdb.open(str(tmp_path / "store"), readonly=True, max_dbs=9) as environment:
        pages = environment.info()["last_pgno"] + 1
    assert (tmp_path / "store" / "data.mdb").stat().st_size < pages * PAGE
    store = opened(tmp_path / "store")
    assert store.get("rows", b"stays") == b"here"
    await store.update(come_and_go)
    assert await store.check() == {"rows": 1, "more": 0}
    await store.close()


async def test_check_counts_rows(tmp_path: Path) -> None:
    await filled(tmp_path / "store")
    store = opened(tmp_path / "store")
    assert await store.check() == {"rows": 400, "more": 0}
    await store.close()


@pytest.mark.parametrize(
    ("healthy", "damaged", "finding"),
    [
        (b"00200", b"99999", "out of order"),
        ((400).to_bytes(8, "little"), (401).to_bytes(8, "little"), "lacks rows"),
    ],
)
async def test_check_finds_damage(tmp_path: Path, healthy: bytes, damaged: bytes, finding: str) -> None:
    data = await filled(tmp_path / "store")
    (tmp_path / "store" / "data.mdb").write_bytes(data.replace(healthy, damaged))
    store = opened(tmp_path / "store")
    with pytest.raises(StoreCorruptError, match=finding):
        await store.check()
    await store.close()


async def test_a_member_too_large_for_the_map_fails_alone(tmp_path: Path) -> None:
    store = opened(tmp_path / "store", map_size=1 << 20)
    outcomes = await one_group(store, putting(b"a"), putting(b"big", bytes(2 << 20)), putting(b"c"))
    assert [type(outcome) for outcome in outcomes] == [type(None), StoreFullError, type(None)]
    assert await store.check() == {"rows": 2, "more": 0}
    await store.close()


async def test_a_full_map_refuses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    store = opened(tmp_path / "store", map_size=1 << 20)
    written: list[bytes] = []
    with pytest.raises(StoreFullError):
        while len(written) < 1000:
            await store.update(putting(key := b"%04d" % len(written), bytes(4000)))
            written.append(key)
    assert written
    assert [key for key, _ in store.read(lambda txn: txn.scan("rows", limit=1000))] == written
    for key in written[:50]:
        await store.update(lambda txn, key=key: txn.delete("rows", key))
    await store.update(putting(b"again", bytes(100)))
    assert store.get("rows", b"again") == bytes(100)
    assert (await store.check())["rows"] == len(written) - 49
    await store.close()


async def test_a_backup_taken_while_writing_is_a_consistent_store(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")

    def both(number: int):
        def fn(txn: WriteTransaction) -> None:
            for table in TABLES:
                txn.put(table, b"%05d" % number, bytes(500))

        return fn

    await asyncio.gather(*(store.update(both(number)) for number in range(200)))
    await asyncio.gather(
        store.backup(tmp_path / "copy"), *(store.update(both(number)) for number in range(200, 600))
    )
    await store.close()
    copy = opened(tmp_path / "copy")
    counts = await copy.check()
    assert 200 <= counts["rows"] == counts["more"] <= 600
    await copy.update(putting(b"goes on"))
    await copy.close()


async def test_a_backup_overwrites_nothing(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")
    await store.backup(tmp_path / "copy")
    before = (tmp_path / "copy" / "data.mdb").read_bytes()
    await store.update(putting(b"a"))
    for target in (tmp_path / "copy", tmp_path / "store", tmp_path / "copy" / "data.mdb" / "below"):
        with pytest.raises(StoreError, match="cannot be made"):
            await store.backup(target)
    assert (tmp_path / "copy" / "data.mdb").read_bytes() == before
    await store.close()
    with pytest.raises(StoreError, match="nothing to copy"):
        await MemoryStore(tables=TABLES).backup(tmp_path / "memory")
