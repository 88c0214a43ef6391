"""How the log lies in the store: two rows per leaf, written once, and one row for the head.

======== ================ ==========================================================================
table    key              value
======== ================ ==========================================================================
leaves   index, 8 bytes   the perfect subtrees that the leaf completes (32 bytes each, its own hash
                          first, then upwards), followed by the exact bytes of the leaf
details  index, 8 bytes   salt (16 bytes) ‖ serialized AuditDetails: exactly what the leaf binds
head     ``head``         TreeHead of the last commit
======== ================ ==========================================================================

Numbers are big-endian. How many subtrees a leaf completes follows from its index (on average two). So every
node of the tree has one place to be read from, and appending costs no write beyond the leaf's own: nothing is
written twice, rows come in the order of their keys, and leaf and hash stand side by side for a check. Details
have a table of their own because they can be erased.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from keyark.errors.services import LogCorruptError
from keyark.records.v1.log_pb2 import TreeHead
from keyark.sizes import HASH_SIZE
from keyark.store import ReadTransaction
from keyark.transparency.events import SALT_SIZE
from keyark.v1.audit_pb2 import LoggedEvent

LEAVES: Final = "log_leaves"
DETAILS: Final = "log_details"
HEAD: Final = "log_head"
HEAD_KEY: Final = b"head"
TABLES: Final = (LEAVES, DETAILS, HEAD)


def corrupt(index: int, what: str) -> LogCorruptError:
    """Return the error that names the leaf and what is wrong with it."""
    return LogCorruptError(
        f"The log is damaged at leaf {index}: {what}. Keep a copy, then restore the store from a backup.",
        metadata={"index": str(index)},
    )


def row_key(index: int) -> bytes:
    """Return the key (8 bytes) of a leaf's rows."""
    return index.to_bytes(8, "big")


def completed_count(index: int) -> int:
    """Return how many perfect subtrees a leaf completes, its own hash included."""
    return (~index & (index + 1)).bit_length()


def pack_leaf(completed: Sequence[bytes], leaf: bytes) -> bytes:
    """Return the row of a leaf."""
    return b"".join((*completed, leaf))


def unpack_leaf(index: int, row: bytes | None) -> tuple[bytes, bytes]:
    """Return the completed subtrees, joined, and the leaf's bytes; raises LogCorruptError."""
    end = completed_count(index) * HASH_SIZE
    if row is None or len(row) < end:
        raise corrupt(index, "its row is missing or too short")
    return row[:end], row[end:]


def read_node(get: Callable[[str, bytes], bytes | None], level: int, position: int) -> bytes:
    """Return the hash of the perfect subtree at (level, position); raises LogCorruptError."""
    index = ((position + 1) << level) - 1
    completed, _ = unpack_leaf(index, get(LEAVES, row_key(index)))
    return completed[level * HASH_SIZE : (level + 1) * HASH_SIZE]


def read_head(get: Callable[[str, bytes], bytes | None]) -> TreeHead | None:
    """Return the head of the last commit, or None before the first."""
    value = get(HEAD, HEAD_KEY)
    return None if value is None else TreeHead.FromString(value)


def unpack_event(txn: ReadTransaction, index: int, row: bytes | None) -> LoggedEvent:
    """Return a leaf with its details; salt and details are empty where they were erased."""
    _, leaf = unpack_leaf(index, row)
    told = txn.get(DETAILS, row_key(index)) or b""
    return LoggedEvent(leaf=leaf, salt=told[:SALT_SIZE], details=told[SALT_SIZE:])
