"""Files with a password in their first line, as people and other programs write them."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Final

from keyark.errors import ConfigurationError
from keyark.files import read_secret_file

MAX_PASSWORD: Final = 1_023
"""Bytes in UTF-8; OpenSSL and others read no more."""
MAX_PASSWORD_FILE: Final = 4096
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class PasswordFileError(ConfigurationError):
    """A password file holds no password that can be typed elsewhere."""

    reason = "PASSWORD_FILE"


def read_password(path: Path) -> bytes:
    """Return the first line of a password file that only its owner may open, in UTF-8.

    A byte-order mark and the end of the line do not count; UTF-16 is read if it has its mark. Raises
    PasswordFileError if the file is not such a text, LaxPermissionsError and UnreadableFileError.
    """
    return parse_password(read_secret_file(path, max_size=MAX_PASSWORD_FILE), path)


def parse_password(data: bytes, path: Path) -> bytes:
    """Return the password in what was read from a file; raises PasswordFileError, which names it."""
    try:
        text = data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError:
        raise PasswordFileError(f"{path} is not text in UTF-8; save the password as UTF-8.") from None
    line = text.split("\n", 1)[0].removesuffix("\r")
    if not line:
        raise PasswordFileError(f"{path} has no password in its first line; write one there.")
    if not line.isprintable():
        raise PasswordFileError(
            f"The first line of {path} has characters that are invisible or cannot be typed; write the "
            "password as plain text."
        )
    password = line.encode()
    if len(password) > MAX_PASSWORD:
        raise PasswordFileError(
            f"The password in {path} has {len(password)} bytes; most programs read at most {MAX_PASSWORD}."
        )
    return password
