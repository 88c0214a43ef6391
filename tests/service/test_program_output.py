"""What a script gets from the services' programs: one JSON document whatever happens, and fixed exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cm_service.__main__ import PROGRAM as CM
from drm_service.__main__ import PROGRAM as DRM
from keyark.errors import error_class
from rm_service.__main__ import PROGRAM as RM
from tests.support.running.deployment import copy_deployment

PROGRAMS = {"rm": RM, "cm": CM, "drm": DRM}
Run = Callable[..., Any]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a program with --json; returns its document."""

    def run(role: str, *words: object, code: int = 0) -> Any:
        capsys.readouterr()
        assert PROGRAMS[role].main([str(word) for word in (*words, "--json")]) == code
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def folder(deployment_template: Path, tmp_path: Path) -> Path:
    return copy_deployment(deployment_template, tmp_path / "deployment")


@pytest.mark.parametrize("role", PROGRAMS)
def test_check_and_policy_are_lines_that_name_the_service(role: str, folder: Path, run: Run) -> None:
    for command in ("check", "policy"):
        lines = run(role, command, folder / role / f"{role}.toml")
        assert lines
        assert all(line.keys() == {"service", "line"} and line["service"] == role for line in lines)


@pytest.mark.parametrize("role", PROGRAMS)
def test_backup_names_what_it_wrote(role: str, folder: Path, tmp_path: Path, run: Run) -> None:
    made = run(role, "backup", folder / role / f"{role}.toml", tmp_path / "copy")
    expected = {"store": str(tmp_path / "copy")}
    if role == "drm":
        expected["row_keys"] = str(tmp_path / "copy.row-keys")
    assert made == expected
    assert all(Path(path).exists() for path in made.values())


def test_init_names_its_requests_and_what_others_have_to_believe(
    folder: Path, tmp_path: Path, run: Run
) -> None:
    words = (
        "--trust-domain",
        "example.org",
        "--listen",
        "127.0.0.1:1",
        "--trust-anchor",
        folder / "trust-anchor.pem",
    )
    agents = [folder / "identities" / "agent" / name / "share-key.json" for name in ("alice", "bob", "carol")]
    named = [word for agent in agents for word in ("--agent", agent)]
    made = run("drm", "init", tmp_path / "drm", *words, *named, "--quorum", 2)
    assert made["request"] == str(tmp_path / "drm" / "request.json")
    assert all(Path(path).suffix == ".csr" for path in made["requests"])
    for name in ("fingerprint", "internal_ca_fingerprint", "storage_key_id"):
        assert len(bytes.fromhex(made[name])) == 32


def test_ca_commands_are_json_with_and_without_the_option(folder: Path, run: Run) -> None:
    config = folder / "cm" / "cm.toml"
    assert run("cm", "ca-issued", config) == {"issued": False, "running": False}
    assert set(run("cm", "ca-request", config)) >= {"request"}


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("check", "NOWHERE"), 1, "UNREADABLE_FILE"),
        (("chekc", "CONFIG"), 2, "USAGE"),
        (("backup", "CONFIG"), 2, "USAGE"),
        (("reload", "CONFIG"), 1, "SERVICE_NOT_RUNNING"),
        (("clear-alarm", "CONFIG"), 1, "NOT_FOUND"),
        (("relink", "CONFIG", "00"), 1, "SERVICE_NOT_RUNNING"),
        ((), 2, "USAGE"),
    ],
)
def test_an_error_is_a_document_with_reason_message_and_remedy(
    words: tuple[str, ...], code: int, reason: str, folder: Path, run: Run
) -> None:
    place = {"NOWHERE": folder / "nowhere.toml", "CONFIG": folder / "rm" / "rm.toml"}
    error = run("rm", *(place.get(word, word) for word in words), code=code)["error"]
    assert error["reason"] == reason
    assert error["message"].endswith((".", "?"))
    assert error["remedy"]
    assert error_class(reason) is not None


def test_what_the_system_refuses_is_a_document_too(folder: Path, tmp_path: Path, run: Run) -> None:
    error = run("rm", "backup", folder / "rm" / "rm.toml", tmp_path / ("long" * 100), code=1)["error"]
    assert error["reason"] == "SYSTEM_REFUSAL"


def test_words_for_people_stay_on_standard_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert RM.main(["backup", str(folder / "rm" / "rm.toml"), "--jsno"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "keyark-rm backup --help" in told.err
