"""What both stores promise: transactions, groups, failing members, the finisher, order (P2, P3)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from keyark.errors import OverloadedError
from keyark.errors.services import StoreClosedError, StoreError
from keyark.store import KeyExistsError, MemoryStore, ReadTransaction, Store, WriteTransaction, open_store
from keyark.store.lmdb_store import MAX_WAITING
from tests.support.running.store import held, one_group

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
    outcomes = await one_group(store, putting(b"a"), putting(b"b", error=ValueError("no")), putting(b"c"))
    assert outcomes[0] == b"a"
    assert isinstance(outcomes[1], ValueError)
    assert outcomes[2] == b"c"
    assert [key for key, _ in await store.view(lambda txn: txn.scan("rows", limit=9))] == [b"a", b"c"]
    assert [value for _, value in await store.view(lambda txn: txn.scan("finished", limit=9))] == [b"a", b"c"]


async def test_a_finisher_that_fails_undoes_the_whole_group(store: Store) -> None:
    outcomes = await one_group(
        store, putting(b"a"), putting(b"b", error=ValueError("no")), putting(b"refuse"), putting(b"c")
    )
    assert [type(outcome) for outcome in outcomes] == [StoreError, ValueError, StoreError, StoreError]
    assert await store.view(lambda txn: (txn.count("rows"), txn.count("finished"))) == (0, 0)
    await store.update(putting(b"later"))
    assert store.get("finished", bytes(8)) == b"later"


async def test_the_finisher_runs_once_per_group_with_what_succeeded_in_order(tmp_path: Path) -> None:
    calls: list[list[object]] = []
    store = open_store(
        tmp_path / "store", tables=TABLES, finisher=lambda txn, items: calls.append(list(items))
    )
    await one_group(
        store, putting(b"c"), putting(b"no", error=ValueError("no")), putting(b"a"), putting(b"b")
    )
    await one_group(store, lambda txn: None)
    assert calls == [[b"c", b"a", b"b"]]
    await store.close()


async def test_what_a_group_has_not_committed_is_not_read(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", tables=TABLES)
    seen = []

    def look_outside(txn: WriteTransaction) -> None:
        txn.put("rows", b"a", b"")
        seen.append(store.get("rows", b"a"))

    await store.update(look_outside)
    assert seen == [None]
    assert store.get("rows", b"a") == b""
    await store.close()


async def test_a_group_is_one_commit_and_is_counted(store: Store) -> None:
    commits = store.stats.commits
    updates = store.stats.updates
    await one_group(store, *(putting(b"%d" % i) for i in range(100)), putting(b"no", error=ValueError("no")))
    held_too = int(not isinstance(store, MemoryStore))
    assert store.stats.commits - commits == 1 + held_too
    assert store.stats.updates - updates == 100 + held_too
    assert 0 < store.stats.last_commit_seconds <= store.stats.commit_seconds


async def test_a_failed_group_is_not_counted(store: Store) -> None:
    await one_group(store, putting(b"refuse"))
    assert store.stats.updates == int(not isinstance(store, MemoryStore))


@pytest.mark.parametrize("error", [StopIteration("end"), ZeroDivisionError()])
async def test_whatever_a_member_raises_its_neighbours_are_answered(store: Store, error: Exception) -> None:
    outcomes = await one_group(store, putting(b"a"), putting(b"b", error=error), putting(b"c"))
    assert outcomes[0] == b"a"
    assert isinstance(outcomes[1], RuntimeError if isinstance(error, StopIteration) else type(error))
    assert outcomes[2] == b"c"


async def test_no_error_ends_the_writer_thread(tmp_path: Path) -> None:
    def cancelled(txn: WriteTransaction, items: object = ()) -> None:
        raise asyncio.CancelledError

    store = open_store(tmp_path / "store", tables=TABLES, finisher=cancelled)
    for update in (cancelled, putting(b"emitted")):
        with pytest.raises(asyncio.CancelledError):
            await store.update(update)
    await store.update(lambda txn: txn.put("rows", b"later", b""))
    assert store.read(lambda txn: txn.count("rows")) == 1
    await store.close()


@pytest.mark.parametrize("key", [b"", b"k" * 512])
async def test_no_row_has_an_empty_or_too_long_key(store: Store, key: bytes) -> None:
    outcomes = await one_group(
        store, putting(b"a"), putting(key), lambda txn: txn.insert("rows", key, b""), putting(b"b")
    )
    assert [type(outcome) for outcome in outcomes] == [bytes, StoreError, StoreError, bytes]
    assert store.get("rows", key) is None
    assert not await store.update(lambda txn: txn.delete("rows", key))
    assert store.get("rows", b"b") == b""


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


async def test_the_update_of_a_cancelled_caller_is_written_all_the_same(store: Store) -> None:
    tasks = [
        asyncio.create_task(store.update(putting(b"a"))),
        asyncio.create_task(store.update(putting(b"b", error=ValueError("nobody hears this")))),
        asyncio.create_task(store.update(putting(b"c"))),
    ]
    await asyncio.sleep(0)
    for task in tasks[:2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError, asyncio.CancelledError, bytes]
    assert [key for key, _ in store.read(lambda txn: txn.scan("rows", limit=9))] == [b"a", b"c"]


async def test_a_closed_store_takes_and_gives_nothing(store: Store) -> None:
    waiting = [asyncio.create_task(store.update(putting(b"%d" % i))) for i in range(10)]
    await asyncio.sleep(0)
    await asyncio.gather(store.close(), store.close())
    assert await asyncio.gather(*waiting) == [b"%d" % i for i in range(10)]
    await store.close()
    with pytest.raises(StoreClosedError):
        await store.update(putting(b"late"))
    with pytest.raises(StoreClosedError):
        store.get("rows", b"0")
    with pytest.raises(StoreClosedError):
        await store.view(lambda txn: txn.count("rows"))


async def test_when_close_returns_what_waited_is_written(store: Store) -> None:
    waiting = [asyncio.create_task(store.update(putting(b"%d" % i))) for i in range(10)]
    await asyncio.sleep(0)
    await store.close()
    assert store.stats.updates == 10
    await asyncio.gather(*waiting)


async def test_closing_writes_what_waits(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", tables=TABLES)
    async with held(store):
        waiting = [asyncio.create_task(store.update(putting(b"%03d" % i))) for i in range(600)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
    await closing
    assert await asyncio.gather(*waiting) == [b"%03d" % i for i in range(600)]
    again = open_store(tmp_path / "store", tables=TABLES)
    assert again.read(lambda txn: txn.count("rows")) == 600
    await again.close()


async def test_closing_waits_for_views(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", tables=TABLES)
    await store.update(putting(b"a"))
    begun = threading.Event()
    order: list[str] = []

    def slow(txn: ReadTransaction) -> int:
        begun.set()
        for thread in threading.enumerate():
            if thread.name.startswith("store-"):
                thread.join()  # now only this view keeps the store open
        counts = {txn.count("rows") for _ in range(20_000)}
        order.append("view")
        return counts.pop()

    view = asyncio.create_task(store.view(slow))
    await asyncio.to_thread(begun.wait)
    await store.close()
    order.append("closed")
    assert await view == 1
    assert order == ["view", "closed"]


async def test_a_full_queue_refuses_and_what_was_taken_is_written(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", tables=TABLES)
    async with held(store):
        tasks = [asyncio.create_task(store.update(putting(b"%05d" % i))) for i in range(MAX_WAITING + 5)]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(outcome, OverloadedError) for outcome in outcomes] == [False] * MAX_WAITING + [
        True
    ] * 5
    assert store.read(lambda txn: txn.count("rows")) == MAX_WAITING
    await store.update(putting(b"later"))
    await store.close()


async def test_commits_are_synced_to_the_disk(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", tables=TABLES)
    flags = store._env.flags()  # nothing short of a power loss shows it from outside
    assert (flags["sync"], flags["metasync"], flags["writemap"], flags["map_async"]) == (
        True,
        True,
        False,
        False,
    )
    await store.close()


async def test_an_update_with_an_effect_outside_shows_in_the_memory_store() -> None:
    store = MemoryStore(tables=TABLES)
    effects: list[int] = []
    await store.update(lambda txn: effects.append(1))
    assert effects == [1, 1]
