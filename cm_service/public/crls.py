"""Publishes certificate revocation lists: full and delta, by shard, on schedule and on demand.

Entries were encoded when they were revoked. They are read a page at a time and written to a file, which a disposable
worker wraps, signs and puts in place in one step: issuance goes on meanwhile, and whatever stops the run leaves the
older list whole. A number is reserved durably before a list gets it, and burned where nothing comes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Protocol

from cm_service.crl_settings import CrlSettings, for_shard
from cm_service.issuer.generations import PLACE, suffix
from cm_service.records import CRL_ENTRIES, CRL_STATE
from cm_service.revocation.crl_rows import (
    LIST_PREFIX,
    changed_since,
    is_listed,
    last_change,
    prune_changes,
    reserve_number,
)
from keyark.clock import Clock
from keyark.errors import KeyarkError
from keyark.files import UnwritableFileError
from keyark.records.v1.cm_pb2 import CrlRecord, SignCrlResult, SignCrlTask
from keyark.store import Store
from keyark.x509.crl_entries import REMOVE_FROM_CRL, encode_entry
from keyark.x509.crls import MAX_SHARDS, shard_of

PAGE: Final = 2000


class CrlPool(Protocol):
    """Where the CA key is while lists are signed."""

    async def run(self, items: Sequence[bytes]) -> Sequence[bytes | KeyarkError]:
        """Carry out each serialized SignCrlTask and return a serialized SignCrlResult."""


OpenPool = Callable[[], AbstractAsyncContextManager[CrlPool]]


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What one list is made from: its number, and what was surely acknowledged before it was begun."""

    name: str
    shard: int
    number: int
    sequence: int


@dataclass(frozen=True, kw_only=True)
class Crls:
    """The lists of one CA key; ``urls`` are their issuing distribution point, of all shards in one."""

    settings: CrlSettings
    urls: Sequence[str]
    store: Store
    clock: Clock
    open_pool: OpenPool
    generation: int = 0
    _siblings: list[Crls] = field(default_factory=list, init=False, repr=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    def path(self, kind: str, shard: int) -> Path:
        """Return the file of a list of kind "full" or "delta"."""
        return self.settings.folder / self._name(kind, shard)

    def published(self, kind: str, shard: int) -> CrlRecord | None:
        """Return what is known of a list of kind "full" or "delta", or None before the first."""
        value = self.store.get(CRL_STATE, LIST_PREFIX + self._name(kind, shard).encode())
        return None if value is None else CrlRecord.FromString(value)

    def due(self, name: str) -> int | None:
        """Return when the successor of the list in this file is due, seconds UTC; None where there is no such list."""
        if name not in self._names:
            return None
        kind, shard = self._names[name]
        record = self.published(kind, shard)
        every = self.settings.every if kind == "full" else self.settings.delta_every
        return None if record is None else record.this_update + every

    async def publish_due(self) -> None:
        """Publish every list whose time has come, or whose file is missing; nothing where none is due."""
        full = [shard for shard in self._shards if self._is_due("full", shard, self.settings.every)]
        delta = self.settings.delta_every
        deltas = [shard for shard in self._shards if delta and self._is_due("delta", shard, delta)]
        await self._publish(full, sorted({*full, *deltas}) if delta else [])

    async def publish_all(self) -> list[CrlRecord]:
        """Publish all full lists now, and all deltas where there are any; returns the full ones.

        What was revoked before the call is on them. Raises WorkerStartError and the errors of pool and store.
        """
        await self._publish(self._shards, self._shards if self.settings.delta_every else [])
        return [found for shard in self._shards if (found := self.published("full", shard)) is not None]

    @property
    def _shards(self) -> range:
        return range(self.settings.shards)

    @cached_property
    def _names(self) -> dict[str, tuple[str, int]]:
        kinds = ("full", "delta") if self.settings.delta_every else ("full",)
        return {self._name(kind, shard): (kind, shard) for kind in kinds for shard in self._shards}

    def _name(self, kind: str, shard: int) -> str:
        which = f"-{shard}" if self.settings.shards > 1 else ""
        return f"{kind}{suffix(self.generation)}{which}.crl"

    def _is_due(self, kind: str, shard: int, every: int) -> bool:
        record = self.published(kind, shard)
        if record is None or not self.path(kind, shard).exists():
            return True
        return not record.this_update <= self._now() < record.this_update + every

    def _now(self) -> int:
        return self.clock.now_us() // 1_000_000

    async def _publish(self, full: Sequence[int], deltas: Sequence[int]) -> None:
        if not full and not deltas:
            return
        async with self._turn, self.open_pool() as pool:
            _make_folder(self.settings.folder)
            for shard in full:
                await self._publish_full(pool, shard)
            for shard in deltas:
                await self._publish_delta(pool, shard)
            if full:
                await self._prune()

    async def _begin(self, kind: str, shard: int) -> _Run:
        number, sequence = await self.store.update(lambda txn: (reserve_number(txn), last_change(txn)))
        return _Run(name=self._name(kind, shard), shard=shard, number=number, sequence=sequence)

    async def _publish_full(self, pool: CrlPool, shard: int) -> None:
        before = self.published("full", shard)
        run = await self._begin("full", shard)
        # What expired since the last full list stands on one more (RFC 5280 §3.3).
        keep_from = min(before.this_update, self._now()) if before else 0
        placed = [url.replace(PLACE, suffix(self.generation)) for url in self.settings.delta_urls]
        delta_urls = for_shard(placed, shard)
        record = CrlRecord(
            number=run.number,
            sequence=run.sequence,
            earlier_number=before.number if before else run.number,
            earlier_sequence=before.sequence if before else run.sequence,
        )
        pages = self._entry_pages(shard, keep_from)
        await self._make(pool, run, record, pages, SignCrlTask(delta_urls=delta_urls))

    async def _publish_delta(self, pool: CrlPool, shard: int) -> None:
        """Tell what changed since the full list before the newest, for there are holders of either."""
        full = self.published("full", shard)
        if full is None:
            return
        run = await self._begin("delta", shard)
        record = CrlRecord(number=run.number, sequence=run.sequence)
        pages = self._change_pages(shard, full.earlier_sequence)
        await self._make(pool, run, record, pages, SignCrlTask(base_number=full.earlier_number))

    async def _make(
        self,
        pool: CrlPool,
        run: _Run,
        record: CrlRecord,
        pages: AsyncIterator[bytes],
        task: SignCrlTask,
    ) -> None:
        every = self.settings.delta_every if task.base_number else self.settings.every
        target = self.settings.folder / run.name
        with _working_file(target) as entries:
            with entries.open("wb") as file:
                async for page in pages:
                    await asyncio.to_thread(file.write, page)
            # Now, and not before: nothing on the list was revoked later than it says it was made.
            record.this_update = self._now()
            record.next_update = record.this_update + every + self.settings.overlap
            task.number, task.this_update, task.next_update = (
                run.number,
                record.this_update,
                record.next_update,
            )
            task.entries_path, task.path = str(entries), str(target)
            task.urls.extend(for_shard(self.urls, run.shard))
            (result,) = await pool.run([task.SerializeToString()])
        if isinstance(result, KeyarkError):
            raise result
        record.size = SignCrlResult.FromString(result).size
        key, value = LIST_PREFIX + run.name.encode(), record.SerializeToString()
        await self.store.update(lambda txn: txn.put(CRL_STATE, key, value))

    async def _entry_pages(self, shard: int, keep_from: int) -> AsyncIterator[bytes]:
        """Yield the entries of a shard, a page at a time, without those that expired before a time."""
        for last_byte in range(shard, MAX_SHARDS, self.settings.shards):
            after: bytes | None = None
            while True:
                rows = await self.store.view(
                    lambda txn, prefix=bytes([last_byte]), start=after: txn.scan(  # type: ignore[misc]
                        CRL_ENTRIES, prefix=prefix, after=start, limit=PAGE
                    )
                )
                yield b"".join(
                    value[8:]
                    for _, value in rows
                    if is_listed(value, generation=self.generation, oldest=keep_from)
                )
                after = rows[-1][0] if len(rows) == PAGE else None
                if after is None:
                    break

    async def _change_pages(self, shard: int, since: int) -> AsyncIterator[bytes]:
        """Yield how everything stands that changed after a sequence, each certificate once."""
        told: set[bytes] = set()
        now = self._now()
        while True:
            changes = await self.store.view(lambda txn, start=since: changed_since(txn, start, PAGE))  # type: ignore[misc]
            wanted = [
                change
                for change in changes
                if change.generation == self.generation
                and shard_of(change.serial, self.settings.shards) == shard
                and change.serial not in told
            ]
            told.update(change.serial for change in wanted)
            yield b"".join(
                change.entry
                or encode_entry(
                    change.serial, revocation_time=change.time, reason=REMOVE_FROM_CRL, invalidity_time=0
                )
                for change in {change.serial: change for change in wanted}.values()
                if change.expiry is None or change.expiry >= now
            )
            if len(changes) < PAGE:
                return
            since = changes[-1].sequence

    async def _prune(self) -> None:
        """Forget changes that no delta list will start from any more."""
        everybody = self._siblings or [self]
        records = [crls.published("full", shard) for crls in everybody for shard in self._shards]
        if all(records):
            oldest = min(record.earlier_sequence for record in records if record)
            while await self.store.update(lambda txn: prune_changes(txn, oldest, PAGE)) == PAGE:
                pass


@dataclass(frozen=True)
class AllCrls:
    """The lists of all CA keys, the present one's first; what changed is kept until none of them needs it."""

    lists: Sequence[Crls]

    def __post_init__(self) -> None:
        for crls in self.lists:
            crls._siblings.extend(self.lists)

    @property
    def settings(self) -> CrlSettings:
        """What they have in common."""
        return self.lists[0].settings

    def due(self, name: str) -> int | None:
        """Return when the successor of the list in this file is due, seconds UTC; None where there is no such list."""
        return next((due for crls in self.lists if (due := crls.due(name)) is not None), None)

    async def publish_due(self) -> None:
        """Publish every list whose time has come; see ``Crls.publish_due``."""
        for crls in self.lists:
            await crls.publish_due()

    async def publish_all(self) -> dict[str, CrlRecord]:
        """Publish all lists now; returns the full ones by the names of their files."""
        published: dict[str, CrlRecord] = {}
        for crls in self.lists:
            records = await crls.publish_all()
            published |= {crls.path("full", shard).name: record for shard, record in enumerate(records)}
        return published


@contextmanager
def _working_file(target: Path) -> Iterator[Path]:
    """Yield a file beside the target, gone at the end; what a killed run left behind goes first."""
    working = target.with_name(f".{target.name}.entries")
    try:
        for left in target.parent.glob(f".{target.name}.*"):
            left.unlink(missing_ok=True)
        yield working
        working.unlink()
    except OSError as error:
        working.unlink(missing_ok=True)
        raise _unwritable(target.parent, error) from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> UnwritableFileError:
    return UnwritableFileError(
        f"Cannot write to {folder}: {error.strerror}; free some disk space or grant access."
    )
