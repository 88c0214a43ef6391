"""`keyark policy`: administrators see the rules in effect, try edited ones, and put them in force without a restart."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running.processes import init_home, keyark, up

RULE = """
[[policy.rule]]
name = "no-machines"
type = "Expression"
stage = "{stage}"
condition = '!common_name.startsWith("Machine")'
message = "machines are enrolled elsewhere"
"""
REQUESTS = """
[[request]]
caller = "client/enroller"
profile = "user"
common_name = "Alice Example"
email = "alice@example.org"

[[request]]
caller = "client/enroller"
profile = "user"
common_name = "Machine 5"
email = "m5@example.org"
signing_key_type = "rsa-2048"
validity_days = 30
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("policy") / "deployment"
    init_home(folder)
    with up(folder):
        yield folder


@pytest.fixture(autouse=True)
def restored(home: Path) -> Iterator[None]:
    """Leave every test the policy of the beginning, in force."""
    files = {role: home / role / f"{role}.toml" for role in ("rm", "cm", "drm")}
    texts = {role: path.read_text() for role, path in files.items()}
    yield
    if any(path.read_text() != texts[role] for role, path in files.items()):
        for role, path in files.items():
            path.write_text(texts[role])
        keyark("policy", "reload", "--home", home)


def add(home: Path, role: str, rule: str) -> None:
    with (home / role / f"{role}.toml").open("a") as file:
        file.write(rule)


def enroll(home: Path, out: Path, name: str, *, code: int = 0) -> str:
    email = f"{name.lower().replace(' ', '.')}@example.org"
    words = ("enroll", "--home", home, "--name", name, "--email", email, "--out", out)
    return keyark(*words, code=code).stderr


def test_check_shows_every_rule_by_stage(home: Path) -> None:
    add(home, "cm", RULE.format(stage="issue") + 'when = \'profile == "user"\'\nprofiles = ["user"]\n')
    shown = keyark("policy", "check", "--home", home).stdout
    assert re.search(r"^rm: policy [0-9a-f]{64}: \d+ rules$", shown, re.MULTILINE)
    assert 'cm: issue: no-machines (Expression) for user when profile == "user"\n' in shown
    assert "rm: submit: " in shown
    assert "drm: archive: " in shown
    lines = json.loads(keyark("policy", "check", "--home", home, "--json").stdout)
    assert {line["service"] for line in lines} == {"rm", "cm", "drm"}


def test_check_names_file_and_line_of_what_is_wrong(home: Path) -> None:
    add(home, "drm", RULE.format(stage="archive").replace("common_name", "comon_name"))
    told = keyark("policy", "check", "--home", home, code=1).stderr
    assert re.search(r"drm\.toml:\d+: policy\.rule\.\d+\.condition: .* has no attribute comon_name", told)


def test_an_edited_policy_comes_into_force_without_a_restart_and_stands_in_the_log(
    home: Path, tmp_path: Path
) -> None:
    digests = []
    for role, stage in (
        ("cm", "issue"),
        ("drm", "archive"),
        ("rm", "submit"),
    ):  # the last to be asked comes first
        add(home, role, RULE.format(stage=stage))
        told = keyark("policy", "reload", "--home", home).stdout
        digest = re.search(rf"^{role}: policy ([0-9a-f]{{64}}) is now in force", told, re.MULTILINE)[1]
        assert told.count("still in force") == 2
        digests.append(f"{role}: policy {digest}")
        refused = enroll(home, tmp_path / f"refused-{role}", f"Machine {role}", code=3)
        assert "no-machines" in refused
        assert f"Policy of the {role.upper()}" in refused
    assert keyark("policy", "reload", "--home", home).stdout.count("still in force") == 3
    shown = keyark("policy", "check", "--home", home).stdout
    assert all(digest in shown for digest in digests)


def test_where_one_file_is_wrong_no_policy_changes(home: Path, tmp_path: Path) -> None:
    add(home, "rm", RULE.format(stage="submit"))
    add(home, "cm", RULE.format(stage="submit"))
    assert "which does not exist at the CM" in keyark("policy", "reload", "--home", home, code=1).stderr
    enroll(home, tmp_path / "machine", "Machine 1")


def test_requests_are_tried_against_the_policy_in_the_files_and_an_edited_one(
    home: Path, tmp_path: Path
) -> None:
    requests, edited = tmp_path / "requests.toml", tmp_path / "rm.toml"
    requests.write_text(REQUESTS)
    edited.write_text((home / "rm" / "rm.toml").read_text() + RULE.format(stage="submit"))
    words = ("policy", "test", "--home", home, "--request", requests)
    assert keyark(*words).stdout.count("accepted") == 2
    told = keyark(*words, "--rm", edited, code=3).stdout
    assert "rejected  Machine 5 <m5@example.org> by client/enroller for user" in told
    assert "rm submit: no-machines rejects: machines are enrolled elsewhere" in told
    first, second = json.loads(keyark(*words, "--rm", edited, "--json", code=3).stdout)
    assert (first["verdict"], second["verdict"]) == ("accepted", "rejected")
    (outcome,) = second["outcomes"]
    assert (outcome["subsystem"], outcome["stage"], outcome["rule"]) == ("rm", "submit", "no-machines")
    enroll(home, tmp_path / "machine", "Machine 2")  # nothing came into force


def test_past_enrollments_are_tried_too(home: Path, tmp_path: Path) -> None:
    enroll(home, tmp_path / "bob", "Bob Example")
    enroll(home, tmp_path / "machine", "Machine 3")
    edited = tmp_path / "cm.toml"
    edited.write_text((home / "cm" / "cm.toml").read_text() + RULE.format(stage="issue"))
    words = ("policy", "test", "--home", home, "--last", 2)
    assert [line.split()[0] for line in keyark(*words).stdout.splitlines()] == ["accepted", "accepted"]
    told = keyark(*words, "--cm", edited, code=3).stdout.splitlines()
    assert [line.split()[0] for line in told] == ["accepted", "rejected", "cm"]


def test_quotas_are_tried_with_the_counts_of_the_time(home: Path, tmp_path: Path) -> None:
    requests, edited = tmp_path / "requests.toml", tmp_path / "rm.toml"
    requests.write_text(REQUESTS + "enrollments_in_an_hour = 4\n")
    quota = '[[policy.rule]]\nname = "no-more"\ntype = "Quota"\nstage = "submit"\n'
    edited.write_text((home / "rm" / "rm.toml").read_text() + quota + "per_hour = 3\n")
    words = ("policy", "test", "--home", home, "--rm", edited)
    told = keyark(*words, "--request", requests, code=3).stdout.splitlines()
    assert [line.split()[0] for line in told] == ["accepted", "rejected", "rm"]
    edited.write_text(edited.read_text().replace("per_hour = 3", "per_day = 1"))
    enroll(home, tmp_path / "carol", "Carol Example")
    enroll(home, tmp_path / "dave", "Dave Example")
    (last,) = json.loads(keyark(*words, "--last", 1, "--json", code=3).stdout)
    assert [outcome["rule"] for outcome in last["outcomes"]] == ["no-more"]
    edited.write_text(edited.read_text().replace("per_day = 1", "per_day = 100"))
    keyark(*words, "--last", 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "request: this key is missing"),
        ("request = []", "at least 1 item"),
        (REQUESTS.replace("client/enroller", "agent/../x"), "1: request.0.caller"),
        (REQUESTS.replace("rsa-2048", "x25519"), "does not fit here"),
        (REQUESTS.replace("m5@example.org", "m5"), "request.1.email"),
        (REQUESTS + "colour = 3\n", "this key is unknown"),
        (REQUESTS + "enrollments_in_a_day = 0\n", "greater than or equal to 1"),
    ],
)
def test_requests_that_are_none_are_refused_by_line(
    home: Path, tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "requests.toml"
    path.write_text(text)
    told = keyark("policy", "test", "--home", home, "--request", path, code=1).stderr
    assert f"{path}:" in told
    assert words.rsplit(": ", maxsplit=1)[-1] in told


def test_test_takes_requests_or_the_past(home: Path, tmp_path: Path) -> None:
    assert "--request" in keyark("policy", "test", "--home", home, code=2).stderr
    words = ("policy", "test", "--home", home, "--last", 3, "--request", tmp_path / "x")
    assert "--last" in keyark(*words, code=2).stderr
