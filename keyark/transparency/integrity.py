"""Checks a stored log from its leaves up: every node, every binding of details, and the head."""

from __future__ import annotations

from typing import Final

from keyark.errors import NotFoundError
from keyark.errors.services import LogCorruptError
from keyark.records.v1.log_pb2 import TreeHead
from keyark.store import ReadTransaction, Store
from keyark.transparency._rows import DETAILS, LEAVES, corrupt, read_head, row_key, unpack_event, unpack_leaf
from keyark.transparency.events import SALT_SIZE, EventError, check_details, parse_leaf
from keyark.transparency.merkle import TreeHasher
from keyark.v1.audit_pb2 import LoggedEvent

PAGE: Final = 1024


async def verify_stored_log(store: Store) -> TreeHead:
    """Recompute the tree of the newest committed head and return that head; later leaves are left out.

    Raises LogCorruptError with the index of the first leaf whose row, subtrees or details do not fit, or that
    should not be there.
    """
    head = await store.view(_read_outline)
    tree = TreeHasher()
    while tree.size < head.size:
        await store.view(lambda txn: _verify_page(txn, tree, head.size))
    if tree.root() != head.root:
        raise corrupt(head.size - 1, "the leaves up to it do not make the tree of the head")
    return head


def stored_entry(txn: ReadTransaction, index: int) -> LoggedEvent:
    """Return the entry at an index as it is stored; raises NotFoundError where there is none."""
    row = txn.get(LEAVES, row_key(index))
    if row is None:
        raise NotFoundError(f"The log has no leaf {index}.")
    return unpack_event(txn, index, row)


def _read_outline(txn: ReadTransaction) -> TreeHead:
    """Return the head; raises where rows lie outside of its tree."""
    head = read_head(txn.get)
    if head is None:
        raise LogCorruptError(
            "The log has no head; restore the store from a backup.", metadata={"index": "0"}
        )
    for table in (LEAVES, DETAILS):
        last = txn.last(table)
        if last is not None and last[0] >= row_key(head.size):
            raise corrupt(int.from_bytes(last[0], "big"), "it lies beyond the head's tree")
    return head


def _verify_page(txn: ReadTransaction, tree: TreeHasher, end: int) -> None:
    after = row_key(tree.size - 1) if tree.size else None
    rows = txn.scan(LEAVES, after=after, limit=min(PAGE, end - tree.size))
    if not rows:
        raise corrupt(tree.size, "its row is missing")
    for key, row in rows:
        index = tree.size
        if key != row_key(index):
            raise corrupt(index, "its row is missing")
        stored, leaf = unpack_leaf(index, row)
        if b"".join(tree.append(leaf)) != stored:
            raise corrupt(index, "its bytes or the subtrees that it completes were altered")
        _verify_details(txn, index, leaf)


def _verify_details(txn: ReadTransaction, index: int, leaf: bytes) -> None:
    told = txn.get(DETAILS, row_key(index))
    if told is None:
        return  # erased
    try:
        check_details(parse_leaf(leaf), told[:SALT_SIZE], told[SALT_SIZE:])
    except EventError:
        raise corrupt(index, "its details are not those that it binds") from None
