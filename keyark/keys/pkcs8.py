"""The structure around a private key, PKCS#8 (RFC 5958 §2), read strictly as DER (X.690 §10).

    OneAsymmetricKey ::= SEQUENCE { version INTEGER, AlgorithmIdentifier, OCTET STRING,
                                    attributes [0] OPTIONAL, publicKey [1] BIT STRING OPTIONAL }

What an archive keeps for years must not carry anything along. So just two forms are taken: version 0 without
a public key, and version 1 with one. Attributes, trailing bytes, and lengths or integers that are not in
their shortest form are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from keyark.errors import KeyarkError, Kind

MAX_PRIVATE_KEY_SIZE: Final = 16 * 1024

INTEGER: Final = 0x02
OCTET_STRING: Final = 0x04
SEQUENCE: Final = 0x30

_ATTRIBUTES: Final = 0xA0
_PUBLIC_KEY: Final = 0x81
_LONG_FORMS: Final = {
    0x81: (1, 0x80),
    0x82: (2, 0x100),
}  # length octets, and the least length that needs them
_VERSIONS: Final = {b"\x00": 3, b"\x01": 4}  # how many elements each version has


class InvalidPrivateKeyError(KeyarkError):
    """The private key is malformed or contradicts itself; the message names no value of it."""

    reason = "INVALID_PRIVATE_KEY"
    kind = Kind.INVALID
    is_final = True


class Element(NamedTuple):
    """One DER element: its tag, its content, and both with the length as they were encoded."""

    tag: int
    content: bytes
    encoding: bytes

    def __repr__(self) -> str:  # the content may be secret
        return f"Element(tag={self.tag:#04x})"


@dataclass(frozen=True)
class PrivateKeyInfo:
    """A PKCS#8 private key taken apart: all parts are DER, none is checked yet."""

    algorithm: Element
    """The AlgorithmIdentifier."""
    private_key: bytes = field(repr=False)
    """Content of the OCTET STRING; what it holds depends on the algorithm."""
    public_key: bytes | None
    """Content of the BIT STRING that came along, if one did."""


def parse_private_key_info(der: bytes) -> PrivateKeyInfo:
    """Take a PKCS#8 private key of at most 16 KiB apart.

    Raises InvalidPrivateKeyError for all but the two forms above.
    """
    if len(der) > MAX_PRIVATE_KEY_SIZE:
        raise InvalidPrivateKeyError(
            f"The private key has more than {MAX_PRIVATE_KEY_SIZE} bytes; send one key and nothing else."
        )
    elements = read_elements(read_one(der, SEQUENCE).content)
    if any(element.tag == _ATTRIBUTES for element in elements):
        raise InvalidPrivateKeyError("The private key carries attributes; encode it without them.")
    tags = [element.tag for element in elements]
    if tags[:3] != [INTEGER, SEQUENCE, OCTET_STRING] or tags[3:] not in ([], [_PUBLIC_KEY]):
        raise _malformed()
    if _VERSIONS.get(elements[0].content) != len(elements):
        raise InvalidPrivateKeyError(
            "The private key's version is neither 0 nor 1 with a public key (RFC 5958); encode it again."
        )
    public_key = elements[3].content if tags[3:] else None
    return PrivateKeyInfo(elements[1], elements[2].content, public_key)


def read_one(der: bytes, tag: int) -> Element:
    """Return the one element with this tag that ``der`` consists of; raises InvalidPrivateKeyError."""
    elements = read_elements(der)
    if len(elements) != 1:
        raise InvalidPrivateKeyError(
            "The private key is not one DER element; leave out the bytes after it, or encode it as PKCS#8 DER."
        )
    if elements[0].tag != tag:
        raise _malformed()
    return elements[0]


def read_elements(der: bytes) -> list[Element]:
    """Split a sequence of DER elements of less than 64 KiB each; raises InvalidPrivateKeyError."""
    elements, offset = [], 0
    while offset < len(der):
        start, offset = offset, offset + 2
        length = der[start + 1] if start + 1 < len(der) else len(der)
        if length >= 0x80:
            octets, least = _LONG_FORMS.get(length, (0, 0))
            length = int.from_bytes(der[offset : offset + octets], "big")
            offset += octets
            if length < least or not octets:
                raise _malformed()
        content, offset = der[offset : offset + length], offset + length
        if offset > len(der):
            raise _malformed()
        elements.append(Element(der[start], content, der[start:offset]))
    return elements


def read_unsigned(element: Element) -> int:
    """Return a non-negative INTEGER in its shortest form (X.690 §8.3.2); raises InvalidPrivateKeyError."""
    content = element.content
    if element.tag != INTEGER or not content:
        raise _malformed()
    if content[0] >= 0x80:
        raise InvalidPrivateKeyError("The private key contains a negative number; encode it again.")
    if len(content) > 1 and content[0] == 0 and content[1] < 0x80:
        raise InvalidPrivateKeyError("The private key contains a padded number; encode it again in DER.")
    return int.from_bytes(content, "big")


def _malformed() -> InvalidPrivateKeyError:
    return InvalidPrivateKeyError("The private key is not an unencrypted PKCS#8 key in DER; encode it again.")
