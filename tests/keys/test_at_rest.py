"""P10, against whoever takes a disk or a backup: private keys are encrypted under a password that lies elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keyark.errors import ConfigurationError, KeyarkError
from keyark.files import LaxPermissionsError, make_private_folder
from keyark.keys import at_rest
from keyark.keys.at_rest import FILE, KeyPasswordError, read_key_passwords
from keyark.keys.key_types import KeyType, generate
from keyark.keys.password_files import PasswordFileError
from keyark.keys.private_keys import (
    WrongPasswordError,
    encode_private_key,
    is_encrypted,
    load_private_key,
    save_private_key,
)
from keyark.keys.reencryption import begin_encrypted, decrypt_keys, encrypt_keys, unencrypted_keys
from keyark.keys.spki import encode_spki

FIRST, SECOND = b"correct horse battery", b"staple of another day"
KEYS = ("key.pem", "transport-keys/1/key.pem")


def password_file(folder: Path, name: str, password: bytes) -> str:
    path = folder / name
    path.write_bytes(password + b"\n")
    path.chmod(0o600)
    return f"file:{path}"


@pytest.fixture
def sources(tmp_path: Path) -> tuple[str, str]:
    return password_file(tmp_path, "first", FIRST), password_file(tmp_path, "second", SECOND)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A service's folder with two keys, as deep as they lie in one."""
    folder = tmp_path / "drm"
    for name in KEYS:
        make_private_folder((folder / name).parent.parent)
        save_private_key(folder / name, generate(KeyType.EC_P256))
    return folder


def halves(folder: Path) -> list[bytes]:
    return [encode_spki(load_private_key(folder / name).public_key()) for name in KEYS]


def say(folder: Path, text: str) -> None:
    (folder / FILE).write_text(text)
    (folder / FILE).chmod(0o600)


def test_keys_that_are_made_in_an_encrypted_folder_open_with_its_password_only(
    tmp_path: Path, sources
) -> None:
    folder = tmp_path / "drm"
    make_private_folder(folder)
    begin_encrypted(folder, sources[0])
    key = generate(KeyType.EC_P256)
    for name in KEYS:
        make_private_folder((folder / name).parent.parent)
        save_private_key(folder / name, key)
        assert is_encrypted((folder / name).read_bytes())
    assert set(halves(folder)) == {encode_spki(key.public_key())}
    assert FIRST not in (folder / FILE).read_bytes()
    password_file(tmp_path, "first", SECOND)
    with pytest.raises(WrongPasswordError, match="None of the passwords"):
        halves(folder)
    (tmp_path / "first").unlink()
    with pytest.raises(ConfigurationError, match="first"):
        halves(folder)


def test_a_key_below_the_third_folder_is_not_this_folders(tmp_path: Path, sources) -> None:
    make_private_folder(tmp_path / "drm")
    begin_encrypted(tmp_path / "drm", sources[0])
    deep = tmp_path / "drm" / "a" / "b" / "c"
    deep.mkdir(parents=True, mode=0o700)
    save_private_key(deep / "key.pem", generate(KeyType.EC_P256))
    assert not is_encrypted((deep / "key.pem").read_bytes())


def test_a_folder_is_encrypted_gets_another_password_and_is_decrypted(
    folder: Path, sources, tmp_path: Path
) -> None:
    before = halves(folder)
    assert len(unencrypted_keys(folder)) == 2
    assert len(encrypt_keys(folder, sources[0])) == 2
    assert unencrypted_keys(folder) == []
    assert halves(folder) == before
    encrypt_keys(folder, sources[1])
    assert read_key_passwords(folder / FILE).former == ()
    (tmp_path / "first").unlink()
    assert halves(folder) == before
    assert len(decrypt_keys(folder)) == 2
    assert not (folder / FILE).exists()
    (tmp_path / "second").unlink()
    assert halves(folder) == before
    with pytest.raises(KeyarkError, match="has no key-password"):
        decrypt_keys(folder)


@pytest.mark.parametrize("stops_at", range(len(KEYS)))
@pytest.mark.parametrize("what", ["encrypt", "change", "decrypt"])
def test_what_stops_at_any_key_leaves_all_open_and_goes_on(
    folder: Path, sources, what: str, stops_at: int
) -> None:
    before = halves(folder)
    if what != "encrypt":
        encrypt_keys(folder, sources[0])
    order = sorted(folder.glob("**/*.pem"))
    order[stops_at].chmod(0o640)
    act = decrypt_keys if what == "decrypt" else lambda place: encrypt_keys(place, sources[1])
    with pytest.raises(LaxPermissionsError):
        act(folder)
    order[stops_at].chmod(0o600)
    assert halves(folder) == before
    act(folder)
    assert halves(folder) == before
    assert len(unencrypted_keys(folder)) == (2 if what == "decrypt" else 0)


def test_a_source_that_gives_another_password_now_changes_nothing(
    folder: Path, sources, tmp_path: Path
) -> None:
    before = halves(folder)
    encrypt_keys(folder, sources[0])
    said = (folder / FILE).read_text()
    password_file(tmp_path, "first", SECOND)
    with pytest.raises(KeyPasswordError, match="change to another source"):
        encrypt_keys(folder, sources[0])
    assert (folder / FILE).read_text() == said
    password_file(tmp_path, "first", FIRST)
    assert halves(folder) == before


def test_keys_under_the_new_and_the_former_password_open_side_by_side(folder: Path, sources) -> None:
    """As a machine that stopped in the midst leaves them, with a copy that was not put in place yet."""
    before = halves(folder)
    for name, password in zip(KEYS, (FIRST, SECOND), strict=True):
        key = load_private_key(folder / name)
        (folder / name).write_bytes(encode_private_key(key, password=password))
    (folder / ".key.pem.rewritten").write_bytes(b"half of a ")
    say(folder, f'password = "{sources[1]}"\nformer = ["{sources[0]}"]\n')
    assert halves(folder) == before
    encrypt_keys(folder, sources[1])
    assert halves(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == [
        "key-password.toml",
        "key.pem",
        "transport-keys",
    ]


def test_what_stands_behind_a_key_stays(folder: Path, sources) -> None:
    with (folder / "key.pem").open("ab") as opened:
        opened.write(b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n")
    for act in (lambda: encrypt_keys(folder, sources[0]), lambda: decrypt_keys(folder)):
        act()
        assert (
            (folder / "key.pem")
            .read_bytes()
            .endswith(b"\n-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n")
        )


def test_a_file_with_several_keys_is_refused_before_anything_is_written(folder: Path, sources) -> None:
    data = (folder / "key.pem").read_bytes()
    (folder / "key.pem").write_bytes(data + data)
    with pytest.raises(KeyPasswordError, match="several"):
        encrypt_keys(folder, sources[0])
    assert len(unencrypted_keys(folder)) == 2


@pytest.mark.parametrize(
    "source", ["file:/does/not/exist", "file:relative", "credential:x", "descriptor:99", "terminal"]
)
def test_a_password_that_cannot_be_had_changes_nothing(folder: Path, source: str, monkeypatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigurationError):
        encrypt_keys(folder, source)
    assert not (folder / FILE).exists()
    assert len(unencrypted_keys(folder)) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "password =",
        'passwort = "terminal"',
        'password = ""',
        "password = 3",
        'password = "secret"',
        'password = "file:relative"',
        'password = "file:"',
        'password = "credential:../x"',
        'password = "credential:"',
        'password = "descriptor:2"',
        'password = "descriptor:9999999999999"',
        'password = "descriptor:x"',
        'password = "terminal:x"',
        'password = "pkcs11:x"',
        'password = "terminal"\nformer = "terminal"',
        'password = "terminal"\nformer = [1]',
        "former = []",
        "\udcff",
    ],
)
def test_a_file_that_says_anything_else_is_refused_for_reading_and_writing(folder: Path, text: str) -> None:
    (folder / FILE).write_bytes(text.encode(errors="surrogateescape"))
    (folder / FILE).chmod(0o600)
    with pytest.raises(KeyPasswordError, match="must say where"):
        save_private_key(folder / "new.pem", generate(KeyType.EC_P256))
    assert not (folder / "new.pem").exists()


def test_a_file_that_others_may_write_is_refused(folder: Path, sources) -> None:
    encrypt_keys(folder, sources[0])
    (folder / FILE).chmod(0o666)
    with pytest.raises(LaxPermissionsError):
        halves(folder)


def test_a_credential_of_systemd_is_read_where_its_unit_has_it(
    folder: Path, tmp_path: Path, monkeypatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir(mode=0o700)
    (credentials / "keyark").write_bytes(FIRST)
    (credentials / "keyark").chmod(0o440)  # as an access list shows
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    before = halves(folder)
    encrypt_keys(folder, "credential:keyark")
    assert halves(folder) == before
    (credentials / "keyark").chmod(0o444)
    with pytest.raises(PasswordFileError, match="everybody"):
        halves(folder)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(KeyPasswordError, match="LoadCredential=keyark"):
        halves(folder)


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_a_descriptor_is_read_as_often_as_keys_are(
    folder: Path, tmp_path: Path, kind: str, monkeypatch
) -> None:
    monkeypatch.setattr(at_rest, "held_descriptors", set())
    before = halves(folder)
    if kind == "file":
        (tmp_path / "password").write_bytes(FIRST + b"\n")
        descriptor = os.open(tmp_path / "password", os.O_RDONLY)
    else:
        descriptor, end = os.pipe()
        os.write(end, FIRST + b"\n")
        os.close(end)
    try:
        encrypt_keys(folder, f"descriptor:{descriptor}")
        assert halves(folder) == before
        assert at_rest.held_descriptors == {descriptor}  # which worker processes inherit
    finally:
        os.close(descriptor)
    password_file(tmp_path, "first", FIRST)
    say(folder, f'password = "file:{tmp_path / "first"}"')
    assert halves(folder) == before
