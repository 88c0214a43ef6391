"""The real programs as processes: `keyark` commands, and deployments run by `keyark up`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


def keyark(*arguments: object, code: int = 0, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a `keyark` command to its end; fails unless it ends with ``code``."""
    done = subprocess.run(
        [sys.executable, "-m", "keyark.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
        **options,
    )
    assert done.returncode == code, f"code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def free_ports() -> int:
    """The first of three neighbouring ports that nobody listens at."""
    for base in range(30_000 + os.getpid() % 10_000, 60_000, 3):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(base, base + 3):
                listener = stack.enter_context(socket.socket())
                listener.bind(("127.0.0.1", port))
            return base
    raise AssertionError("no free ports")


@contextlib.contextmanager
def up(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `keyark up`, ready when this yields; stopped at the end unless the test did."""
    process = subprocess.Popen(
        [sys.executable, "-m", "keyark.cli", "up", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = [process.stdout.readline() for _ in range(3)]
        assert all(" ready at " in line for line in lines), (lines, process.stderr.read())
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
