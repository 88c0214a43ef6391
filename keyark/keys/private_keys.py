"""Private keys in files: PKCS#8 PEM (RFC 5958), 0600 in folders of 0700, with a password or without."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from keyark.errors import ConfigurationError
from keyark.files import make_private_folder, read_secret_file, write_new_file
from keyark.keys.at_rest import KeyPasswords, key_passwords
from keyark.keys.key_types import PrivateKey, UnsupportedKeyError, key_type_of
from keyark.keys.library import PARSING_ERRORS
from keyark.keys.pbes import encrypt_private_key_info

MAX_KEY_FILE_SIZE: Final = 64 * 1024

AskPassword = Callable[[], bytes]


class KeyFileError(ConfigurationError):
    """A key file holds no private key that keyark can use."""

    reason = "KEY_FILE"


class PasswordRequiredError(ConfigurationError):
    """A key file is encrypted and nobody gave its password."""

    reason = "PASSWORD_REQUIRED"


class WrongPasswordError(ConfigurationError):
    """The password does not decrypt the key file."""

    reason = "WRONG_PASSWORD"


def save_private_key(path: Path, private_key: PrivateKey, *, password: bytes | None = None) -> None:
    """Write a private key to a new file (0600), whose folder is made (0700) if need be.

    Raises FileExistsAlreadyError rather than overwrite a key, LaxPermissionsError where the folder is open to
    others, and UnwritableFileError.
    """
    make_private_folder(path.parent)
    write_new_file(path, encode_key_file(path, private_key, password=password), mode=0o600)


def encode_key_file(path: Path, private_key: PrivateKey, *, password: bytes | None = None) -> bytes:
    """Return what a key file holds: encrypted under the password that is given, or else the folder's, if it has one.

    Raises the errors of ``keyark.keys.at_rest``.
    """
    if password is None and (kept := key_passwords(path)) is not None:
        password = kept.password()
    return encode_private_key(private_key, password=password)


def encode_private_key(private_key: PrivateKey, *, password: bytes | None = None) -> bytes:
    """Return a private key as PKCS#8 PEM, encrypted if a password is given; an empty one is refused."""
    if password is None:
        return private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if not password:
        raise PasswordRequiredError(
            "The password is empty; give one, or leave the option out for an unencrypted key."
        )
    info = private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    text = base64.b64encode(encrypt_private_key_info(info, password))
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return b"\n".join(
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", *lines, b"-----END ENCRYPTED PRIVATE KEY-----", b"")
    )


def is_encrypted(data: bytes) -> bool:
    """Whether a private key in PEM is encrypted."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in data


def load_private_key(path: Path, *, ask_password: AskPassword | None = None) -> PrivateKey:
    """Load a private key from a file; ``ask_password`` is called only if the key is encrypted.

    Where a key-password.toml says where the passwords of a folder are, they are tried, and nobody is asked. Raises
    LaxPermissionsError where file or folder are open to others, PasswordRequiredError, WrongPasswordError,
    KeyFileError, UnsupportedKeyError, UnreadableFileError, and the errors of ``keyark.keys.at_rest``.
    """
    data = read_secret_file(path, max_size=MAX_KEY_FILE_SIZE)
    try:
        return _load(path, data, None)
    except PasswordRequiredError:
        if (kept := key_passwords(path)) is not None:
            return _load_with(path, data, kept)
        if ask_password is None:
            raise
        return _load(path, data, ask_password())


def _load_with(path: Path, data: bytes, kept: KeyPasswords) -> PrivateKey:
    for password in kept.all():
        with contextlib.suppress(WrongPasswordError):
            return _load(path, data, password)
    raise WrongPasswordError(f"None of the passwords from {kept.path} opens {path}, or the file is damaged.")


def _load(path: Path, data: bytes, password: bytes | None) -> PrivateKey:
    try:
        return narrow_private_key(load_pem_private_key(data, password))
    except UnsupportedKeyError as error:
        raise UnsupportedKeyError(f"{path}: {error.message}") from None
    except TypeError:
        raise PasswordRequiredError(f"{path} is encrypted; give its password.") from None
    except UnsupportedAlgorithm:
        raise UnsupportedKeyError(f"{path} holds a key of an algorithm that is not supported.") from None
    except PARSING_ERRORS:
        if password is not None:
            raise WrongPasswordError(f"The password does not open {path}, or the file is damaged.") from None
        raise KeyFileError(f"{path} has no private key in PEM (PKCS#8).") from None


def narrow_private_key(private_key: PrivateKeyTypes) -> PrivateKey:
    """Return a private key of a supported type; raises UnsupportedKeyError for any other."""
    key_type_of(private_key.public_key())
    return cast("PrivateKey", private_key)
