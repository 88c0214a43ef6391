"""A real deployment for tests: made once by the services' own inits, copied per test, run on this event loop.

The three subsystems are the real ones over real mutual TLS on loopback, each on a port of its own choosing.
"""

from __future__ import annotations

import atexit
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from cm_service.config import CmConfig
from cm_service.subsystem import run as run_cm
from drm_service.config import DrmConfig
from drm_service.subsystem import run as run_drm
from keyark.client import EnrollmentClient
from keyark.client.access.home import Home
from keyark.clock import Clock, SystemClock
from keyark.config import load_config
from keyark.deployment.initialize import DeploymentPlan, initialize
from keyark.deployment.ports import ROOM, free_ports
from keyark.rpc.calling.retries import NO_RETRIES
from keyark.service.program.assembly import RunningService
from rm_service.config import RmConfig
from rm_service.subsystem import run as run_rm


def make_deployment(folder: Path, **plan: object) -> Path:
    """Make a deployment as `keyark init` does, on ports that nobody else on this machine uses."""
    plan.setdefault("port_base", free_ports())
    initialize(DeploymentPlan(folder=folder, **plan), lambda _: None)  # type: ignore[arg-type]
    for role in ("cm", "drm"):  # one worker is quicker to start
        edit(folder / role / f"{role}.toml", "count = 2", "count = 1")
    return folder


@cache
def template_ports() -> int:
    """The first port of the template: the last of this process's room, which deployments that run do not come to."""
    return free_ports(ROOM) + ROOM - 3


@cache
def deployment_template() -> Path:
    """A deployment that was made once by this process, is never run, and is removed with it: copy it."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return make_deployment(folder / "deployment", port_base=template_ports())


def copy_deployment(template: Path, folder: Path) -> Path:
    """Copy a deployment that was made and never run; modes come along."""
    shutil.copytree(template, folder)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that stands in a file; fails where it does not."""
    text = path.read_text()
    assert old in text, f"{old!r} is not in {path}"
    path.write_text(text.replace(old, new))


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A deployment that runs."""

    folder: Path
    services: Mapping[str, RunningService]
    clock: Clock = field(default_factory=SystemClock)

    def home(self) -> Home:
        """What its people see of it."""
        return Home.load(self.folder)

    def client(self, identity: str = "client/enroller") -> EnrollmentClient:
        """An enrollment client; use it as an async context manager."""
        return EnrollmentClient.open(self.home(), identity=identity, clock=self.clock, retries=NO_RETRIES)


@asynccontextmanager
async def running(folder: Path, clock: Clock | None = None) -> AsyncIterator[Deployment]:
    """Run DRM, CM and RM of a deployment; the home gets the ports that they chose."""
    drm_config = on_a_free_port(load_config(folder / "drm" / "drm.toml", DrmConfig))
    async with run_drm(drm_config, clock) as drm, running_beside(folder, drm.port, clock) as deployment:
        yield replace(deployment, services={"drm": drm, **deployment.services})


@asynccontextmanager
async def running_beside(
    folder: Path, drm_port: int, clock: Clock | None = None
) -> AsyncIterator[Deployment]:
    """Run CM and RM of a deployment whose DRM runs at a port."""
    async with AsyncExitStack() as stack:
        services, ports = {}, {"drm": drm_port}
        cm = on_a_free_port(load_config(folder / "cm" / "cm.toml", CmConfig))
        services["cm"] = await stack.enter_async_context(run_cm(cm, clock))
        ports["cm"] = services["cm"].port
        rm = on_a_free_port(load_config(folder / "rm" / "rm.toml", RmConfig))
        downstream = rm.downstream.model_copy(
            update={name: f"127.0.0.1:{ports[name]}" for name in ("cm", "drm")}
        )
        rm = rm.model_copy(update={"downstream": downstream})
        services["rm"] = await stack.enter_async_context(run_rm(rm, clock))
        ports["rm"] = services["rm"].port
        home = folder / "keyark.toml"
        text = home.read_text()
        for role, port in ports.items():
            text = re.sub(rf'^{role} = ".*"$', f'{role} = "127.0.0.1:{port}"', text, flags=re.MULTILINE)
        home.write_text(text)
        yield Deployment(folder=folder, services=services, clock=clock or SystemClock())


def on_a_free_port(config):  # type: ignore[no-untyped-def]  # any of the three configurations
    return config.model_copy(update={"service": config.service.model_copy(update={"listen": "127.0.0.1:0"})})
