"""Step 6, deliver, towards the archive: the durable outbox that tells the DRM which certificate was issued.

A row stays until the DRM took it, across restarts of both. What the DRM refuses for good stays as well, is
logged once, and is listed by `keyark doctor`; it does not hold up the rows behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from keyark.errors import KeyarkError
from keyark.records.v1.rm_pb2 import OutboxRecord
from keyark.store import ReadTransaction, Store, WriteTransaction
from keyark.v1.archive_pb2 import CertificateLink
from rm_service.records import OUTBOX

BATCH: Final = 256
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 30.0

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class LinkOutbox:
    """Sends rows of the outbox table, one batch at a time, for as long as it runs."""

    store: Store
    send: Callable[[Sequence[CertificateLink]], Awaitable[Sequence[KeyarkError | None]]]
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _refused: set[bytes] = field(default_factory=set)

    def wake(self) -> None:
        """Say that the table has a new row."""
        self._woken.set()

    def retry(self) -> None:
        """Send again what the DRM refused as well."""
        self._refused.clear()
        self.wake()

    async def run(self) -> None:
        """Send rows until cancelled; a DRM that is away is asked again, ever more rarely."""
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
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                self._woken.set()

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
        links = [_link(key, OutboxRecord.FromString(value)) for key, value in rows]
        outcomes = await self.send(links)
        told = [key for (key, _), outcome in zip(rows, outcomes, strict=True) if outcome is None]
        for (key, _), outcome in zip(rows, outcomes, strict=True):
            if outcome is not None:
                self._refused.add(key)
                logger.error("outbox: the DRM refuses the certificate of %s: %s", key.hex(), outcome.reason)

        def forget(txn: WriteTransaction) -> None:
            for key in told:
                txn.delete(OUTBOX, key)

        if told:
            await self.store.update(forget)


def _link(enrollment_id: bytes, record: OutboxRecord) -> CertificateLink:
    return CertificateLink(
        enrollment_id=enrollment_id,
        certificate=record.encryption_certificate,
        approval=record.approval if record.HasField("approval") else None,
    )


def _page(after: bytes | None, txn: ReadTransaction) -> list[tuple[bytes, bytes]]:
    return txn.scan(OUTBOX, after=after, limit=BATCH)
