"""The store as domain code sees it: tables of ordered byte keys, durable transactions, group commit.

A function given to ``update`` is plain: no await, no I/O, no clock, no randomness, no effect but on its transaction. It
may run more than once. Parsing and cryptography come before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from keyark.errors import KeyarkError, Kind

T = TypeVar("T")


class StoreError(KeyarkError):
    """The store could not do what was asked; nothing of the transaction was kept."""

    reason = "STORE"


class StoreFullError(StoreError):
    """The disk or the store's map is full; the store goes on once there is room."""

    reason = "STORE_FULL"
    kind = Kind.EXHAUSTED


class StoreCorruptError(StoreError):
    """The store's file is damaged."""

    reason = "STORE_CORRUPT"


class StoreLockedError(StoreError):
    """Another process has the store open."""

    reason = "STORE_LOCKED"
    kind = Kind.PRECONDITION


class StoreClosedError(StoreError):
    """The store is closed or closing."""

    reason = "STORE_CLOSED"
    kind = Kind.UNAVAILABLE


class SchemaVersionError(StoreError):
    """The store was written by a release with another schema."""

    reason = "SCHEMA_VERSION"
    kind = Kind.PRECONDITION


class KeyExistsError(StoreError):
    """``insert`` met a key that exists."""

    reason = "KEY_EXISTS"
    kind = Kind.CONFLICT


class ReadTransaction(Protocol):
    """A consistent snapshot."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the value of a key, or None."""

    def scan(
        self, table: str, *, prefix: bytes = b"", after: bytes | None = None, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """Return up to ``limit`` rows in the order of their keys, those after ``after`` (exclusive)."""

    def last(self, table: str) -> tuple[bytes, bytes] | None:
        """Return the row with the greatest key, or None for an empty table."""

    def count(self, table: str) -> int:
        """Return the number of rows."""


class WriteTransaction(ReadTransaction, Protocol):
    """A transaction that sees its own writes; all of it becomes durable, or nothing."""

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Write a row, replacing an older one."""

    def insert(self, table: str, key: bytes, value: bytes) -> None:
        """Write a new row; raises KeyExistsError."""

    def delete(self, table: str, key: bytes) -> bool:
        """Delete a row; says whether there was one."""

    def emit(self, item: object) -> None:
        """Hand an item to the finisher of the commit group, if this member of it succeeds."""


Finisher = Callable[[WriteTransaction, Sequence[object]], None]
"""Runs once per commit group, with what its successful members emitted, in their order."""


@dataclass
class StoreStats:
    """How well commits are shared."""

    commits: int = 0
    updates: int = 0
    commit_seconds: float = 0.0


class Store(Protocol):
    """A store that is open."""

    stats: StoreStats

    def get(self, table: str, key: bytes) -> bytes | None:
        """Read one committed row, inline."""

    def read(self, fn: Callable[[ReadTransaction], T]) -> T:
        """Run ``fn`` on a snapshot, inline: for a few point reads."""

    async def view(self, fn: Callable[[ReadTransaction], T]) -> T:
        """Run ``fn`` on a snapshot in a thread: for scans."""

    async def update(self, fn: Callable[[WriteTransaction], T]) -> T:
        """Run ``fn`` in a write transaction; when this returns, its writes are durable.

        What ``fn`` raises is raised here and undoes its writes only. Raises StoreFullError, StoreClosedError
        and OverloadedError. A caller that is cancelled may or may not have been written.
        """

    async def backup(self, target: Path) -> None:
        """Write a consistent copy to a folder that does not exist yet."""

    async def close(self) -> None:
        """Finish what is waiting, and close."""
