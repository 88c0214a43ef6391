"""What a script gets: one JSON document whatever happens, fixed exit codes, ids and times in one form."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from keyark.cli.main import COMMANDS, main
from keyark.cli.shape import to_json
from keyark.client.trust.verification import UnexpectedAnswerError
from keyark.errors import KeyarkError
from keyark.errors.remedies import REMEDIES
from keyark.v1 import certificates_pb2, recovery_pb2
from keyark.v1.registration_pb2 import Enrollment, EnrollmentState
from tests.support.running.processes import keyark
from tools.cli_reference import DOCUMENT, commands, with_reference


@pytest.mark.parametrize(
    ("words", "code", "reason", "told"),
    [
        (("keys", "list", "--home", "NOWHERE"), 1, "CONFIGURATION", "not a keyark home"),
        (("keys", "lsit"), 2, "USAGE", "Did you mean 'list'?"),
        (("kyes",), 2, "USAGE", "Did you mean 'keys'?"),
        (("keys", "list", "--hoem", "x"), 2, "USAGE", "--home"),
        (("keys", "list"), 2, "USAGE", "--home"),
        (("init", "NEW", "--ca-key", "rsa-512"), 2, "INVALID_INPUT", "ec-p256"),
        (("enroll", "--home", "NOWHERE", "--out", "NEW", "--csv", "x", "--name", "y"), 2, "USAGE", "--csv"),
        (("key-password", "set", "FOLDER", "secret"), 1, "KEY_PASSWORD", "must say where"),
    ],
)
def test_an_error_is_a_document_with_reason_message_and_remedy(
    tmp_path: Path, words: tuple[str, ...], code: int, reason: str, told: str
) -> None:
    place = {name: str(tmp_path / name) for name in ("NOWHERE", "NEW")} | {"FOLDER": str(tmp_path)}
    done = keyark(*(place.get(word, word) for word in words), "--json", code=code)
    error = json.loads(done.stdout)["error"]
    assert error["reason"] == reason
    assert told in error["message"]
    assert error["remedy"]
    assert told in done.stderr  # for people, as without --json
    assert not (tmp_path / "NEW").exists()


def test_without_json_nothing_but_results_goes_to_standard_output(tmp_path: Path) -> None:
    assert keyark("keys", "list", "--home", tmp_path, code=1).stdout == ""
    assert keyark("keys", "list", "--home", tmp_path, "--", "--json", code=2).stdout == ""


def test_the_shell_names_an_identity_for_each_role(monkeypatch, deployment_folder: Path) -> None:
    monkeypatch.setenv("KEYARK_AS", "officer/ann agent/dave")
    for words, missing in (
        (("keys", "list"), "agent/dave"),
        (("enrollments", "list"), "officer/ann"),
    ):
        done = keyark(*words, "--home", deployment_folder, "--json", code=1)
        message = json.loads(done.stdout)["error"]["message"]
        assert f"no identity '{missing}'" in message
    done = keyark("keys", "list", "--as", "agent/erin", "--home", deployment_folder, "--json", code=1)
    assert "agent/erin" in json.loads(done.stdout)["error"]["message"]


def test_every_command_that_ends_by_itself_takes_json() -> None:
    without = [
        " ".join(path)
        for path, command in commands(main, ())
        if not {"--json", "--json-lines"}
        & {option for parameter in command.params for option in parameter.opts}
    ]
    assert without == ["up"]


def every_error(error: type[KeyarkError]) -> set[type[KeyarkError]]:
    return {error}.union(*(every_error(below) for below in error.__subclasses__()))


def test_no_error_but_one_that_nobody_foresaw_is_to_be_reported() -> None:
    for path, _ in COMMANDS.values():
        importlib.import_module(path)
    for error in every_error(KeyarkError):
        assert (error.remedy == REMEDIES["INTERNAL"]) == (error.reason == "INTERNAL"), error


def test_the_reference_of_commands_is_that_of_todays_commands() -> None:
    document = DOCUMENT.read_text()
    assert document == with_reference(document), "run `make docs`"


def test_ids_are_hexadecimal_times_rfc_3339_and_numbers_numbers() -> None:
    key = recovery_pb2.ArchivedKey(
        key_id=b"\x00" * 31 + b"\x0f",
        archived_time_us=1_767_225_600_000_001,
        log_index=1 << 40,
        certificate_serial=b"\x01\xff",
    )
    assert to_json(key) == {
        "key_id": "00" * 31 + "0f",
        "archived_time": "2026-01-01T00:00:00.000001Z",
        "log_index": 1 << 40,
        "certificate_serial": "01ff",
    }
    certificate = certificates_pb2.Certificate(serial=b"\x0a", certificate=b"0\x82", not_after=1_767_225_600)
    assert to_json(certificate) == {
        "serial": "0a",
        "certificate": "MII=",
        "not_after": "2026-01-01T00:00:00Z",
    }


def test_a_state_that_this_release_does_not_know_is_shown_as_its_number() -> None:
    assert (
        to_json(Enrollment(state=EnrollmentState.ENROLLMENT_STATE_ISSUED))["state"]
        == "ENROLLMENT_STATE_ISSUED"
    )
    assert to_json(Enrollment.FromString(b"\x10\xe7\x07")) == {"state": 999}


def test_a_time_that_is_none_is_the_services_fault() -> None:
    with pytest.raises(UnexpectedAnswerError):
        to_json(certificates_pb2.Certificate(not_after=1 << 60))
