"""No command ends in a traceback for anything outside it: every path of every command, at every unusable place."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.running.command_tables import PROCESSES, Case, cases
from tests.support.running.deployment import copy_deployment

NOBODY = 65_534


def a_file(path: Path) -> Path:
    path.write_bytes(b"\xff\x00 neither text nor a key")
    path.chmod(0o600)
    return path


def a_folder(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path


def of_another_user(path: Path) -> Path:
    os.chown(a_folder(path), NOBODY, NOBODY)
    return path


def a_file_of_another_user(path: Path) -> Path:
    os.chown(a_file(path), NOBODY, NOBODY)
    return path


def within_what_cannot_be_searched(path: Path) -> Path:
    a_file(a_folder(path) / "inside")
    path.chmod(0)
    return path / "inside"


def within_what_cannot_be_written(path: Path) -> Path:
    a_folder(path).chmod(0o500)
    return path / "inside"


def a_fifo(path: Path) -> Path:
    os.mkfifo(path, 0o600)
    return path


def a_full_device(path: Path) -> Path:
    """As /dev/full, whose folder belongs to root; a command that replaced it would take it from everybody."""
    if os.geteuid() != 0:
        return Path("/dev/full")
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
    return path


def a_loop(path: Path) -> Path:
    path.symlink_to(path)
    return path


PLACES: dict[str, Callable[[Path], Path]] = {
    "missing": lambda path: path / "deeper",
    "a file": a_file,
    "below a file": lambda path: a_file(path) / "inside",
    "a folder": a_folder,
    "a folder of another user": of_another_user,
    "a file of another user": a_file_of_another_user,
    "not to be searched": within_what_cannot_be_searched,
    "read-only": within_what_cannot_be_written,
    "a name too long": lambda path: path.with_name("x" * 300),
    "a path too long": lambda path: path / "/".join(["y" * 200] * 25),
    "a FIFO": a_fifo,
    "a loop": a_loop,
    "a full device": a_full_device,
    "not UTF-8": lambda path: a_file(path.with_name(os.fsdecode(b"\xe9"))),
}


@contextmanager
def without_privileges() -> Iterator[None]:
    """Let file modes count, where the tests run as root: this thread goes on without its capabilities."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    effective = data[0], data[3]
    data[0] = data[3] = 0
    assert libc.capset(header, data) == 0
    try:
        yield
    finally:
        data[0], data[3] = effective
        assert libc.capset(header, data) == 0


@pytest.fixture(scope="module")
def home(deployment_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of services that do not run: nobody listens at port 1."""
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("places") / "deployment")
    config = folder / "keyark.toml"
    config.write_text(
        re.sub(r'^(rm|cm|drm) = ".*"$', r'\1 = "127.0.0.1:1"', config.read_text(), flags=re.MULTILINE)
    )
    return folder


SLOW = {"missing", "not to be searched"}
"""Where commands are tried, too, that start processes."""

CASES = cases()


def is_made(case: Case, how: str) -> bool:
    """Whether the command makes a deployment at the place, as other tests have it do."""
    return case.name[-1] == "init" and case.parameter == "folder" and how in ("missing", "a folder")


@pytest.mark.parametrize("how", PLACES)
def test_every_path_of_every_command_may_be_unusable(home: Path, tmp_path: Path, how: str) -> None:
    assert len(CASES) > 90
    for number, case in enumerate(CASES):
        if (case.name in PROCESSES and how not in SLOW) or is_made(case, how):
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        place = PLACES[how](folder / "place")
        before = os.path.lexists(place) and stat.S_IFMT(place.lstat().st_mode)
        with without_privileges():
            case.run(place, home, folder)
        if before in (stat.S_IFCHR, stat.S_IFIFO):
            assert stat.S_IFMT(place.lstat().st_mode) == before, case
        for one in folder.iterdir():
            if one.is_dir():
                one.chmod(0o700)
        shutil.rmtree(folder)
