"""The newest head of another subsystem's log that was accepted here, so that no history is ever taken back.

Links (consistency proofs) come from whoever relays them and prove nothing alone: they propose. A head that
the log itself signed confirms, and with it every step that leads to it::

    heads = AcceptedHeads.load(store, origin="example.org/drm")
    heads.accept(links, [receipt.head])
    await store.update(lambda txn: (heads.record(txn), write_rows(txn)))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from keyark.clock import Clock
from keyark.errors import KeyarkError, Kind
from keyark.records.v1.log_pb2 import AcceptedHead
from keyark.store import ReadTransaction, Store, WriteTransaction
from keyark.transparency.checkpoint import Checkpoint, CheckpointOriginError, SignedHead
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.log import Log
from keyark.transparency.merkle import EMPTY_ROOT, ConsistencyProofError, verify_consistency
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, CheckpointLink, EventType

HEADS: Final = "accepted_heads"
ALARMS: Final = "log_alarms"
TABLES: Final = (HEADS, ALARMS)
MAX_RECENT: Final = 1024
"""Accepted heads that are kept in memory, so that receipts under older heads still match."""


class LogInconsistentError(KeyarkError):
    """The log contradicts what it said before; nothing that relies on it is done until an operator looked."""

    reason = "LOG_INCONSISTENT"
    kind = Kind.PRECONDITION


class CheckpointGapError(KeyarkError):
    """The links do not lead on from the accepted tree, of ``metadata["tree_size"]`` leaves; retry from it."""

    reason = "CHECKPOINT_GAP"
    kind = Kind.CONFLICT


class StaleCheckpointError(KeyarkError):
    """The head is older than those that are remembered; get the receipt anew, under a newer head."""

    reason = "CHECKPOINT_STALE"
    kind = Kind.PRECONDITION


class AcceptedHeads:
    """Follows one log, on the event loop; acceptance counts at once and is durable with the next rows."""

    def __init__(self, origin: str, *, accepted: AcceptedHead | None = None, alarm: str = "") -> None:
        """Go on from an accepted head and an alarm that is on; see ``load``."""
        self.origin = origin
        self._newest = accepted or AcceptedHead(root=EMPTY_ROOT)
        self._known = {self.size: self.root}
        self._proposed: dict[int, bytes] = {}
        self._alarm = alarm

    @classmethod
    def load(cls, store: Store, *, origin: str) -> AcceptedHeads:
        """Go on from what was recorded; the first head of a log never met is trusted on first use."""
        head = store.get(HEADS, _key(origin))
        accepted = None if head is None else AcceptedHead.FromString(head)
        return cls(origin, accepted=accepted, alarm=store.read(lambda txn: alarm_about(txn, origin=origin)))

    @property
    def size(self) -> int:
        """Size of the newest accepted tree; 0 before the first."""
        return self._newest.size

    @property
    def root(self) -> bytes:
        """Root (32 bytes) of the newest accepted tree."""
        return self._newest.root

    @property
    def note(self) -> bytes | None:
        """The signed note (UTF-8) of the newest accepted tree, as it came.

        None before the first head, and where an operator or an earlier version of keyark recorded the tree without
        its note; the next head that is accepted brings one.
        """
        return self._newest.note or None

    @property
    def alarm(self) -> str:
        """What was found inconsistent, or "" while all is well."""
        return self._alarm

    def accept(self, links: Sequence[CheckpointLink], heads: Sequence[SignedHead]) -> None:
        """Follow the log to ``heads``, whose signatures the caller has verified.

        ``links`` lead from the accepted tree onwards, each from where the one before ends; those that end at
        or before it are skipped. They stay proposed, until the next links, for the heads of later calls.
        Raises CheckpointGapError where links are missing, StaleCheckpointError for a head that is older than
        what is remembered, CheckpointOriginError for one of another log, and LogInconsistentError where a
        proof fails or a tree of a known size has another root: from then on always, until an operator clears
        the alarm. Whoever meets that error calls ``record_alarm``.
        """
        if self._alarm:
            raise LogInconsistentError(self._alarm)
        if links:
            self._proposed = self._follow(links)
        for head in heads:
            self._check(head.checkpoint)
        newest = max(heads, key=lambda head: head.checkpoint.size, default=None)
        if newest is not None:
            self._confirm(newest)

    def _follow(self, links: Sequence[CheckpointLink]) -> dict[int, bytes]:
        """Verify a chain of links from the accepted tree on; returns the trees that it proposes, by size."""
        chain: dict[int, bytes] = {}
        size, root = self.size, self.root
        for link in links:
            if link.second_size <= size:
                known = self._known.get(link.second_size, chain.get(link.second_size))
                if known not in (None, link.second_root):
                    raise self._inconsistent(link.second_size, "has two roots")
                continue
            if link.first_size != size:
                raise self._gap()
            try:
                verify_consistency(
                    first_size=size,
                    second_size=link.second_size,
                    first_root=root,
                    second_root=link.second_root,
                    proof=link.proof,
                )
            except ConsistencyProofError:
                raise self._inconsistent(
                    link.second_size, f"does not follow from the one of {size}"
                ) from None
            size, root = link.second_size, link.second_root
            chain[size] = root
        return chain

    def _check(self, head: Checkpoint) -> None:
        if head.origin != self.origin:
            raise CheckpointOriginError(f"The checkpoint is that of another log than {self.origin}.")
        root = self._known.get(head.size, self._proposed.get(head.size))
        if root == head.root:
            return
        if root is not None:
            raise self._inconsistent(head.size, "has two roots")
        if head.size > max((self.size, *self._proposed)):
            raise self._gap()
        raise StaleCheckpointError(
            f"The checkpoint of {head.size} leaves is older than what is remembered; get the receipt anew."
        )

    def _confirm(self, head: SignedHead) -> None:
        """Accept the proposed trees up to a signed one, whose root binds them all; an older head changes nothing."""
        size = head.checkpoint.size
        if size < self.size or (size == self.size and self._newest.note):
            return
        for proposed in [proposed for proposed in self._proposed if proposed <= size]:
            self._known[proposed] = self._proposed.pop(proposed)
        self._newest = AcceptedHead(size=size, root=head.checkpoint.root, note=head.note)
        while len(self._known) > MAX_RECENT:
            del self._known[next(iter(self._known))]

    def _gap(self) -> CheckpointGapError:
        return CheckpointGapError(
            f"The links do not lead on from the accepted tree of {self.size} leaves; send those that do.",
            metadata={"tree_size": str(self.size)},
        )

    def _inconsistent(self, size: int, what: str) -> LogInconsistentError:
        self._alarm = (
            f"The log {self.origin} contradicts itself: its tree of {size} leaves {what}. Nothing that "
            "relies on it is done any more; keep both sides' data, find out why, then clear the alarm."
        )
        return LogInconsistentError(self._alarm)

    def pending(self, txn: ReadTransaction) -> bool:
        """Say whether ``record`` has something to write."""
        return self._unrecorded_head(txn) is not None

    def record(self, txn: WriteTransaction) -> None:
        """Make the newest accepted head durable together with the rows that rely on it."""
        head = self._unrecorded_head(txn)
        if head is not None:
            txn.put(HEADS, _key(self.origin), head.SerializeToString())

    async def record_alarm(self, *, store: Store, log: Log, clock: Clock) -> None:
        """Make an alarm durable, with a LOG_INCONSISTENT leaf in the subsystem's own log, if there is one."""
        if not self._alarm:
            return
        event = AuditEvent(
            version=EVENT_VERSION, type=EventType.EVENT_TYPE_LOG_INCONSISTENT, time_us=clock.now_us()
        )
        details = AuditDetails(reason=LogInconsistentError.reason, message=self._alarm)
        leaf, told = new_event(event, details), details.SerializeToString()

        def write(txn: WriteTransaction) -> None:
            if txn.get(ALARMS, _key(self.origin)) is None:
                txn.put(ALARMS, _key(self.origin), told)
                log.append(txn, leaf)

        await store.update(write)

    def _unrecorded_head(self, txn: ReadTransaction) -> AcceptedHead | None:
        value = txn.get(HEADS, _key(self.origin))
        stored = AcceptedHead() if value is None else AcceptedHead.FromString(value)
        lacks_note = self.size == stored.size and bool(self._newest.note) and not stored.note
        return self._newest if self.size > stored.size or lacks_note else None


def alarm_about(txn: ReadTransaction, *, origin: str) -> str:
    """Return what was found inconsistent in a log, or "" while all is well."""
    alarm = txn.get(ALARMS, _key(origin))
    return "" if alarm is None else AuditDetails.FromString(alarm).message


def clear_alarm(txn: WriteTransaction, *, origin: str) -> bool:
    """Clear the alarm about a log, for an operator who looked; the subsystem heeds it when it starts again.

    The accepted head stays, so a log that really forked raises the alarm anew. Says whether there was one.
    """
    return txn.delete(ALARMS, _key(origin))


def replace_head(txn: WriteTransaction, head: Checkpoint) -> None:
    """Accept the head of a log that was restored from a backup, on the word of an operator; it may be an older one."""
    txn.put(HEADS, _key(head.origin), AcceptedHead(size=head.size, root=head.root).SerializeToString())


def _key(origin: str) -> bytes:
    return origin.encode()
