"""The time that is left for the call being handled, passed on to the calls that handling it takes.

It applies to the task that handles the call. A task that the handler starts, to outlive its caller or to serve several
of them, is on its own: it has a time of its own to keep.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from keyark.errors import DeadlineExceededError

DEFAULT_SECONDS: Final = 30.0
LONGEST_SECONDS: Final = 120.0
MARGIN_SECONDS: Final = 0.05


@dataclass(frozen=True)
class _Deadline:
    task: asyncio.Task[object] | None = field(repr=False)
    at: float


_deadline: ContextVar[_Deadline] = ContextVar("deadline")


def handling_seconds(remaining: float | None) -> float:
    """Return the seconds that a handler gets: what the caller allows less a margin, or the default for None.

    Raises DeadlineExceededError where nothing is left.
    """
    if remaining is None:
        return DEFAULT_SECONDS
    seconds = min(remaining, LONGEST_SECONDS) - MARGIN_SECONDS
    if seconds <= 0:
        raise DeadlineExceededError("The caller's deadline was too short to answer; allow more time.")
    return seconds


def begin(seconds: float) -> None:
    """Say how long the call that the current task handles may take."""
    loop = asyncio.get_running_loop()
    _deadline.set(_Deadline(asyncio.current_task(), loop.time() + seconds))


def downstream_seconds(wanted: float) -> float:
    """Return the seconds for a call that is made now: what is wanted, or less where less is left.

    Raises DeadlineExceededError where nothing is left.
    """
    deadline = _deadline.get(None)
    if deadline is None or deadline.task is not asyncio.current_task():
        return wanted
    left = deadline.at - asyncio.get_running_loop().time() - MARGIN_SECONDS
    if left <= 0:
        raise DeadlineExceededError(
            "The caller's deadline left too little time for a call to another service; allow more time."
        )
    return min(wanted, left)
