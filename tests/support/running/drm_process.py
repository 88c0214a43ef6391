"""The DRM as a process of its own, to be killed and to have its memory searched, with CM and RM beside it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from keyark.deployment.ports import free_ports
from tests.support.running.deployment import running_beside


@contextlib.asynccontextmanager
async def drm_process(folder: Path) -> AsyncIterator[subprocess.Popen[str]]:
    """Run `keyark-drm serve`, and CM and RM on this event loop: agents ask them before they give a share."""
    port = free_ports()
    with _serving(folder / "drm" / "drm.toml", port) as process:
        async with running_beside(folder, port):
            yield process


@contextlib.contextmanager
def _serving(config: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    listen = f'listen = "127.0.0.1:{port}"'
    config.write_text(re.sub(r"^listen = .*$", listen, config.read_text(), flags=re.MULTILINE))
    process = subprocess.Popen(
        [sys.executable, "-m", "drm_service", "serve", str(config)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert " ready at " in process.stdout.readline()
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def drm_check(folder: Path) -> None:
    """Run `keyark-drm check`: keys, tokens, log and records agree."""
    config = str(folder / "drm" / "drm.toml")
    command = [sys.executable, "-m", "drm_service", "check", config]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def family(pid: int) -> list[int]:
    """A process and all below it."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [pid, *(grandchild for child in children for grandchild in family(child))]


def memory_holds(pid: int, secrets: dict[str, bytes]) -> set[str]:
    """Which of these bytes stand in the writable or anonymous memory of a process."""
    found: set[str] = set()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end in _private_ranges(pid):
            data = _read(memory.fileno(), start, end)
            found.update(name for name, secret in secrets.items() if secret in data)
    return found


def _private_ranges(pid: int) -> list[tuple[int, int]]:
    """Everything readable but what is mapped from files unchanged."""
    ranges = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        place, permissions, _, _, inode, *name = line.split(maxsplit=5)
        mapped = name[0] if name else ""
        changed = inode == "0" or (permissions[1] == "w" and not mapped.endswith(".mdb"))
        if permissions[0] == "r" and changed and not mapped.startswith("[v"):
            start, end = place.split("-")
            ranges.append((int(start, 16), int(end, 16)))
    return ranges


def _read(descriptor: int, start: int, end: int) -> bytes:
    chunks, position = [], start
    while position < end:
        try:
            chunk = os.pread(descriptor, min(end - position, 1 << 24), position)
        except OSError:  # a page that is gone
            chunk = b""
        if not chunk:
            break
        chunks.append(chunk)
        position += len(chunk)
    return b"".join(chunks)
