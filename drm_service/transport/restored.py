"""A DRM whose store came from a backup archives nothing until a transport key came into force since.

The log that was lost and the one that the restored DRM writes lead on from the same head, so one key that signs both
would make receipts of the lost log count for keys that the archive no longer has. `keyark-drm backup` writes a mark
into each copy, and only the transaction that puts another transport key in force removes it. Agents recover archived
keys meanwhile.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Final

from drm_service.records import BACKUP_MARK, TRANSPORT_KEYS
from drm_service.transport.files import TransportFiles
from keyark.clock import Clock
from keyark.errors.services import ArchiveRestoredError
from keyark.records.v1.drm_pb2 import BackupMark
from keyark.store import ReadTransaction, Row, Store, WriteTransaction
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType

WAY_OUT: Final = (
    "rotate its transport key (`keyark transport-key rotate`), then confirm the restore to RM and CM"
)

_KEY: Final = b"mark"

logger = logging.getLogger(__name__)


def mark_row(clock: Clock) -> Row:
    """Return what a copy says of itself."""
    return BACKUP_MARK, _KEY, BackupMark(copied_time_us=clock.now_us()).SerializeToString()


def remove_mark(txn: WriteTransaction) -> None:
    """Let the archive go on, in the transaction that puts another transport key in force."""
    txn.delete(BACKUP_MARK, _KEY)


def describe_mark(txn: ReadTransaction) -> str:
    """Say what a restored DRM waits for; empty where it waits for nothing."""
    mark = _mark(txn)
    if mark is None:
        return ""
    copied = datetime.fromtimestamp(mark.copied_time_us / 1_000_000, UTC)
    return (
        f"The archive was restored from a backup of {copied:%Y-%m-%d %H:%M} UTC. It archives nothing "
        "until its operator has put a new transport key in force."
    )


def refusal(txn: ReadTransaction) -> ArchiveRestoredError | None:
    """Return why nothing is archived; None where there is no reason."""
    told = describe_mark(txn)
    return ArchiveRestoredError(f"{told} Try again later, or ask its operator.") if told else None


def _mark(txn: ReadTransaction) -> BackupMark | None:
    value = txn.get(BACKUP_MARK, _KEY)
    return None if value is None else BackupMark.FromString(value)


async def log_first_start_after_restore(store: Store, log: Log, files: TransportFiles, clock: Clock) -> None:
    """At the first start from a copy, log that, and set aside the transport keys that the copy does not know.

    Those may have signed the log that was lost, so they must not come into force again. Raises UnwritableFileError and
    StoreError.
    """
    mark = store.read(_mark)
    if mark is None:
        return
    told = store.read(describe_mark)
    logger.warning("%s As its operator, %s.", told, WAY_OUT)
    if mark.started_time_us:
        return
    mark.started_time_us = clock.now_us()
    for path in files.set_aside(after=store.read(_newest_generation), suffix=f"lost-{mark.started_time_us}"):
        logger.warning("a transport key that the backup does not know is set aside: %s", path)
    event = AuditEvent(
        version=EVENT_VERSION,
        type=EventType.EVENT_TYPE_ARCHIVE_RESTORED,
        time_us=mark.started_time_us,
    )
    leaf, value = new_event(event, AuditDetails(message=told)), mark.SerializeToString()

    def write(txn: WriteTransaction) -> None:
        txn.put(BACKUP_MARK, _KEY, value)
        log.append(txn, leaf)

    await store.update(write)


def _newest_generation(txn: ReadTransaction) -> int:
    row = txn.last(TRANSPORT_KEYS)
    return int.from_bytes(row[0], "big") if row else 0
