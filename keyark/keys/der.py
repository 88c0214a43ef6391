"""Writes DER (X.690 §10): just the types that certificates need, so that constant parts are encoded once."""

from __future__ import annotations

import time
from typing import Final

TRUE: Final = b"\x01\x01\xff"
NULL: Final = b"\x05\x00"

_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_FIRST_GENERALIZED: Final = 2_524_608_000  # 2050-01-01T00:00:00Z, RFC 5280 §4.1.2.5


def tlv(tag: int, content: bytes) -> bytes:
    """Return one element: tag byte, shortest definite length, content."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def sequence(*parts: bytes) -> bytes:
    """Return a SEQUENCE of encoded elements."""
    return tlv(_SEQUENCE, b"".join(parts))


def set_of(*parts: bytes) -> bytes:
    """Return a SET OF encoded elements, sorted (X.690 §11.6)."""
    return tlv(_SET, b"".join(sorted(parts)))


def unsigned_integer(magnitude: bytes) -> bytes:
    """Return the INTEGER whose big-endian magnitude has no leading zero byte."""
    return tlv(0x02, magnitude if magnitude[0] < 0x80 else b"\x00" + magnitude)


def small_integer(value: int) -> bytes:
    """Return the INTEGER of a number that is not negative."""
    return unsigned_integer(value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def bit_string(content: bytes) -> bytes:
    """Return a BIT STRING of whole bytes."""
    return tlv(0x03, b"\x00" + content)


def octet_string(content: bytes) -> bytes:
    """Return an OCTET STRING."""
    return tlv(0x04, content)


def utf8_string(text: str) -> bytes:
    """Return a UTF8String."""
    return tlv(0x0C, text.encode())


def explicit(number: int, content: bytes) -> bytes:
    """Return encoded content under the explicit context tag ``number``."""
    return tlv(0xA0 | number, content)


def implicit(number: int, content: bytes) -> bytes:
    """Return primitive content under the implicit context tag ``number``."""
    return tlv(0x80 | number, content)


def object_identifier(dotted: str) -> bytes:
    """Return an OBJECT IDENTIFIER given as dotted numbers."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    return tlv(0x06, b"".join(_base128(arc) for arc in (40 * first + second, *rest)))


def _base128(arc: int) -> bytes:
    septets = [arc & 0x7F]
    while arc := arc >> 7:
        septets.append(0x80 | (arc & 0x7F))
    return bytes(reversed(septets))


def enumerated(number: int) -> bytes:
    """Return the ENUMERATED of a number below 128."""
    return tlv(0x0A, bytes((number,)))


def generalized_time(seconds: int) -> bytes:
    """Return a GeneralizedTime in whole seconds, whatever the year; seconds UTC."""
    return tlv(0x18, time.strftime("%Y%m%d%H%M%SZ", time.gmtime(seconds)).encode())


def encode_time(seconds: int) -> bytes:
    """Return a Time: UTCTime through 2049, GeneralizedTime from 2050 on (RFC 5280 §4.1.2.5); seconds UTC."""
    if seconds < _FIRST_GENERALIZED:
        return tlv(0x17, time.strftime("%y%m%d%H%M%SZ", time.gmtime(seconds)).encode())
    return generalized_time(seconds)
