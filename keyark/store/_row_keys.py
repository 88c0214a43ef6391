"""The keys of rows that can vanish: they lie in a file beside the B-tree, and destroying one destroys its row.

A B-tree keeps what was replaced or deleted in free pages and in the gaps of pages that are used. So a row of a
``VanishingTable`` is encrypted there under a key of its own, and the key lies in a slot of ``row-keys``:

========== =============================================================================
a row      number of the slot (4 bytes), nonce (12 bytes), AES-256-GCM ciphertext
a slot     4096 bytes, so that writing one never makes a disk write another:
           the key (32 bytes), then zeros; a free slot is all zeros
========== =============================================================================

The order makes each step safe to be killed in. A key is durable in its slot before the transaction that writes the row
is; a slot is overwritten once the transaction that replaces or deletes the row is durable, and before its caller hears
of it. At start, and after a commit that failed, slots that no row names are overwritten.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyark.contexts import context
from keyark.erasure import sync_folder
from keyark.errors.services import StoreCorruptError, StoreError
from keyark.store.interface import VanishingTable

ROW_KEYS_FILE: Final = "row-keys"
LABEL: Final = "keyark/vanishing-row/v1"
SLOT_SIZE: Final = 4096
KEY_SIZE: Final = 32
_NUMBER: Final = 4
_NONCE: Final = 12
_FREE: Final = bytes(KEY_SIZE)

Mark: TypeAlias = tuple[dict[int, bytes], list[int]]


class VanishedError(Exception):
    """A row's key is not in its slot: it was destroyed since the snapshot, or never came from here."""

    def __init__(self, stored: bytes = b"") -> None:
        super().__init__()
        self.stored = stored


def slot_of(stored: bytes) -> int:
    """Return the number of the slot that a stored row names."""
    return int.from_bytes(stored[:_NUMBER], "big")


def _bound_to(table: str, key: bytes, number: bytes) -> bytes:
    return context(LABEL, table.encode(), key, number)


class RowKeys:
    """The open file of a store that is locked; the store's writer alone changes it."""

    def __init__(self, folder: Path, tables: Collection[str]) -> None:
        """Open or make the file for those of the tables that can vanish; raises OSError."""
        self.tables: Final = {table: table for table in tables if isinstance(table, VanishingTable)}
        self.path: Final = folder / ROW_KEYS_FILE
        self.is_settled = True
        self._free: list[int] = []
        self._descriptor = -1
        if self.tables:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            sync_folder(folder)
        self._count = self._slots_in_file()

    def _slots_in_file(self) -> int:
        return -(-os.fstat(self._descriptor).st_size // SLOT_SIZE) if self.tables else 0

    def open(self, table: str, key: bytes, stored: bytes) -> bytes:
        """Return the value of a row; raises VanishedError."""
        return decrypt(self.key_of(stored), table, key, stored)

    def key_of(self, stored: bytes) -> bytes:
        """Return what lies in the slot of a row, 32 bytes; raises VanishedError where there is nothing, StoreError."""
        try:
            key = os.pread(self._descriptor, KEY_SIZE, slot_of(stored) * SLOT_SIZE)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error.strerror}; look at its disk.") from None
        if len(key) != KEY_SIZE or key == _FREE:
            raise VanishedError(stored)
        return key

    def take(self) -> int:
        """Return the number of a slot that nothing uses."""
        if self._free:
            return self._free.pop()
        self._count += 1
        return self._count - 1

    def give_back(self, slots: Collection[int]) -> None:
        """Take slots that hold no key for others."""
        self._free.extend(slots)

    def keep(self, keys: Mapping[int, bytes]) -> None:
        """Write keys into their slots, durably; raises OSError."""
        self.write_to(self._descriptor, keys)

    def destroy(self, slots: Collection[int]) -> None:
        """Overwrite slots in place, durably; raises OSError."""
        self.write_to(self._descriptor, dict.fromkeys(slots, _FREE))

    @staticmethod
    def write_to(descriptor: int, keys: Mapping[int, bytes]) -> None:
        """Write slots of a file, durably; raises OSError."""
        for slot, key in keys.items():
            block = key.ljust(SLOT_SIZE, b"\0")
            if os.pwrite(descriptor, block, slot * SLOT_SIZE) != SLOT_SIZE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if keys:
            os.fsync(descriptor)

    def settle(self, named: Collection[int]) -> None:
        """Destroy every key whose slot no row names: what a crash or a failed commit left. Raises OSError."""
        self._count = max(self._slots_in_file(), *(slot + 1 for slot in named), 0)
        unnamed = sorted(set(range(self._count)) - set(named), reverse=True)
        self.destroy([slot for slot in unnamed if self._is_written(slot)])
        self._free = unnamed
        self.is_settled = True

    def _is_written(self, slot: int) -> bool:
        return any(os.pread(self._descriptor, SLOT_SIZE, slot * SLOT_SIZE))

    def close(self) -> None:
        """Close the file."""
        if self.tables:
            os.close(self._descriptor)


class RowChanges:
    """What one commit group does to vanishing rows: keys that it made, and slots whose rows it took away."""

    def __init__(self, keys: RowKeys) -> None:
        self.tables = keys.tables
        self._keys = keys
        self._was_settled = keys.is_settled
        self._taken: list[int] = []
        self._made: dict[int, bytes] = {}
        self._dropped: list[int] = []

    def open(self, table: str, key: bytes, stored: bytes) -> bytes:
        """Return the value of a row that this group wrote or found; raises StoreCorruptError."""
        made = self._made.get(slot_of(stored))
        try:
            return decrypt(made or self._keys.key_of(stored), table, key, stored)
        except VanishedError:
            raise lost_key(table, self._keys.path) from None

    def seal(self, table: str, key: bytes, value: bytes) -> bytes:
        """Return what to store for a row, under a new key."""
        slot, row_key = self._keys.take(), AESGCM.generate_key(8 * KEY_SIZE)
        self._taken.append(slot)
        self._made[slot] = row_key
        number, nonce = slot.to_bytes(_NUMBER, "big"), os.urandom(_NONCE)
        return number + nonce + AESGCM(row_key).encrypt(nonce, value, _bound_to(table, key, number))

    def drop(self, stored: bytes) -> None:
        """Note that a stored row was replaced or deleted."""
        slot = slot_of(stored)
        if self._made.pop(slot, None) is None:
            self._dropped.append(slot)

    def mark(self) -> Mark:
        """Return where the changes stand, for ``undo``."""
        return dict(self._made), list(self._dropped)

    def undo(self, mark: Mark) -> None:
        """Forget what came after a mark."""
        self._made, self._dropped = mark

    def forget(self) -> None:
        """Forget all of it, for nothing of the group was kept."""
        if self._keys.is_settled:  # no key was written
            self._keys.give_back(self._taken)

    def keep(self) -> None:
        """Make the new keys durable, before the commit; raises OSError."""
        if self._made or self._dropped:
            self._keys.is_settled = False  # until it is known which of the two is durable
            self._keys.keep(self._made)

    def finish(self, named: Callable[[], Collection[int]]) -> None:
        """Destroy the keys of rows that are gone, after the commit; ``named`` reads which slots are in use.

        Raises OSError; the next commit tries again.
        """
        if not self._was_settled:
            self._keys.settle(named())
        elif self._taken or self._dropped:
            self._keys.destroy(self._dropped)
            self._keys.give_back([*self._dropped, *(slot for slot in self._taken if slot not in self._made)])
            self._keys.is_settled = True


def decrypt(row_key: bytes, table: str, key: bytes, stored: bytes) -> bytes:
    """Open a stored row with the key of its slot; raises VanishedError where that is another's."""
    number, nonce = stored[:_NUMBER], stored[_NUMBER : _NUMBER + _NONCE]
    with contextlib.suppress(InvalidTag, ValueError):
        return AESGCM(row_key).decrypt(nonce, stored[_NUMBER + _NONCE :], _bound_to(table, key, number))
    raise VanishedError(stored)


def lost_key(table: str, path: Path) -> StoreCorruptError:
    """Return the error of a row that has to open and does not."""
    return StoreCorruptError(
        f"A row of {table!r} does not open with {path}; put back the copy of that file that was made with the store's."
    )
