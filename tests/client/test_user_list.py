"""Guards the list of users: read to its end before anything starts, and all that is wrong is told at once."""

import pytest

from keyark.client.user_list import UserListError, read_users
from keyark.pki.key_types import KeyType


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
    assert "users.csv:2 already" in told[4]


@pytest.mark.parametrize(
    "header",
    ["name,email,email", "name", "name,email,salary", "", "name;email", "name,email,profile,profile"],
)
def test_a_header_names_each_column_once(tmp_path, header):
    with pytest.raises(UserListError, match=":1: the header"):
        users(tmp_path, f"{header}\nAlice,alice@example.org,x\n")


@pytest.mark.parametrize("encoding", ["utf-16", "windows-1252"])
def test_other_encodings_are_refused(tmp_path, encoding):
    with pytest.raises(UserListError, match="UTF-8"):
        users(tmp_path, "name,email\nJürgen,j@example.org\n", encoding)


def test_a_file_of_another_kind_is_not_told_line_by_line(tmp_path):
    with pytest.raises(UserListError) as caught:
        users(tmp_path, "name,email\n" + "x\n" * 10_000)
    assert len(caught.value.message.splitlines()) == 52


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserListError, match="No such file"):
        read_users(tmp_path / "nobody.csv", profile="user")
