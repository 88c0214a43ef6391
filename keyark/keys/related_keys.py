"""Public keys that are one key for promise P8: negatives and twins, whose private halves reveal one another.

Other relations, such as d + 1 or 2·d, are their owner's choice and without end; nobody can look them all up.

A curve's points (x, y) and (x, −y) belong to the scalars d and n − d. An Ed25519 key has a twin for X25519 with the
same scalar (RFC 7748 §4.1): the u-coordinate of both (x, y) and (−x, y). Points outside the group of prime order would
have more relatives; ``keyark.keys.weak_keys`` refuses them. RSA keys with one modulus differ in their exponent only,
and keyark takes one exponent. ML-KEM and ML-DSA keys have no relatives that their public halves show.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, assert_never

from keyark.keys.key_facts import Algorithm
from keyark.keys.key_types import KeyType
from keyark.keys.spki import FIELD_25519, encode_key_bytes, key_bytes, key_id, spki_key_type

_SIGN_BIT: Final = 1 << 255


def related_key_ids(spki: bytes) -> tuple[bytes, ...]:
    """Return the key ids (SHA-256 of the SPKI, 32 bytes) of a canonical SPKI (DER), first, and of its relatives.

    Raises as ``spki_key_type`` does.
    """
    return (key_id(spki), *map(key_id, _relatives(spki)))


def ed25519_to_x25519(point: bytes) -> bytes:
    """Return the u-coordinate of an Ed25519 public key, both 32 bytes; 0, of low order, for the neutral element."""
    y = int.from_bytes(point, "little") % _SIGN_BIT
    return _to_bytes((1 + y) * _inverse(1 - y))


def _relatives(spki: bytes) -> Iterator[bytes]:
    key_type = spki_key_type(spki)
    match key_type.algorithm:
        case Algorithm.EC:
            yield _negated(spki, key_type.facts.field)
        case Algorithm.ED25519:
            point = key_bytes(spki)
            yield encode_key_bytes(KeyType.ED25519, _flip_sign(point))
            yield encode_key_bytes(KeyType.X25519, ed25519_to_x25519(point))
        case Algorithm.X25519:
            u = int.from_bytes(key_bytes(spki), "little")
            point = _to_bytes((u - 1) * _inverse(u + 1))
            yield encode_key_bytes(KeyType.ED25519, point)
            yield encode_key_bytes(KeyType.ED25519, _flip_sign(point))
        case Algorithm.RSA | Algorithm.ML_DSA | Algorithm.ML_KEM:
            return
        case _:
            assert_never(key_type.algorithm)


def _negated(spki: bytes, field: int) -> bytes:
    size = (field.bit_length() + 7) // 8
    y = int.from_bytes(spki[-size:], "big")
    return spki[:-size] + (-y % field).to_bytes(size, "big")


def _flip_sign(point: bytes) -> bytes:
    return (int.from_bytes(point, "little") ^ _SIGN_BIT).to_bytes(32, "little")


def _inverse(value: int) -> int:
    """The inverse in the field, and 0 of 0."""
    return pow(value, -1, FIELD_25519) if value % FIELD_25519 else 0


def _to_bytes(value: int) -> bytes:
    return (value % FIELD_25519).to_bytes(32, "little")
