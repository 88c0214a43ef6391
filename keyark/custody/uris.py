"""Private keys by URI: the scheme says what holds the key, so that other tokens can stand in for files."""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from keyark.errors import ConfigurationError
from keyark.keys.key_types import PrivateKey
from keyark.keys.private_keys import AskPassword, load_private_key

_FILE: Final = "file"
_PKCS11: Final = "pkcs11"
# RFC 7512 §2.3: the unreserved characters, and the reserved ones that values of both parts may hold as they are.
_VALUE: Final = frozenset(string.ascii_letters + string.digits + "-._~:[]@!$'()*+,=")
_PATH_VALUE: Final = _VALUE | {"&"}
_QUERY_VALUE: Final = _VALUE | {"/", "?", "|"}
# The longest values in bytes: those of the token are fields of CK_TOKEN_INFO, the others are keyark's own limits.
_PATH_LIMITS: Final = {
    "token": 32, "manufacturer": 32, "model": 16, "serial": 16, "object": 255, "id": 255, "type": 7,
}  # fmt: skip
_QUERY_LIMITS: Final = {"module-path": 4095, "pin-source": 4095}
_PIN: Final = "pin-value"


class KeyUriError(ConfigurationError):
    """The URI names no private key that this release can load."""

    reason = "KEY_URI"


@dataclass(frozen=True, kw_only=True)
class Pkcs11Uri:
    """What a ``pkcs11:`` URI says of one private key (RFC 7512); what it leaves out is None and matches anything.

    ``token``, ``manufacturer``, ``model`` and ``serial`` describe the token, ``label`` (``object`` in the URI) and
    ``id`` the key. ``module_path`` is the absolute path of the PKCS#11 library, ``pin_source`` says where the PIN is.
    """

    token: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    serial: str | None = None
    label: str | None = None
    id: bytes | None = None
    module_path: Path | None = None
    pin_source: str | None = None


def parse_pkcs11_uri(uri: str) -> Pkcs11Uri:
    """Parse a URI that names one private key in a token by the token's label or serial and the key's label or id.

    Raises KeyUriError for a PIN in the URI's text, for an attribute that keyark does not compare (RFC 7512 §2.3 lets
    such a URI match nothing), for one given twice or empty, and for a URI that does not name token and key. No value of
    the URI gets into a message.
    """
    scheme, _, rest = uri.partition(":")
    if scheme != _PKCS11:
        raise KeyUriError("This is no pkcs11: URI; write pkcs11:token=LABEL;object=LABEL.")
    path, question, query = rest.partition("?")
    if any(part.partition("=")[0] == _PIN for part in rest.replace("?", ";").replace("&", ";").split(";")):
        raise KeyUriError(
            "The pkcs11: URI holds a PIN; take pin-value out, change the PIN, and name a pin-source."
        )
    values = _attributes(path.split(";"), _PATH_VALUE, _PATH_LIMITS)
    sources = _attributes(query.split("&"), _QUERY_VALUE, _QUERY_LIMITS) if question else {}
    if values.pop("type", b"private") != b"private":
        raise KeyUriError("The pkcs11: URI names no private key; write type=private, or leave type out.")
    key_id = values.pop("id", None)
    words = {name: _text(name, value) for name, value in (values | sources).items()}
    if not words.keys() & {"token", "serial"}:
        raise KeyUriError("The pkcs11: URI names no token; add token=LABEL or serial=NUMBER.")
    if "object" not in words and key_id is None:
        raise KeyUriError("The pkcs11: URI names no key in the token; add object=LABEL or id=%01.")
    return Pkcs11Uri(
        token=words.get("token"),
        manufacturer=words.get("manufacturer"),
        model=words.get("model"),
        serial=words.get("serial"),
        label=words.get("object"),
        id=key_id,
        module_path=_module_path(words.get("module-path")),
        pin_source=_pin_source(words.get("pin-source")),
    )


def _attributes(parts: list[str], plain: frozenset[str], limits: dict[str, int]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in parts:
        name, _, value = part.partition("=")
        if name not in limits:
            known = ", ".join(limits)
            raise KeyUriError(
                f"The pkcs11: URI has an attribute that keyark does not use; in this part it uses {known}."
            )
        if name in found:
            raise KeyUriError(f"The pkcs11: URI gives {name} twice; give it once.")
        if not value or not _is_encoded(value, plain):
            raise KeyUriError(
                f"The value of {name} is empty or not encoded; write other characters as %20 (RFC 7512)."
            )
        found[name] = unquote_to_bytes(value)
        if len(found[name]) > limits[name]:
            raise KeyUriError(
                f"The value of {name} is longer than the {limits[name]} bytes that it may have."
            )
    return found


def _is_encoded(value: str, plain: frozenset[str]) -> bool:
    first, *escaped = value.split("%")
    hexadecimal = all(len(part) >= 2 and set(part[:2]) <= set(string.hexdigits) for part in escaped)
    return hexadecimal and set(first + "".join(escaped)) <= plain


def _text(name: str, value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise KeyUriError(f"The value of {name} is not UTF-8; encode it as UTF-8, then as %20.") from None
    if "\0" in text:
        raise KeyUriError(f"The value of {name} holds a NUL character; take it out.")
    return text


def _module_path(value: str | None) -> Path | None:
    if value is not None and not value.startswith("/"):
        raise KeyUriError(
            "The module-path of the pkcs11: URI is relative; write the absolute path of the library."
        )
    return None if value is None else Path(value)


def _pin_source(value: str | None) -> str | None:
    if value is not None and value.startswith("|"):  # RFC 7512 §2.4 lets it name a command
        raise KeyUriError(
            "The pin-source of the pkcs11: URI is a command, which keyark does not run; name a file."
        )
    return value


def load_private_key_by_uri(uri: str, base: Path, *, ask_password: AskPassword | None = None) -> PrivateKey:
    """Load the private key that ``file:PATH`` names; a relative path is taken from ``base``.

    Raises KeyUriError for other schemes and for paths on other hosts, and the errors of
    ``keyark.keys.private_keys.load_private_key``. Nothing of the URI but its scheme gets into a message, for a URI of
    another scheme may hold a PIN (RFC 7512 §2.4).
    """
    scheme, colon, path = uri.partition(":")
    if not colon:
        raise KeyUriError("A key is named by a URI; write file:PATH.")
    if scheme == _PKCS11:
        parse_pkcs11_uri(uri)
        raise KeyUriError("This release cannot use keys in pkcs11 tokens; use file:PATH.")
    if scheme != _FILE:
        raise KeyUriError(f"This release cannot use keys from {scheme!r}; use file:PATH.")
    if path.startswith("//"):
        if not path.startswith("///"):  # RFC 8089 §2: what follows two slashes is a host
            raise KeyUriError("Keys cannot be read from other hosts; use file:PATH.")
        path = path.removeprefix("//")
    if not path or "\0" in path:
        raise KeyUriError("The URI names no file; write file:PATH.")
    return load_private_key(base / path, ask_password=ask_password)
