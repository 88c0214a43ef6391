"""Guards the list of users: read to its end before anything starts, and all that is wrong is told at once."""

import os
from pathlib import Path

import pytest

from keyark.client.enrollment.user_list import UserListError, read_users
from keyark.keys.key_types import KeyType


def users(folder, text, encoding="utf-8"):
    path = folder / "users.csv"
    path.write_bytes(text.encode(encoding))
    return read_users(path, profile="user")


def test_columns_may_stand_in_any_order(tmp_path):
    text = (
        "email,encryption_key,name\r\nalice@example.org,x25519,Alice Example\r\n\r\nbob@example.org,,Bob\r\n"
    )
    alice, bob = users(tmp_path, text, "utf-8-sig")
    assert (alice.common_name, alice.encryption_key_type) == ("Alice Example", KeyType.X25519)
    assert (bob.email, bob.encryption_key_type, bob.profile) == ("bob@example.org", None, "user")


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    text = (
        "name,email,signing_key\nAlice,alice@example.org,\nBob,nonsense,\nCarol,carol@example.org,rsa-512\n"
        "Dave,dave@example.org\nAlice again,ALICE@Example.org,\n,eve@example.org,\n"
    )
    with pytest.raises(UserListError) as caught:
        users(tmp_path, text)
    told = caught.value.message.splitlines()
    assert [line.split(":")[1] for line in told[1:]] == ["3", "4", "5", "6", "7"]
    assert "Nothing was enrolled" in told[0]
    assert "users.csv:2." in told[4]


@pytest.mark.parametrize(
    "header",
    ["name,email,email", "name", "name,email,salary", "", "name;mail", "name,email,profile,profile"],
)
def test_a_header_names_each_column_once(tmp_path, header):
    with pytest.raises(UserListError, match=":1: the header"):
        users(tmp_path, f"{header}\nAlice,alice@example.org,x\n")


def test_utf_16_is_read_by_its_mark_and_another_encoding_is_refused(tmp_path):
    text = "name,email\nJürgen,j@example.org\n"
    assert users(tmp_path, text, "utf-16")[0].common_name == "Jürgen"
    with pytest.raises(UserListError, match="save it as CSV UTF-8"):
        users(tmp_path, text, "windows-1252")


@pytest.mark.parametrize(
    "text",
    [
        "name;email\nJürgen;j@example.org\n",
        "sep=;\r\nname;email\r\nJürgen;j@example.org\r\n",
        "sep=,\nName,EMAIL\nJürgen,j@example.org\n",
        "sep=\t\nname\temail\nJürgen\tj@example.org\n",
        "name,email\nJürgen,j@example.org\n,\n ,\n\n",
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path, text):
    (jurgen,) = users(tmp_path, text)
    assert (jurgen.common_name, jurgen.email) == ("Jürgen", "j@example.org")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,e-mail\n", "unknown column 'e-mail'"),
        ("name,email,name\n", "has 'name' more than once"),
        ("name,profile\n", "lacks 'email'"),
        ("Jo,jo@example.org\n", "the first line is a person"),
        ("", ":1: the header is missing"),
        ("name,email\n", "only a header"),
        ("sep=;\nname;email\n;\n", ":3: the list has only a header"),
        (
            'name,email\nJo,jo@example.org\n"Al,al@example.org\nBo,bo@example.org\n',
            "users.csv:3: the row that begins here",
        ),
        ('sep=;\nname;email\n"Al', "users.csv:3: the row that begins here"),
        ("name,email\nDoe, Jo,jo@example.org\n", "3 columns, but the header has 2; put a value"),
        ("name,email\nJo\n", "1 column, but the header has 2."),
        ("name,email\n,jo@example.org\n", "The name is missing"),
        ("name,email\nJo,\n", "The email is missing"),
        ("name,email\nJo\u00a0Doe,jo@example.org\n", "Character 3 of the name is U+00A0 NO-BREAK SPACE"),
        ("name,email\nJo,jo@m\u00fcnchen.example\n", "xn--mnchen-3ya.example"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, told):
    with pytest.raises(UserListError) as caught:
        users(tmp_path, text)
    assert told in caught.value.message


def test_a_workbook_is_no_csv(tmp_path):
    (tmp_path / "users.xlsx").write_bytes(b"PK\x03\x04rest")
    with pytest.raises(UserListError, match="workbook"):
        read_users(tmp_path / "users.xlsx", profile="user")


def test_a_file_of_another_kind_is_not_told_line_by_line(tmp_path):
    with pytest.raises(UserListError) as caught:
        users(tmp_path, "name,email\n" + "x\n" * 10_000)
    assert len(caught.value.message.splitlines()) == 52


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserListError, match="No such file"):
        read_users(tmp_path / "nobody.csv", profile="user")


def test_a_list_without_end_is_refused():
    with pytest.raises(UserListError, match="larger than 64 MiB"):
        read_users(Path("/dev/zero"), profile="user")


def test_a_pipe_is_read_to_its_end_and_one_that_nobody_writes_to_is_empty(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserListError, match=":1: the header"):
        read_users(pipe, profile="user")
    reading, writing = os.pipe()
    os.write(writing, b"name,email\nAlice,alice@example.org\n")
    os.close(writing)
    (alice,) = read_users(Path(f"/dev/fd/{reading}"), profile="user")
    os.close(reading)
    assert alice.common_name == "Alice"
