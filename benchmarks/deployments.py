"""A fresh deployment of a key suite, as `keyark init` and `keyark up` make it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from keyark.deployment.initialize import DeploymentPlan, initialize
from keyark.deployment.ports import free_ports
from keyark.errors import KeyarkError
from keyark.load.planning.suites import KeySuite

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 60.0
WORKERS: Final = os.cpu_count() or 1


class NotStartedError(KeyarkError):
    """The deployment of a benchmark did not start; its words are above."""

    reason = "NOT_STARTED"


def make(folder: Path, suite: KeySuite) -> Path:
    """Make a deployment with the suite's CA and transport key, and as many workers as there are cores."""
    initialize(
        DeploymentPlan(
            folder=folder,
            ca_key_type=suite.ca,
            transport_key_type=suite.transport,
            port_base=free_ports(),
        ),
        lambda _: None,
    )
    for role in ("cm", "drm"):
        config = folder / role / f"{role}.toml"
        config.write_text(
            re.sub(r"^count = \d+$", f"count = {WORKERS}", config.read_text(), flags=re.MULTILINE)
        )
    return folder


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[None]:
    """Run the deployment's three services."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "keyark.cli", "up", str(folder), stdout=asyncio.subprocess.PIPE
    )
    try:
        if process.stdout is None:
            raise NotStartedError("The deployment has no output to read.")
        for _ in range(3):
            if not await asyncio.wait_for(process.stdout.readline(), START_SECONDS):
                raise NotStartedError("The deployment did not start.")
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.communicate(), STOP_SECONDS)
