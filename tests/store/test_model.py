"""Both stores do the same: any sequence of groups, with members that fail, leaves the same rows."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from keyark.store import MemoryStore, Store, WriteTransaction, open_store

KEYS = st.binary(min_size=1, max_size=3)
OPERATIONS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.binary(max_size=4)),
    st.tuples(st.just("insert"), KEYS, st.binary(max_size=4)),
    st.tuples(st.just("delete"), KEYS, st.just(b"")),
    st.tuples(st.just("emit"), KEYS, st.just(b"")),
    st.tuples(st.just("raise"), KEYS, st.just(b"")),
)
GROUPS = st.lists(st.lists(st.lists(OPERATIONS, max_size=5), min_size=1, max_size=4), max_size=5)


def finish(txn: WriteTransaction, items) -> None:
    for item in items:
        txn.put("finished", txn.count("finished").to_bytes(4, "big"), item)


def member(operations):
    def fn(txn: WriteTransaction):
        seen = []
        for name, key, value in operations:
            if name == "put":
                txn.put("rows", key, value)
            elif name == "insert":
                txn.insert("rows", key, value)
            elif name == "delete":
                seen.append(txn.delete("rows", key))
            elif name == "emit":
                txn.emit(key)
            else:
                raise ValueError(key)
            seen.append(txn.get("rows", key))
        return seen

    return fn


async def run(store: Store, groups):
    outcomes = []
    for group in groups:
        done = await asyncio.gather(*(store.update(member(ops)) for ops in group), return_exceptions=True)
        outcomes.append([type(o).__name__ if isinstance(o, BaseException) else o for o in done])
    rows = store.read(lambda txn: (txn.scan("rows", limit=999), txn.scan("finished", limit=999)))
    await store.close()
    return outcomes, rows


@settings(max_examples=40, deadline=None)
@given(GROUPS)
def test_the_memory_store_and_the_durable_one_agree(groups) -> None:
    tables = ("rows", "finished")
    with tempfile.TemporaryDirectory() as folder:

        async def both():
            durable = open_store(Path(folder) / "store", tables=tables, finisher=finish)
            return await run(durable, groups), await run(MemoryStore(tables=tables, finisher=finish), groups)

        durable, memory = asyncio.run(both())
    assert durable == memory
