"""Private keys that are encrypted at rest: where the password of a folder's keys comes from.

A file ``key-password.toml`` in a folder, or up to two folders above a key, names the source of the password; the
password itself stands in it nowhere::

    password = "credential:keyark-cm"
    former = ["file:/etc/keyark/cm.password"]

While the file is there, keys that are written below it are encrypted under the first password, and encrypted ones are
opened with it or with a former one. So every program that reads or writes a key there does the same, the worker
processes included, and a change of the password can be interrupted at any step.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from keyark.errors import ConfigurationError
from keyark.files import check_trusted_file, is_there, read_file
from keyark.keys.password_files import MAX_PASSWORD_FILE, PasswordFileError, parse_password, read_password

FILE: Final = "key-password.toml"
LEVELS: Final = 3
"""The folder of a key and two above it are looked at."""
MAX_SIZE: Final = 16 * 1024
TERMINAL: Final = "terminal"
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
_NAMES: Final = frozenset({"password", "former"})
_OTHERS: Final = 0o007
_FIRST_DESCRIPTOR: Final = 3
_DIGITS: Final = 7

AskTerminal = Callable[[Path], bytes]


class KeyPasswordError(ConfigurationError):
    """A key-password.toml names no password that can be had."""

    reason = "KEY_PASSWORD"


class _Terminal:
    """How this program asks for a password, if it does."""

    ask: AskTerminal | None = None


held_descriptors: set[int] = set()
"""Descriptors that hold passwords, which this program's worker processes inherit."""


def ask_terminal_with(ask: AskTerminal) -> None:
    """Let this program ask a person where a folder says "terminal"; ``ask`` gets the key-password.toml."""
    _Terminal.ask = ask


@dataclass(frozen=True, kw_only=True)
class KeyPasswords:
    """What a key-password.toml says: the source of the password in force, and sources of former ones."""

    path: Path
    current: str | None
    former: tuple[str, ...] = ()

    def password(self) -> bytes | None:
        """Return the password under which keys are written; None where they are decrypted. Raises as ``all``."""
        return None if self.current is None else self._read(self.current)

    def all(self) -> Iterator[bytes]:
        """Yield the passwords that keys may be under, the one in force first.

        Raises KeyPasswordError, and what makes a password file unfit: PasswordFileError, LaxPermissionsError,
        ForeignOwnerError and UnreadableFileError.
        """
        for source in (self.current, *self.former):
            if source is not None:
                yield self._read(source)

    def _read(self, source: str) -> bytes:
        kind, _, name = source.partition(":")
        if kind == TERMINAL:
            return self._asked()
        if kind == "file":
            return read_password(Path(name))
        return _credential(name, self.path) if kind == "credential" else _described(int(name), self.path)

    def _asked(self) -> bytes:
        if _Terminal.ask is None:
            raise KeyPasswordError(
                f"The keys in {self.path.parent} need a password that a person types. Run a `keyark` command "
                "on a terminal, or name a file or credential with `keyark key-password set`."
            )
        return _Terminal.ask(self.path)


def key_passwords(key: Path) -> KeyPasswords | None:
    """Return what says where the password of a key file comes from, None where nothing does.

    Raises KeyPasswordError for a file that is not as it must be, ForeignOwnerError and LaxPermissionsError for one that
    others could have written.
    """
    folder = key.absolute().parent
    for place in [folder, *folder.parents][:LEVELS]:
        if is_there(place / FILE):
            return read_key_passwords(place / FILE)
    return None


def read_key_passwords(path: Path) -> KeyPasswords:
    """Read a key-password.toml; raises as ``key_passwords``."""
    check_trusted_file(path)
    try:
        values = tomllib.loads(read_file(path, max_size=MAX_SIZE).decode())
    except ValueError:
        raise _unfit(path) from None
    current, former = values.get("password"), values.get("former", [])
    if not _NAMES.issuperset(values) or not isinstance(former, list) or (current is None and not former):
        raise _unfit(path)
    for source in [*former, *([] if current is None else [current])]:
        check_source(source, path)
    return KeyPasswords(path=path, current=current, former=tuple(former))


def check_source(source: object, path: Path) -> None:
    """Raise KeyPasswordError unless this says where a password comes from."""
    kind, colon, name = source.partition(":") if isinstance(source, str) else ("", "", "")
    fits = {
        "file": name.startswith("/") and name.isprintable(),
        "credential": name.isprintable() and name not in ("", ".", "..") and "/" not in name,
        "descriptor": name.isascii()
        and name.isdigit()
        and len(name) < _DIGITS
        and int(name) >= _FIRST_DESCRIPTOR,
        TERMINAL: not colon,
    }
    if not fits.get(kind, False):
        raise _unfit(path)


def _unfit(path: Path) -> KeyPasswordError:
    return KeyPasswordError(
        f'{path} must say where the password is: password = "file:/PATH", "credential:NAME" of '
        'systemd, "descriptor:N" or "terminal". Besides, it may only have former = [...] of the '
        "same kind."
    )


def _credential(name: str, path: Path) -> bytes:
    """Read a credential of systemd.exec(5); access lists let its service read it, which show as the group's mode."""
    folder = os.environ.get(_CREDENTIALS)
    if not folder:
        raise KeyPasswordError(
            f"{path} names the credential {name!r}, which systemd did not give to this process. Write "
            f"LoadCredential={name}:… or LoadCredentialEncrypted= in its unit."
        )
    file = Path(folder, name)
    data = read_file(file, max_size=MAX_PASSWORD_FILE)
    if file.stat().st_mode & _OTHERS:
        raise PasswordFileError(
            f"{file} can be read by everybody; a credential of systemd cannot. Check where it comes from."
        )
    return parse_password(data, file)


def _described(descriptor: int, path: Path) -> bytes:
    """Read a descriptor that this program was started with; what is in a pipe is kept, in memory, for the next time."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            _keep(descriptor)
        held_descriptors.add(descriptor)
        data = os.pread(descriptor, MAX_PASSWORD_FILE + 1, 0)
    except OSError as error:
        raise KeyPasswordError(
            f"{path} names descriptor {descriptor}, which cannot be read ({error.strerror}); start the program with "
            f"{descriptor}< and the file."
        ) from None
    if len(data) > MAX_PASSWORD_FILE:
        raise PasswordFileError(f"Descriptor {descriptor} holds more than a password.")
    return parse_password(data, Path(f"descriptor {descriptor}"))


def _keep(descriptor: int) -> None:
    data = bytearray()
    while len(data) <= MAX_PASSWORD_FILE and (part := os.read(descriptor, MAX_PASSWORD_FILE)):
        data += part
    kept = os.memfd_create("key-password")
    try:
        os.write(kept, data)
        os.dup2(kept, descriptor)
    finally:
        os.close(kept)
