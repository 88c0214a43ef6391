"""An event loop whose clock jumps to whatever is due next: loops over minutes end at once, always the same way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Its time passes only while nothing can be done."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        real_select = self._selector.select

        def select(timeout):
            if timeout:
                self._now += timeout
            return real_select(0)

        self._selector.select = select

    def time(self) -> float:
        return self._now


def run_in_virtual_time(main: Callable[[Callable[[], float]], Awaitable[T]]) -> T:
    """Run ``main(now)`` to its end."""
    loop = VirtualTimeLoop()
    try:
        return loop.run_until_complete(main(loop.time))
    finally:
        loop.close()
