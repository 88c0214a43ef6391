"""A thief with a store's files: looks for rows on every page, used or free, and tries the keys that are there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyark.contexts import context

PAGE = 4096
PAGE_HEADER = 16
NODE_HEADER = 8
OVERFLOW = 0x04


@dataclass(frozen=True)
class FoundRow:
    """A key and what stands behind it, as far as it goes."""

    key: bytes
    stored: bytes


def rows_on_pages(folder: Path, *, max_key: int = 64) -> list[FoundRow]:
    """Take every place in the raw file for a row, whatever LMDB thinks of it.

    A node is its value's size (4 bytes), flags (2), the key's size (2), key, value. A large value stands on pages of
    its own, after a header of 16 bytes: each page is tried with each large node.
    """
    data = (folder / "data.mdb").read_bytes()
    nodes, large = [], []
    for start in range(0, len(data) - PAGE_HEADER, 2):
        low, high, flags, size = (
            int.from_bytes(data[start + i : start + i + 2], "little") for i in range(0, 8, 2)
        )
        length = low | high << 16
        if flags not in (0, 1) or not 1 <= size <= max_key:
            continue
        key = data[start + NODE_HEADER : start + NODE_HEADER + size]
        value = start + NODE_HEADER + size
        if flags == 0 and 32 <= length <= PAGE:
            nodes.append(FoundRow(key, data[value : value + length]))
        elif flags == 1 and PAGE // 4 < length < 1 << 20:
            large.append((key, length))
    for start in range(0, len(data), PAGE):
        nodes += [FoundRow(k, data[start + PAGE_HEADER : start + PAGE_HEADER + n]) for k, n in set(large)]
    return nodes


def found_values(folder: Path, table: str, *others: Path) -> set[bytes]:
    """Return all that copies of a store's file hold of a table, in the clear or under the row keys of the first."""
    rows = [row for copy in (folder, *others) for row in rows_on_pages(copy)]
    return {*(row.stored for row in rows), *opening_rows(folder, table, rows)}


def opening_rows(folder: Path, table: str, rows: Iterable[FoundRow]) -> list[bytes]:
    """Return what opens of found rows with any key in any slot of the folder."""
    keys = _keys_of(folder)
    return [value for row in set(rows) for value in _opened(table, row, keys)]


def _keys_of(folder: Path) -> set[bytes]:
    file = folder / "row-keys"
    data = file.read_bytes() if file.exists() else b""
    return {data[start : start + 32] for start in range(0, len(data), PAGE)} - {bytes(32), b""}


def _opened(table: str, row: FoundRow, keys: set[bytes]) -> list[bytes]:
    number, nonce, ciphertext = row.stored[:4], row.stored[4:16], row.stored[16:]
    bound = context("keyark/vanishing-row/v1", table.encode(), row.key, number)
    values = []
    for key in keys:
        with contextlib.suppress(InvalidTag):
            values.append(AESGCM(key).decrypt(nonce, ciphertext, bound))
    return values
