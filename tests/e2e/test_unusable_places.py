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
from typing import Any

import click
import pytest
from click.testing import CliRunner

from keyark.cli.main import COMMANDS, main
from tests.support.deployment import copy_deployment

NOBODY = 65_534
ID = "0192" + "ab" * 30
WORDS = {
    "name": "Alice",
    "email": "alice@example.org",
    "ceremony_id": "01920000000070008000000000000000",
    "enrollment_id": ID,
    "key_id": ID,
    "serial": "01",
    "identity": "client/alice",
    "owner": "alice@example.org",
    "names": "client/enroller",
    "agents": "alice,bob,carol",
    "trust_domain": "example.org",
    "within": "30d",
}


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


def leaves(
    command: click.Command, name: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its words."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for one in command.list_commands(context):
            found = command.get_command(context, one)
            assert found is not None
            yield from leaves(found, (*name, one))
    else:
        yield name, command


def paths_of(command: click.Command) -> list[click.Parameter]:
    return [p for p in command.params if isinstance(p.type, click.Path)]


def some_value(parameter: click.Parameter, home: Path, tmp: Path) -> str:
    """What a required parameter is given that is not in question."""
    if isinstance(parameter.type, click.Path):
        return str(home if parameter.name in ("home", "folder") else tmp / f"given-{parameter.name}")
    if isinstance(parameter.type, click.Choice):
        return str(parameter.type.choices[0])
    return WORDS.get(
        parameter.name or "", "1" if not isinstance(parameter.type, click.types.StringParamType) else "text"
    )


def words(command: click.Command, asked: click.Parameter, place: Path, home: Path, tmp: Path) -> list[str]:
    """The arguments of a command with one path at a place; its home is a real one unless that is the place."""
    values: list[tuple[click.Parameter, str]] = [(asked, str(place))]
    values += [
        (parameter, some_value(parameter, home, tmp))
        for parameter in command.params
        if parameter is not asked and (parameter.required or parameter.name in ("home", "name", "email"))
    ]
    said: list[str] = []
    for parameter, value in values:
        said += [parameter.opts[0], value] if isinstance(parameter, click.Option) else []
    return [*said, *(value for parameter, value in values if isinstance(parameter, click.Argument))]


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


def run(arguments: list[str]) -> Any:
    done = CliRunner().invoke(main, arguments)
    assert "nobody foresaw" not in done.output, (arguments, done.output)
    assert "Traceback" not in done.output, (arguments, done.output)
    assert done.exit_code in (0, 1, 2), (arguments, done.output)
    return done


PROCESSES = {("reload",), ("transport-key", "list"), ("transport-key", "retire")}
"""These run the services' own commands, which takes seconds: at two places only."""
SLOW = {"missing", "not to be searched"}

SHARED = {"home", "identity_password_file"}
"""Options of one making, read by the same code in every command: tried once below each word that follows `keyark`."""


def table() -> Iterator[tuple[tuple[str, ...], click.Command, click.Parameter]]:
    """Every command with each of its paths."""
    tried = set()
    for top in COMMANDS:
        if top == "load":  # it makes keys for minutes before it looks
            continue
        found = main.get_command(click.Context(main), top)
        assert found is not None
        for name, command in leaves(found, (top,)):
            for parameter in paths_of(command):
                if parameter.name in SHARED and (top, parameter.name) in tried:
                    continue
                tried.add((top, parameter.name))
                yield name, command, parameter


TABLE = list(table())


@pytest.mark.parametrize("how", PLACES)
def test_every_path_of_every_command_may_be_unusable(home: Path, tmp_path: Path, how: str) -> None:
    assert len(TABLE) > 50
    for number, (name, command, parameter) in enumerate(TABLE):
        if (name in PROCESSES and how not in SLOW) or (name == ("init",) and how in ("missing", "a folder")):
            continue  # init makes a deployment there, as other tests have it do
        folder = tmp_path / str(number)
        folder.mkdir()
        place = PLACES[how](folder / "place")
        before = os.path.lexists(place) and stat.S_IFMT(place.lstat().st_mode)
        with without_privileges():
            run([*name, *words(command, parameter, place, home, folder)])
        if before in (stat.S_IFCHR, stat.S_IFIFO):
            assert stat.S_IFMT(place.lstat().st_mode) == before, name
        for one in folder.iterdir():
            if one.is_dir():
                one.chmod(0o700)
        shutil.rmtree(folder)
