"""`reload`: all workers are replaced, or the operator is told why not and everything goes on as before."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.running.processes import init_home, keyark, up


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A deployment that is not running yet."""
    folder = tmp_path / "deployment"
    init_home(folder, workers=2)
    return folder


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def service(process_id: int, role: str) -> int:
    """The process of a service that `keyark up` started."""
    return next(
        pid for pid in children(process_id) if f"{role}_service" in Path(f"/proc/{pid}/cmdline").read_text()
    )


def enroll(home: Path, name: str) -> None:
    keyark("enroll", "--home", home, "--name", name, "--email", f"{name}@example.org", "--out", home / name)


def test_reload_replaces_every_worker_of_every_service_and_all_go_on(home: Path) -> None:
    with up(home) as process:
        drm, cm = service(process.pid, "drm"), service(process.pid, "cm")
        before = {drm: set(children(drm)), cm: set(children(cm))}
        assert all(len(workers) == 2 for workers in before.values())
        printed = keyark("reload", "--home", home).stdout
        for line in ("drm: all archival workers were replaced", "cm: all signing workers were replaced"):
            assert line in printed
        for pid, old in before.items():
            assert len(children(pid)) == 2
            assert not old & set(children(pid))
        enroll(home, "alice")


def test_a_reload_that_fails_says_why_and_the_service_goes_on(home: Path) -> None:
    with up(home) as process:
        drm = service(process.pid, "drm")
        before = children(drm)
        key = next((home / "drm").rglob("*key.pem"), None)
        keys = [path for path in (home / "drm").rglob("*.pem") if "PRIVATE" in path.read_text()]
        assert key in keys
        for path in keys:
            path.chmod(0o640)
        failed = keyark("reload", "--home", home, code=1).stderr
        assert "drm reload" in failed
        assert "cm reload" not in failed
        assert children(drm) == before
        for path in keys:
            path.chmod(0o600)
        enroll(home, "alice")
        keyark("reload", "--home", home)


def test_sighup_reloads_and_never_ends_a_service(home: Path) -> None:
    with up(home) as process:
        drm = service(process.pid, "drm")
        before = set(children(drm))
        os.kill(drm, signal.SIGHUP)
        keyark("reload", "--home", home)  # takes its turn after the signal's, or before it
        assert not before & set(children(drm))
        enroll(home, "alice")
    assert process.returncode == 0


def test_a_service_that_does_not_run_is_not_reloaded(home: Path) -> None:
    assert "start it" in keyark("reload", "--home", home, code=1).stderr


def test_a_copy_of_the_folder_does_not_reach_the_running_service(home: Path, tmp_path: Path) -> None:
    with up(home):
        copy = tmp_path / "copy"
        shutil.copytree(home, copy, ignore=shutil.ignore_patterns("control.sock"))
        keyark("reload", "--home", copy, code=1)
