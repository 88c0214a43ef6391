"""Encrypts the private keys of a folder, changes their password, or decrypts them: each step can be interrupted.

First key-password.toml names the new source beside the former ones, so that every key opens whichever of them it is
under. Then the keys are written anew, one by one, and what they replace is erased. The former sources go last.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from keyark.errors import ConfigurationError
from keyark.files import (
    erase_secret_file,
    exchange_secret_file,
    finish_secret_exchange,
    is_there,
    read_secret_file,
    write_file,
)
from keyark.folders import alone_in
from keyark.keys.at_rest import FILE, LEVELS, KeyPasswordError, KeyPasswords, check_source, read_key_passwords
from keyark.keys.private_keys import (
    MAX_KEY_FILE_SIZE,
    WrongPasswordError,
    encode_key_file,
    is_encrypted,
    load_private_key,
)

_MODE: Final = 0o600
_BEGIN: Final = b"-----BEGIN "
_SEVERAL: Final = b"PRIVATE KEY-----"
_ENDS: Final = (b"-----END PRIVATE KEY-----\n", b"-----END ENCRYPTED PRIVATE KEY-----\n")


class KeysNotEncryptedError(ConfigurationError):
    """A folder has no key-password.toml, so its keys are not encrypted by one."""

    reason = "KEYS_NOT_ENCRYPTED"


def encrypt_keys(folder: Path, source: str) -> list[Path]:
    """Encrypt the private keys below a folder under the password of a source; return their files.

    It takes the place of the source of before, if there was one. Raises KeyPasswordError and the errors of key and
    password files; what was done until then stays, every key opens, and the same call goes on.
    """
    path = folder / FILE
    check_source(source, path)
    with alone_in(folder):
        before = read_key_passwords(path) if is_there(path) else None
        sources = [] if before is None else [s for s in (before.current, *before.former) if s is not None]
        former = tuple(dict.fromkeys(name for name in sources if name != source))
        KeyPasswords(path=path, current=source).password()  # it can be had, or nothing changes
        if source in sources:
            _check_open(folder, source)
        _write(KeyPasswords(path=path, current=source, former=former))
        files = _rewrite(folder)
        _write(KeyPasswords(path=path, current=source))
    return files


def decrypt_keys(folder: Path) -> list[Path]:
    """Write the private keys below a folder unencrypted; return their files. Raises as ``encrypt_keys``.

    Raises KeysNotEncryptedError for a folder without key-password.toml.
    """
    path = folder / FILE
    with alone_in(folder):
        if not is_there(path):
            raise KeysNotEncryptedError(
                f"{folder} has no {FILE}, so nothing says which password its keys have."
            )
        before = read_key_passwords(path)
        sources = tuple(s for s in (before.current, *before.former) if s is not None)
        _write(KeyPasswords(path=path, current=None, former=sources))
        files = _rewrite(folder)
        _erase_interrupted(path)
        path.unlink()
    return files


def begin_encrypted(folder: Path, source: str) -> None:
    """Let the keys that are made in a new folder be encrypted; raises as ``encrypt_keys``."""
    path = folder / FILE
    check_source(source, path)
    KeyPasswords(path=path, current=source).password()
    _write(KeyPasswords(path=path, current=source))


def unencrypted_keys(folder: Path) -> list[Path]:
    """Return the files below a folder with a private key that is not encrypted; raises the errors of key files."""
    return [file for file, data in key_files(folder) if not is_encrypted(data)]


def key_files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield the files (.pem) below a folder that begin with a private key, and what they hold.

    Only as deep as keys look for their key-password.toml.
    """
    pattern = "*/" * (LEVELS - 1)
    depths = [pattern[: 2 * depth] + "*.pem" for depth in range(LEVELS)]
    for file in sorted(path for depth in depths for path in folder.glob(depth)):
        if file.is_file() and not file.is_symlink() and _begins_with_a_key(file):
            yield file, read_secret_file(file, max_size=MAX_KEY_FILE_SIZE)


def _check_open(folder: Path, source: str) -> None:
    """Raise KeyPasswordError where a source that stays gives another password than the keys are under."""
    try:
        for file, _ in key_files(folder):
            load_private_key(file)
    except WrongPasswordError:
        raise KeyPasswordError(
            f"{source} gives a password that does not open the keys in {folder}. Nothing was changed. "
            "Restore the current password there, change to another source (file:/PATH), and then use "
            "this source again."
        ) from None


def _begins_with_a_key(file: Path) -> bool:
    with file.open("rb") as opened:
        return (
            opened.readline().removeprefix(_BEGIN).removeprefix(b"ENCRYPTED ").startswith(b"PRIVATE KEY-----")
        )


def _rewrite(folder: Path) -> list[Path]:
    """Write every key below a folder as its key-password.toml says now; the files stay their owners'."""
    found = list(key_files(folder))
    for file, data in found:
        if _SEVERAL in _behind(data):
            raise KeyPasswordError(
                f"{file} holds several private keys; it is a person's, with a password of its own."
            )
    files = []
    for file, data in found:
        finish_secret_exchange(file)
        _erase_interrupted(file)
        waiting = file.with_name(f".{file.name}.rewritten")
        _write_for_owner_of(file, waiting, encode_key_file(file, load_private_key(file)) + _behind(data))
        exchange_secret_file(waiting, file)
        files.append(file)
    return files


def _erase_interrupted(file: Path) -> None:
    """Erase what a run that was interrupted left beside a file; it may hold the key as nobody wants it any more."""
    name = glob.escape(file.name)
    for pattern in (f".{name}.*", f"..{name}.*"):
        for left in file.parent.glob(pattern):
            erase_secret_file(left)


def _behind(data: bytes) -> bytes:
    """Return what stands behind the key in its file, a certificate of it for one."""
    return next((data.partition(end)[2] for end in _ENDS if end in data), b"")


def _write(passwords: KeyPasswords) -> None:
    lines = ["# Where the password of the private keys in this folder is; `keyark key-password` changes it."]
    if passwords.current is not None:
        lines.append(f"password = {json.dumps(passwords.current, ensure_ascii=False)}")
    if passwords.former:
        lines.append(f"former = {json.dumps(list(passwords.former), ensure_ascii=False)}")
    _erase_interrupted(passwords.path)
    _write_for_owner_of(passwords.path.parent, passwords.path, ("\n".join(lines) + "\n").encode())


def _write_for_owner_of(model: Path, path: Path, data: bytes) -> None:
    """Write a file that belongs to the owner of another file or folder, for root may do it for a service's user."""
    owner = model.stat()
    write_file(path, data, mode=_MODE)
    if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(path, owner.st_uid, owner.st_gid)
