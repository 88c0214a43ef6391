"""Repeating what is idempotent: an answer that a service cannot give now is asked for again, for a while.

Which methods are idempotent their protos say (``option idempotency_level``). What time does not heal within seconds is
told at once: an ended or revoked identity, a wrong certificate, a message that is too large, a quota of an hour.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, TypeVar

from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.descriptor_pool import Default

from keyark.errors import KeyarkError, Kind
from keyark.rpc.calling.pinning import ServiceRevokedError
from keyark.rpc.reach import IdentityEndedError, IdentityNotYetValidError, ServiceCertificateError

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_LASTING: Final = (
    IdentityEndedError,
    IdentityNotYetValidError,
    ServiceCertificateError,
    ServiceRevokedError,
)


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How long and how often a call or an item is repeated; after ``seconds``, no new attempt begins.

    Pauses begin at ``first_pause`` seconds and double up to ``longest_pause``, each shortened at random by up
    to half. If the service says how long to wait (``RetryInfo``), the pause is no shorter.
    """

    seconds: float = 20.0
    first_pause: float = 0.5
    longest_pause: float = 8.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random

    async def call(self, attempt: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the result of ``attempt``; raises its last error."""
        end, number = self.clock() + self.seconds, 0
        while True:
            try:
                return await attempt()
            except KeyarkError as error:
                pause = self._pause(error, number)
                if not is_transient(error) or self.clock() + pause >= end:
                    raise
            await self.sleep(pause)
            number += 1

    async def items(
        self,
        attempt: Callable[[Sequence[Item]], Awaitable[list[Answer | KeyarkError]]],
        items: Sequence[Item],
    ) -> list[Answer | KeyarkError]:
        """Return one answer or error for each item, in order; items with a transient failure were attempted again."""
        end, number = self.clock() + self.seconds, 0
        answers = await attempt(items)
        while True:
            failed = {i: a for i, a in enumerate(answers) if isinstance(a, KeyarkError) and is_transient(a)}
            pause = max((self._pause(error, number) for error in failed.values()), default=0.0)
            if not failed or self.clock() + pause >= end:
                return answers
            await self.sleep(pause)
            try:
                again = await attempt([items[index] for index in failed])
            except KeyarkError as error:  # the call as a whole failed, and so did every item of it
                again = [error] * len(failed)
            for index, answer in zip(failed, again, strict=True):
                answers[index] = answer
            number += 1

    def _pause(self, error: KeyarkError, number: int) -> float:
        longest = min(self.longest_pause, self.first_pause * 2.0 ** min(number, 32))
        return max(longest * (1 - self.jitter() / 2), error.retry_after or 0.0)


DEFAULT_RETRIES: Final = Retries()
NO_RETRIES: Final = Retries(seconds=0.0)


def is_transient(error: KeyarkError) -> bool:
    """Whether the same request may succeed within seconds."""
    if error.is_final or isinstance(error, _LASTING):
        return False
    return error.kind.leaves_outcome_unknown or (
        error.kind is Kind.EXHAUSTED and error.retry_after is not None
    )


@cache
def is_idempotent(path: str) -> bool:
    """Whether a method ("/keyark.v1.RegistrationService/SubmitEnrollments") may be called twice, as its proto says."""
    try:
        method = Default().FindMethodByName(path.removeprefix("/").replace("/", "."))
    except KeyError:
        return False
    return bool(method.GetOptions().idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN)
