"""P2, P3, P9 with 64 enrollments in flight, when services stop or are killed: nothing is lost or issued twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from keyark.client import EnrollmentClient, PreparedEnrollment
from keyark.client.trust.verification import Enrolled
from keyark.errors import KeyarkError
from keyark.keys.key_types import KeyType
from keyark.rpc.calling.retries import NO_RETRIES
from tests.support.running.processes import init_home, keyark, up

IN_FLIGHT = 64


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A deployment that is not running yet."""
    folder = tmp_path / "deployment"
    init_home(folder, workers=2)
    return folder


async def prepare_all(home: Path) -> list[PreparedEnrollment]:
    async with EnrollmentClient.open(home) as client:
        return [
            await client.prepare(
                common_name=f"User {i}", email=f"user{i}@example.org", signing_key_type=KeyType.EC_P256
            )
            for i in range(IN_FLIGHT)
        ]


async def submit_all(home: Path, prepared: Sequence[PreparedEnrollment]) -> list[Enrolled | KeyarkError]:
    async with EnrollmentClient.open(home, retries=NO_RETRIES) as client:
        return await asyncio.gather(*(_submit(client, item) for item in prepared))


async def _submit(client: EnrollmentClient, prepared: PreparedEnrollment) -> Enrolled | KeyarkError:
    try:
        return await client.submit(prepared)
    except KeyarkError as error:
        return error


async def submit_until(
    home: Path, prepared: Sequence[PreparedEnrollment], done: int, then
) -> list[Enrolled | KeyarkError]:
    """Submit all at once, and call ``then`` as soon as ``done`` of them have their outcome."""
    async with EnrollmentClient.open(home, retries=NO_RETRIES) as client:
        tasks = [asyncio.create_task(_submit(client, item)) for item in prepared]
        for finished, task in enumerate(asyncio.as_completed(tasks), 1):
            await task
            if finished == done:
                then()
        return [task.result() for task in tasks]


def assert_nothing_lost(
    home: Path, first: Sequence[Enrolled | KeyarkError], second: Sequence[Enrolled | KeyarkError]
) -> None:
    """Every retry has an outcome, the same one where there was one, and the stores hold each exactly once."""
    assert [o for o in second if isinstance(o, KeyarkError)] == []
    for before, after in zip(first, second, strict=True):
        if isinstance(before, Enrolled):
            assert before.signing_certificate == after.signing_certificate
            assert before.encryption_certificate == after.encryption_certificate
            assert before.receipt.index == after.receipt.index
    certificates = json.loads(keyark("certificates", "list", "--home", home, "--json").stdout)
    keys = json.loads(keyark("keys", "list", "--home", home, "--json").stdout)
    assert len(certificates) == 2 * IN_FLIGHT
    assert len(keys) == IN_FLIGHT
    keyark("audit", "verify", "--home", home)


def test_a_clean_stop_under_load_lets_every_enrollment_finish_or_retry(home: Path) -> None:
    with up(home) as process:
        prepared = asyncio.run(prepare_all(home))
        first = asyncio.run(submit_until(home, prepared, 1, lambda: process.send_signal(signal.SIGTERM)))
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert [line for line in output.splitlines() if "stopped with code 0" in line] == [
            "rm stopped with code 0", "cm stopped with code 0", "drm stopped with code 0"
        ]  # fmt: skip
    with up(home):
        assert_nothing_lost(home, first, asyncio.run(submit_all(home, prepared)))


@pytest.mark.parametrize("victim", ["rm", "cm", "drm"])
def test_a_killed_service_loses_nothing_that_was_answered(home: Path, victim: str) -> None:
    with up(home) as process:
        prepared = asyncio.run(prepare_all(home))
        kill = [pid for pid in _pids(process.pid) if f" {victim}_service " in _command(pid)]
        assert len(kill) == 1
        first = asyncio.run(submit_until(home, prepared, 1, lambda: os.kill(kill[0], signal.SIGKILL)))
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert f"{victim} ended unexpectedly with code -9" in errors
    with up(home):
        assert_nothing_lost(home, first, asyncio.run(submit_all(home, prepared)))


def _pids(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
