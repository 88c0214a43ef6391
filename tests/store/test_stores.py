"""What both stores promise: transactions, groups, failing members, the finisher, order (P2, P3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from keyark.store import (
    KeyExistsError,
    MemoryStore,
    SchemaVersionError,
    Store,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    WriteTransaction,
    open_store,
)

TABLES = ("rows", "finished")


def finish(txn: WriteTransaction, items) -> None:
    """Number what a group emitted, as the log does."""
    for item in items:
        if item == b"refuse":
            raise StoreError("the finisher refuses")
        txn.put("finished", txn.count("finished").to_bytes(8, "big"), item)


@pytest_asyncio.fixture(params=["memory", "lmdb"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    if request.param == "memory":
        opened: Store = MemoryStore(tables=TABLES, finisher=finish)
    else:
        opened = open_store(tmp_path / "store", tables=TABLES, finisher=finish)
    yield opened
    await opened.close()


def putting(
    key: bytes, value: bytes = b"", error: Exception | None = None
) -> Callable[[WriteTransaction], bytes]:
    def fn(txn: WriteTransaction) -> bytes:
        txn.put("rows", key, value)
        txn.emit(key)
        if error is not None:
            raise error
        return key

    return fn


async def test_what_is_written_is_read(store: Store) -> None:
    assert await store.update(putting(b"a", b"1")) == b"a"
    assert store.get("rows", b"a") == b"1"
    assert store.get("rows", b"b") is None
    assert store.read(lambda txn: txn.count("rows")) == 1


async def test_a_failing_member_is_undone_alone_and_its_emissions_are_dropped(store: Store) -> None:
    outcomes = await asyncio.gather(
        store.update(putting(b"a")),
        store.update(putting(b"b", error=ValueError("no"))),
        store.update(putting(b"c")),
        return_exceptions=True,
    )
    assert outcomes[0] == b"a"
    assert isinstance(outcomes[1], ValueError)
    assert outcomes[2] == b"c"
    assert [key for key, _ in await store.view(lambda txn: txn.scan("rows", limit=9))] == [b"a", b"c"]
    assert [value for _, value in await store.view(lambda txn: txn.scan("finished", limit=9))] == [b"a", b"c"]


async def test_a_finisher_that_fails_undoes_the_whole_group(store: Store) -> None:
    outcomes = await asyncio.gather(
        store.update(putting(b"a")), store.update(putting(b"refuse")), return_exceptions=True
    )
    assert any(isinstance(outcome, StoreError) for outcome in outcomes)
    undone = [
        key
        for key, outcome in zip((b"a", b"refuse"), outcomes, strict=True)
        if isinstance(outcome, StoreError)
    ]
    assert b"refuse" in undone
    for key in undone:
        assert store.get("rows", key) is None
    await store.update(putting(b"later"))
    assert store.get("rows", b"later") == b""


async def test_updates_that_wait_share_commits(store: Store) -> None:
    before = store.stats.commits
    await asyncio.gather(*(store.update(putting(b"%d" % i)) for i in range(100)))
    assert store.stats.commits - before < 20


async def test_a_transaction_sees_its_own_writes_and_those_before_it_in_the_group(store: Store) -> None:
    def add(txn: WriteTransaction) -> int:
        number = txn.count("rows")
        txn.insert("rows", b"%03d" % number, b"")
        return number

    assert sorted(await asyncio.gather(*(store.update(add) for _ in range(20)))) == list(range(20))


async def test_insert_refuses_a_key_that_exists(store: Store) -> None:
    await store.update(putting(b"a", b"1"))
    with pytest.raises(KeyExistsError):
        await store.update(lambda txn: txn.insert("rows", b"a", b"2"))
    assert store.get("rows", b"a") == b"1"


async def test_delete_says_whether_there_was_a_row(store: Store) -> None:
    await store.update(putting(b"a"))
    assert await store.update(lambda txn: txn.delete("rows", b"a"))
    assert not await store.update(lambda txn: txn.delete("rows", b"a"))


async def test_scans_are_ordered_paged_and_bounded_by_prefix(store: Store) -> None:
    keys = [b"a", b"ab", b"abc", b"b", b"ba", b"\xff", b"\xff\xff"]
    await asyncio.gather(*(store.update(putting(key)) for key in keys))

    def scan(**options):
        return [key for key, _ in store.read(lambda txn: txn.scan("rows", **options))]

    assert scan(limit=99) == keys
    assert scan(limit=2) == [b"a", b"ab"]
    assert scan(limit=2, after=b"ab") == [b"abc", b"b"]
    assert scan(limit=9, prefix=b"ab") == [b"ab", b"abc"]
    assert scan(limit=9, prefix=b"b", after=b"b") == [b"ba"]
    assert scan(limit=9, prefix=b"b", after=b"a") == [b"b", b"ba"]
    assert scan(limit=9, after=b"\xff\xff") == []
    assert store.read(lambda txn: txn.last("rows")) == (b"\xff\xff", b"")


async def test_an_unknown_table_is_an_error(store: Store) -> None:
    with pytest.raises(StoreError, match="no table"):
        store.get("nowhere", b"a")
    with pytest.raises(StoreError, match="no table"):
        await store.update(lambda txn: txn.put("nowhere", b"a", b""))


async def test_a_cancelled_caller_corrupts_nothing(store: Store) -> None:
    task = asyncio.create_task(store.update(putting(b"a")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.update(putting(b"b"))
    assert store.get("rows", b"b") == b""


async def test_closing_writes_what_waits_and_takes_no_more(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", tables=TABLES)
    waiting = [asyncio.create_task(store.update(putting(b"%d" % i))) for i in range(10)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*waiting)
    with pytest.raises(StoreClosedError):
        await store.update(putting(b"late"))
    again = open_store(tmp_path / "store", tables=TABLES)
    assert again.read(lambda txn: txn.count("rows")) == 10
    await again.close()


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", tables=TABLES)
    with pytest.raises(StoreLockedError):
        open_store(tmp_path / "store", tables=TABLES)
    await store.close()
    await open_store(tmp_path / "store", tables=TABLES).close()


async def test_another_schema_is_refused(tmp_path: Path) -> None:
    await open_store(tmp_path / "store", tables=TABLES, schema_version=1).close()
    with pytest.raises(SchemaVersionError):
        open_store(tmp_path / "store", tables=TABLES, schema_version=2)
    await open_store(tmp_path / "store", tables=TABLES, schema_version=1).close()


async def test_a_garbage_file_is_reported(tmp_path: Path) -> None:
    await open_store(tmp_path / "store", tables=TABLES).close()
    (tmp_path / "store" / "data.mdb").write_bytes(b"\x5a" * 65536)
    with pytest.raises(StoreCorruptError):
        open_store(tmp_path / "store", tables=TABLES)


async def test_a_full_store_refuses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", tables=TABLES, map_size=1 << 20)
    written = []
    with pytest.raises(StoreFullError):
        while len(written) < 1000:
            written.append(await store.update(putting(b"%04d" % len(written), bytes(4000))))
    assert written
    assert store.read(lambda txn: txn.count("rows")) == len(written)
    for key in written[:50]:
        await store.update(lambda txn, key=key: txn.delete("rows", key))
    await store.update(putting(b"again", bytes(100)))
    assert store.get("rows", b"again") == bytes(100)
    await store.close()


async def test_a_backup_is_a_store(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", tables=TABLES)
    await store.update(putting(b"a", b"1"))
    await store.backup(tmp_path / "copy")
    with pytest.raises(StoreError, match="does not exist"):
        await store.backup(tmp_path / "copy")
    await store.close()
    copy = open_store(tmp_path / "copy", tables=TABLES)
    assert copy.get("rows", b"a") == b"1"
    await copy.close()
