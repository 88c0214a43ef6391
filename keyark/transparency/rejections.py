"""Rejections in the log: one by one up to a quota per caller and hour, then counted, against floods."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from keyark.clock import Clock
from keyark.errors import KeyarkError
from keyark.store import Store
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent

HOUR_US: Final = 3_600_000_000
MAX_MESSAGE: Final = 1000
MAX_METHOD: Final = 200
"""Characters of an error's message and of a method's name that are logged."""


MAX_TALLIES: Final = 4096
"""On whose behalf one caller is refused, each counted apart; more are counted as the caller's own."""

SHARED_FACTOR: Final = 20
"""So many quotas one caller has for all on whose behalf it asks; the first refusal of each is logged beyond it."""

MAX_CLAIMED: Final = 256
"""The same of clients that the caller only claims to ask for; they are apart, for it can claim any."""

Asker = tuple[str, str, str]
"""The caller, and either the client that provably asks through it, or the one that it claims, or neither."""


@dataclass(slots=True)
class _Tally:
    """What one caller was refused on somebody's behalf in this hour."""

    logged: int = 0
    counted: int = 0


@dataclass(slots=True)
class Sender:
    """The client whose statement was refused, a SPIFFE ID: ``proven`` by its own fresh word, or only ``claimed``."""

    proven: str = ""
    claimed: str = ""


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """One refusal: the error, and whose statement was refused."""

    error: KeyarkError
    sender: Sender = field(default_factory=Sender)

    def asker(self, caller: str) -> Asker:
        """Return what it is tallied under; nothing that is only claimed is told of a client that is proven."""
        return caller, self.sender.proven, "" if self.sender.proven else self.sender.claimed


class RejectionLog:
    """Logs what authenticated callers were refused. Counts of a running hour are in memory only.

    The RM asks CM and DRM on behalf of many clients. Each has a quota of its own, so that no client's refusals are
    lost among another's.
    """

    def __init__(self, *, log: Log, store: Store, clock: Clock, quota: int) -> None:
        """Log up to ``quota`` rejections per caller and hour one by one."""
        self._log = log
        self._store = store
        self._clock = clock
        self._quota = quota
        self._hour = clock.now_us() // HOUR_US
        self._tallies: dict[Asker, _Tally] = {}
        self._shared: dict[tuple[str, bool], _Tally] = {}
        self._appending: set[asyncio.Task[None]] = set()

    async def record(self, *, caller: str, method: str, rejections: Sequence[Rejection]) -> None:
        """Log that a caller (SPIFFE ID) was refused a method (full name of the RPC), in one transaction.

        What is beyond the quota is counted only. Raises the store's errors where the log cannot be written; the
        rejections are counted then. Cancelling this changes nothing of what is logged or counted.
        """
        task = asyncio.create_task(self._record(caller, method, rejections))
        self._appending.add(task)
        task.add_done_callback(self._appended)
        await asyncio.wait([task])
        task.result()

    def _appended(self, task: asyncio.Task[None]) -> None:
        self._appending.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved here: who waited may have been cancelled

    async def _record(self, caller: str, method: str, rejections: Sequence[Rejection]) -> None:
        with suppress(KeyarkError):  # those of the hour before are counted still
            await self.flush()
        logged = [each for each in rejections if self._has_quota(each.asker(caller))]
        events = [
            self._event(
                EventType.EVENT_TYPE_REQUEST_REJECTED,
                AuditDetails(
                    caller=caller,
                    reason=each.error.reason,
                    message=_plain(each.error.message, MAX_MESSAGE),
                    method=_plain(method, MAX_METHOD),
                    on_behalf_of=each.asker(caller)[1],
                    claimed_client=each.asker(caller)[2],
                ),
            )
            for each in logged
        ]
        try:
            if events:
                await self._append(events)
        except BaseException:
            for each in logged:
                self._tally(each.asker(caller)).counted += 1
            raise

    def _has_quota(self, asker: Asker) -> bool:
        """Say whether one more is logged by itself; it is counted where not."""
        caller, _, claimed = asker
        tally, total = self._tally(asker), self._shared.setdefault((caller, bool(claimed)), _Tally())
        is_shared_out = total.logged >= SHARED_FACTOR * self._quota
        if tally.logged >= (1 if is_shared_out else self._quota):
            tally.counted += 1
            return False
        tally.logged += 1
        total.logged += 1
        return True

    def _tally(self, asker: Asker) -> _Tally:
        """Return what counts for an asker; a caller that names ever new ones fills no memory."""
        if asker not in self._tallies:
            limit = MAX_CLAIMED if asker[2] else MAX_TALLIES
            if sum(bool(known[2]) == bool(asker[2]) for known in self._tallies) >= limit:
                asker = (asker[0], "", "")
        return self._tallies.setdefault(asker, _Tally())

    async def flush(self) -> None:
        """Log the counts of hours that have ended; call it now and then, since nothing else may come."""
        hour = self._clock.now_us() // HOUR_US
        if hour != self._hour:
            self._hour = hour
            await self._log_counts()

    async def close(self) -> None:
        """Log the counts of the running hour too, once every refusal is logged or counted."""
        while self._appending:
            await asyncio.wait(self._appending)
        await self._log_counts()

    async def _log_counts(self) -> None:
        tallies, self._tallies, self._shared = self._tallies, {}, {}
        counts = {asker: tally.counted for asker, tally in tallies.items() if tally.counted}
        if not counts:
            return
        events = [
            self._event(
                EventType.EVENT_TYPE_REJECTIONS_COUNTED,
                AuditDetails(caller=caller, on_behalf_of=client, claimed_client=claimed, count=count),
            )
            for (caller, client, claimed), count in counts.items()
        ]
        try:
            await self._append(events)
        except BaseException:
            for asker, count in counts.items():
                self._tallies.setdefault(asker, _Tally()).counted += count
            raise

    def _event(self, event_type: EventType.ValueType, details: AuditDetails) -> LoggedEvent:
        event = AuditEvent(version=EVENT_VERSION, type=event_type, time_us=self._clock.now_us())
        return new_event(event, details)

    async def _append(self, events: list[LoggedEvent]) -> None:
        await self._store.update(lambda txn: [self._log.append(txn, event) for event in events])


def _plain(text: str, longest: int) -> str:
    """Return a text as a message takes it; one that did not fit would be a refusal without an entry."""
    return text[:longest].encode(errors="replace").decode()
