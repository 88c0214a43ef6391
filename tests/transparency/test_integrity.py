"""P6: whatever is altered in the stored log is found, and the leaf is named."""

from __future__ import annotations

import pytest

from keyark.errors.services import LogCorruptError
from keyark.records.v1.log_pb2 import TreeHead
from keyark.store import open_store
from keyark.transparency.log import TABLES, Log
from keyark.transparency.merkle import leaf_hash
from tests.support.stories.transparency import FailingStore, append, entry, memory_store, new_log, opened_log

SIZE = 14
"""Leaves: the last ones complete no subtree above them."""


async def filled():
    log, store = await opened_log()
    await append(log, store, *(entry(number) for number in range(SIZE - 1)))
    return log, store, store._tables


def key(index: int) -> bytes:
    return index.to_bytes(8, "big")


def flip(rows: dict[bytes, bytes], index: int, offset: int) -> None:
    value = bytearray(rows[key(index)])
    value[offset] ^= 1
    rows[key(index)] = bytes(value)


async def assert_named(log, index: int) -> None:
    with pytest.raises(LogCorruptError, match=f"leaf {index}:") as caught:
        await log.verify_all()
    assert caught.value.metadata == {"index": str(index)}


@pytest.mark.parametrize("index", range(SIZE))
@pytest.mark.parametrize("offset", [0, 31, -1, -40])
async def test_an_altered_leaf_or_subtree(index, offset):
    log, _, tables = await filled()
    flip(tables["log_leaves"], index, offset)
    await assert_named(log, index)


async def test_an_altered_inner_subtree():
    log, _, tables = await filled()
    flip(tables["log_leaves"], 7, 3 * 32)
    await assert_named(log, 7)


async def test_a_leaf_that_was_replaced_with_its_hash():
    """Only the subtrees above it, and at the edge the head, still know of the old one."""
    log, _, tables = await filled()
    for index, named in ((12, 13), (13, 13), (4, 5)):
        rows = dict(tables["log_leaves"])
        leaf = entry(99).leaf
        tables["log_leaves"][key(index)] = leaf_hash(leaf) + rows[key(index)][32 : -len(leaf)] + leaf
        tables["log_details"].pop(key(index), None)
        await assert_named(log, named)
        tables["log_leaves"] = rows


@pytest.mark.parametrize("index", [0, 5, SIZE - 1])
@pytest.mark.parametrize("offset", [0, -1])
async def test_altered_details(index, offset):
    log, _, tables = await filled()
    flip(tables["log_details"], index, offset)
    await assert_named(log, index)


async def test_details_that_were_swapped():
    log, _, tables = await filled()
    details = tables["log_details"]
    details[key(3)] = details[key(0)]
    await assert_named(log, 3)


@pytest.mark.parametrize("index", range(SIZE))
async def test_a_leaf_that_was_removed(index):
    log, _, tables = await filled()
    del tables["log_leaves"][key(index)]
    await assert_named(log, index)


async def test_a_leaf_under_another_key():
    log, _, tables = await filled()
    tables["log_leaves"][key(3) + b"x"] = tables["log_leaves"].pop(key(3))
    await assert_named(log, 3)


@pytest.mark.parametrize("index", [SIZE, SIZE + 5])
@pytest.mark.parametrize("table", ["log_leaves", "log_details"])
async def test_a_row_beyond_the_head(table, index):
    log, _, tables = await filled()
    tables[table][key(index)] = b"x" * 64
    await assert_named(log, index)


async def test_a_row_that_is_cut_short():
    log, _, tables = await filled()
    tables["log_leaves"][key(3)] = b"x" * 40
    await assert_named(log, 3)


async def test_a_head_that_was_altered_or_set_back():
    log, _, tables = await filled()
    head = TreeHead.FromString(tables["log_head"][b"head"])
    tables["log_head"][b"head"] = TreeHead(size=head.size, root=bytes(32)).SerializeToString()
    await assert_named(log, SIZE - 1)
    tables["log_head"][b"head"] = TreeHead(size=head.size - 4, root=head.root).SerializeToString()
    await assert_named(log, SIZE - 1)


async def test_a_damaged_edge_is_found_when_the_log_is_opened():
    _, _, tables = await filled()
    flip(tables["log_leaves"], SIZE - 1, 32)
    log = new_log()
    store = memory_store(log)
    store._tables = tables
    with pytest.raises(LogCorruptError):
        await log.open(store)


async def test_a_leaf_beyond_the_head_is_never_overwritten():
    log, store, tables = await filled()
    tables["log_leaves"][key(SIZE)] = b"x"
    with pytest.raises(LogCorruptError, match=f"leaf {SIZE}:"):
        await append(log, store, entry(1))


async def test_erased_details_leave_the_log_whole():
    log, store, _ = await filled()
    whole = await log.verify_all()
    await store.update(lambda txn: txn.delete("log_details", key(4)))
    assert await log.verify_all() == whole
    assert not log.entry(4).salt
    assert not log.entry(4).details
    assert log.entry(4).leaf == entry(3).leaf


class GrowingStore(FailingStore):
    """Another leaf is appended after every look at the store."""

    log: Log

    async def view(self, fn):
        seen = await super().view(fn)
        await append(self.log, self, entry())
        return seen


async def test_leaves_that_come_meanwhile_are_left_out():
    log = new_log()
    store = GrowingStore(tables=TABLES, finisher=log.finisher)
    store.log = log
    await log.open(store)
    await append(log, store, entry(1))
    assert (await log.verify_all()).size == 2
    assert log.size > 2


async def test_a_long_log_on_disk_is_verified_in_pages(tmp_path):
    log = new_log()
    store = open_store(tmp_path, tables=TABLES, finisher=log.finisher)
    await log.open(store)
    await append(log, store, *(entry(number) for number in range(2500)))
    assert (await log.verify_all()).size == 2501
    await store.update(lambda txn: txn.put("log_details", key(2222), b"s" * 16))
    await assert_named(log, 2222)
    await store.close()
