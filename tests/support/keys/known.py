"""Lists of known keys in the format of badkeys' blocklist, written by what the library says of a key."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import load_der_public_key


def known_list(spkis: Sequence[bytes]) -> bytes:
    """The blocklist with these public keys."""
    hashes = sorted(sha256(_hashed(load_der_public_key(spki))).digest()[:15] for spki in spkis)
    return b"".join(digest + b"\x01" for digest in hashes)


def _hashed(key: Any) -> bytes:
    if isinstance(key, rsa.RSAPublicKey):
        return _number(key.public_numbers().n)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _number(key.public_numbers().x)
    if isinstance(key, ed25519.Ed25519PublicKey | x25519.X25519PublicKey):
        return _number(int.from_bytes(key.public_bytes_raw(), "big"))
    return key.public_bytes_raw()


def _number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")
