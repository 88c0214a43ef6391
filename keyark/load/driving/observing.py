"""What the machine and the services did during a run, sampled at its steps and at both ends of the measurement."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keyark.load.driving.loops import Window
from keyark.load.measuring.processes import Service, Usage, process_table, usage_of


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One look: seconds of CLOCK_MONOTONIC, usage by role and of the client processes together, counters by role."""

    at: float
    services: Mapping[str, Usage]
    client_cpu: Sequence[float]
    meters: Mapping[str, dict[str, Any]]

    def commits(self, role: str) -> int:
        """Durable commits of a service so far."""
        return int(self.meters.get(role, {}).get("store", {}).get("commits", 0))

    def calls(self, role: str) -> dict[str, int]:
        """Calls that a service took so far, by method."""
        return dict(self.meters.get(role, {}).get("calls", {}))

    def batches(self, role: str, part: str) -> tuple[int, int]:
        """Batches and items of a part that shares work, so far."""
        found = self.meters.get(role, {}).get(part, {})
        return found.get("batches", 0), found.get("items", 0)


@dataclass(kw_only=True)
class Observer:
    """Samples services and client processes over a window, in its steps."""

    services: Mapping[str, Service]
    clients: Sequence[int]
    window: Window
    samples: list[Sample] = field(default_factory=list)

    async def run(self) -> None:
        """Sample at the start of the measurement, at every step, and at its end."""
        for at in self._times():
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            self.samples.append(await self.look())

    async def look(self) -> Sample:
        """Take one look, now."""
        return await asyncio.to_thread(self._sample)

    def _times(self) -> Iterator[float]:
        at, step = self.window.measure, self.window.step
        while at < self.window.end:
            yield at
            at += step
        yield self.window.end

    def _sample(self) -> Sample:
        meters = {role: service.meters() for role, service in self.services.items()}
        table = process_table()
        return Sample(
            at=time.monotonic(),
            services={role: usage_of(service.pid, table) for role, service in self.services.items()},
            client_cpu=[_cpu(pid, table) for pid in self.clients],
            meters=meters,
        )


def _cpu(pid: int, table: Mapping[int, list[str]]) -> float:
    return usage_of(pid, table).cpu


def machine() -> dict[str, Any]:
    """Return what a reader has to know of the machine to judge figures."""
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu_name(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load_average": os.getloadavg()[0],
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
