"""CPU and memory of a service with all its workers, from /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_SESSION, _UTIME, _STIME, _CUTIME, _CSTIME = 3, 11, 12, 13, 14  # after the command's name, proc(5)


@dataclass(frozen=True)
class ProcessGroup:
    """A service: the leader of a session, in which its workers are too."""

    leader: int

    def cpu_seconds(self) -> float:
        """User and system time so far, of all processes of the session and of workers that ended."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:  # it ended while we looked; its time is in its parent's
                continue
            if int(fields[_SESSION]) == self.leader:
                ticks += sum(int(fields[i]) for i in (_UTIME, _STIME, _CUTIME, _CSTIME))
        return ticks / _TICKS
