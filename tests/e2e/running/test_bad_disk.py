"""P4, P6: what was altered on a stopped service's disk is found, stops the start, or is believed by nobody."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from cm_service.records import SCHEMA_VERSION as CM_SCHEMA
from cm_service.records import TABLES as CM_TABLES
from drm_service.records import KEYS, TOKENS
from drm_service.records import SCHEMA_VERSION as DRM_SCHEMA
from drm_service.records import TABLES as DRM_TABLES
from keyark.custody.storage import StoragePrivateKey
from keyark.custody.token import load_token
from keyark.errors import KeyarkError
from keyark.records.v1.drm_pb2 import ArchivedKeyRecord
from keyark.store import open_store
from keyark.transparency._rows import DETAILS, LEAVES
from rm_service.records import SCHEMA_VERSION as RM_SCHEMA
from rm_service.records import TABLES as RM_TABLES
from tests.support.running.deployment import copy_deployment, running
from tests.support.stories.attacks import take_stock
from tests.support.stories.enrolling import enrolling

TABLES = {"rm": RM_TABLES, "cm": CM_TABLES, "drm": DRM_TABLES}
SCHEMA_VERSIONS = {"rm": RM_SCHEMA, "cm": CM_SCHEMA, "drm": DRM_SCHEMA}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def used(deployment_template, tmp_path_factory) -> AsyncIterator[Path]:
    """A deployment that enrolled three people and was stopped."""
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("disk") / "deployment")
    async with running(folder) as deployment, enrolling(deployment.home()) as enroller:
        outcomes = await enroller.send(*(enroller.request() for _ in range(3)))
        assert not any(isinstance(outcome, KeyarkError) for outcome in outcomes)
    yield folder


@pytest.fixture
def folder(used: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may spoil."""
    return copy_deployment(used, tmp_path / "deployment")


def check(folder: Path, role: str) -> subprocess.CompletedProcess[str]:
    """`python -m <role>_service check`, as an operator runs it."""
    return subprocess.run(
        [sys.executable, "-m", f"{role}_service", "check", str(folder / role / f"{role}.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def alter(folder: Path, role: str, table: str, change: Callable[[bytes], bytes]) -> None:
    """Change the last row of a table."""
    path = folder / role / "store"
    store = open_store(path, tables=TABLES[role], schema_version=SCHEMA_VERSIONS[role])
    key, value = store.read(lambda txn: txn.last(table))
    await store.update(lambda txn: txn.put(table, key, change(value)))
    await store.close()


def flip_last_bit(value: bytes) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])


@pytest.mark.parametrize("role", ["rm", "cm", "drm"])
def test_what_nobody_altered_is_fit_to_run(folder: Path, role: str) -> None:
    done = check(folder, role)
    assert done.returncode == 0, done.stderr
    assert f"{role} is ready to run" in done.stdout


@pytest.mark.parametrize("role", ["rm", "cm", "drm"])
@pytest.mark.parametrize("table", [LEAVES, DETAILS])
async def test_an_altered_entry_of_the_log_is_named(folder: Path, role: str, table: str) -> None:
    await alter(folder, role, table, flip_last_bit)
    done = check(folder, role)
    assert done.returncode == 1
    assert "LOG_CORRUPT" in done.stderr
    assert "Traceback" not in done.stderr


def change_statement(value: bytes) -> bytes:
    record = ArchivedKeyRecord.FromString(value)
    record.statement = flip_last_bit(record.statement)
    return record.SerializeToString()


def move(value: bytes) -> bytes:
    record = ArchivedKeyRecord.FromString(value)
    record.log_index -= 1
    return record.SerializeToString()


@pytest.mark.parametrize("change", [change_statement, move])
async def test_an_archived_key_that_is_not_the_logs_is_named(
    folder: Path, change: Callable[[bytes], bytes]
) -> None:
    await alter(folder, "drm", KEYS, change)
    assert check(folder, "drm").returncode == 1


SPOILT: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:100],
    "empty": lambda data: b"",
    "junk": lambda data: b"\xff" * len(data),
}


@pytest.mark.parametrize("how", SPOILT)
async def test_a_spoilt_token_stops_the_start(folder: Path, how: str) -> None:
    await alter(folder, "drm", TOKENS, SPOILT[how])
    with pytest.raises(KeyarkError) as caught:
        async with running(folder):
            pass
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize("how", SPOILT)
async def test_a_spoilt_token_is_found_by_check(folder: Path, how: str) -> None:
    await alter(folder, "drm", TOKENS, SPOILT[how])
    done = check(folder, "drm")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


async def test_a_storage_key_of_an_intruders_own_gets_no_key_certified(folder: Path) -> None:
    """P4: who exchanges the token would read every key archived from then on; so nothing is issued any more."""

    def exchange(value: bytes) -> bytes:
        token = load_token(value)
        token.public_key = StoragePrivateKey.generate().public_key.to_bytes()
        return token.SerializeToString()

    await alter(folder, "drm", TOKENS, exchange)
    async with running(folder) as deployment, enrolling(deployment.home()) as enroller:
        before = await take_stock(deployment.home())
        outcome = (await enroller.send(enroller.request()))[0]
        after = await take_stock(deployment.home())
    assert isinstance(outcome, KeyarkError)
    assert outcome.reason == "ARCHIVE_ANSWER"
    assert "UNKNOWN_STORAGE_KEY" in outcome.message
    assert (after.certificates, after.enrollments) == (before.certificates, before.enrollments)
