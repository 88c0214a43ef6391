"""`keyark up` and its services live and die together, whatever ends the supervisor and whoever reads its output."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.running.test_reload import children
from tests.support.running.processes import KEYARK, init_home, up


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return init_home(tmp_path_factory.mktemp("supervision") / "deployment")


def wait_until_ended(processes: list[int]) -> None:
    """Wait for processes that are not ours to end."""
    for process in processes:
        subprocess.run(["tail", f"--pid={process}", "-f", "/dev/null"], timeout=60, check=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_services_end_with_the_supervisor_and_the_next_one_starts(home: Path, number: signal.Signals) -> None:
    with up(home) as process:
        services = children(process.pid)
        assert len(services) == 3
        process.send_signal(number)
        process.wait(timeout=60)
        wait_until_ended(services)
    with up(home):
        pass


def test_services_are_stopped_where_nobody_reads_the_output(home: Path) -> None:
    process = subprocess.Popen([*KEYARK, "up", home], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    services = children(process.pid)
    process.stdout.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    wait_until_ended(services)
