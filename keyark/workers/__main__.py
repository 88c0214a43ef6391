"""`python -m keyark.workers FD`: one worker process. It reads its work from a socket and ends when that does.

The first frame names the factory ("module:function") and holds its set-up, so that no secret stands in a process list
or an environment. The kernel closes the other end when the parent dies, however it dies: no worker outlives it.
"""

from __future__ import annotations

import importlib
import logging
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final, cast

from keyark.crypto.harden import disable_core_dumps
from keyark.errors import KeyarkError
from keyark.workers.frames import frame, pack, read_frame, unpack

READY: Final = b"ready"
Handler = Callable[[list[bytes]], list[bytes]]

logger = logging.getLogger("keyark.workers")


def main(descriptor: int) -> None:
    """Serve batches from the socket until it ends."""
    disable_core_dumps()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; a terminal signals the whole group
    with socket.socket(fileno=descriptor) as stream:
        first = read_frame(stream)
        if first is None:
            return
        factory, setup = unpack(first)
        try:
            handler = _load(factory.decode())(setup)
        except KeyarkError as error:
            sys.exit(f"worker: {error.message} [{error.reason}]")
        stream.sendall(frame(READY))
        while (body := read_frame(stream)) is not None:
            stream.sendall(frame(_work(handler, unpack(body))))


def _load(factory: str) -> Callable[[bytes], Handler]:
    module, _, name = factory.partition(":")
    return cast("Callable[[bytes], Handler]", getattr(importlib.import_module(module), name))


def _work(handler: Handler, batch: list[bytes]) -> bytes:
    """Return the packed results after a 1, or a 0 alone where the handler failed; its exception stays here (P10)."""
    try:
        results = handler(batch)
        if len(results) != len(batch):
            raise RuntimeError("a handler returned another number of results than it was given items")
    except Exception as error:
        logger.error("a batch failed with %s", type(error).__name__)  # noqa: TRY400
        return b"\x00"
    return b"\x01" + pack(results)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="worker %(levelname)s %(name)s: %(message)s")
    main(int(sys.argv[1]))
