"""Step 6 towards the archive: what the DRM has not taken stays, across its absence and a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from keyark.errors import KeyarkError, NotFoundError, UnavailableError
from keyark.records.v1.rm_pb2 import OutboxRecord
from keyark.store import MemoryStore
from keyark.v1.archive_pb2 import CertificateLink
from rm_service import outbox
from rm_service.outbox import LinkOutbox
from rm_service.records import OUTBOX


class Archive:
    """The DRM's end: away, refusing some, or taking all."""

    def __init__(self) -> None:
        self.away = False
        self.refused: set[bytes] = set()
        self.taken: list[bytes] = []
        self.asked = asyncio.Event()
        self.calls = 0

    async def send(self, links: Sequence[CertificateLink]) -> list[KeyarkError | None]:
        self.asked.set()
        self.calls += 1
        if self.away:
            raise UnavailableError("away")
        self.taken += [link.enrollment_id for link in links if link.enrollment_id not in self.refused]
        return [NotFoundError("no key") if link.enrollment_id in self.refused else None for link in links]


async def filled(count: int) -> MemoryStore:
    store = MemoryStore(tables=(OUTBOX,))
    row = OutboxRecord(encryption_certificate=b"certificate").SerializeToString()
    for i in range(count):
        await store.update(lambda txn, i=i: txn.put(OUTBOX, b"%04d" % i, row))
    return store


def rows(store: MemoryStore) -> int:
    return store.read(lambda txn: txn.count(OUTBOX))


async def test_everything_is_told_in_order_and_forgotten() -> None:
    store, archive = await filled(600), Archive()
    await LinkOutbox(store=store, send=archive.send).flush()
    assert archive.taken == [b"%04d" % i for i in range(600)]
    assert rows(store) == 0


async def test_what_the_drm_refuses_stays_and_holds_nobody_up() -> None:
    store, archive = await filled(5), Archive()
    archive.refused = {b"0001"}
    sender = LinkOutbox(store=store, send=archive.send)
    await sender.flush()
    await sender.flush()
    assert archive.calls == 1
    assert archive.taken == [b"0000", b"0002", b"0003", b"0004"]
    assert rows(store) == 1


async def test_a_drm_that_is_away_gets_it_all_when_it_is_back(monkeypatch) -> None:
    monkeypatch.setattr(outbox, "FIRST_PAUSE", 0.001)
    store, archive = await filled(3), Archive()
    archive.away = True
    sender = LinkOutbox(store=store, send=archive.send)
    running = asyncio.create_task(sender.run())
    await archive.asked.wait()
    assert rows(store) == 3
    archive.away = False
    while rows(store):
        archive.asked.clear()
        await archive.asked.wait()
        await asyncio.sleep(0)
    running.cancel()
    assert archive.taken == [b"0000", b"0001", b"0002"]


async def test_a_restart_goes_on_with_what_is_left() -> None:
    store, archive = await filled(2), Archive()
    archive.away = True
    try:
        await LinkOutbox(store=store, send=archive.send).flush()
    except UnavailableError:
        archive.away = False
    await LinkOutbox(store=store, send=archive.send).flush()
    assert rows(store) == 0
