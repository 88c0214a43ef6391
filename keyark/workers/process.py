"""One worker process as its pool sees it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from keyark.errors.services import WorkerDiedError, WorkerFailedError, WorkerStartError
from keyark.keys.at_rest import held_descriptors
from keyark.programs import WORKING_FOLDER, python_command
from keyark.workers.frames import HEADER_SIZE, FrameError, body_size, frame, pack, unpack

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0
_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "CREDENTIALS_DIRECTORY")


@dataclass
class Worker:
    """A running process, its end of the socketpair, and how many batches it has worked."""

    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    batches: int = 0

    @classmethod
    async def start(cls, factory: str, setup: bytes) -> Worker:
        """Start a process and wait until its handler is made; raises WorkerStartError."""
        try:
            worker = await cls._launch()
        except OSError as error:
            raise WorkerStartError(
                f"A worker did not start ({os.strerror(error.errno or 0)}); check memory and open files."
            ) from None
        try:
            async with asyncio.timeout(START_SECONDS):
                await worker._exchange(pack([factory.encode(), setup]))
        except (TimeoutError, OSError, asyncio.IncompleteReadError, FrameError):
            await worker.kill()
            raise WorkerStartError(
                "A worker did not start; read what it wrote to stderr, and check its key and configuration."
            ) from None
        except BaseException:  # cancelled: nobody else knows this process
            await worker.kill()
            raise
        return worker

    @classmethod
    async def _launch(cls) -> Worker:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = _spawn(theirs)
            ours.setblocking(False)  # noqa: FBT003 — the standard library's signature
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=1 << 20)
        except BaseException:  # a process that did start ends with the socket
            ours.close()
            raise
        return cls(process, reader, writer)

    async def work(self, items: Sequence[bytes], *, seconds: float) -> list[bytes]:
        """Return one result per item; raises WorkerDiedError, after which the worker is gone, or WorkerFailedError."""
        self.batches += 1
        try:
            async with asyncio.timeout(seconds):
                body = await self._exchange(pack(items))
            if body[:1] == b"\x01":
                return _results(body[1:], len(items))
        except (TimeoutError, OSError, asyncio.IncompleteReadError, FrameError):
            await self.kill()
            raise WorkerDiedError("A worker died or hung; try again.") from None
        raise WorkerFailedError("The work failed; the service's log has the error.")

    async def _exchange(self, body: bytes) -> bytes:
        self.writer.write(frame(body))
        await self.writer.drain()
        return await self.reader.readexactly(body_size(await self.reader.readexactly(HEADER_SIZE)))

    async def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        await self._close()

    async def stop(self) -> None:
        """Let the process end by itself; it holds no work."""
        self.writer.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.to_thread(self.process.wait)
        except TimeoutError:
            await self.kill()
        await self._close()

    async def _close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
        await asyncio.to_thread(self.process.wait)


def _spawn(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """Start the process; it takes a millisecond or two.

    The event loop's own way is not fit for it: uvloop runs Python between fork and exec, which crashes the child now
    and then where other threads run, as gRPC's do. Popen forks and executes in C that is made for threads.
    """
    return subprocess.Popen(  # noqa: S603 — this very interpreter
        python_command("keyark.workers", str(theirs.fileno())),
        cwd=WORKING_FOLDER,
        pass_fds=[theirs.fileno(), *held_descriptors],
        stdin=subprocess.DEVNULL,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    )


def _results(body: bytes, count: int) -> list[bytes]:
    results = unpack(body)
    if len(results) != count:
        raise FrameError("A worker answered another number of results than it was given items.")
    return results
