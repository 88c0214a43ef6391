"""What a terminal, a locale or a reader does to a command's output ends no command that changes things."""

from __future__ import annotations

import asyncio
import csv
import io
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
import pytest_asyncio
from click.testing import CliRunner

from keyark.cli.main import main
from keyark.cli.output import UNREAD
from tests.e2e.commands.test_hostile_words import COMMANDS
from tests.support.running.deployment import copy_deployment, running

pytestmark = pytest.mark.asyncio(loop_scope="module")
NAMES = ("Юлія Щербак", "Zoë Ünal", "山田 太郎")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home(deployment_template: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Path]:
    """A deployment that runs while this module's tests do."""
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("terminals") / "deployment")
    async with running(folder):
        yield folder


@contextmanager
def reader_gone() -> Iterator[IO[str]]:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream:
        yield stream


@contextmanager
def full() -> Iterator[IO[str]]:
    with open("/dev/full", "w") as stream:
        yield stream


@contextmanager
def closed() -> Iterator[IO[str]]:
    with open(os.devnull, "w") as stream:
        pass
    yield stream


@contextmanager
def latin_9() -> Iterator[IO[str]]:
    with io.TextIOWrapper(io.BytesIO(), encoding="iso-8859-15") as stream:
        yield stream


OUTPUTS = {"reader gone": reader_gone, "full": full, "closed": closed, "Latin-9": latin_9}


async def run(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], **streams: IO[str] | None
) -> tuple[int, str]:
    """Run a command on streams of the test's own; returns its code and what it said aside."""
    aside = io.StringIO()
    with monkeypatch.context() as patch:
        for name, stream in ({"stdout": io.StringIO(), "stderr": aside} | streams).items():
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as ended:
            await asyncio.to_thread(main, arguments)
    assert isinstance(ended.value.code, int)
    assert "unexpected error" not in aside.getvalue(), aside.getvalue()
    return ended.value.code, aside.getvalue()


def csv_file(folder: Path, prefix: str) -> Path:
    path = folder / "users.csv"
    with path.open("w", encoding="utf-8") as file:
        rows = [[name, f"{prefix}{number}@example.org"] for number, name in enumerate(NAMES)]
        csv.writer(file).writerows([["name", "email"], *rows])
    return path


@pytest.mark.parametrize("how", OUTPUTS)
async def test_a_csv_run_issues_to_all_whatever_becomes_of_its_output(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    users = csv_file(tmp_path, how.replace(" ", "").lower())
    words = ["enroll", "--home", str(home), "--csv", str(users), "--out", str(tmp_path / "out")]
    with OUTPUTS[how]() as stream:
        code, aside = await run(monkeypatch, words, stdout=stream)
        shown = stream.buffer.getvalue().decode("iso-8859-15") if how == "Latin-9" else ""  # type: ignore[attr-defined]
    assert len(list((tmp_path / "out").glob("*/signing.pem"))) == len(NAMES)
    if how in ("full", "closed"):
        assert (code, "[OUTPUT_LOST]" in aside) == (1, True)
    else:
        assert (code, aside) == (0, "")
    if how == "Latin-9":
        assert "\\u042e\\u043b\\u0456\\u044f" in shown
        assert "Zoë Ünal" in shown


@pytest.mark.parametrize("how", OUTPUTS)
async def test_an_error_that_cannot_be_told_keeps_its_code(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    users = (
        csv_file(tmp_path, "other").read_text(encoding="utf-8").replace("other1@example.org", "x@example.com")
    )
    (tmp_path / "users.csv").write_text(users, encoding="utf-8")
    words = ["enroll", "--home", str(home), "--csv", f"{tmp_path}/users.csv", "--out", str(tmp_path / "out")]
    with OUTPUTS[how]() as stream, OUTPUTS[how]() as aside:
        code, _ = await run(monkeypatch, words, stdout=stream, stderr=aside)
    assert code == 3


@pytest.mark.parametrize("how", ["reader gone", "full", "closed"])
async def test_no_command_fails_unforeseen_because_its_output_is_lost(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    for command in COMMANDS:
        words = [*command.replace("OUT", str(tmp_path / command.split()[0])).split(), "--home", str(home)]
        for form in ([], ["--json"]):
            with OUTPUTS[how]() as stream:
                code, aside = await run(monkeypatch, [*words, *form], stdout=stream)
            assert code in (0, 1, 2, 3, 4, UNREAD), (words, aside)
            assert "Traceback" not in aside


async def test_a_list_ends_with_its_reader(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with reader_gone() as stream:
        code, aside = await run(monkeypatch, ["certificates", "list", "--home", str(home)], stdout=stream)
    assert (code, aside) == (UNREAD, "")


@pytest.mark.parametrize(
    "words",
    [
        ["enroll", "--name", os.fsdecode(b"Zo\xeb"), "--email", "zoe@example.org", "--out", "OUT"],
        ["recover", "request", "--owner", "a@example.org", "--reason", os.fsdecode(b"verl\xf6ren")],
        ["certificates", "show", os.fsdecode(b"\xe9")],
        ["certificates", "list", "--as", os.fsdecode(b"officer/\xe9")],
        [os.fsdecode(b"\xe9")],
        ["certificates", os.fsdecode(b"\xe9")],
        ["certificates", "list", os.fsdecode(b"--\xe9")],
    ],
)
async def test_arguments_that_are_no_utf_8_are_refused_in_a_sentence(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    words = [word.replace("OUT", str(tmp_path / "out")) for word in words]
    monkeypatch.setenv("KEYARK_HOME", str(home))
    done = await asyncio.to_thread(CliRunner().invoke, main, words)
    assert done.exit_code == 2, done.output
    quoted_by_click = "No such" in done.output
    assert ("\\udc" if quoted_by_click else "\\x") in done.output
    assert not (tmp_path / "out").exists()


async def test_folders_whose_names_are_no_utf_8_are_worked_in(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / os.fsdecode(b"sch\xf6n")
    words = ["enroll", "--home", str(home), "--name", "Zoe", "--email", "zoe@example.org", "--out", str(out)]
    for form in ([], ["--json"]):
        done = await asyncio.to_thread(CliRunner().invoke, main, [*words, *form])
        assert done.exit_code == 0, done.output
        assert ("sch\\udcf6n" if form else "sch\\xf6n") in done.output
    assert (out / "signing.pem").exists()
