"""The way to a running service for whoever may open its store's folder: one command, one answer.

The service that holds the store's lock listens on a Unix socket in that folder (0700), so that a command reaches
exactly the process whose store it is and never, as a signal to a process id from a file might, a stranger. Both
directions are one line of JSON: ``["reload"]``, and ``{"result": ...}`` or ``{"reason": ..., "message": ...}``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from keyark.errors import ConfigurationError, KeyarkError, Kind, UnavailableError, error_class

SOCKET: Final = "control.sock"
ANSWER_SECONDS: Final = 300.0
MAX_LINE: Final = 1 << 20
"""Bytes of a command or an answer."""

Command: TypeAlias = Callable[[Sequence[str]], Awaitable[Any]]
"""Carries out a command with its arguments; what it returns is told as JSON."""

logger = logging.getLogger(__name__)


class ServiceNotRunningError(ConfigurationError):
    """Nobody has the store open who takes commands."""

    reason = "SERVICE_NOT_RUNNING"


class UnknownCommandError(KeyarkError):
    """The running service has no such command, or takes other arguments."""

    reason = "UNKNOWN_COMMAND"
    kind = Kind.INVALID


class Commands:
    """The commands of a running service, carried out one at a time."""

    def __init__(self, commands: Mapping[str, Command]) -> None:
        self._commands = dict(commands)
        self._turn = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()

    async def carry_out(self, words: Any) -> Any:
        """Return what a command and its arguments come to; raises KeyarkError and nothing else.

        Who gives up waiting does not stop the command.
        """
        task = asyncio.create_task(self._dispatch(words))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _dispatch(self, words: Any) -> Any:
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise self._unknown()
        if words[0] not in self._commands:
            raise self._unknown()
        try:
            async with self._turn:
                return await self._commands[words[0]](words[1:])
        except KeyarkError:
            raise
        except Exception:  # the asker gets an answer whatever happened; the log has the cause
            logger.exception("the command %s failed", words[0])
            raise KeyarkError("The command failed; the service's log has the error.") from None

    def _unknown(self) -> UnknownCommandError:
        return UnknownCommandError(
            f"The running service knows the commands {', '.join(self._commands)}; if it is of an older "
            "release, restart it."
        )

    async def finish(self) -> None:
        """Wait for what is being carried out."""
        if self._running:
            await asyncio.wait(self._running)


@asynccontextmanager
async def answering(folder: Path, commands: Commands) -> AsyncIterator[None]:
    """Take commands while the context lasts; one that is being carried out at the end is let finish.

    ``folder`` is the store's, locked by this process: a socket that a killed process left there is replaced.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(await _answer(await reader.readline(), commands))
            await writer.drain()
        except (OSError, ValueError):
            logger.warning("a command's answer reached nobody")
        finally:
            writer.close()

    with _address(folder) as path, socket.socket(socket.AF_UNIX) as listener:
        (folder / SOCKET).unlink(missing_ok=True)
        os.fchmod(listener.fileno(), 0o600)  # Linux gives the file this mode, less the umask
        listener.bind(path)
        (folder / SOCKET).chmod(0o600)
        listener.setblocking(False)  # noqa: FBT003 — the standard library's signature
        server = await asyncio.start_unix_server(connected, sock=listener, limit=MAX_LINE)
        try:
            yield
        finally:
            (folder / SOCKET).unlink(missing_ok=True)
            await commands.finish()
            server.close()


async def _answer(line: bytes, commands: Commands) -> bytes:
    try:
        words = json.loads(line)
    except (ValueError, RecursionError):
        words = None
    try:
        answer = {"result": await commands.carry_out(words)}
    except KeyarkError as error:
        answer = {"reason": error.reason, "message": error.message}
    return json.dumps(answer).encode() + b"\n"


def ask(folder: Path, *words: str) -> Any:
    """Have the service whose store lies in ``folder`` carry out a command; returns what it answers.

    Raises ServiceNotRunningError where nobody listens, UnavailableError where the service ended first or does not
    answer in five minutes, and the typed error that the service answers with.
    """
    with _address(folder) as path, socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except OSError:
            raise ServiceNotRunningError(
                f"No running service uses {folder}; start it with `serve` or `keyark up`."
            ) from None
        try:
            connection.settimeout(ANSWER_SECONDS)
            connection.sendall(json.dumps(words).encode() + b"\n")
            answer = json.loads(connection.makefile("rb").readline(MAX_LINE))
        except (OSError, ValueError):
            raise UnavailableError(
                "The service ended before it answered; read its log, and run the command again."
            ) from None
    if "result" in answer:
        return answer["result"]
    raise (error_class(answer["reason"]) or KeyarkError)(answer["message"])


@contextmanager
def _address(folder: Path) -> Iterator[str]:
    """Name the socket by way of its open folder: a socket's own path has at most 107 bytes."""
    try:
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ServiceNotRunningError(
            f"The folder of the service's store, {folder}, cannot be opened: {error.strerror}. Run the "
            "command as its owner."
        ) from None
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)
