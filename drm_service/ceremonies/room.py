"""What one agent may ask of the ceremonies, so that no agent keeps the others from theirs (P7).

Room is counted for each agent and never shared: an agent that fills its own leaves everybody else's as it was. A change
of agents has a place of its own, beside that room, for each agent: nothing that another agent opened holds it up.
Rates are counted in memory by the clock hour, before a signature is verified or a worker started.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from drm_service.ceremonies.quorum import check_present
from drm_service.ceremonies.records import RECOVER, open_ceremonies, request_of
from keyark.clock import Clock
from keyark.custody.shares import MAX_AGENTS
from keyark.errors import KeyarkError
from keyark.errors.recovery import AgentQuotaError, AnotherCeremonyError
from keyark.identity.spiffe import SpiffeId
from keyark.statements.ceremonies import CeremonyRequest
from keyark.store import ReadTransaction
from keyark.v1.ceremony_pb2 import CeremonyType

CHANGE: Final = CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS
MAX_OPEN: Final = 50
"""Open ceremonies of one agent, besides its change of agents."""
MAX_ALL: Final = MAX_AGENTS * (MAX_OPEN + 1)
"""Open ceremonies that there can be."""
HOUR_US: Final = 3_600_000_000


def check_room(txn: ReadTransaction, request: CeremonyRequest) -> None:
    """Raise NoShareError, AgentQuotaError or AnotherCeremonyError unless the requester may open the ceremony now."""
    check_present(txn, request.requester)
    others = [request_of(record) for record in open_ceremonies(txn, limit=MAX_ALL)]
    own = [other for other in others if other.requester == request.requester]
    if request.type == CHANGE:
        if any(other.type == CHANGE for other in own):
            raise AnotherCeremonyError(
                "You have already asked for a change of agents; cancel that one first."
            )
        return
    if sum(other.type != CHANGE for other in own) >= MAX_OPEN:
        raise AgentQuotaError(
            f"{request.requester} has {MAX_OPEN} open ceremonies, which is the limit; cancel one, or wait "
            "until the other agents have decided."
        )
    if request.type != RECOVER and any(other.type not in (RECOVER, CHANGE) for other in others):
        raise AnotherCeremonyError(
            "Another ceremony about storage keys is open; finish or cancel that one first."
        )


@dataclass(frozen=True, kw_only=True)
class AgentRates:
    """How many ceremonies one agent may ask for, and how many approvals of it may be refused, within a clock hour."""

    requests: int = 1000
    key_ceremonies: int = 20
    refused_approvals: int = 20


@dataclass(kw_only=True)
class AgentWork:
    """What each agent caused in this clock hour; whom it holds is bounded, for only present agents are counted."""

    clock: Clock
    rates: AgentRates = AgentRates()
    _hour: int = 0
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _turns: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def ask(self, agent: SpiffeId) -> None:
        """Count a request, before anything of it is verified; raises AgentQuotaError."""
        self._take(agent, "requests", self.rates.requests)

    def ask_about_keys(self, agent: SpiffeId) -> None:
        """Count a request for what costs a worker, or changes more than one key; raises AgentQuotaError."""
        self._take(agent, "requests about agents and storage keys", self.rates.key_ceremonies)

    @asynccontextmanager
    async def approving(self, agent: SpiffeId) -> AsyncIterator[None]:
        """Let an agent's approvals be checked, each in a worker, one after the other; those that fail count.

        Raises AgentQuotaError where too many failed within this hour.
        """
        async with self._turns[str(agent)]:
            self._check(agent, "refused approvals", self.rates.refused_approvals)
            try:
                yield
            except KeyarkError:
                self._counts[str(agent), "refused approvals"] += 1
                raise

    def _take(self, agent: SpiffeId, what: str, limit: int) -> None:
        self._check(agent, what, limit)
        self._counts[str(agent), what] += 1

    def _check(self, agent: SpiffeId, what: str, limit: int) -> None:
        hour = self.clock.now_us() // HOUR_US
        if hour != self._hour:
            self._hour = hour
            self._counts.clear()
        if self._counts[str(agent), what] >= limit:
            raise AgentQuotaError(
                f"{agent} has made {limit} {what} within this hour, which is the limit; try again in "
                "the next hour."
            )
