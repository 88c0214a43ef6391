"""Step 6, deliver, towards the archive: the durable outbox that tells the DRM which certificate was issued.

A row stays until the DRM took it, across restarts of both. What the DRM refuses is told to it again, ever more rarely,
for as long as time can heal it: a clock, a CA certificate that is not there yet. What is refused for good waits for an
operator's `reload` or `relink`, or a restart. Neither holds up the rows behind it. The refusal stands in the row, so
that the person's enrollment tells of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from keyark.errors import KeyarkError
from keyark.records.v1.rm_pb2 import LinkRefusal, OutboxRecord
from keyark.store import ReadTransaction, Store, WriteTransaction
from keyark.v1.archive_pb2 import CertificateLink
from rm_service.records import OUTBOX

BATCH: Final = 256
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 30.0
FIRST_RETRY: Final = 1.0
MAX_MESSAGE: Final = 1000

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class LinkOutbox:
    """Sends rows of the outbox table, one batch at a time, for as long as it runs.

    ``sleep`` waits for some seconds, between attempts.
    """

    store: Store
    send: Callable[[Sequence[CertificateLink]], Awaitable[Sequence[KeyarkError | None]]]
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _refused: dict[bytes, KeyarkError] = field(default_factory=dict)

    def wake(self) -> None:
        """Say that the table has a new row."""
        self._woken.set()

    def retry(self) -> None:
        """Send again what the DRM refused as well, also what it refused for good."""
        self._refused.clear()
        self.wake()

    async def run(self) -> None:
        """Send rows until cancelled; a DRM that is away is asked again, ever more rarely."""
        await asyncio.gather(self._send_new(), self._send_refused())

    async def _send_new(self) -> None:
        self._woken.set()
        pause = FIRST_PAUSE
        while True:
            await self._woken.wait()
            self._woken.clear()
            try:
                await self.flush()
                pause = FIRST_PAUSE
            except KeyarkError as error:
                logger.warning("outbox: %s; trying again in %.1f s", error.reason, pause)
                await self.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                self._woken.set()

    async def _send_refused(self) -> None:
        """Have what the DRM refused sent again; as long as it refuses all of it, ever more rarely."""
        pause = FIRST_RETRY
        while True:
            await self.sleep(pause)
            healing = [key for key, error in self._refused.items() if not error.is_final]
            for key in healing:
                del self._refused[key]
            if healing:
                self.wake()
            pause = min(pause * 2, LONGEST_PAUSE) if healing else FIRST_RETRY

    async def flush(self) -> None:
        """Send every row that is there now; raises where the DRM cannot be reached."""
        after: bytes | None = None
        while rows := await self.store.view(partial(_page, after)):
            after = rows[-1][0]
            waiting = [row for row in rows if row[0] not in self._refused]
            if waiting:
                await self._send(waiting)
            if len(rows) < BATCH:
                return

    async def _send(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        records = {key: OutboxRecord.FromString(value) for key, value in rows}
        outcomes = await self.send([_link(key, record) for key, record in records.items()])
        told: list[bytes] = []
        changed: dict[bytes, bytes] = {}
        for (key, record), outcome in zip(records.items(), outcomes, strict=True):
            if outcome is None:
                told.append(key)
                continue
            self._refused[key] = outcome
            if record.refusal.reason != outcome.reason:  # told once, however often it is tried
                _warn(key, outcome)
                record.refusal.CopyFrom(_refusal(outcome))
                changed[key] = record.SerializeToString()

        def write(txn: WriteTransaction) -> None:
            for key in told:
                txn.delete(OUTBOX, key)
            for key, value in changed.items():
                txn.put(OUTBOX, key, value)

        if told or changed:
            await self.store.update(write)


def _warn(enrollment_id: bytes, error: KeyarkError) -> None:
    until = "nobody can recover the key until an operator acts" if error.is_final else "the RM tries again"
    logger.warning(
        "outbox: the DRM refuses the certificate of %s, whose key is archived and not yet recoverable; %s: %s (%s)",
        enrollment_id.hex(),
        until,
        error.message,
        error.reason,
    )


def _refusal(error: KeyarkError) -> LinkRefusal:
    return LinkRefusal(reason=error.reason, message=error.message[:MAX_MESSAGE], is_final=error.is_final)


def _link(enrollment_id: bytes, record: OutboxRecord) -> CertificateLink:
    return CertificateLink(
        enrollment_id=enrollment_id,
        certificate=record.encryption_certificate,
        approval=record.approval if record.HasField("approval") else None,
    )


def _page(after: bytes | None, txn: ReadTransaction) -> list[tuple[bytes, bytes]]:
    return txn.scan(OUTBOX, after=after, limit=BATCH)
