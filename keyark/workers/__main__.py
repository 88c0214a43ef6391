"""`python -m keyark.workers FD`: one worker process. It reads its work from a socket and ends when that does.

The first frame names the factory ("module:function") and holds its set-up, so that no secret stands in a process list
or an environment. The kernel closes the other end when the parent dies, however it dies; a worker that hangs does not
read that, so on Linux the kernel also kills it. No worker outlives its parent with a key in hand.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Final, NoReturn, cast

from keyark.collection import collect_later, tune_garbage_collection
from keyark.custody.harden import disable_core_dumps
from keyark.errors import KeyarkError
from keyark.keys.library import ignore_library_warnings
from keyark.workers.frames import frame, pack, read_frame, unpack

READY: Final = b"ready"
_PR_SET_PDEATHSIG: Final = 1
Handler = Callable[[list[bytes]], list[bytes]]

logger = logging.getLogger("keyark.workers")


def main(descriptor: int) -> None:
    """Serve batches from the socket until it ends."""
    collect_later()
    disable_core_dumps()
    ignore_library_warnings()
    _die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent drains; terminals and supervisors signal all
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as stream:
        first = read_frame(stream)
        if first is None:
            return
        factory, setup = unpack(first)
        try:
            handler = _load(factory.decode())(setup)
        except KeyarkError as error:
            _give_up(f"{error.message} [{error.reason}]")
        except Exception as error:  # its text may quote the set-up, which holds PINs (P10)
            _give_up(f"{factory.decode()} failed with {_place(error)}")
        tune_garbage_collection()
        stream.sendall(frame(READY))
        while (body := read_frame(stream)) is not None:
            stream.sendall(frame(_work(handler, unpack(body))))


def _load(factory: str) -> Callable[[bytes], Handler]:
    module, _, name = factory.partition(":")
    return cast("Callable[[bytes], Handler]", getattr(importlib.import_module(module), name))


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies; reading the end of the socket does it elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _give_up(why: str) -> NoReturn:
    """Say why before the socket closes: then the parent kills this process."""
    sys.stderr.write(f"worker: {why}\n")
    sys.stderr.flush()
    sys.exit(1)


def _place(error: Exception) -> str:
    """Say what failed and where, without the exception's text."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {last.filename}:{last.lineno}"


def _work(handler: Handler, batch: list[bytes]) -> bytes:
    """Return the packed results after a 1, or a 0 alone where the handler failed; its exception stays here (P10)."""
    try:
        results = handler(batch)
        if len(results) != len(batch):
            raise RuntimeError("a handler returned another number of results than it was given items")
    except Exception as error:
        logger.error("a batch failed with %s", _place(error))  # noqa: TRY400
        return b"\x00"
    return b"\x01" + pack(results)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="worker %(levelname)s %(name)s: %(message)s")
    main(int(sys.argv[1]))
