"""The services of a home as this machine sees them: their CPU and memory from /proc, and what they count.

A service on another host, or one that another user runs, is not seen; the report then has no figures for it.
"""

from __future__ import annotations

import json
import os
import signal
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from keyark.identity.spiffe import SERVICE_ROLES
from keyark.meters import FILE

METERS_SECONDS: Final = 5.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PARENT, _UTIME, _STIME, _CUTIME, _CSTIME = 1, 11, 12, 13, 14  # after the command's name, proc(5)
_MIB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a process and all below it have used: CPU seconds so far, and bytes of memory now.

    ``rss`` counts every page that is mapped; ``anonymous`` leaves out the store's, which are the page cache's too.
    """

    cpu: float
    rss: int
    anonymous: int


@dataclass(frozen=True)
class Service:
    """A service that runs on this machine: its role, its main process, and its store's folder."""

    role: str
    pid: int
    store: Path

    def meters(self) -> dict[str, Any]:
        """Have the service write its counters, and read them; {} where it does not."""
        before = read_meters(self.store).get("sequence")
        try:
            os.kill(self.pid, signal.SIGUSR1)
        except (ProcessLookupError, PermissionError):
            return {}
        deadline = time.monotonic() + METERS_SECONDS
        while time.monotonic() < deadline:
            found = read_meters(self.store)
            if found.get("sequence") != before:
                return found
            time.sleep(0.002)
        return {}

    def stored_bytes(self) -> int:
        """Return how much of the disk the store takes."""
        return (self.store / "data.mdb").stat().st_blocks * 512


def find_services(home: Path) -> dict[str, Service]:
    """Return the services of a home that run here, by role."""
    found = {}
    for role in SERVICE_ROLES:
        store = _store_folder(home, role)
        pid = read_meters(store).get("pid", 0) if store else 0
        if store and pid and _is_service(role, pid):
            found[role] = Service(role, pid, store)
    return found


def read_meters(store: Path) -> dict[str, Any]:
    """Return what a service wrote last; {} where there is nothing."""
    try:
        content: dict[str, Any] = json.loads((store / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return content


def _store_folder(home: Path, role: str) -> Path | None:
    config = home / role / f"{role}.toml"
    try:
        return Path(config.parent, tomllib.loads(config.read_text())["store"]["path"])
    except (OSError, ValueError, KeyError):
        return None


def _is_service(role: str, pid: int) -> bool:
    """Whether this process is a service: a signal to any other would end it."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    programs = {f"{role}_service".encode(), f"keyark-{role}".encode()}
    return b"serve" in words and any(word.rsplit(b"/", 1)[-1] in programs for word in words)


def usage_of(pid: int, table: Mapping[int, list[str]]) -> Usage:
    """Add up a process and all that descend from it; ``table`` is a ``process_table`` of now."""
    cpu, rss, anonymous = 0, 0, 0
    for member in _family(pid, table):
        cpu += sum(int(table[member][i]) for i in (_UTIME, _STIME, _CUTIME, _CSTIME))
        memory = _memory(member)
        rss, anonymous = rss + memory[0], anonymous + memory[1]
    return Usage(cpu=cpu / _TICKS, rss=rss, anonymous=anonymous)


def process_table() -> dict[int, list[str]]:
    """Return the fields of /proc/PID/stat that follow the command's name, for every process."""
    table = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            table[int(stat.parent.name)] = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended while we looked; its time is in its parent's
            continue
    return table


def _family(pid: int, table: Mapping[int, list[str]]) -> list[int]:
    """A process and all that descend from it."""
    family = [pid] if pid in table else []
    for member in family:
        family += [child for child, fields in table.items() if int(fields[_PARENT]) == member]
    return family


def _memory(pid: int) -> tuple[int, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {
        name: value.split()[0] for name, _, value in (line.partition(":") for line in lines) if value.strip()
    }
    return int(sizes.get("VmRSS", "0")) * 1024, int(sizes.get("RssAnon", "0")) * 1024


def mebibytes(size: float) -> float:
    """Return bytes as MiB, to one digit."""
    return round(size / _MIB, 1)
