"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from keyark.keys import pbes
from tests.support.running.deployment import Deployment, copy_deployment, deployment_template, running

USUAL_ROUNDS = pbes.PBKDF2_ROUNDS

os.environ.setdefault("KEYARK_AUTHORITY_PASSWORD", "none")  # as scripts say it: no test has a terminal


@pytest.fixture(scope="session", autouse=True)
def few_rounds() -> Iterator[None]:
    """Passwords are stretched over few rounds in this process; commands and services keep to the usual 600,000."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pbes, "PBKDF2_ROUNDS", 1_000)
        yield


@pytest.fixture
def usual_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of how strong it is what keyark writes."""
    monkeypatch.setattr(pbes, "PBKDF2_ROUNDS", USUAL_ROUNDS)


@pytest.fixture(scope="session", name="deployment_template")
def made_deployment() -> Path:
    """A deployment that was made and is never run: copy it."""
    return deployment_template()


@pytest.fixture
def deployment_folder(deployment_template: Path, tmp_path: Path) -> Path:
    """A deployment of the test's own, not running yet."""
    return copy_deployment(deployment_template, tmp_path / "deployment")


@pytest_asyncio.fixture
async def deployment(deployment_folder: Path) -> AsyncIterator[Deployment]:
    """A deployment of the test's own, running."""
    async with running(deployment_folder) as deployment:
        yield deployment
