"""What a service cannot do just now, or cannot do at all until its operator acts; clients catch these too."""

from __future__ import annotations

from keyark.errors import InvalidInputError, KeyarkError, Kind, NotFoundError


class UnreadMessageError(InvalidInputError):
    """A call came without its message, or with one that gRPC refuses as too large."""

    reason = "UNREAD_MESSAGE"


class UnknownMethodError(NotFoundError):
    """The service has no such method."""

    reason = "UNKNOWN_METHOD"


class WitnessQuotaError(KeyarkError):
    """The caller brought as many heads within this hour as one caller may."""

    reason = "WITNESS_QUOTA"
    kind = Kind.EXHAUSTED


class WorkerStartError(KeyarkError):
    """A worker process did not come up; its own words are on stderr."""

    reason = "WORKER_START"
    kind = Kind.UNAVAILABLE


class WorkerDiedError(KeyarkError):
    """A worker process died or hung over a batch."""

    reason = "WORKER_DIED"
    kind = Kind.UNAVAILABLE


class WorkerFailedError(KeyarkError):
    """A worker could not work a batch; what went wrong is in its log."""

    reason = "WORKER_FAILED"


class PoisonedItemError(KeyarkError):
    """The item killed every worker that took it."""

    reason = "POISONED_ITEM"
    kind = Kind.INVALID
    is_final = True


class StoreError(KeyarkError):
    """The store could not do what was asked; nothing of the transaction was kept."""

    reason = "STORE"


class StoreFullError(StoreError):
    """The disk or the store's map is full; the store goes on once there is room, which somebody has to make."""

    reason = "STORE_FULL"
    kind = Kind.EXHAUSTED
    retry_after = 5.0


class StoreCorruptError(StoreError):
    """The store's file is damaged; a backup has to be put in its place."""

    reason = "STORE_CORRUPT"


class StoreClosedError(StoreError):
    """The store is closed or closing."""

    reason = "STORE_CLOSED"
    kind = Kind.UNAVAILABLE


class LogClosedError(KeyarkError):
    """The log is not open, so nothing that has to be logged can happen."""

    reason = "LOG_CLOSED"
    kind = Kind.UNAVAILABLE


class LogCorruptError(KeyarkError):
    """The stored log contradicts itself; ``metadata["index"]`` names the leaf where it shows."""

    reason = "LOG_CORRUPT"


class TreeSizeError(KeyarkError):
    """The log has no tree of that size, or the sizes stand in the wrong order."""

    reason = "TREE_SIZE"
    kind = Kind.INVALID


class LogInconsistentError(KeyarkError):
    """The log contradicts what it said before; nothing that relies on it is done until an operator looked."""

    reason = "LOG_INCONSISTENT"
    kind = Kind.PRECONDITION


class CheckpointGapError(KeyarkError):
    """The links do not lead on from the accepted tree, of ``metadata["tree_size"]`` leaves; retry from it."""

    reason = "CHECKPOINT_GAP"
    kind = Kind.CONFLICT

    @property
    def tree_size(self) -> int:
        """Size of the accepted tree; 0 where the other side does not tell, so that links from the beginning go."""
        told = self.metadata.get("tree_size", "")
        return int(told) if told.isascii() and told.isdecimal() and len(told) < 20 else 0


class CheckpointMismatchError(KeyarkError):
    """Links or a head do not fit the accepted tree; only this call is refused, the right ones are taken next."""

    reason = "CHECKPOINT_MISMATCH"
    kind = Kind.PRECONDITION


class StaleCheckpointError(KeyarkError):
    """The head is older than those that are remembered; get the receipt anew, under a newer head."""

    reason = "CHECKPOINT_STALE"
    kind = Kind.PRECONDITION


class UnknownStorageKeyError(KeyarkError):
    """The receipt names a storage key that nobody here was told to trust."""

    reason = "UNKNOWN_STORAGE_KEY"
    kind = Kind.PRECONDITION


class ArchiveRestoredError(KeyarkError):
    """The archive came from a backup, and its operator has not put another transport key in force since."""

    reason = "ARCHIVE_RESTORED"
    kind = Kind.PRECONDITION


class ArchiveAnswerError(KeyarkError):
    """The DRM answered with a receipt that proves nothing for this request; not the client's fault."""

    reason = "ARCHIVE_ANSWER"


class SigningMismatchError(KeyarkError):
    """What the workers signed is not what was to be signed; nothing is issued."""

    reason = "SIGNING_MISMATCH"
    kind = Kind.INTERNAL
