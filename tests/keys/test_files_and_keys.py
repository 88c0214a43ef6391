"""Guards private keys at rest (P4, P10): only their owner opens them, none is overwritten, passwords hold."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from keyark.deployment.initialize import DeploymentPlan, initialize
from keyark.files import (
    FileExistsAlreadyError,
    ForeignOwnerError,
    LaxPermissionsError,
    UnreadableFileError,
    UnwritableFileError,
    check_private_folder,
    check_trusted_file,
    make_private_folder,
    read_file,
    read_secret_file,
    write_file,
    write_new_file,
)
from keyark.folders import filling, working_in
from keyark.keys.key_types import KeyType, UnsupportedKeyError
from keyark.keys.private_keys import (
    KeyFileError,
    PasswordRequiredError,
    WrongPasswordError,
    encode_private_key,
    load_private_key,
    save_private_key,
)
from keyark.keys.spki import encode_spki
from tests.support.keys.pki import private_key, spki


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "keys"
    make_private_folder(made)
    return made


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def never():
    raise AssertionError("the password was asked for")


@pytest.mark.parametrize("password", [None, b"correct horse"], ids=["plain", "encrypted"])
@pytest.mark.parametrize("key_type", KeyType)
def test_a_saved_key_is_loaded_again(folder, key_type, password):
    path = folder / "deep" / "key.pem"
    save_private_key(path, private_key(key_type), password=password)
    loaded = load_private_key(path, ask_password=never if password is None else lambda: password)
    assert encode_spki(loaded.public_key()) == spki(key_type)
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert os.listdir(path.parent) == ["key.pem"]


@pytest.mark.usefixtures("usual_rounds")
def test_a_password_is_stretched_over_600000_rounds(folder):
    path = folder / "key.pem"
    save_private_key(path, private_key(KeyType.EC_P256), password=b"correct horse")
    told = subprocess.run(
        ["openssl", "asn1parse", "-in", path], capture_output=True, text=True, check=True
    ).stdout
    assert [line.rsplit(":", 1)[1] for line in told.splitlines() if "INTEGER" in line] == [f"{600_000:06X}"]


def test_the_mode_does_not_depend_on_the_umask(folder):
    before = os.umask(0)
    try:
        save_private_key(folder / "key.pem", private_key(KeyType.EC_P256))
    finally:
        os.umask(before)
    assert mode(folder / "key.pem") == 0o600


def test_an_encrypted_file_shows_nothing_of_the_key():
    key = private_key(KeyType.EC_P256)
    pem = encode_private_key(key, password=b"correct horse")
    plain = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert encode_spki(load_pem_private_key(pem, b"correct horse").public_key()) == spki(KeyType.EC_P256)
    assert plain not in pem


def test_an_empty_password_is_refused():
    with pytest.raises(PasswordRequiredError):
        encode_private_key(private_key(KeyType.EC_P256), password=b"")


def test_a_key_is_never_overwritten(folder):
    path = folder / "key.pem"
    save_private_key(path, private_key(KeyType.EC_P256))
    with pytest.raises(FileExistsAlreadyError, match="move it away"):
        save_private_key(path, private_key(KeyType.EC_P256, 1))
    assert encode_spki(load_private_key(path).public_key()) == spki(KeyType.EC_P256)
    assert os.listdir(folder) == ["key.pem"]


@pytest.mark.parametrize("lax", [0o640, 0o604, 0o620, 0o644, 0o610, 0o601, 0o666])
def test_a_lax_file_is_refused_with_the_command_that_helps(folder, lax):
    path = folder / "key.pem"
    save_private_key(path, private_key(KeyType.EC_P256))
    path.chmod(lax)
    with pytest.raises(LaxPermissionsError, match=f"chmod 600 '{path}'"):
        load_private_key(path)


@pytest.mark.parametrize("lax", [0o720, 0o702, 0o777])
def test_a_key_in_a_folder_where_others_write_is_refused_with_what_was_seen(folder, lax):
    path = folder / "key.pem"
    save_private_key(path, private_key(KeyType.EC_P256))
    folder.chmod(lax)
    with pytest.raises(LaxPermissionsError, match=f"mode {lax:04o}.*chmod go-w '{folder}'"):
        load_private_key(path)


@pytest.mark.parametrize("searched", [0o555, 0o750, 0o711, 0o755, 0o1777])
def test_a_key_that_nobody_else_reads_or_replaces_is_taken(folder, searched):
    """A container platform mounts secrets so: links into a folder of 0755, and files of 0400."""
    path, mounted = folder / "key.pem", folder / "mounted"
    save_private_key(path, private_key(KeyType.EC_P256))
    path.chmod(0o400)
    folder.chmod(searched)
    load_private_key(path)
    folder.chmod(0o755)
    mounted.mkdir(mode=0o755)
    path.rename(mounted / "key.pem")
    path.symlink_to("mounted/key.pem")
    load_private_key(path)
    mounted.chmod(0o775)
    with pytest.raises(LaxPermissionsError, match=f"chmod go-w '{mounted}'"):
        load_private_key(path)


@pytest.mark.parametrize("lax", [0o750, 0o701, 0o711, 0o755, 0o777])
def test_no_key_is_made_in_a_lax_folder(folder, lax):
    folder.chmod(lax)
    with pytest.raises(LaxPermissionsError, match=f"mode {lax:04o}.*chmod 700 '{folder}'"):
        save_private_key(folder / "other.pem", private_key(KeyType.EC_P256))
    with pytest.raises(LaxPermissionsError):
        make_private_folder(folder)


def test_nobody_is_told_to_close_a_folder_that_others_need(folder, monkeypatch):
    """`chmod 700 /` or `/tmp` would take it from everybody, and a home or the present folder is no place for keys."""
    folder.chmod(0o1777)
    with pytest.raises(LaxPermissionsError, match="choose a new folder") as caught:
        make_private_folder(folder)
    assert "chmod" not in caught.value.message
    folder.chmod(0o755)
    for place in (Path("/"), Path()):
        monkeypatch.chdir(folder)
        with pytest.raises(LaxPermissionsError, match="choose a new folder"):
            make_private_folder(place)
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(folder))
    with pytest.raises(LaxPermissionsError, match="choose a new folder"):
        make_private_folder(folder)


def test_what_is_no_file_is_called_what_it_is(folder):
    os.mkfifo(folder / "pipe", 0o644)
    for path, kind in ((Path("/dev/null"), "device"), (folder / "pipe", "pipe"), (folder, "folder")):
        for read in (read_file, read_secret_file):
            with pytest.raises(UnreadableFileError, match=f"is a {kind}, not a file"):
                read(path, max_size=10)
    (folder / "large").write_bytes(bytes(11))
    with pytest.raises(UnreadableFileError, match="has 11 bytes, which is more than the allowed 10"):
        read_file(folder / "large", max_size=10)


def test_a_folder_that_cannot_be_made_is_told_by_what_lies_there(folder):
    (folder / "link").symlink_to("nowhere")
    (folder / "file").write_text("")
    for name, what in (("link", "symbolic link to nothing"), ("file", "is not a folder")):
        with pytest.raises(UnwritableFileError, match=what), working_in(folder / name):
            pass
    with pytest.raises(UnwritableFileError, match="symbolic link to nothing"):
        make_private_folder(folder / "link")


@pytest.mark.parametrize("strict", [0o400, 0o600])
def test_stricter_files_are_fine(folder, strict):
    path = folder / "key.pem"
    save_private_key(path, private_key(KeyType.EC_P256))
    path.chmod(strict)
    load_private_key(path)


def test_a_link_is_judged_by_where_it_leads(folder, tmp_path):
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    save_private_key(folder / "key.pem", private_key(KeyType.EC_P256))
    (folder / "key.pem").rename(open_folder / "key.pem")
    (folder / "key.pem").symlink_to(open_folder / "key.pem")
    with pytest.raises(LaxPermissionsError, match="open'"):
        load_private_key(folder / "key.pem")


def test_a_missing_password_is_told(folder):
    path = folder / "key.pem"
    save_private_key(path, private_key(KeyType.ED25519), password=b"correct horse")
    with pytest.raises(PasswordRequiredError, match=r"key\.pem"):
        load_private_key(path)
    with pytest.raises(PasswordRequiredError):
        load_private_key(path, ask_password=lambda: b"")


def test_a_wrong_password_is_told_and_not_repeated(folder):
    path = folder / "key.pem"
    save_private_key(path, private_key(KeyType.ED25519), password=b"correct horse")
    with pytest.raises(WrongPasswordError) as caught:
        load_private_key(path, ask_password=lambda: b"battery staple")
    assert "battery" not in repr(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_what_is_no_key_is_refused(folder, data):
    write_new_file(folder / "key.pem", data, mode=0o600)
    with pytest.raises(KeyFileError):
        load_private_key(folder / "key.pem")


def test_a_public_key_is_no_private_key(folder):
    pem = (
        private_key(KeyType.EC_P256)
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    write_new_file(folder / "key.pem", pem, mode=0o600)
    with pytest.raises(KeyFileError):
        load_private_key(folder / "key.pem")


def test_unsupported_private_keys_are_refused(folder):
    weak = rsa.generate_private_key(65537, 1024)
    pem = weak.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_new_file(folder / "key.pem", pem, mode=0o600)
    with pytest.raises(UnsupportedKeyError, match=r"key\.pem.*1024"):
        load_private_key(folder / "key.pem")


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "large"])
def test_what_cannot_be_read_is_told(folder, kind):
    path = folder / "key.pem"
    if kind == "folder":
        path.mkdir(mode=0o700)
    elif kind == "pipe":
        os.mkfifo(path, 0o600)
    elif kind == "large":
        write_new_file(path, bytes(70_000), mode=0o600)
    with pytest.raises(UnreadableFileError):
        load_private_key(path)


def test_an_interrupted_write_leaves_the_older_file_and_nothing_else(folder):
    path = folder / "ca.pem"
    write_file(path, b"old", mode=0o644)
    with pytest.raises(TypeError):
        write_file(path, None, mode=0o644)  # what a write that fails half way leaves
    assert read_file(path, max_size=10) == b"old"
    assert os.listdir(folder) == ["ca.pem"]


def test_a_file_is_replaced_with_its_mode(folder):
    path = folder / "ca.pem"
    write_file(path, b"old", mode=0o600)
    write_file(path, b"new", mode=0o644)
    assert (read_file(path, max_size=10), mode(path)) == (b"new", 0o644)


def test_a_folder_that_cannot_be_written_is_told(folder):
    with pytest.raises(UnwritableFileError):
        write_file(folder / "missing" / "ca.pem", b"x", mode=0o644)
    write_file(folder / "file", b"x", mode=0o600)
    with pytest.raises(UnwritableFileError):
        make_private_folder(folder / "file" / "below")
    with pytest.raises(UnreadableFileError):
        check_private_folder(folder / "file")
    with pytest.raises(UnreadableFileError):
        check_private_folder(folder / "missing")


ANOTHER = 4711


@pytest.fixture
def another_user(monkeypatch):
    """This process is another user than the one who owns what the test made."""

    def become(uid=ANOTHER):
        monkeypatch.setattr(os, "geteuid", lambda: uid)

    return become


def owned_by(monkeypatch, owners):
    """Files and folders of these names belong to these users."""
    opened, named = os.fstat, type(Path()).stat

    def of(status, name):
        values = list(status)
        values[stat.ST_UID] = owners.get(name, values[stat.ST_UID])
        return os.stat_result(values)

    monkeypatch.setattr(os, "fstat", lambda fd: of(opened(fd), Path(os.readlink(f"/proc/self/fd/{fd}")).name))
    monkeypatch.setattr(Path, "stat", lambda path, **options: of(named(path, **options), path.name))


@pytest.mark.parametrize(
    ("user", "folder_owner", "file_owner", "taken"),
    [
        (ANOTHER, ANOTHER, ANOTHER, True),
        (ANOTHER, 0, 0, True),
        (ANOTHER, ANOTHER, 0, True),
        (ANOTHER, 1000, ANOTHER, False),
        (ANOTHER, ANOTHER, 1000, False),
        (0, 1000, 1000, True),
        (0, 1000, 0, False),
        (0, 0, 1000, False),
    ],
)
def test_a_key_is_taken_from_its_owner_or_root(
    folder, monkeypatch, another_user, user, folder_owner, file_owner, taken
):
    path = folder / "key.pem"
    save_private_key(path, private_key(KeyType.EC_P256))
    owned_by(monkeypatch, {folder.name: folder_owner, path.name: file_owner})
    another_user(user)
    if taken:
        load_private_key(path)
        return
    with pytest.raises(ForeignOwnerError, match="belongs to another user"):
        load_private_key(path)


def test_nothing_secret_is_made_in_another_users_folder(folder, another_user):
    another_user()
    for make in (make_private_folder, check_private_folder):
        with pytest.raises(ForeignOwnerError):
            make(folder)
    with pytest.raises(ForeignOwnerError), filling(folder):
        pass
    with pytest.raises(ForeignOwnerError):
        save_private_key(folder / "key.pem", private_key(KeyType.EC_P256))
    with pytest.raises(ForeignOwnerError):
        initialize(DeploymentPlan(folder=folder), lambda _: None)
    assert list(folder.iterdir()) == []


def test_a_configuration_that_others_may_change_is_refused(folder, monkeypatch):
    path = folder / "rm.toml"
    path.write_text("")
    for lax in (0o620, 0o602, 0o666):
        path.chmod(lax)
        with pytest.raises(LaxPermissionsError, match="chmod go-w"):
            check_trusted_file(path)
    path.chmod(0o644)
    check_trusted_file(path)
    owned_by(monkeypatch, {path.name: 1000})
    with pytest.raises(ForeignOwnerError):
        check_trusted_file(path)
