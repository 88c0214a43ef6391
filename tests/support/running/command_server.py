"""A program that has imported the `keyark` commands, and forks a process for each that is asked of it.

What comes over the socket is one command as JSON: its arguments, working folder and environment, and a process whose
namespaces it enters, if any; with four open files: its input, output and errors, and where its exit code is written.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterable

from keyark.cli.main import COMMANDS
from keyark.programs import keyark

MAX_REQUEST = 1 << 18
COMMAND_SECONDS = 120
_RARE = {"load"}
"""Commands whose imports would cost every other command."""


def main(descriptor: int) -> None:
    """Fork a process for every request until the socket ends; returns in those processes, which are the command."""
    for name in set(COMMANDS) - _RARE:
        importlib.import_module(COMMANDS[name][0])
    gc.collect()
    gc.freeze()
    waiting: dict[int, int] = {}
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    requests = socket.socket(fileno=descriptor)
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        process = -1
        while process:
            ready = {key.fileobj for key, _ in selector.select()}
            if woken in ready:
                woken.recv(4096)
                _tell_ends(waiting)
            if requests in ready:
                text, files, _, _ = socket.recv_fds(requests, MAX_REQUEST, 4)
                if not text:
                    sys.exit()
                if process := os.fork():
                    waiting[process] = files.pop()
                    _close(files)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for end in (requests, woken, wake):
        end.close()
    _close(waiting.values())
    _become(json.loads(text), files)


def _tell_ends(waiting: dict[int, int]) -> None:
    for process in list(waiting):
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            file = waiting.pop(process)
            os.write(file, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(file)


def _close(files: Iterable[int]) -> None:
    for file in files:
        os.close(file)


def _enter(process: int) -> None:
    """Enter the namespaces of users, mounts and networks of a process, setns(2)."""
    namespaces = 0x10000000 | 0x00020000 | 0x40000000
    if ctypes.CDLL(None, use_errno=True).setns(os.pidfd_open(process), namespaces):
        raise OSError(ctypes.get_errno(), f"the namespaces of process {process} cannot be entered")


def _become(command: dict, files: list[int]) -> None:  # type: ignore[type-arg]
    for target, file in enumerate(files[:3]):
        os.dup2(file, target)
    _close(files)
    signal.alarm(COMMAND_SECONDS)
    if command["beside"]:
        _enter(command["beside"])
    os.chdir(command["folder"])
    os.environ.clear()
    os.environ.update(command["environment"])
    sys.argv[1:] = command["arguments"]


if __name__ == "__main__":
    main(int(sys.argv[1]))
    keyark()
