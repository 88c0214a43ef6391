"""Step 6 towards the archive: what the DRM has not taken stays, across its absence and a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from keyark.errors import KeyarkError, NotFoundError, UnavailableError
from keyark.errors.enrollment import LinkedElsewhereError
from keyark.records.v1.rm_pb2 import EnrollmentRecord, OutboxRecord
from keyark.store import MemoryStore
from keyark.v1.archive_pb2 import CertificateLink
from keyark.v1.registration_pb2 import EnrollmentState, Recoverability
from keyark.x509.chains import CertificateChainError, CertificateExpiredError
from rm_service.downstream import outbox
from rm_service.downstream.outbox import LinkOutbox
from rm_service.records import OUTBOX, describe_stored


class Archive:
    """The DRM's end: away, refusing some, or taking all."""

    def __init__(self) -> None:
        self.away = False
        self.refused: set[bytes] = set()
        self.refusal: KeyarkError = NotFoundError("no key")
        self.taken: list[bytes] = []
        self.asked = asyncio.Event()
        self.calls = 0

    async def send(self, links: Sequence[CertificateLink]) -> list[KeyarkError | None]:
        self.asked.set()
        self.calls += 1
        if self.away:
            raise UnavailableError("away")
        self.taken += [link.enrollment_id for link in links if link.enrollment_id not in self.refused]
        return [self.refusal if link.enrollment_id in self.refused else None for link in links]


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


class Pauses:
    """Stands for the time between attempts: a pause ends when the test says so."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._waiting: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        ends = asyncio.Event()
        self._waiting.put_nowait(ends)
        await ends.wait()

    async def end(self) -> None:
        (await self._waiting.get()).set()


@pytest.mark.parametrize("refusal", [CertificateChainError, CertificateExpiredError, NotFoundError])
async def test_what_time_heals_is_told_again_until_it_succeeds(refusal: type[KeyarkError]) -> None:
    store, archive, pauses = await filled(3), Archive(), Pauses()
    archive.refused, archive.refusal = {b"0001"}, refusal("Not now.")
    running = asyncio.create_task(LinkOutbox(store=store, send=archive.send, sleep=pauses.sleep).run())
    for _ in range(8):
        await archive.asked.wait()
        archive.asked.clear()
        await pauses.end()
    await archive.asked.wait()
    archive.refused = set()
    while rows(store):
        archive.asked.clear()
        await pauses.end()
        await archive.asked.wait()
        await asyncio.sleep(0)
    running.cancel()
    assert archive.taken == [b"0000", b"0002", b"0001"]
    assert pauses.seconds[:3] == [1.0, 2.0, 4.0]
    assert max(pauses.seconds) == outbox.LONGEST_PAUSE


async def test_what_is_refused_for_good_is_told_again_when_an_operator_says_so() -> None:
    store, archive, pauses = await filled(1), Archive(), Pauses()
    archive.refused, archive.refusal = {b"0000"}, LinkedElsewhereError("No.")
    sender = LinkOutbox(store=store, send=archive.send, sleep=pauses.sleep)
    running = asyncio.create_task(sender.run())
    await archive.asked.wait()
    for _ in range(3):
        await pauses.end()
    assert archive.calls == 1
    archive.refused = set()
    archive.asked.clear()
    sender.retry()
    await archive.asked.wait()
    running.cancel()
    assert archive.taken == [b"0000"]


async def test_the_enrollment_says_so_while_its_key_is_archived_and_not_yet_recoverable(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def told() -> tuple[int, str]:
        found = store.read(lambda txn: describe_stored(txn, b"0000", record))
        return found.recoverability, found.not_recoverable_reason

    caplog.set_level(logging.WARNING)
    record = EnrollmentRecord(state=EnrollmentState.ENROLLMENT_STATE_ISSUED, receipt=b"receipt")
    store, archive = await filled(1), Archive()
    assert told() == (Recoverability.RECOVERABILITY_NOT_YET, "")
    archive.refused, archive.refusal = {b"0000"}, CertificateChainError("ca.pem lacks it.")
    for _ in range(3):  # restarted twice
        await LinkOutbox(store=store, send=archive.send).flush()
    assert told() == (Recoverability.RECOVERABILITY_NOT_YET, "CERTIFICATE_CHAIN: ca.pem lacks it.")
    assert caplog.text.count("not yet recoverable") == 1
    archive.refused = set()
    await LinkOutbox(store=store, send=archive.send).flush()
    assert told() == (Recoverability.RECOVERABILITY_RECOVERABLE, "")
    record.ClearField("receipt")
    assert told() == (Recoverability.RECOVERABILITY_UNSPECIFIED, "")
