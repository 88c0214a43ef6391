"""Encrypting, changing and decrypting keys at rest: a process that ends at any file event of it loses no key.

A child does the work and ends itself at the first, second, third … event of a file in the folder, as Python's audit
hooks tell them, until it comes to its end.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from keyark.keys.key_types import KeyType, generate
from keyark.keys.private_keys import is_encrypted, load_private_key, save_private_key
from keyark.keys.reencryption import KeysNotEncryptedError, decrypt_keys, encrypt_keys, unencrypted_keys
from keyark.keys.spki import encode_spki

FIRST, SECOND = b"correct horse battery", b"staple of another day"
KEYS = ("key.pem", "transport-keys/1/key.pem")
KILLED, DONE, FAILED = 9, 0, 1
FILES = ("open", "os.", "fcntl.", "shutil.")


def ended_at(event: int, folder: Path, work: Callable[[Path], object]) -> int:
    """Do some work in a child that ends at an event (0 for the first); returns its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = 0

    def hook(name: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if name.startswith(FILES) and any(str(folder) in str(argument) for argument in arguments):
            if seen == event:
                os._exit(KILLED)
            seen += 1

    sys.addaudithook(hook)
    try:
        work(folder)
    except BaseException:
        os._exit(FAILED)
    os._exit(DONE)


def halves(folder: Path) -> list[bytes]:
    return [encode_spki(load_private_key(folder / name).public_key()) for name in KEYS]


def password_file(path: Path, password: bytes) -> str:
    path.write_bytes(password + b"\n")
    path.chmod(0o600)
    return f"file:{path}"


def undecrypted(folder: Path) -> None:
    """Decrypt; what was interrupted after its last key may have nothing left to do."""
    try:
        decrypt_keys(folder)
    except KeysNotEncryptedError:
        assert len(unencrypted_keys(folder)) == len(KEYS)


@pytest.mark.parametrize(("how", "step"), [("encrypted", 3), ("changed", 1), ("decrypted", 3)])
def test_every_key_opens_wherever_it_ended_and_the_same_work_goes_on(
    tmp_path: Path, how: str, step: int
) -> None:
    """Changing passes through every step of the others, which are tried at every third event."""
    first = password_file(tmp_path / "first", FIRST)
    second = password_file(tmp_path / "second", SECOND)
    made = tmp_path / "made"
    for name in KEYS:
        (made / name).parent.mkdir(mode=0o700, parents=True)
        save_private_key(made / name, generate(KeyType.EC_P256))
    made.chmod(0o700)
    expected = halves(made)
    if how != "encrypted":
        encrypt_keys(made, first)
    work = undecrypted if how == "decrypted" else lambda folder: encrypt_keys(folder, second)
    for event in range(0, 500, step):
        folder = tmp_path / "work"
        shutil.copytree(made, folder)
        code = ended_at(event, folder, work)
        assert code in (KILLED, DONE), event
        assert halves(folder) == expected, event
        work(folder)
        assert halves(folder) == expected, event
        for name in KEYS:
            assert is_encrypted((folder / name).read_bytes()) == (how != "decrypted"), event
        left = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        shutil.rmtree(folder)
        assert len(left) == len(KEYS) + (how != "decrypted"), (event, left)
        if code == DONE:
            break
    assert 20 < event < 500
