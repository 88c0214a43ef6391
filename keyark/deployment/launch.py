"""`keyark up`: runs the three services of a deployment, and stops all when one dies or a signal comes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keyark.errors import KeyarkError, Kind
from keyark.identity.spiffe import SERVICE_ROLES, START_ORDER
from keyark.programs import WORKING_FOLDER, python_command

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 15.0


class ServiceDiedError(KeyarkError):
    """A service ended by itself; its own last words are above."""

    reason = "SERVICE_DIED"
    kind = Kind.UNAVAILABLE


@dataclass(frozen=True)
class _Service:
    role: str
    process: asyncio.subprocess.Process

    async def ready_line(self) -> str:
        """Return the line that the service prints once it takes calls."""
        if self.process.stdout is None:
            raise ServiceDiedError(f"{self.role} has no output to read.")
        line = await self.process.stdout.readline()
        if not line:
            await self.process.wait()
            raise ServiceDiedError(
                f"{self.role} ended with code {self.process.returncode} before it was ready."
            )
        return line.decode().rstrip()

    async def stop(self) -> None:
        """Let the service drain; kill it where it does not end in time."""
        if self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


async def run_deployment(
    folder: Path, say: Callable[[str], None], *, arguments: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Run until SIGINT, SIGTERM or SIGHUP; ``say`` gets each service's ready line and how it stopped.

    ``arguments`` are further ones for `serve`, by role.
    Raises ServiceDiedError, after all were stopped, where one died by itself.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the last where the terminal is closed
        loop.add_signal_handler(number, stopping.set)
    services: dict[str, _Service] = {}
    try:
        for role in START_ORDER:
            services[role] = await _start(role, folder, (arguments or {}).get(role, ()))
            _tell(say, await asyncio.wait_for(services[role].ready_line(), START_SECONDS))
        await _until_stopped(services, stopping)
    finally:
        for role in SERVICE_ROLES:
            if role in services:
                await services[role].stop()
                _tell(say, f"{role} stopped with code {services[role].process.returncode}")


def _tell(say: Callable[[str], None], line: str) -> None:
    """Say a line; that nobody reads it any more ends no service, and keeps none from being stopped."""
    with contextlib.suppress(OSError):
        say(line)


def _command(role: str, folder: Path, arguments: Sequence[str]) -> list[str]:
    config = folder.absolute() / role / f"{role}.toml"  # the service works in another folder
    parent = ("--parent", str(os.getpid()))  # it ends with us, even where we are killed
    return python_command(f"{role}_service", "serve", str(config), *parent, *arguments)


async def _start(role: str, folder: Path, arguments: Sequence[str]) -> _Service:
    process = await asyncio.create_subprocess_exec(
        *_command(role, folder, arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        cwd=WORKING_FOLDER,
        start_new_session=True,  # a terminal's SIGINT is for us; we stop them in order
    )
    return _Service(role, process)


async def _until_stopped(services: dict[str, _Service], stopping: asyncio.Event) -> None:
    """Wait for a signal; raise where a service dies first."""
    deaths = {asyncio.create_task(service.process.wait()): service for service in services.values()}
    signalled = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([signalled, *deaths], return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = [service for task, service in deaths.items() if task.done()]
        for task in (signalled, *deaths):
            task.cancel()
    if ended and not stopping.is_set():
        dead = ended[0]
        raise ServiceDiedError(
            f"{dead.role} ended unexpectedly with code {dead.process.returncode}, so the others were stopped."
        )
