"""Guards passwords: files are read as what a person sees, weak ones are refused, made ones are kept and unlike."""

import csv
import stat
from pathlib import Path

import pytest

from keyark.client.access.passwords import (
    PasswordFileError,
    PasswordList,
    WeakPasswordError,
    check_strength,
    new_password,
    read_password,
)
from keyark.files import LaxPermissionsError


def password_file(folder: Path, data: bytes) -> Path:
    path = folder / "password"
    path.write_bytes(data)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    "data",
    [
        "Grün und blau".encode(),
        "Grün und blau\n".encode(),
        "Grün und blau\r\n".encode(),
        "Grün und blau".encode("utf-8-sig"),
        "Grün und blau\r\nnothing of this\n".encode(),
        "Grün und blau\r\n".encode("utf-16"),
        b"\xfe\xff" + "Grün und blau".encode("utf-16-be"),
    ],
    ids=["plain", "line", "crlf", "mark", "lines", "utf-16", "utf-16-be"],
)
def test_a_file_is_read_as_what_one_sees(tmp_path, data):
    assert read_password(password_file(tmp_path, data)) == "Grün und blau".encode()


@pytest.mark.parametrize(
    "data",
    [
        "Grün".encode("windows-1252"),
        "secret".encode("utf-16-le"),
        b"",
        b"\nsecond line\n",
        b"with\ta tab\n",
        "invisible\u200bspace".encode(),
        b"\xff\xfe\x00",
        b"x" * 1024,
    ],
    ids=["windows-1252", "no mark", "empty", "second", "tab", "zero width", "odd", "long"],
)
def test_what_nobody_can_type_elsewhere_is_refused(tmp_path, data):
    with pytest.raises(PasswordFileError, match="password"):
        read_password(password_file(tmp_path, data))


def test_a_file_that_others_read_is_refused(tmp_path):
    path = password_file(tmp_path, b"correct horse battery staple")
    path.chmod(0o644)
    with pytest.raises(LaxPermissionsError):
        read_password(path)


@pytest.mark.parametrize(
    "password", ["abc", "a", "correct horse", "password123!", "Tr0ub4dour&3", "qwertzuiopü"]
)
def test_passwords_that_are_easy_to_guess_are_refused(password):
    with pytest.raises(WeakPasswordError, match="none to have one generated"):
        check_strength(password.encode())


def test_the_persons_own_name_is_guessed_first():
    check_strength(b"alexandrina.example")
    with pytest.raises(WeakPasswordError):
        check_strength(b"alexandrina.example", about=["alexandrina.example"])


def test_several_words_and_made_passwords_are_taken():
    check_strength(b"correct horse battery staple")
    check_strength(b"x" + new_password() * 5)
    assert len({new_password() for _ in range(100)}) == 100
    assert len(new_password()) == 22


def test_a_list_keeps_what_it_made(tmp_path):
    path = tmp_path / "passwords.csv"
    first = PasswordList(path).of(["alice@example.org", "bob@example.org"])
    again = PasswordList(path).of(["bob@example.org", "carol@example.org"])
    assert again["bob@example.org"] == first["bob@example.org"]
    assert len({*first.values(), *again.values()}) == 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    rows = dict(list(csv.reader(path.read_text().splitlines()))[1:])
    assert rows["alice@example.org"] == first["alice@example.org"].decode()


FORMULAS = ["=cmd@example.org", "+1@example.org", "-x@example.org", "'=cmd@example.org"]


def test_no_address_of_a_list_is_a_formula_of_a_spreadsheet_and_each_is_found_again(tmp_path):
    path = tmp_path / "passwords.csv"
    emails = [*FORMULAS, "o'hara@example.org", "'quoted'@example.org"]
    made = PasswordList(path).of(emails)
    assert PasswordList(path).of(emails[::-1]) == made
    assert len(set(made.values())) == len(emails)
    cells = [row[0] for row in csv.reader(path.read_text().splitlines())][1:]
    assert cells == [*(f"'{email}" for email in FORMULAS), *emails[4:]]


def test_a_list_of_before_that_holds_a_formula_keeps_its_passwords(tmp_path):
    password_file(tmp_path, b"email,password\n=cmd@example.org,secret\n").rename(tmp_path / "passwords.csv")
    assert PasswordList(tmp_path / "passwords.csv").of(["=cmd@example.org"]) == {
        "=cmd@example.org": b"secret"
    }


def test_a_list_of_somebody_elses_making_is_left_alone(tmp_path):
    path = password_file(tmp_path, b"mail;pass\n")
    with pytest.raises(PasswordFileError):
        PasswordList(path).of(["alice@example.org"])
    assert path.read_bytes() == b"mail;pass\n"
