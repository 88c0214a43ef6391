"""Asks ``command_server`` for `keyark` commands: each is a process of its own, whose imports were made before it."""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_PROGRAM = Path(__file__).with_name("command_server.py")
_READ_AT_START = ("LANG", "LC_", "PYTHON", "GRPC_")


class CommandServer:
    """The program that forks commands; it ends with the process of the tests."""

    def __init__(self) -> None:
        self._settings = _start_settings()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", str(_PROGRAM), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the tests
            )
        atexit.register(self._stop)

    @property
    def fits(self) -> bool:
        """Whether a command that starts now would start under the same locale and settings of the interpreter."""
        return _start_settings() == self._settings

    def run(
        self, arguments: list[str], *, folder: Path | None = None, beside: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in this process's environment, with nothing to read.

        It works in ``folder``, otherwise in this process's; and in the namespaces of the process ``beside``, if given.
        """
        place = {"folder": str(folder or os.getcwd()), "beside": beside}
        with _file("output") as output, _file("errors") as errors, open(os.devnull) as nothing:
            ended, end = os.pipe()
            with open(ended) as code:
                try:
                    self._send(place | {"arguments": arguments}, [nothing.fileno(), output, errors, end])
                finally:
                    os.close(end)
                return subprocess.CompletedProcess(arguments, int(code.read()), _text(output), _text(errors))

    def _send(self, command: dict[str, object], files: list[int]) -> None:
        text = json.dumps(command | {"environment": dict(os.environ)})
        socket.send_fds(self._socket, [text.encode()], files)

    def _stop(self) -> None:
        self._socket.close()
        self._process.wait()


@cache
def command_server() -> CommandServer:
    """Return the one of this process; the first call starts it."""
    return CommandServer()


def _start_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(_READ_AT_START)}


@contextmanager
def _file(name: str) -> Iterator[int]:
    file = os.memfd_create(name)
    try:
        yield file
    finally:
        os.close(file)


def _text(file: int) -> str:
    return os.pread(file, os.fstat(file).st_size, 0).decode()
