"""P3: on a disk that is full, or knows no hard links or no fsync, no command breaks off or loses what was there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("lacks", ["hard-links", "fsync", "room"])
def test_commands_on_a_poor_disk_end_in_a_sentence_and_lose_nothing(
    deployment_template: Path, tmp_path: Path, lacks: str
) -> None:
    """In a process of its own, for which the kernel refuses what the disk lacks; without hard links all is done."""
    command = [
        sys.executable,
        "-m",
        "tests.support.running.offline_work",
        lacks,
        tmp_path,
        deployment_template,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
