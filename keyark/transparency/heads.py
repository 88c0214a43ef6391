"""The newest head of another subsystem's log that was accepted here, so that no history is ever taken back.

Links (consistency proofs) come from whoever relays them and prove nothing alone: they propose. A head that
the log itself signed confirms, and with it every step that leads to it. So a bad link is refused and forgotten, for a
relay may have made it up; an alarm needs two signed heads that contradict each other, and both are kept::

    heads = AcceptedHeads.load(store, origin="example.org/drm")
    heads.accept(links, [receipt.head])
    await store.update(lambda txn: (heads.record(txn), write_rows(txn)))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from keyark.clock import Clock
from keyark.errors import KeyarkError
from keyark.errors.services import (
    CheckpointGapError,
    CheckpointMismatchError,
    LogInconsistentError,
    StaleCheckpointError,
)
from keyark.records.v1.log_pb2 import AcceptedHead, LogAlarm
from keyark.store import ReadTransaction, Store, WriteTransaction
from keyark.transparency.checkpoint import Checkpoint, CheckpointOriginError, VerifiedHead
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.log import Log
from keyark.transparency.merkle import EMPTY_ROOT, ConsistencyProofError
from keyark.v1.audit_pb2 import (
    AuditDetails,
    AuditEvent,
    CheckpointContradiction,
    CheckpointLink,
    EventType,
)

HEADS: Final = "accepted_heads"
ALARMS: Final = "log_alarms"
TABLES: Final = (HEADS, ALARMS)
MAX_RECENT: Final = 1024
"""Accepted heads that are kept in memory, so that receipts under older heads still match."""


@dataclass(frozen=True)
class _Tree:
    """An accepted tree: its root, its signed note where it came with one, and the step to the next one."""

    root: bytes
    note: bytes = b""
    onward: CheckpointLink | None = None


class AcceptedHeads:
    """Follows one log, on the event loop; acceptance counts at once and is durable with the next rows."""

    def __init__(
        self, origin: str, *, accepted: AcceptedHead | None = None, alarm: LogAlarm | None = None
    ) -> None:
        """Go on from an accepted head and an alarm that is on; see ``load``."""
        self.origin = origin
        self._newest = accepted or AcceptedHead(root=EMPTY_ROOT)
        self._known = {self.size: _Tree(self.root, self._newest.note)}
        self._proposed: dict[int, CheckpointLink] = {}
        self._alarm = alarm or LogAlarm()

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
    def alarm(self) -> LogAlarm:
        """What was found inconsistent, with its evidence; the message is empty while all is well."""
        return self._alarm

    def accept(self, links: Sequence[CheckpointLink], heads: Sequence[VerifiedHead]) -> None:
        """Follow the log to ``heads``, whose signatures the caller has verified.

        ``links`` lead from the accepted tree onwards, each from where the one before ends; those that end at
        or before it are skipped. They stay proposed, until the next links, for the heads of later calls.
        Raises CheckpointGapError where links are missing, CheckpointMismatchError where a proof fails or a tree has
        another root than the one that was proposed, StaleCheckpointError for a head that is older than
        what is remembered, and CheckpointOriginError for one of another log; nothing was accepted then.
        Raises LogInconsistentError where a head contradicts one that the log signed before: from then on always, until
        an operator clears the alarm. Whoever meets that error calls ``record_alarm``.
        """
        if self._alarm.message:
            raise LogInconsistentError(self._alarm.message)
        if links:
            self._proposed = self._follow(links)
        for head in heads:
            self._check(head)
        newest = max(heads, key=lambda head: head.checkpoint.size, default=None)
        if newest is not None:
            self._confirm(newest)

    def remembers(self, checkpoint: Checkpoint) -> bool:
        """Say whether a head is one of the accepted trees that are remembered."""
        tree = self._known.get(checkpoint.size)
        return tree is not None and (checkpoint.origin, checkpoint.root) == (self.origin, tree.root)

    def check_same_log(self, head: VerifiedHead, link: CheckpointLink) -> None:
        """Check that a signed head is one of the log that is followed, older or newer than the accepted tree.

        ``link`` leads from the smaller of the two to the larger. Raises CheckpointGapError where it is between others,
        CheckpointMismatchError where it proves nothing, and CheckpointOriginError for a head of another log. Before the
        first accepted tree there is nothing else to check.
        """
        self._check_origin(head.checkpoint)
        if self.size == 0 or self.remembers(head.checkpoint):
            return
        accepted = Checkpoint(self.origin, self.size, self.root)
        first, second = sorted((accepted, head.checkpoint), key=lambda checkpoint: checkpoint.size)
        if (link.first_size, link.second_size) != (first.size, second.size):
            raise self._gap()
        try:
            second.check_extends(first, link.proof)
        except ConsistencyProofError:
            raise self._mismatch(head.checkpoint.size) from None

    def _follow(self, links: Sequence[CheckpointLink]) -> dict[int, CheckpointLink]:
        """Verify a chain of links from the accepted tree on; returns its steps, by the size that each leads to."""
        chain: dict[int, CheckpointLink] = {}
        tree = Checkpoint(self.origin, self.size, self.root)
        for link in links:
            if link.second_size <= tree.size:
                continue
            if link.first_size != tree.size:
                raise self._gap()
            following = Checkpoint(self.origin, link.second_size, link.second_root)
            try:
                following.check_extends(tree, link.proof)
            except ConsistencyProofError:
                raise self._mismatch(link.second_size) from None
            tree = following
            chain[tree.size] = link
        return chain

    def _check(self, head: VerifiedHead) -> None:
        checkpoint = head.checkpoint
        self._check_origin(checkpoint)
        if tree := self._known.get(checkpoint.size):
            if tree.root != checkpoint.root:
                raise self._contradicted(head)
        elif link := self._proposed.get(checkpoint.size):
            if link.second_root != checkpoint.root:
                raise self._mismatch(checkpoint.size)
        elif checkpoint.size > max((self.size, *self._proposed)):
            raise self._gap()
        else:
            raise StaleCheckpointError(
                f"The checkpoint of {checkpoint.size} leaves is older than one that was accepted before; "
                "fetch the receipt again."
            )

    def _check_origin(self, checkpoint: Checkpoint) -> None:
        if checkpoint.origin != self.origin:
            raise CheckpointOriginError(f"The checkpoint does not belong to the log {self.origin}.")

    def _confirm(self, head: VerifiedHead) -> None:
        """Accept the proposed trees up to a signed one, whose root binds them all; an older head changes nothing."""
        size = head.checkpoint.size
        if size < self.size or (size == self.size and self._newest.note):
            return
        for proposed in [proposed for proposed in self._proposed if proposed <= size]:
            link = self._proposed.pop(proposed)
            self._known[link.first_size] = replace(self._known[link.first_size], onward=link)
            self._known[proposed] = _Tree(link.second_root)
        self._known[size] = _Tree(head.checkpoint.root, head.note)
        self._newest = AcceptedHead(size=size, root=head.checkpoint.root, note=head.note)
        while len(self._known) > MAX_RECENT:
            del self._known[next(iter(self._known))]

    def _gap(self) -> CheckpointGapError:
        return CheckpointGapError(
            f"The checkpoint links do not begin at the accepted tree of {self.size} leaves; send those "
            "that do.",
            metadata={"tree_size": str(self.size)},
        )

    def _mismatch(self, size: int) -> CheckpointMismatchError:
        return CheckpointMismatchError(
            f"The tree of {size} leaves was not proven to continue the accepted one of {self.size}, so it "
            f"was not accepted. Ask {self.origin} itself for the proof. If it has none, run `keyark "
            "doctor`, which examines its log.",
            metadata={"tree_size": str(self.size)},
        )

    def _contradicted(self, head: VerifiedHead) -> KeyarkError:
        """Raise the alarm where what contradicts a head was signed too; a tree that nobody signed proves nothing."""
        size, links = head.checkpoint.size, []
        tree = self._known[size]
        while not tree.note and tree.onward is not None:
            links.append(tree.onward)
            tree = self._known[tree.onward.second_size]
        if not tree.note:
            return self._mismatch(size)
        evidence = CheckpointContradiction(first_note=head.note, second_note=tree.note, links=links)
        self._alarm = LogAlarm(
            reason=LogInconsistentError.reason,
            message=f"The log {self.origin} contradicts itself: it signed two different trees of {size} "
            "leaves. Everything that relies on it is stopped. Keep the data of both sides, find "
            "out why, then clear the alarm.",
            contradiction=evidence,
        )
        return LogInconsistentError(self._alarm.message)

    def pending(self, txn: ReadTransaction) -> bool:
        """Say whether ``record`` has something to write."""
        return self._unrecorded_head(txn) is not None

    def record(self, txn: WriteTransaction) -> None:
        """Make the newest accepted head durable together with the rows that rely on it."""
        head = self._unrecorded_head(txn)
        if head is not None:
            txn.put(HEADS, _key(self.origin), head.SerializeToString())

    async def record_alarm(self, *, store: Store, log: Log, clock: Clock, brought_by: str) -> None:
        """Make an alarm durable, with a LOG_INCONSISTENT leaf in the subsystem's own log, if there is one.

        ``brought_by`` is the SPIFFE ID of who brought the head that a new alarm is about.
        """
        if not self._alarm.message:
            return
        if store.get(ALARMS, _key(self.origin)) is None and not self._alarm.brought_by:
            self._alarm.brought_by = brought_by
            self._alarm.message += f" {brought_by} sent the second one."
        event = AuditEvent(
            version=EVENT_VERSION, type=EventType.EVENT_TYPE_LOG_INCONSISTENT, time_us=clock.now_us()
        )
        evidence = self._alarm.contradiction.SerializeToString(deterministic=True)
        details = AuditDetails(
            caller=self._alarm.brought_by,
            reason=self._alarm.reason,
            message=self._alarm.message,
            contradiction=evidence,
        )
        leaf, alarm = new_event(event, details), self._alarm.SerializeToString(deterministic=True)

        def write(txn: WriteTransaction) -> None:
            if txn.get(ALARMS, _key(self.origin)) is None:
                txn.put(ALARMS, _key(self.origin), alarm)
                log.append(txn, leaf)

        await store.update(write)

    def _unrecorded_head(self, txn: ReadTransaction) -> AcceptedHead | None:
        value = txn.get(HEADS, _key(self.origin))
        stored = AcceptedHead() if value is None else AcceptedHead.FromString(value)
        lacks_note = self.size == stored.size and bool(self._newest.note) and not stored.note
        return self._newest if self.size > stored.size or lacks_note else None


def alarm_about(txn: ReadTransaction, *, origin: str) -> LogAlarm:
    """Return what was found inconsistent in a log; the message is empty while all is well."""
    return LogAlarm.FromString(txn.get(ALARMS, _key(origin)) or b"")


def clear_alarm(txn: WriteTransaction, *, origin: str) -> None:
    """Clear the alarm about a log, for an operator who looked; the subsystem heeds it when it starts again.

    The accepted head stays, so a log that really forked raises the alarm anew.
    """
    txn.delete(ALARMS, _key(origin))


def replace_head(txn: WriteTransaction, head: Checkpoint) -> None:
    """Accept the head of a log that was restored from a backup, on the word of an operator; it may be an older one."""
    txn.put(HEADS, _key(head.origin), AcceptedHead(size=head.size, root=head.root).SerializeToString())


def _key(origin: str) -> bytes:
    return origin.encode()
