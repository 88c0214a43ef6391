"""What a service cannot do just now, or cannot do at all until its operator acts; clients catch these too."""

from __future__ import annotations

from keyark.errors import InvalidInputError, KeyarkError, Kind, NotFoundError


class UnreadMessageError(InvalidInputError):
    """A call had no message, or one that gRPC refuses as too large."""

    reason = "UNREAD_MESSAGE"


class UnknownMethodError(NotFoundError):
    """The service has no such method."""

    reason = "UNKNOWN_METHOD"


class WitnessQuotaError(KeyarkError):
    """The caller has reached its limit of heads within this hour."""

    reason = "WITNESS_QUOTA"
    kind = Kind.EXHAUSTED


class WorkerStartError(KeyarkError):
    """A worker process did not start; its output is on stderr."""

    reason = "WORKER_START"
    kind = Kind.UNAVAILABLE


class WorkerDiedError(KeyarkError):
    """A worker process died or hung over a batch."""

    reason = "WORKER_DIED"
    kind = Kind.UNAVAILABLE


class WorkerFailedError(KeyarkError):
    """A worker failed on a batch; its log has the cause."""

    reason = "WORKER_FAILED"


class PoisonedItemError(KeyarkError):
    """The item crashed every worker that processed it."""

    reason = "POISONED_ITEM"
    kind = Kind.INVALID
    is_final = True


class StoreError(KeyarkError):
    """The store failed; nothing of the transaction was kept."""

    reason = "STORE"


class StoreFullError(StoreError):
    """The disk or the store's map is full; the store works again once somebody has freed space."""

    reason = "STORE_FULL"
    kind = Kind.EXHAUSTED
    retry_after = 5.0


class StoreCorruptError(StoreError):
    """The store's file is damaged; a backup must be restored."""

    reason = "STORE_CORRUPT"


class StoreClosedError(StoreError):
    """The store is closed or closing."""

    reason = "STORE_CLOSED"
    kind = Kind.UNAVAILABLE


class LogClosedError(KeyarkError):
    """The log is not open, so nothing can be done that must be logged."""

    reason = "LOG_CLOSED"
    kind = Kind.UNAVAILABLE


class LogCorruptError(KeyarkError):
    """The stored log contradicts itself; ``metadata["index"]`` names the leaf where it shows."""

    reason = "LOG_CORRUPT"


class TreeSizeError(KeyarkError):
    """The log has no tree of that size, or the sizes are in the wrong order."""

    reason = "TREE_SIZE"
    kind = Kind.INVALID


class LogInconsistentError(KeyarkError):
    """The log contradicts itself; nothing that relies on it is done until an operator has decided."""

    reason = "LOG_INCONSISTENT"
    kind = Kind.PRECONDITION


class CheckpointGapError(KeyarkError):
    """The checkpoint links do not begin at the accepted tree of ``metadata["tree_size"]`` leaves; send those that
    do.
    """

    reason = "CHECKPOINT_GAP"
    kind = Kind.CONFLICT

    @property
    def tree_size(self) -> int:
        """Size of the accepted tree; 0 where the other side does not tell, so that links from the beginning go."""
        told = self.metadata.get("tree_size", "")
        return int(told) if told.isascii() and told.isdecimal() and len(told) < 20 else 0


class CheckpointMismatchError(KeyarkError):
    """Checkpoint links or a head do not fit the accepted tree. Only this call is refused; the right ones will be
    accepted.
    """

    reason = "CHECKPOINT_MISMATCH"
    kind = Kind.PRECONDITION


class StaleCheckpointError(KeyarkError):
    """The head is older than those accepted before; fetch the receipt again, under a newer head."""

    reason = "CHECKPOINT_STALE"
    kind = Kind.PRECONDITION


class UnknownStorageKeyError(KeyarkError):
    """The receipt names a storage key that this service does not trust."""

    reason = "UNKNOWN_STORAGE_KEY"
    kind = Kind.PRECONDITION


class ArchiveRestoredError(KeyarkError):
    """The archive was restored from a backup, and its operator has not put a new transport key in force yet."""

    reason = "ARCHIVE_RESTORED"
    kind = Kind.PRECONDITION


class ArchiveAnswerError(KeyarkError):
    """The DRM sent a receipt that proves nothing for this request; this is not the client's fault."""

    reason = "ARCHIVE_ANSWER"


class SigningMismatchError(KeyarkError):
    """The workers signed something that was not requested; nothing is issued."""

    reason = "SIGNING_MISMATCH"
    kind = Kind.INTERNAL
