"""Both stores do the same: any groups, with members and finishers that fail, leave and return the same."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from keyark.errors.services import StoreError
from keyark.store import Backups, KeyExistsError, MemoryStore, VanishingTable, WriteTransaction, open_store
from tests.support.running.store import one_group

TABLES = ("rows", "finished")
KEYS = st.one_of(
    st.binary(min_size=1, max_size=2),
    st.sampled_from([b"", b"a", b"a\x00", b"\xff", b"\xff\xff", b"k" * 511, b"k" * 512]),
)
VALUES = st.one_of(st.binary(max_size=4), st.sampled_from([bytes(1500), b"large" * 1000]))
OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(["put", "append", "insert"]), KEYS, VALUES),
    st.tuples(st.sampled_from(["delete", "emit", "get", "scan"]), KEYS, st.just(b"")),
    st.tuples(st.sampled_from(["raise", "stop", "refuse", "nowhere"]), KEYS, st.just(b"")),
)
MEMBERS = st.lists(OPERATIONS, max_size=5)


class Refused(Exception):
    """What members and finishers of this test raise."""


def finish(txn: WriteTransaction, items) -> None:
    for item in items:
        txn.put("finished", txn.count("finished").to_bytes(4, "big"), item)
        if item == b"refuse":
            raise Refused("finisher")


def fail(key: bytes) -> None:
    raise Refused(key)


APPLY = {
    "put": lambda txn, key, value: txn.put("rows", key, value),
    "append": lambda txn, key, value: txn.append("rows", key, value),
    "insert": lambda txn, key, value: txn.insert("rows", key, value),
    "delete": lambda txn, key, _: txn.delete("rows", key),
    "get": lambda txn, key, _: txn.get("rows", key),
    "scan": lambda txn, key, _: (txn.scan("rows", after=key, limit=3), txn.last("rows"), txn.count("rows")),
    "emit": lambda txn, key, _: txn.emit(key),
    "refuse": lambda txn, key, _: txn.emit(b"refuse"),
    "nowhere": lambda txn, key, _: txn.get("nowhere", key),
    "stop": lambda txn, key, _: next(iter(())),
    "raise": lambda txn, key, _: fail(key),
}


def member(operations):
    return lambda txn: [APPLY[name](txn, key, value) for name, key, value in operations]


def told(outcome: object) -> object:
    if isinstance(outcome, KeyExistsError | StoreError | Refused):
        return type(outcome), str(outcome).split(";")[0]
    return repr(outcome) if isinstance(outcome, BaseException) else outcome


class Stores(RuleBasedStateMachine):
    """Does everything to both stores and compares."""

    tables: tuple[str, ...] = TABLES

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.memory = MemoryStore(tables=TABLES, finisher=finish)
        self.open_durable()

    def open_durable(self) -> None:
        self.durable = open_store(
            self.folder / "store", tables=self.tables, finisher=finish, map_size=1 << 26
        )

    @rule(members=st.lists(MEMBERS, min_size=1, max_size=5))
    def group(self, members) -> None:
        updates = [member(operations) for operations in members]
        durable = self.runner.run(one_group(self.durable, *updates))
        memory = self.runner.run(one_group(self.memory, *updates))
        assert [told(outcome) for outcome in durable] == [told(outcome) for outcome in memory]

    @rule(prefix=st.one_of(st.just(b""), KEYS), after=st.none() | KEYS, limit=st.integers(0, 5), key=KEYS)
    def look(self, prefix, after, limit, key) -> None:
        def fn(txn):
            return txn.scan("rows", prefix=prefix, after=after, limit=limit), txn.get("rows", key)

        assert self.durable.read(fn) == self.memory.read(fn)
        assert self.durable.get("rows", key) == self.memory.get("rows", key)

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.durable.close())
        self.open_durable()

    @invariant()
    def rows_are_the_same(self) -> None:
        if hasattr(self, "durable"):
            for table in TABLES:
                rows = self.memory.read(lambda txn, table=table: txn.scan(table, limit=10**6))
                assert self.durable.read(lambda txn, table=table: txn.scan(table, limit=10**6)) == rows
            assert self.runner.run(self.durable.check()) == self.runner.run(self.memory.check())

    def teardown(self) -> None:
        if hasattr(self, "durable"):
            self.runner.run(self.durable.close())
            self.runner.run(self.memory.close())
            self.runner.close()
            shutil.rmtree(self.folder)


class VanishingStores(Stores):
    """The same where the rows can vanish."""

    tables = (VanishingTable("rows", backups=Backups.WITH_KEYS), "finished")


TestStores = Stores.TestCase
TestVanishingStores = VanishingStores.TestCase
TestStores.settings = TestVanishingStores.settings = settings(
    max_examples=30, stateful_step_count=15, deadline=None
)
