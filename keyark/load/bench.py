"""`make bench`, first form: the crypto floor, server CPU per enrollment, mean batch size at 64 in flight."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from keyark.client.audit import list_entries
from keyark.client.enrollment import EnrollmentClient, PreparedEnrollment
from keyark.client.home import Home
from keyark.client.sessions import open_session
from keyark.client.verification import Enrolled
from keyark.deployment.initialize import DeploymentPlan, initialize
from keyark.deployment.ports import free_ports
from keyark.errors import KeyarkError
from keyark.load.floor import EC, CryptoFloor, measure_floor
from keyark.load.processes import ProcessGroup
from keyark.v1.audit_pb2 import AuditEvent, EventType

IN_FLIGHT: Final = 64
WARM_UP: Final = 64
ROLES: Final = ("drm", "cm", "rm")


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """What one run showed; CPU in microseconds per enrollment."""

    enrollments: int
    seconds: float
    server_cpu_us: dict[str, float]
    batch_mean: float
    floor: CryptoFloor

    def as_dict(self) -> dict[str, object]:
        """Return the result for build/bench.json."""
        total = sum(self.server_cpu_us.values())
        return {
            "suite": EC.name,
            "in_flight": IN_FLIGHT,
            "enrollments": self.enrollments,
            "enrollments_per_second": round(self.enrollments / self.seconds, 1),
            "crypto_floor_us": round(self.floor.per_enrollment, 1),
            "primitives_us": {name: round(value, 1) for name, value in self.floor.primitives.items()},
            "server_cpu_us": {role: round(value, 1) for role, value in self.server_cpu_us.items()},
            "server_cpu_total_us": round(total, 1),
            "floor_ratio": round(total / self.floor.per_enrollment, 2),
            "batch_mean": round(self.batch_mean, 1),
        }


async def bench(folder: Path, *, enrollments: int) -> BenchResult:
    """Run a fresh deployment and enroll with 64 in flight, one per call, keys sent along."""
    initialize(DeploymentPlan(folder=folder, port_base=free_ports()), lambda _: None)
    async with _services(folder) as groups, EnrollmentClient.open(folder) as client:
        prepared = [
            await client.prepare(common_name=f"User {i}", email=f"user{i}@example.org")
            for i in range(WARM_UP + enrollments)
        ]
        await _submit_all(client, prepared[:WARM_UP])
        reserved = await _batches(folder)
        before = {role: group.cpu_seconds() for role, group in groups.items()}
        started = time.perf_counter()
        await _submit_all(client, prepared[WARM_UP:])
        seconds = time.perf_counter() - started
        cpu = {role: group.cpu_seconds() - before[role] for role, group in groups.items()}
        batches = await _batches(folder) - reserved
    mean = enrollments / batches
    return BenchResult(
        enrollments=enrollments,
        seconds=seconds,
        server_cpu_us={role: value / enrollments * 1e6 for role, value in cpu.items()},
        batch_mean=mean,
        floor=measure_floor(EC, batch_mean=mean),
    )


async def _submit_all(client: EnrollmentClient, prepared: Sequence[PreparedEnrollment]) -> None:
    """Keep 64 in flight; every answer is verified by the client, and any error ends the run."""
    waiting = iter(prepared)

    async def submit() -> None:
        for item in waiting:
            outcome: Enrolled = await client.submit(item)
            if outcome.receipt is None:
                raise KeyarkError("An enrollment came back without a receipt.")

    await asyncio.gather(*(submit() for _ in range(IN_FLIGHT)))


async def _batches(folder: Path) -> int:
    """How many batches the CM has worked: it logs one reservation of serial numbers for each."""
    async with open_session(Home.load(folder), "cm", identity="auditor/auditor") as session:
        events = [AuditEvent.FromString(entry.event.leaf).type async for entry in list_entries(session)]
    return events.count(EventType.EVENT_TYPE_SERIALS_RESERVED)


@asynccontextmanager
async def _services(folder: Path) -> AsyncIterator[dict[str, ProcessGroup]]:
    """Run the three services, each in a session of its own."""
    processes: dict[str, asyncio.subprocess.Process] = {}
    try:
        for role in ROLES:
            processes[role] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"{role}_service", "serve", str(folder / role / f"{role}.toml"),
                stdout=asyncio.subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
            stdout = processes[role].stdout
            if stdout is None or not await stdout.readline():
                raise KeyarkError(f"{role} did not start.")
        yield {role: ProcessGroup(process.pid) for role, process in processes.items()}
    finally:
        for process in reversed(processes.values()):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await process.wait()


def show(result: BenchResult, console: Console) -> None:
    """Print what a person looks for."""
    values = result.as_dict()
    table = Table(title=f"keyark, suite {EC.name}, {IN_FLIGHT} in flight, one enrollment per call")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in result.floor.primitives.items():
        table.add_row(f"  {name}", f"{value:.0f} us")
    table.add_row("crypto floor per enrollment", f"{result.floor.per_enrollment:.0f} us")
    for role, value in result.server_cpu_us.items():
        table.add_row(f"{role} CPU per enrollment", f"{value:.0f} us")
    for name in ("server_cpu_total_us", "floor_ratio", "batch_mean", "enrollments_per_second"):
        table.add_row(name, str(values[name]))
    console.print(table)


def main(output: Path, enrollments: int) -> None:
    """Run the benchmark, print it, and write it as JSON."""
    with tempfile.TemporaryDirectory(prefix="keyark-bench-") as folder:
        result = asyncio.run(bench(Path(folder) / "deployment", enrollments=enrollments))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result.as_dict(), indent=2) + "\n")
    show(result, Console())
