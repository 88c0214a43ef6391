"""Private keys that reveal one another, as an owner could make them."""

from __future__ import annotations

from hashlib import sha512
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, x25519

ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": int(
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16
    ),
    "secp521r1": int(
        "1" + 65 * "F" + "A51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409", 16
    ),
}


def negated_ec(key: Any) -> ec.EllipticCurvePrivateKey:
    """The key of n − d."""
    return ec.derive_private_key(ORDERS[key.curve.name] - key.private_numbers().private_value, key.curve)


def x25519_twin(key: Any) -> x25519.X25519PrivateKey:
    """The X25519 key of an Ed25519 key's scalar (RFC 8032 §5.1.5)."""
    return x25519.X25519PrivateKey.from_private_bytes(sha512(key.private_bytes_raw()).digest()[:32])
