"""How an update's outcome reaches the coroutine that waits for it."""

from __future__ import annotations

import asyncio
from typing import Any


def settle(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    """Give a waiting caller its result or error, on its event loop; one that was cancelled gets nothing."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
        return
    if isinstance(error, StopIteration):  # a future cannot carry it; PEP 479 does the same for generators
        error = RuntimeError("an update raised StopIteration").with_traceback(error.__traceback__)
    future.set_exception(error)
