"""What an approved ceremony is carried out with: a disposable worker that opens what a quorum's shares open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from keyark.custody.storage import HybridPrivateKey
from keyark.errors import KeyarkError
from keyark.records.v1.drm_pb2 import (
    AgentShares,
    CeremonyRecord,
    CeremonyResult,
    CeremonyTask,
    CeremonyWorkerSetup,
    SoftwareToken,
)
from keyark.service.failures import unpack_failure
from keyark.statements.ceremonies import CeremonyRequest
from keyark.store import WriteTransaction
from keyark.v1.audit_pb2 import LoggedEvent
from keyark.v1.recovery_pb2 import CeremonyState, ReleasedShare

WORK_SECONDS: Final = 60.0
STEP: Final = 16
"""Tasks that a worker gets at a time: the limit of time is theirs, however many keys a ceremony is about."""


class BatchWorker(Protocol):
    """A worker process that works batches."""

    async def work(self, items: Sequence[bytes], *, seconds: float) -> list[bytes]:
        """Return one result per item; raises WorkerDiedError and WorkerFailedError."""


StartWorker = Callable[[bytes], AbstractAsyncContextManager[BatchWorker]]
"""Starts a disposable worker with a serialized CeremonyWorkerSetup; raises WorkerStartError."""

RunTasks = Callable[[Sequence[CeremonyTask]], Awaitable[list[CeremonyResult | KeyarkError]]]
"""Works tasks in a worker; a task that fails has its typed error."""

ReleasedShares = Sequence[ReleasedShare]


@dataclass(eq=False, kw_only=True)
class LiveCeremony:
    """What an open ceremony has in memory only: its one-time key, and what agents released for it."""

    share_recipient_key: HybridPrivateKey
    shares: dict[str, ReleasedShares] = field(default_factory=dict, repr=False)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    carrying_out: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a quorum approved and the work goes on."""
        return self.carrying_out is not None and not self.carrying_out.done()

    @property
    def has_failed(self) -> bool:
        """Whether the work ended with an error that time can heal."""
        task = self.carrying_out
        return task is not None and task.done() and not task.cancelled() and task.exception() is not None


@dataclass(frozen=True, kw_only=True)
class CeremonyWorkers:
    """Starts the disposable workers of one opening of a ceremony, with what agents released for it."""

    start_worker: StartWorker
    share_recipient_key: HybridPrivateKey
    digest: bytes
    opening_leaf: bytes
    tokens: Sequence[SoftwareToken]

    @asynccontextmanager
    async def open(self, shares: Mapping[str, ReleasedShares]) -> AsyncIterator[RunTasks]:
        """Start a worker with these agents' shares; it ends with the context. Raises WorkerStartError."""
        setup = CeremonyWorkerSetup(
            share_recipient_key=self.share_recipient_key.to_bytes(),
            ceremony_digest=self.digest,
            opening_leaf=self.opening_leaf,
            tokens=self.tokens,
            shares=[AgentShares(agent=agent, shares=released) for agent, released in shares.items()],
        )
        async with self.start_worker(setup.SerializeToString()) as worker:
            yield partial(work_tasks, worker)


async def work_tasks(
    worker: BatchWorker, tasks: Sequence[CeremonyTask]
) -> list[CeremonyResult | KeyarkError]:
    """Have a worker work tasks, step by step."""
    done: list[bytes] = []
    for start in range(0, len(tasks), STEP):
        step = [task.SerializeToString() for task in tasks[start : start + STEP]]
        done += await worker.work(step, seconds=WORK_SECONDS)
    results = [CeremonyResult.FromString(result) for result in done]
    return [unpack_failure(r.failure) if r.HasField("failure") else r for r in results]


@dataclass(frozen=True, kw_only=True)
class ApprovedCeremony:
    """A ceremony that a quorum approved; ``open_worker`` starts a worker with the quorum's shares."""

    request: CeremonyRequest
    record: CeremonyRecord
    open_worker: Callable[[], AbstractAsyncContextManager[RunTasks]] = field(repr=False)

    async def results(self, tasks: Sequence[CeremonyTask]) -> list[CeremonyResult]:
        """Return every task's result, from one worker; raises the first task's error: all is done or nothing."""
        return all_of(await self.outcomes(tasks))

    async def outcomes(self, tasks: Sequence[CeremonyTask]) -> list[CeremonyResult | KeyarkError]:
        """Return every task's result or typed error, from one worker."""
        async with self.open_worker() as run:
            return await run(tasks)


def all_of(results: Sequence[CeremonyResult | KeyarkError]) -> list[CeremonyResult]:
    """Return the results, or raise the first error among them."""
    done = []
    for result in results:
        if isinstance(result, KeyarkError):
            raise result
        done.append(result)
    return done


async def _nothing_more() -> None:
    """What follows the commit of most ceremonies."""


@dataclass(frozen=True, kw_only=True)
class CeremonyOutcome:
    """What carrying out came to: written in the transaction that ends the ceremony, with its leaf."""

    state: CeremonyState.ValueType
    leaf: LoggedEvent
    write: Callable[[WriteTransaction, CeremonyRecord], None]
    afterwards: Callable[[], Awaitable[None]] = _nothing_more


class CeremonyAction(Protocol):
    """What one type of ceremony does."""

    async def prepare(self, request: CeremonyRequest, record: CeremonyRecord) -> None:
        """Complete a record before it is opened, anew or for the first time; raises what keeps it from that."""

    async def carry_out(self, approved: ApprovedCeremony) -> CeremonyOutcome:
        """Do what was asked for.

        Raises CeremonyMovedError where it has to be opened anew, errors of Kind UNAVAILABLE and EXHAUSTED where it
        can be tried again, and any other typed error where it never can.
        """
