"""P10: files with secrets are overwritten before they are deleted; another name of the file shows what is left."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from drm_service.transport.files import TransportFiles
from keyark.client.recovery.recipients import RecipientKeys
from keyark.erasure import erase_file, exchange_file, finish_exchange
from keyark.files import (
    FileExistsAlreadyError,
    UnwritableFileError,
    erase_secret_file,
    write_file,
    write_new_file,
)
from keyark.identity.files import IdentityFiles
from keyark.keys.key_types import KeyType
from keyark.keys.private_keys import save_private_key
from tests.identity.test_identity_files import files as files  # noqa: PLC0414 — the fixture
from tests.identity.test_identity_files import new_pair

SECRET = os.urandom(3 << 20)


class Spy:
    """Another name of a file, which sees its blocks after the file's own name is gone."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.size = path.stat().st_size
        self.name = folder / f"spy-{path.name}"
        self.name.hardlink_to(path)

    def sees_nothing(self) -> bool:
        return self.name.read_bytes() == bytes(self.size)


def test_a_device_or_a_pipe_is_neither_erased_nor_replaced(tmp_path: Path) -> None:
    """As root, a command that is given /dev/full or /dev/null would take it from everybody."""
    pipe, device = tmp_path / "pipe", Path("/dev/null")
    os.mkfifo(pipe)
    for special in (pipe, device):
        before = special.stat()
        with pytest.raises(UnwritableFileError):
            erase_secret_file(special)
        with pytest.raises(UnwritableFileError):
            write_file(special, b"data", mode=0o600)
        with pytest.raises(FileExistsAlreadyError):
            write_new_file(special, b"data", mode=0o600)
        assert special.stat().st_mode == before.st_mode


def test_a_file_is_overwritten_and_gone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET)
    spy = Spy(path, tmp_path)
    erase_file(path)
    erase_file(path)  # there is nothing to do
    assert spy.sees_nothing()
    assert not path.exists()
    with pytest.raises(UnwritableFileError):
        erase_secret_file(tmp_path)


def test_an_exchange_erases_the_former_file(tmp_path: Path) -> None:
    path, new = tmp_path / "secret", tmp_path / "new"
    for contents in (SECRET, b"second"):
        new.write_bytes(contents)
        exchange_file(new, path)
        assert path.read_bytes() == contents
    spy = Spy(path, tmp_path)
    new.write_bytes(b"third")
    exchange_file(new, path)
    assert spy.sees_nothing()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["secret", "spy-secret"]


def test_an_exchange_works_without_hard_links_and_for_files_that_are_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, new = tmp_path / "secret", tmp_path / "new"
    path.write_bytes(SECRET)
    path.chmod(0o400)
    new.write_bytes(b"second")

    def unsupported(self: Path, target: Path) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    with path.open("rb") as blocks:
        monkeypatch.setattr(Path, "hardlink_to", unsupported)
        exchange_file(new, path)
        assert blocks.read() == bytes(len(SECRET))
    assert path.read_bytes() == b"second"


def test_a_symbolic_link_is_replaced_and_its_target_is_left(tmp_path: Path) -> None:
    path, new, mounted = tmp_path / "key.pem", tmp_path / "new", tmp_path / "mounted.pem"
    mounted.write_bytes(b"mounted")
    path.symlink_to(mounted)
    new.write_bytes(b"second")
    exchange_file(new, path)
    assert (path.read_bytes(), mounted.read_bytes()) == (b"second", b"mounted")
    assert not path.is_symlink()


def test_an_interrupted_exchange_loses_no_file_and_leaves_no_former_one(tmp_path: Path) -> None:
    path, former = tmp_path / "secret", tmp_path / "secret.former"
    path.write_bytes(b"in place")
    former.hardlink_to(path)  # interrupted before the new one was put in place
    finish_exchange(path)
    assert path.read_bytes() == b"in place"
    assert not former.exists()
    former.write_bytes(SECRET)  # interrupted after
    spy = Spy(former, tmp_path)
    finish_exchange(path)
    assert spy.sees_nothing()
    assert path.read_bytes() == b"in place"
    assert not former.exists()


def test_a_renewed_identity_leaves_no_former_key(files: IdentityFiles, tmp_path: Path) -> None:
    save_private_key(files.next_key, new_pair()[0])  # of a renewal that was given up
    spies = [Spy(files.key, tmp_path), Spy(files.next_key, tmp_path)]
    files.replace(*new_pair())
    assert [spy.sees_nothing() for spy in spies] == [True, True]


def test_an_interrupted_renewal_leaves_none_either(files: IdentityFiles, tmp_path: Path) -> None:
    former = files.key.with_name(f"{files.key.name}.former")
    former.write_bytes(b"key" * 100)
    spy = Spy(former, tmp_path)
    files.finish()
    assert spy.sees_nothing()
    files.load()


def test_the_key_of_a_recovery_that_is_over_is_gone(tmp_path: Path) -> None:
    keys = RecipientKeys(folder=tmp_path / "recoveries")
    keys.create(bytes(16))
    spy = Spy(tmp_path / "recoveries" / f"{bytes(16).hex()}.pem", tmp_path)
    keys.delete(bytes(16))
    keys.delete(bytes(16))
    assert spy.sees_nothing()


def test_the_private_key_of_a_retired_transport_key_is_gone(tmp_path: Path) -> None:
    files = TransportFiles(
        folder=tmp_path / "transport-keys", chain=tmp_path / "chain.pem", trust_domain="example.org"
    )
    files.make_key(1, KeyType.EC_P256)
    spy = Spy(files.key_path(1), tmp_path)
    files.delete_key(1)
    assert spy.sees_nothing()


def test_a_key_that_is_not_written_after_all_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = tmp_path / "key.pem", []
    path.write_bytes(b"older")
    link = Path.hardlink_to

    def spying(self: Path, temporary: Path) -> None:
        if self == path:
            opened.append(temporary.open("rb"))
        link(self, temporary)

    monkeypatch.setattr(Path, "hardlink_to", spying)
    with pytest.raises(FileExistsAlreadyError):
        write_new_file(path, SECRET, mode=0o600)
    with opened[0] as file:
        assert file.read() == bytes(len(SECRET))
    assert path.read_bytes() == b"older"
