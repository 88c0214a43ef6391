"""Passwords of people: where they come from, lists of them, and how good one is that leaves the machine.

They come from callbacks and files, never from arguments, which land in a process list.
"""

from __future__ import annotations

import csv
import io
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from keyark.errors import InvalidInputError
from keyark.files import is_there, read_secret_file, write_file
from keyark.keys.password_files import PasswordFileError, read_password

PasswordSource = Callable[[Path], bytes | None]
"""Given the file that is encrypted, returns its password, or None where there is none to give."""

GENERATED_BYTES: Final = 16
LEAST_CHARACTERS: Final = 10
LEAST_GUESSES_LOG10: Final = 10
"""Ten thousand million guesses, each of 600,000 rounds of PBKDF2."""

_MADE_LENGTH: Final = 22
_MADE_CHARACTERS: Final = frozenset(string.ascii_letters.encode() + string.digits.encode() + b"-_")
_MAX_LIST: Final = 64 << 20
_LIST_HEADER: Final = ["email", "password"]
_FORMULA: Final = tuple("=+-@")
_ESTIMATED: Final = 72
"""Characters that the estimate looks at; it takes no more."""


class WeakPasswordError(InvalidInputError):
    """A password is too easy to guess for a key that leaves the machine."""

    reason = "WEAK_PASSWORD"


def no_password(_: Path) -> bytes | None:
    """The password source for files that are not encrypted."""
    return None


def new_password() -> bytes:
    """Make a password of 128 random bits, 22 characters; the first one cannot make it an option or a formula."""
    while not (password := secrets.token_urlsafe(GENERATED_BYTES))[0].isalnum():
        pass
    return password.encode()


def read_made_password(path: Path) -> bytes:
    """As ``read_password``, for one that ``new_password`` made; raises PasswordFileError for any other."""
    password = read_password(path)
    if len(password) != _MADE_LENGTH or not _MADE_CHARACTERS.issuperset(password):
        raise PasswordFileError(
            f"{path} does not contain the password that keyark generated; choose a new folder."
        )
    return password


class PasswordList:
    """A CSV file (0600) with a password for each person, for the operator to hand out: email,password.

    An address that a spreadsheet would take for a formula has an apostrophe before it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def of(self, emails: Sequence[str]) -> dict[str, bytes]:
        """Return a password for each address; those that are made are durable in the file before they are returned.

        Raises PasswordFileError for a file that is no such list, and the errors of ``read_secret_file``.
        """
        known = self._read() if is_there(self._path) else {}
        made = {email: new_password() for email in emails if email not in known}
        if made:
            self._write(known | made)
        return {email: (known | made)[email] for email in emails}

    def _read(self) -> dict[str, bytes]:
        text = read_secret_file(self._path, max_size=_MAX_LIST).decode(errors="replace")
        try:
            rows = list(csv.reader(io.StringIO(text)))
        except csv.Error:
            rows = []
        if rows[:1] != [_LIST_HEADER] or any(len(row) != len(_LIST_HEADER) for row in rows):
            raise PasswordFileError(
                f"{self._path} is not the list of passwords that keyark wrote; restore that list."
            )
        return {_address(cell): password.encode() for cell, password in rows[1:]}

    def _write(self, passwords: Mapping[str, bytes]) -> None:
        text = io.StringIO()
        rows = [(_cell(email), password.decode()) for email, password in passwords.items()]
        csv.writer(text).writerows([_LIST_HEADER, *rows])
        write_file(self._path, text.getvalue().encode(), mode=0o600)


def _cell(email: str) -> str:
    return f"'{email}" if _is_like_a_formula(email) else email


def _address(cell: str) -> str:
    """Return the address of a cell; earlier versions of keyark wrote none with an apostrophe before it."""
    return cell[1:] if cell.startswith("'") and _is_like_a_formula(cell) else cell


def _is_like_a_formula(text: str) -> bool:
    """Whether a text begins as a formula does, after apostrophes, which are doubled so that both are told apart."""
    return text.lstrip("'").startswith(_FORMULA)


def check_strength(password: bytes, *, about: Sequence[str] = ()) -> None:
    """Raise WeakPasswordError where a password has under 10 characters or can be guessed in fewer than 10^10 tries.

    ``about`` are words that somebody who knows the person tries first: name and e-mail address.
    """
    from zxcvbn import zxcvbn  # noqa: PLC0415 — its dictionaries take a tenth of a second to load

    text = password.decode(errors="replace")
    if len(text) < LEAST_CHARACTERS:
        raise WeakPasswordError(
            f"The password has {len(text)} characters, which is too few for a key that leaves this "
            f"machine. Give at least {LEAST_CHARACTERS}, or none to have one generated.",
            field="password",
        )
    if zxcvbn(text[:_ESTIMATED], user_inputs=list(about))["guesses_log10"] < LEAST_GUESSES_LOG10:
        raise WeakPasswordError(
            "The password is easy to guess, which is too weak for a key that leaves this machine. Give "
            "several unrelated words, or none to have one generated.",
            field="password",
        )
