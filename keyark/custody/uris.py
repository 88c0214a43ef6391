"""Private keys by URI: the scheme says what holds the key, so that other tokens can stand in for files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from keyark.errors import ConfigurationError
from keyark.keys.key_types import PrivateKey
from keyark.keys.private_keys import AskPassword, load_private_key

_FILE: Final = "file"


class KeyUriError(ConfigurationError):
    """The URI names no private key that this release can load."""

    reason = "KEY_URI"


def load_private_key_by_uri(uri: str, base: Path, *, ask_password: AskPassword | None = None) -> PrivateKey:
    """Load the private key that ``file:PATH`` names; a relative path is taken from ``base``.

    Raises KeyUriError for other schemes and for paths on other hosts, and the errors of
    ``keyark.keys.private_keys.load_private_key``. Nothing of the URI but its scheme gets into a message, for a URI of
    another scheme may hold a PIN (RFC 7512 §2.4).
    """
    scheme, colon, path = uri.partition(":")
    if not colon:
        raise KeyUriError("A key is named by a URI; write file:PATH.")
    if scheme != _FILE:
        raise KeyUriError(f"This release cannot use keys from {scheme!r}; use file:PATH.")
    if path.startswith("//"):
        if not path.startswith("///"):  # RFC 8089 §2: what follows two slashes is a host
            raise KeyUriError("Keys cannot be read from other hosts; use file:PATH.")
        path = path.removeprefix("//")
    if not path or "\0" in path:
        raise KeyUriError("The URI names no file; write file:PATH.")
    return load_private_key(base / path, ask_password=ask_password)
