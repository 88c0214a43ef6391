"""The append-only log of a subsystem, in its own store and in the same transactions as its rows.

A transaction appends; the store's finisher gives all leaves of a commit group their indices and writes them
with the new tree head; then one signature over the newest committed head serves everyone who waits::

    log = Log(origin="example.org/drm", signer=signer, clock=clock)
    store = open_store(path, tables=(*log.TABLES, "keys"), finisher=log.finisher)
    await log.open(store)
    place = await store.update(lambda txn: log.append(txn, event))
    head = await log.checkpoint(covering=place.index)
    proof = log.inclusion_proof(place.index, head)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from keyark.clock import Clock
from keyark.errors import NotFoundError
from keyark.errors.services import LogClosedError, LogCorruptError, TreeSizeError
from keyark.records.v1.log_pb2 import TreeHead
from keyark.store import KeyExistsError, ReadTransaction, Store, WriteTransaction
from keyark.transparency._rows import (
    DETAILS,
    HEAD,
    HEAD_KEY,
    LEAVES,
    TABLES,
    corrupt,
    pack_leaf,
    read_head,
    read_node,
    row_key,
    unpack_event,
)
from keyark.transparency.checkpoint import Checkpoint, CheckpointSigner
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.integrity import verify_stored_log
from keyark.transparency.merkle import Tree, TreeHasher
from keyark.transparency.receipts import format_proof
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, CheckpointLink, EventType, LogEntry, LoggedEvent

__all__ = [
    "TABLES",
    "LeafRef",
    "Log",
    "LogClosedError",
    "LogCorruptError",
    "SignedHead",
    "TreeSizeError",
    "row_key",
]

MAX_NODES: Final = 1 << 15
MAX_TREES: Final = 8

OnIndex: TypeAlias = Callable[[WriteTransaction, int], None]
"""Completes rows with the index of their leaf, in the commit group's transaction; may run more than once."""


class LeafRef:
    """Where a leaf stands in the log, once the transaction that appended it is durable."""

    __slots__ = ("_index",)

    def __init__(self, index: int | None = None) -> None:
        self._index = index

    @property
    def index(self) -> int:
        """The leaf's index, from 0; raises LogClosedError while it has none."""
        if self._index is None:
            raise LogClosedError("The leaf is not in the log yet; open the store with the log's finisher.")
        return self._index


@dataclass(frozen=True)
class SignedHead:
    """A committed tree head: size, root (32 bytes), and the checkpoint that signs it (C2SP note, UTF-8)."""

    size: int
    root: bytes
    note: bytes


@dataclass(frozen=True, slots=True)
class _Appended:
    """What a transaction hands to the finisher."""

    event: LoggedEvent
    ref: LeafRef
    on_index: OnIndex | None


@dataclass(frozen=True, slots=True)
class _Opening:
    """What ``Log.open`` hands to the finisher: the first leaf, for a store without any."""

    event: LoggedEvent
    ref: LeafRef


class Log:
    """The log; all but ``finisher`` and what ``append`` does in a transaction runs on the event loop."""

    def __init__(self, *, origin: str, signer: CheckpointSigner, clock: Clock) -> None:
        self.origin = origin
        self._signer = signer
        self._clock = clock
        self._store: Store | None = None
        self._grown: tuple[bytes, TreeHasher] | None = None
        self._nodes: dict[tuple[int, int], bytes] = {}
        self._trees: dict[int, Tree] = {}
        self._signed: SignedHead | None = None
        self._signing: asyncio.Task[None] | None = None

    async def open(self, store: Store) -> None:
        """Take up the log of a store that was opened with ``finisher``; begins an empty one with LOG_CREATED.

        Raises LogCorruptError where the stored tree does not have the root that its head names, and
        LogClosedError where the store was opened without the finisher.
        """
        event = AuditEvent(
            version=EVENT_VERSION, type=EventType.EVENT_TYPE_LOG_CREATED, time_us=self._clock.now_us()
        )
        opening = _Opening(new_event(event, AuditDetails()), LeafRef())
        await store.update(lambda txn: txn.emit(opening))
        _ = opening.ref.index  # without the finisher, rows would be written and their leaves would not
        self._store = store

    async def close(self) -> None:
        """Let a signature in flight end, and append no more."""
        if self._signing is not None:
            await asyncio.wait([self._signing])
        self._store = None

    def append(
        self, txn: WriteTransaction, event: LoggedEvent, *, on_index: OnIndex | None = None
    ) -> LeafRef:
        """Append a leaf if the transaction succeeds, in one commit with its rows.

        The index is known when the transaction is durable; rows that hold it are completed by ``on_index``.
        Raises LogClosedError; whatever keeps the log from being written makes the whole update fail.
        """
        if self._store is None:
            raise LogClosedError(
                "The log is closed, so nothing can be done that must be logged; start the service again."
            )
        ref = LeafRef()
        txn.emit(_Appended(event, ref, on_index))
        return ref

    def finisher(self, txn: WriteTransaction, items: Sequence[object]) -> None:
        """Write what a commit group appended: leaves with their subtrees, details, and the new head."""
        if not items:
            return
        tree = self._read_tree(txn)
        for item in items:
            if isinstance(item, _Appended):
                _write_leaf(txn, tree, item)
            elif isinstance(item, _Opening):
                _write_first_leaf(txn, tree, item)
            else:
                raise TypeError("only a log emits to its finisher")
        root = tree.root()
        txn.put(HEAD, HEAD_KEY, TreeHead(size=tree.size, root=root).SerializeToString())
        self._grown = (root, tree)

    def _read_tree(self, txn: ReadTransaction) -> TreeHasher:
        """Return the tree of the stored head, to grow.

        What the last group made may never have been committed. So it counts only if the stored head has its
        size and root; otherwise the tree is read anew.
        """
        head = read_head(txn.get)
        if head is None:
            return TreeHasher()
        if self._grown is not None and self._grown[0] == head.root and self._grown[1].size == head.size:
            return self._grown[1].copy()
        tree = TreeHasher.read(head.size, lambda level, position: read_node(txn.get, level, position))
        if tree.root() != head.root:
            raise corrupt(head.size - 1, "the subtrees up to it do not make the tree of the head")
        return tree

    @property
    def public_key_der(self) -> bytes:
        """The key that verifies the newest checkpoints, SubjectPublicKeyInfo."""
        return self._signer.public_key_der

    @property
    def size(self) -> int:
        """How many leaves the newest committed tree has."""
        return self._committed().size

    async def checkpoint(self, *, covering: int = -1) -> SignedHead:
        """Return a signed committed head that covers the leaf at ``covering``; -1 stands for the newest one.

        What is signed is the newest committed head, one signature at a time; all who wait ride on it. Raises
        NotFoundError for a leaf that is not committed, and what the signing key raises.
        """
        size = self._newest().size
        wanted = covering if covering >= 0 else size - 1
        self._check_index(wanted, size)
        while (signed := self._signed) is None or signed.size <= wanted:
            if self._signing is None or self._signing.done():
                self._signing = asyncio.create_task(self._sign_newest())
            await asyncio.shield(self._signing)
        return signed

    async def sign_anew(self) -> SignedHead:
        """Sign the newest committed head although it may be signed: the signer has another key now.

        Heads that were signed before stay good and are given to nobody any more.
        """
        while self._signing is not None and not self._signing.done():
            await asyncio.wait([self._signing])
        signing = self._signing = asyncio.create_task(self._sign_newest())
        await asyncio.shield(signing)
        return await self.checkpoint(covering=0)

    async def _sign_newest(self) -> None:
        head = self._newest()
        checkpoint = Checkpoint(self.origin, head.size, head.root)
        if self._signer.is_slow:
            note = await asyncio.to_thread(self._signer.sign, checkpoint)
        else:
            note = self._signer.sign(checkpoint)
        self._signed = SignedHead(head.size, head.root, note)

    def _newest(self) -> TreeHead:
        """Return the newest committed head; raises LogCorruptError if it does not go on from the signed one."""
        head, last = self._committed(), self._signed
        if last is not None and (
            head.size < last.size or (head.size == last.size and head.root != last.root)
        ):
            raise corrupt(head.size - 1, "another tree was signed before")
        return head

    def inclusion_proof(self, index: int, head: SignedHead) -> list[bytes]:
        """Prove that the leaf at ``index`` is in the tree of ``head``; raises NotFoundError if it is not."""
        self._check_index(index, head.size)
        return self._tree(head.size).inclusion_proof(index)

    def prove(self, event: LoggedEvent, index: int, head: SignedHead) -> bytes:
        """Return a tlog-proof@v1 file that an entry stands at ``index`` in the tree of ``head``; see receipts."""
        proof = self.inclusion_proof(index, head)
        return format_proof(extra=event.SerializeToString(), index=index, proof=proof, checkpoint=head.note)

    def consistency_proof(self, first_size: int, second_size: int) -> list[bytes]:
        """Prove that the tree of one size is a prefix of that of another; raises TreeSizeError."""
        if not 0 <= first_size <= second_size <= self._committed().size:
            raise TreeSizeError(
                "The log has no such trees, or the first is larger than the second; ask for others."
            )
        return self._tree(second_size).consistency_proof(first_size)

    def link(self, first_size: int, head: SignedHead) -> CheckpointLink:
        """Return what leads a reader from the tree of a size to that of ``head``; raises TreeSizeError."""
        return self.link_sizes(first_size, head.size)

    def link_sizes(self, first_size: int, second_size: int) -> CheckpointLink:
        """Return what leads a reader from one tree of this log to another; raises TreeSizeError."""
        proof = self.consistency_proof(first_size, second_size)
        root = self._tree(second_size).root()
        return CheckpointLink(first_size=first_size, second_size=second_size, second_root=root, proof=proof)

    def entry(self, index: int) -> LoggedEvent:
        """Return the entry at an index; raises NotFoundError."""
        self._check_index(index, self.size)
        return self._opened().read(lambda txn: unpack_event(txn, index, txn.get(LEAVES, row_key(index))))

    async def entries(self, *, after: int = -1, limit: int) -> list[LogEntry]:
        """Return up to ``limit`` entries in the order of the log, those after an index."""
        if after >= self.size:
            return []

        def read(txn: ReadTransaction) -> list[LogEntry]:
            rows = txn.scan(LEAVES, after=row_key(after) if after >= 0 else None, limit=limit)
            places = [(int.from_bytes(key, "big"), row) for key, row in rows]
            return [LogEntry(index=index, event=unpack_event(txn, index, row)) for index, row in places]

        return await self._opened().view(read)

    async def verify_all(self) -> Checkpoint:
        """Recompute the whole tree from its leaves and return its head; see ``verify_stored_log``."""
        head = await verify_stored_log(self._opened())
        return Checkpoint(self.origin, head.size, head.root)

    def _opened(self) -> Store:
        if self._store is None:
            raise LogClosedError("The log is closed; start the service again.")
        return self._store

    def _committed(self) -> TreeHead:
        head = read_head(self._opened().get)
        if head is None:
            raise LogClosedError("The log was never begun; open the store with the log's finisher.")
        return head

    @staticmethod
    def _check_index(index: int, size: int) -> None:
        if not 0 <= index < size:
            raise NotFoundError(f"The log's tree of {size} leaves has no leaf {index}.")

    def _tree(self, size: int) -> Tree:
        """Return the committed tree of a size; the newest few are kept, each with its right edge."""
        if size not in self._trees:
            while len(self._trees) >= MAX_TREES:
                del self._trees[next(iter(self._trees))]
            self._trees[size] = Tree(size, self._node)
        return self._trees[size]

    def _node(self, level: int, position: int) -> bytes:
        """Return a committed node, which never changes."""
        node = self._nodes.get((level, position))
        if node is None:
            if len(self._nodes) >= MAX_NODES:
                self._nodes.clear()
            node = self._nodes[level, position] = read_node(self._opened().get, level, position)
        return node


def _write_leaf(txn: WriteTransaction, tree: TreeHasher, item: _Appended) -> None:
    index, event = tree.size, item.event
    key = row_key(index)
    try:
        txn.append(LEAVES, key, pack_leaf(tree.append(event.leaf), event.leaf))
        txn.append(DETAILS, key, event.salt + event.details)
    except KeyExistsError:
        raise corrupt(index, "it lies beyond the head's tree") from None
    item.ref._index = index
    if item.on_index is not None:
        item.on_index(txn, index)


def _write_first_leaf(txn: WriteTransaction, tree: TreeHasher, item: _Opening) -> None:
    if tree.size == 0:
        _write_leaf(txn, tree, _Appended(item.event, item.ref, None))
    item.ref._index = 0
