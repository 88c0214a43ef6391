"""The wheel and the sdist, built as users build them, installed in fresh environments outside the checkout."""

from __future__ import annotations

import faulthandler
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from keyark import __version__
from keyark.deployment.ports import free_ports

ROOT = Path(__file__).parents[1]
OLD_PIP = "23.0.1"
UV = Path(sys.executable).with_name("uv")
HELP_OF_ALL = """
import click
from keyark.cli.main import main

def walk(group, path):
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command.get_help(click.Context(command, info_name=name))
        if isinstance(command, click.Group):
            walk(command, f"{path} {name}")
        else:
            print(path, name)

walk(main, "keyark")
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own; what runs in it works in a folder with nothing of ours."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, *installed: str) -> Environment:
        """Make one without pip; uv installs what is named, which is quicker."""
        subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, folder], check=True, timeout=300)
        install = [UV, "pip", "install", "--quiet", "--python", folder / "bin" / "python", *installed]
        subprocess.run(install, check=True, timeout=300, cwd=folder)
        return cls(folder)

    def run(self, program: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.folder / "bin" / program, *map(str, arguments)],
            cwd=self.folder,
            env=clean_variables(),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, f"code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done


@dataclass(frozen=True)
class Built:
    """What `python -m build` makes of the files that a release would have."""

    sources: Path
    wheel: Path
    sdist: Path


def clean_variables() -> dict[str, str]:
    """This environment without what leads Python or pip to the checkout."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }


@pytest.fixture(autouse=True)
def patient() -> None:
    """Take the time limit of a test away: each step here has one of its own, and the network is not ours."""
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Built once for all workers of a run, by the newest pip and `build`, with build isolation."""
    faulthandler.cancel_dump_traceback_later()
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "distribution"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "dist").exists():
            copy_sources(folder / "sources")
            environment = Environment.make(folder / "builder", "pip", "build")
            environment.run("python", "-m", "build", "--outdir", folder / "made", folder / "sources")
            (folder / "made").rename(folder / "dist")
    return Built(
        sources=folder / "sources",
        wheel=folder / "dist" / f"keyark-{__version__}-py3-none-any.whl",
        sdist=folder / "dist" / f"keyark-{__version__}.tar.gz",
    )


def copy_sources(target: Path) -> None:
    """Copy what belongs to the project, without anything that a build made."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def test_pip_23_builds_the_wheel_that_the_newest_tools_build_from_the_sdist(
    built: Built, tmp_path: Path
) -> None:
    environment = Environment.make(tmp_path / "old", f"pip=={OLD_PIP}")
    environment.run("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "made", built.sources)
    with (
        zipfile.ZipFile(next((tmp_path / "made").iterdir())) as old,
        zipfile.ZipFile(built.wheel) as new,
    ):
        assert sorted(old.namelist()) == sorted(new.namelist())
        assert "keyark/v1/archive_pb2_grpc.pyi" in new.namelist()
        assert "keyark/py.typed" in new.namelist()
        assert not [
            name for name in new.namelist() if name.startswith(("tests", "benchmarks", "hatch_build"))
        ]


def test_clients_in_other_languages_compile_the_protos_of_the_wheel(built: Built, tmp_path: Path) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        wheel.extractall(tmp_path)
    protos = tmp_path / "keyark" / "protos"
    files = sorted(str(path.relative_to(protos)) for path in protos.rglob("*.proto"))
    assert "keyark/v1/registration.proto" in files
    assert not [name for name in files if "records" in name]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", f"-o{tmp_path / 'set'}", *files]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=60)


@pytest.fixture(scope="session")
def sdk(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and nothing else that an extra would bring."""
    return Environment.make(tmp_path_factory.mktemp("sdk") / "environment", str(built.wheel))


def test_the_wheel_alone_has_every_command_and_says_which_extra_is_missing(
    sdk: Environment, tmp_path: Path
) -> None:
    assert __version__ in sdk.run("keyark", "--version").stdout
    assert len(sdk.run("python", "-c", HELP_OF_ALL).stdout.splitlines()) > 50
    home = tmp_path / "deployment"
    rollover = ("ca", "rollover", "--name", "X", "--home", home)
    for command in (("init", home), ("policy", "check", "--home", home), rollover):
        assert "keyark[server]" in sdk.run("keyark", *command, code=1).stderr
    assert "keyark[load]" in sdk.run("keyark", "load", "--home", home, code=1).stderr
    assert "keyark[server]" in sdk.run("keyark-drm", "check", "drm.toml", code=2).stderr
    assert "keyark[server]" in sdk.run("python", "-I", "-m", "rm_service", "check", "rm.toml", code=2).stderr
    assert not home.exists()


def test_a_service_from_the_sdist_serves_the_sdk_from_the_wheel(
    sdk: Environment, built: Built, tmp_path: Path
) -> None:
    server = Environment.make(tmp_path / "server", f"keyark[server] @ {built.sdist.as_uri()}")
    home = tmp_path / "deployment"
    server.run("keyark", "init", home, "--port-base", free_ports())
    services = subprocess.Popen(
        [server.folder / "bin" / "keyark", "up", home],
        cwd="/",
        env=clean_variables(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert all(" ready at " in services.stdout.readline() for _ in range(3))
        here = make_home(sdk, server, home, tmp_path)
        enroll = ("--name", "Alice Example", "--email", "alice@example.org", "--out", tmp_path / "alice")
        sdk.run("keyark", "enroll", *enroll, "--home", home)
        sdk.run("keyark", "keys", "list", "--as", "auditor/eve", "--home", here)
        recover = ("--owner", "alice@example.org", "--all", "--reason", "laptop lost", "--home", home)
        ceremony = sdk.run("keyark", "recover", "request", *recover).stdout.split()[-1]
        for agent in ("bob", "carol"):
            sdk.run(
                "keyark", "recover", "approve", ceremony, "--yes", "--as", f"agent/{agent}", "--home", home
            )
        sdk.run("keyark", "recover", "collect", ceremony, "--out", tmp_path / "back", "--home", home)
        sdk.run("keyark", "doctor", "--home", home)
    finally:
        services.send_signal(signal.SIGTERM)
        services.communicate(timeout=60)


def make_home(sdk: Environment, server: Environment, deployment: Path, folder: Path) -> Path:
    """Make the home of an auditor with the SDK alone: bundle, key, request, certificate."""
    told = server.run("keyark", "home", "bundle", "--home", deployment).stdout.split()[-1]
    home, out, name = folder / "home", folder / "eve.pem", "auditor/eve"
    made = ("home", "create", home, "--from", deployment / "deployment.toml", "--fingerprint", told)
    sdk.run("keyark", *made)
    sdk.run("keyark", "identities", "request", name, "--home", home)
    csr = home / "identities" / name / "identity.csr"
    server.run("keyark", "identities", "issue", name, csr, "--home", deployment, "--out", out)
    sdk.run("keyark", "identities", "install", out, "--home", home)
    return home


def test_code_is_generated_by_the_lowest_release_that_is_asked_for_at_run_time() -> None:
    """Generated code refuses an older grpcio, and protobuf, than the one that generated it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lowest = dict(line.split(">=") for line in project["project"]["dependencies"] if ">=" in line)
    assert f"grpcio-tools=={lowest['grpcio']}" in project["build-system"]["requires"]
    generated = (ROOT / "keyark" / "v1" / "archive_pb2_grpc.py").read_text()
    assert f"GRPC_GENERATED_VERSION = '{lowest['grpcio']}'" in generated
    major, minor, patch = lowest["protobuf"].split(".")
    messages = (ROOT / "keyark" / "v1" / "archive_pb2.py").read_text()
    assert f"    {major},\n    {minor},\n    {patch},\n" in messages
    assert all("<" in line or "==" in line for line in project["build-system"]["requires"])
