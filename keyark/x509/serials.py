"""Serial numbers of certificates: 159 random bits, big-endian without leading zeros (RFC 5280 §4.1.2.2)."""

from __future__ import annotations

import secrets
from typing import Final

from keyark.errors import InvalidInputError

SERIAL_BITS: Final = 159  # the most that a positive INTEGER of 20 bytes holds
MAX_SERIAL_SIZE: Final = 20


def new_serial() -> bytes:
    """Draw a serial number: 159 random bits, never 0; at most 20 bytes."""
    return encode_serial(1 + secrets.randbelow((1 << SERIAL_BITS) - 1))


def encode_serial(serial: int) -> bytes:
    """Return a positive serial number big-endian without leading zeros; raises InvalidInputError."""
    if not 0 < serial < 1 << SERIAL_BITS:
        raise InvalidInputError("A serial number is positive and has at most 159 bits.", field="serial")
    return serial.to_bytes((serial.bit_length() + 7) // 8, "big")


def decode_serial(serial: bytes) -> int:
    """Return the number of an encoded serial number; raises InvalidInputError where it is not canonical."""
    check_serial(serial)
    return int.from_bytes(serial, "big")


def serial_text(serial: int) -> str:
    """Return a serial number as people and files see it everywhere: hexadecimal, two digits for each byte."""
    return encode_serial(serial).hex()


def check_serial(serial: bytes, *, field: str = "serial") -> None:
    """Raise InvalidInputError unless this is a positive number of at most 159 bits without leading zeros."""
    if (
        not 1 <= len(serial) <= MAX_SERIAL_SIZE
        or serial[0] == 0
        or (len(serial) == MAX_SERIAL_SIZE and serial[0] > 0x7F)
    ):
        raise InvalidInputError(
            "The serial number is malformed; give 1 to 20 bytes, big-endian, without leading zeros.",
            field=field,
        )
