"""P3: what was acknowledged had reached the disk, by the system calls that the services really made."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.running.processes import init_home, keyark, up

ENROLLMENTS = 4
ROLES = ("rm", "cm", "drm")
SYNCED = re.compile(
    r"^\d+ +(\d+\.\d+) .*(?:fdatasync\(\d+<[^>]*/(\w+)/store/data\.mdb>\)|<\.\.\. fdatasync resumed>\)) += 0$"
)
BEGUN = re.compile(r"^(\d+) +\d+\.\d+ fdatasync\(\d+<[^>]*/(\w+)/store/data\.mdb> <unfinished")


@contextmanager
def traced(pids: list[int], path: Path) -> Iterator[None]:
    """Write every durable write of these processes and their threads to a file, each with its time."""
    words = [word for pid in pids for word in ("-p", str(pid))]
    tracer = subprocess.Popen(
        ["strace", "-f", "-y", "-ttt", "-e", "trace=fdatasync,fsync", "-o", str(path), *words],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        told = [tracer.stderr.readline() for _ in pids]
        assert all("attached" in line for line in told), told
        yield
    finally:
        tracer.terminate()
        tracer.communicate(timeout=30)


def syncs(trace: str) -> list[tuple[float, str]]:
    """When each store had reached the disk; in the trace another thread may come between a call and its end."""
    found, unfinished = [], {}
    for line in trace.splitlines():
        thread = line.split()[0]
        if begun := BEGUN.match(line):
            unfinished[thread] = begun[2]
        elif (ended := SYNCED.match(line)) and (role := ended[2] or unfinished.pop(thread, None)):
            found.append((float(ended[1]), role))
    return found


def services(process_id: int) -> list[int]:
    return [
        int(child) for child in Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    ]


def test_every_acknowledged_enrollment_was_synced_by_all_three_services(tmp_path: Path) -> None:
    home, trace = tmp_path / "deployment", tmp_path / "trace"
    init_home(home)
    with up(home) as process, traced(services(process.pid), trace):
        spans = []
        for number in range(ENROLLMENTS):
            words = (
                "--name",
                "Alice",
                "--email",
                f"alice{number}@example.org",
                "--out",
                tmp_path / str(number),
            )
            begun = time.time()
            keyark("enroll", "--home", home, *words)
            spans.append((begun, time.time()))
    found = syncs(trace.read_text())
    for begun, acknowledged in spans:
        assert {role for at, role in found if begun < at < acknowledged} == set(ROLES)
