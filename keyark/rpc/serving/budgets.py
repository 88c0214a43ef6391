"""How much of a server its callers may take: calls, bytes of messages, and messages that are being read.

Of each the server has so much, and one caller at most a quarter of it, so that no caller starves another (P7). What was
taken is given back however a call ends.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

from keyark.errors import OverloadedError
from keyark.identity.spiffe import SpiffeId

CALLER_SHARE: Final = 4
"""A caller gets the fourth part."""


class Share:
    """So much of one thing for all callers, and a part of it for one; more is refused."""

    def __init__(self, total: int, *, what: str) -> None:
        self._total, self._per_caller, self._what = total, max(1, total // CALLER_SHARE), what
        self._taken = 0
        self._by_caller: Counter[SpiffeId] = Counter()

    @contextmanager
    def taking(self, caller: SpiffeId, amount: int) -> Iterator[None]:
        """Take an amount for as long as the context lasts; raises OverloadedError."""
        self.check_room(caller, amount)
        self._taken += amount
        self._by_caller[caller] += amount
        try:
            yield
        finally:
            self._taken -= amount
            self._by_caller[caller] -= amount
            if not self._by_caller[caller]:
                del self._by_caller[caller]

    def check_room(self, caller: SpiffeId, amount: int) -> None:
        """Raise OverloadedError where this amount could not be taken now."""
        if self._by_caller[caller] + amount > self._per_caller:
            raise OverloadedError(
                f"{caller} has reached its limit of {self._what} in progress; try again shortly."
            )
        if self._taken + amount > self._total:
            raise OverloadedError(f"The service has reached its limit of {self._what}; try again shortly.")


class Readers:
    """So many messages are read at a time, of all callers and of one; more wait, and callers take turns.

    A message is not read from its connection before that, but for the little that gRPC reads ahead.
    """

    def __init__(self, total: int) -> None:
        self._total, self._per_caller = total, max(1, total // CALLER_SHARE)
        self._reading: Counter[SpiffeId] = Counter()
        self._count = 0
        self._waiting: OrderedDict[SpiffeId, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def reading(self, caller: SpiffeId) -> AsyncIterator[None]:
        """Wait for a place, and have it as long as the context lasts."""
        if caller not in self._waiting and self._has_place(caller):
            self._take(caller)
        else:
            await self._wait(caller)
        try:
            yield
        finally:
            self._give_back(caller)

    async def _wait(self, caller: SpiffeId) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was given in this very turn of the loop
                self._give_back(caller)
            raise

    def _has_place(self, caller: SpiffeId) -> bool:
        return self._count < self._total and self._reading[caller] < self._per_caller

    def _take(self, caller: SpiffeId) -> None:
        self._count += 1
        self._reading[caller] += 1

    def _give_back(self, caller: SpiffeId) -> None:
        self._count -= 1
        self._reading[caller] -= 1
        for waiting in list(self._waiting):
            self._serve(waiting)
        self._reading += Counter()  # who reads nothing is left out

    def _serve(self, caller: SpiffeId) -> None:
        """Give the place to a caller that may have it, which then comes last."""
        places = self._waiting[caller]
        while places and self._has_place(caller):
            place = places.popleft()
            if not place.done():  # else who waited gave up
                self._take(caller)
                place.set_result(None)
                self._waiting.move_to_end(caller)
        if not places:
            del self._waiting[caller]


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """What the callers of one server share."""

    calls: Share
    streams: Share
    message_bytes: Share
    readers: Readers

    @classmethod
    def of(cls, *, max_calls: int, max_bytes: int, max_readers: int, max_streams: int = 64) -> Budgets:
        """Make the budgets of a server; bytes are those of messages that are worked on, streams those of health."""
        return cls(
            calls=Share(max_calls, what="calls"),
            streams=Share(max_streams, what="streams"),
            message_bytes=Share(max_bytes, what="bytes of messages"),
            readers=Readers(max_readers),
        )
