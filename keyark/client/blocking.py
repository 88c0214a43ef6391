"""The enrollment client for code without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from keyark.client.enrollment import EnrollmentClient, PreparedEnrollment
    from keyark.client.verification import Enrolled


class BlockingEnrollmentClient:
    """Runs the asynchronous client on a loop of its own; one thread at a time may use it."""

    def __init__(self, opener: Callable[[], EnrollmentClient]) -> None:
        self._opener = opener
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        async def start() -> EnrollmentClient:
            return self._opener()

        self._client = self._runner.run(start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._client.__aexit__(kind, error, trace))
        self._runner.close()

    def enroll(self, **request: Any) -> Enrolled:
        """As ``EnrollmentClient.enroll``."""
        return self._runner.run(self._client.enroll(**request))

    def prepare(self, **request: Any) -> PreparedEnrollment:
        """As ``EnrollmentClient.prepare``."""
        return self._runner.run(self._client.prepare(**request))

    def submit(self, prepared: PreparedEnrollment) -> Enrolled:
        """As ``EnrollmentClient.submit``."""
        return self._runner.run(self._client.submit(prepared))
