"""Serial numbers are reserved in blocks: durable and in the log before anything is signed with one of them.

Most batches take theirs from a block that is durable already, and so need no commit before they are signed.
A number is given out once. What is left of a block when the process ends is burned: no later process gives it out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from cm_service.records import SERIAL_BLOCKS
from keyark.clock import Clock
from keyark.records.v1.cm_pb2 import SerialBlock
from keyark.store import Store, WriteTransaction
from keyark.transparency.events import new_event
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.x509.serials import new_serial

SMALLEST: Final = 16
LARGEST: Final = 256
"""Pairs in a block; each block of a process is twice as large as the one before it."""
NEWEST: Final = b"newest"


@dataclass(frozen=True)
class SerialPair:
    """Serial numbers for a signing and an encryption certificate, big-endian, at most 20 bytes each."""

    signing: bytes
    encryption: bytes

    @classmethod
    def draw(cls, *, crl_shards: int) -> SerialPair:
        """Draw both; with several shards of the CRL they end with the same byte, so that one shard has both."""
        signing, encryption = new_serial(), new_serial()
        if crl_shards > 1:
            encryption = encryption[:-1] + signing[-1:]
        return cls(signing, encryption)


class SerialBlocks:
    """Gives out serial numbers that are durably reserved, each once."""

    def __init__(self, *, store: Store, log: Log, clock: Clock, crl_shards: int) -> None:
        self._store, self._log, self._clock = store, log, clock
        self._crl_shards = crl_shards
        self._free = deque[SerialPair]()
        self._size = SMALLEST
        self._reserving = asyncio.Lock()

    async def take(self, count: int) -> list[SerialPair]:
        """Return so many pairs, whose reservation is durable. Raises what the store raises, and gives out none then."""
        async with self._reserving:
            if len(self._free) < count:
                self._free.extend(await self._reserve(max(self._size, count)))
                self._size = min(2 * self._size, LARGEST)
            return [self._free.popleft() for _ in range(count)]

    async def _reserve(self, size: int) -> list[SerialPair]:
        pairs = [SerialPair.draw(crl_shards=self._crl_shards) for _ in range(size)]
        serials = [serial for pair in pairs for serial in (pair.signing, pair.encryption)]
        event = AuditEvent(
            version=1,
            type=EventType.EVENT_TYPE_SERIALS_RESERVED,
            time_us=self._clock.now_us(),
            serials=serials,
        )
        leaf, block = new_event(event, AuditDetails()), SerialBlock(serials=serials).SerializeToString()

        def write(txn: WriteTransaction) -> None:
            txn.put(SERIAL_BLOCKS, NEWEST, block)
            self._log.append(txn, leaf)

        await self._store.update(write)
        return pairs
