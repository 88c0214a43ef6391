"""The store as domain code sees it: tables of ordered byte keys, durable transactions, group commit.

A function given to ``update`` is plain: no await, no I/O, no clock, no randomness, no effect but on its transaction. It
may run more than once. Parsing and cryptography come before it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, TypeAlias, TypeVar

from keyark.errors import Kind
from keyark.errors.services import StoreError

T = TypeVar("T")
TakeOver: TypeAlias = Callable[["WriteTransaction"], None]

MAX_KEY_SIZE: Final = 511
"""Bytes of the longest key; the shortest has one. No row has any other key."""


class StoreLockedError(StoreError):
    """Another process has the store open."""

    reason = "STORE_LOCKED"
    kind = Kind.PRECONDITION


class SchemaVersionError(StoreError):
    """The store was written by a release with another schema."""

    reason = "SCHEMA_VERSION"
    kind = Kind.PRECONDITION


class KeyExistsError(StoreError):
    """``insert`` met a key that exists, or ``append`` one that comes after."""

    reason = "KEY_EXISTS"
    kind = Kind.CONFLICT


def check_key(key: bytes) -> bytes:
    """Return a key that a row may have; raises StoreError for one of another size."""
    if not 1 <= len(key) <= MAX_KEY_SIZE:
        raise StoreError(f"A key has 1 to {MAX_KEY_SIZE} bytes, not {len(key)}; hash a longer one.")
    return key


def nothing_to_take_over(_: WriteTransaction) -> None:
    """What older releases kept elsewhere of most tables."""


class Backups(enum.Enum):
    """Whether the rows of a vanishing table open in what a backup restores."""

    WITH_KEYS = "with keys"
    WITHOUT_KEYS = "without keys"


class VanishingTable(str):
    """The name of a table whose rows vanish with the transaction that replaces or deletes them.

    Once its caller hears of that, nothing that the store keeps opens them any more: neither its files nor earlier
    copies of the file that holds the rows. What remains are copies of the file that holds the rows' keys; ``backups``
    says whether those are part of a backup. ``take_over`` runs once, in a store of a release that did not know the
    table as a vanishing one: it moves into it what that release kept elsewhere. Writing such a row costs one more
    fsync, and so does taking it away: nothing that most requests write belongs into such a table.
    """

    backups: Backups
    take_over: TakeOver

    def __new__(
        cls, name: str, *, backups: Backups, take_over: TakeOver = nothing_to_take_over
    ) -> VanishingTable:
        """Name a table."""
        table = super().__new__(cls, name)
        table.backups, table.take_over = backups, take_over
        return table


class ReadTransaction(Protocol):
    """A consistent snapshot; every method raises StoreError for a table that the store was not opened with."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the value of a key, or None."""

    def scan(
        self, table: str, *, prefix: bytes = b"", after: bytes | None = None, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """Return up to ``limit`` rows in the order of their keys.

        Only keys that start with ``prefix`` and, for the next page, are greater than ``after``.
        """

    def last(self, table: str) -> tuple[bytes, bytes] | None:
        """Return the row with the greatest key, or None for an empty table."""

    def count(self, table: str) -> int:
        """Return the number of rows."""


class WriteTransaction(ReadTransaction, Protocol):
    """A transaction that sees its own writes; all of it becomes durable, or nothing."""

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Write a row, replacing an older one; raises StoreError for an empty or too long key."""

    def append(self, table: str, key: bytes, value: bytes) -> None:
        """Write a new row after all others of its table, where such rows lie closest together.

        Raises KeyExistsError where the key does not come last, and StoreError for an empty or too long key.
        """

    def insert(self, table: str, key: bytes, value: bytes) -> None:
        """Write a new row; raises KeyExistsError, and StoreError for an empty or too long key."""

    def delete(self, table: str, key: bytes) -> bool:
        """Delete a row; says whether there was one."""

    def emit(self, item: object) -> None:
        """Hand an item to the finisher of the commit group, if this member of it succeeds."""


Finisher = Callable[[WriteTransaction, Sequence[object]], None]
"""Runs once per commit group that emitted, with what its successful members emitted, in their order.

What it raises undoes the whole group and is raised to every member of it.
"""


@dataclass
class StoreStats:
    """How well commits are shared: durable commits, updates in them, and their time in seconds."""

    commits: int = 0
    updates: int = 0
    commit_seconds: float = 0.0
    last_commit_seconds: float = 0.0

    def committed(self, *, updates: int, seconds: float) -> None:
        """Count a commit group that became durable."""
        self.commits += 1
        self.updates += updates
        self.commit_seconds += seconds
        self.last_commit_seconds = seconds


Row: TypeAlias = tuple[str, bytes, bytes]
"""A table, a key, and its value."""


def row_keys_beside(backup: Path) -> Path:
    """Where the row keys of a backup are: not in its folder, so that they can be destroyed without it."""
    return backup.with_name(f"{backup.name}.row-keys")


class Store(Protocol):
    """A store that is open; it serves one event loop at a time. Closed, it raises StoreClosedError."""

    stats: StoreStats

    def get(self, table: str, key: bytes) -> bytes | None:
        """Read one committed row, inline."""

    def read(self, fn: Callable[[ReadTransaction], T]) -> T:
        """Run ``fn`` on a snapshot, inline: for a few point reads.

        It runs again, on a newer one, where a row that it reads vanished meanwhile.
        """

    async def view(self, fn: Callable[[ReadTransaction], T]) -> T:
        """Run ``fn`` on a snapshot in a thread: for scans. As with ``read``, it may run again."""

    async def update(self, fn: Callable[[WriteTransaction], T]) -> T:
        """Run ``fn`` in a write transaction; when this returns, its writes are durable.

        What ``fn`` raises is raised here and undoes its writes only. Raises StoreFullError and any other
        StoreError with nothing kept, StoreClosedError, and OverloadedError when too many updates wait. The
        update of a caller that is cancelled is written all the same.
        """

    async def backup(self, target: Path, *, rows: Sequence[Row] = ()) -> None:
        """Write a consistent, durable copy to a folder that does not exist yet, or nothing.

        ``rows`` are written into the copy alone, so that a service which starts from it knows; no table of them may be
        a vanishing one. The keys of vanishing rows that belong to a backup are a file beside it: see
        ``row_keys_beside``. Raises StoreError, and StoreFullError where the target's disk is full.
        """

    async def check(self) -> dict[str, int]:
        """Walk every row of every table; returns the number of rows by table. Raises StoreCorruptError."""

    async def close(self) -> None:
        """Finish what is waiting, and close; a second time does nothing."""
