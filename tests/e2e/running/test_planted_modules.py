"""A local user plants modules where Python would look for them; none runs in a program of keyark (P10)."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keyark.deployment.commands import service_command
from keyark.deployment.ports import free_ports
from keyark.programs import COMMANDS
from keyark.workers.process import Worker

ROOT = Path(__file__).parents[3]
OF_PYTHON = ("re", "json", "socket", "asyncio", "sitecustomize", "usercustomize")
OF_OTHERS = ("uvloop", "lmdb", "click", "grpc", "cryptography", "google", "h11", "re2")
OURS = ("keyark", "rm_service", "cm_service", "drm_service")
PLANTED = """\
import pathlib
with open({witness!r}, "a") as file:
    file.write({name!r} + "\\n")
__path__ = []
"""


class Planted:
    """A folder with modules that tell when they are imported."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self.folder, self._witness = folder / "planted", folder / "imported"
        self.folder.mkdir()
        for name in names:
            text = PLANTED.format(witness=str(self._witness), name=name)
            (self.folder / f"{name}.py").write_text(text)
            (self.folder / name).mkdir()
            (self.folder / name / "__init__.py").write_text(text)
            (self.folder / name / "__main__.py").write_text(text)

    @property
    def imported(self) -> list[str]:
        return self._witness.read_text().split() if self._witness.exists() else []


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path, (*OF_PYTHON, *OF_OTHERS, *OURS))


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def script(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def test_what_is_planted_would_run(planted: Planted) -> None:
    run(sys.executable, "-m", "drm_service", cwd=planted.folder)
    assert planted.imported != []


def test_services_and_their_workers_take_nothing_from_the_working_folder(
    planted: Planted, tmp_path: Path
) -> None:
    deployment = tmp_path / "deployment"
    made = run(
        script("keyark"),
        "init",
        deployment,
        "--port-base",
        free_ports(),
        "--authority-password",
        "none",
        cwd=planted.folder,
    )
    assert made.returncode == 0, made.stderr
    process = subprocess.Popen(
        [script("keyark"), "up", deployment], cwd=planted.folder, stdout=subprocess.PIPE, text=True
    )
    try:
        for _ in range(3):
            assert " ready at " in process.stdout.readline()
        for pid in children(process.pid):
            assert os.readlink(f"/proc/{pid}/cwd") == "/"
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    checked = run(script("keyark-drm"), "check", deployment / "drm" / "drm.toml", cwd=planted.folder)
    assert checked.returncode == 0
    assert planted.imported == []


def children(pid: int) -> list[int]:
    found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*found, *(further for child in found for further in children(child))]


async def test_what_a_program_starts_takes_nothing_from_the_environment(
    planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(planted.folder)
    monkeypatch.setenv("PYTHONPATH", str(planted.folder))
    monkeypatch.setenv("PYTHONUSERBASE", str(planted.folder))
    assert "init" in service_command("drm", "--help")
    worker = await Worker.start("tests.workers.handlers:echo", b"")
    assert b"|x" in (await worker.work([b"x"], seconds=10))[0]
    await worker.stop()
    assert planted.imported == []


@pytest.mark.parametrize("command", COMMANDS.values())
def test_a_command_isolates_itself_where_the_environment_names_code(command: str, tmp_path: Path) -> None:
    planted = Planted(tmp_path, OF_OTHERS)
    done = run(script(command), "--help", cwd=tmp_path, PYTHONPATH=str(planted.folder))
    assert (done.returncode, planted.imported) == (0, [])


@pytest.mark.parametrize(("module", "command"), COMMANDS.items())
def test_python_m_in_a_foreign_folder_is_refused(module: str, command: str, tmp_path: Path) -> None:
    planted = Planted(tmp_path, OF_OTHERS)
    done = run(sys.executable, "-m", module, "--help", cwd=planted.folder)
    assert (done.returncode, planted.imported) == (2, [])
    assert f"Run `{command}`" in done.stderr


def test_python_m_is_taken_where_it_finds_the_installation_alone(tmp_path: Path) -> None:
    planted = Planted(tmp_path, OF_OTHERS)
    assert run(sys.executable, "-P", "-m", "keyark.cli", "--help", cwd=planted.folder).returncode == 0
    assert run(sys.executable, "-m", "keyark.cli", "--help", cwd=ROOT).returncode == 0
    assert planted.imported == []


def test_every_process_is_started_isolated() -> None:
    started = []
    for path in (path for package in OURS for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            words = [ast.unparse(part) for part in node.elts] if isinstance(node, ast.List) else []
            called = ast.unparse(node) if isinstance(node, ast.Call) else ""
            if words[:1] == ["sys.executable"]:
                started.append((path.name, words[1]))
            assert "exec(sys.executable" not in called, path
    assert sorted(started) == [("_lmdb_files.py", "'-I'"), ("programs.py", "'-I'")]
