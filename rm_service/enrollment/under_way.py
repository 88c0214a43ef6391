"""The enrollments that are under way: one task each, joined by whoever sends the same request, bounded per caller."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from keyark.errors import OverloadedError
from keyark.identity.spiffe import SpiffeId
from keyark.service.checks.requests import check_same_statement
from keyark.statements.enrollment import Statement
from keyark.v1.registration_pb2 import Enrollment

Drive = Callable[[], Coroutine[Any, Any, Enrollment]]


@dataclass(frozen=True)
class _Run:
    """The one task of an enrollment, and which content it is for."""

    statement_sha256: bytes
    caller: SpiffeId
    task: asyncio.Task[Enrollment]


@dataclass
class UnderWay:
    """Runs of enrollments by id; a run has its place until it ends, whether or not anybody waits for it."""

    max_per_caller: int
    _runs: dict[bytes, _Run] = field(default_factory=dict, repr=False)
    _places: Counter[SpiffeId] = field(default_factory=Counter, repr=False)

    def check_room(self, caller: SpiffeId) -> None:
        """Raise OverloadedError where a caller has as many under way as one caller may."""
        if self._places[caller] >= self.max_per_caller:
            raise OverloadedError(
                f"{caller} has reached its limit of enrollments in progress; try again shortly."
            )

    def join(self, statement: Statement, drive: Drive) -> asyncio.Task[Enrollment]:
        """Return the task of an enrollment, begun by ``drive`` where there is none.

        Raises RequestIdReusedError where it is for other content, and OverloadedError.
        """
        run = self._runs.get(statement.enrollment_id)
        if run is None:
            self.check_room(statement.caller)
            run = _Run(statement.sha256, statement.caller, asyncio.create_task(drive()))
            self._runs[statement.enrollment_id] = run
            self._places[statement.caller] += 1
            run.task.add_done_callback(partial(self._forget, statement.enrollment_id))
        check_same_statement(statement, run.statement_sha256)
        return run.task

    def up_to(self, statement: Statement) -> int:
        """How many its caller has under way that were begun before this one, with it."""
        count = 0
        for enrollment_id, run in self._runs.items():
            count += run.caller == statement.caller
            if enrollment_id == statement.enrollment_id:
                break
        return count

    async def end_of(self, enrollment_id: bytes) -> None:
        """Wait until this enrollment is not under way any more, however it ended."""
        if (run := self._runs.get(enrollment_id)) is not None:
            await asyncio.wait([run.task])

    async def drain(self) -> None:
        """Wait until all have ended."""
        while self._runs:
            await asyncio.wait([run.task for run in self._runs.values()])

    def _forget(self, enrollment_id: bytes, task: asyncio.Task[Enrollment]) -> None:
        ended = self._runs.pop(enrollment_id)
        self._places -= Counter({ended.caller: 1})  # who has none left is left out
        if not task.cancelled():
            task.exception()  # retrieved here: every waiter may have been cancelled
