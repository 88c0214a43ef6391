"""The two encodings of the C2SP text formats, read strictly: what is read encodes to the same text again."""

from __future__ import annotations

import binascii
from typing import Final

MAX_DIGITS: Final = 19
MAX_COUNT: Final = 2**63 - 1


def encode_base64(value: bytes) -> bytes:
    """Return standard base64 with padding, without a newline (RFC 4648 section 4)."""
    return binascii.b2a_base64(value, newline=False)


def decode_base64(text: bytes) -> bytes:
    """Return the bytes of base64; raises ValueError where they do not encode to ``text`` again."""
    value = binascii.a2b_base64(text)
    if encode_base64(value) != text:
        raise ValueError("base64 is not canonical")
    return value


def parse_decimal(text: bytes) -> int:
    """Return a number from 0 to 2**63 - 1; raises ValueError for signs, spaces or leading zeros."""
    if not text.isdigit() or len(text) > MAX_DIGITS or (text[0] == ord("0") and len(text) > 1):
        raise ValueError("a number is not in canonical decimal")
    value = int(text)
    if value > MAX_COUNT:
        raise ValueError("a number is too large")
    return value
