"""SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), DER, in the one canonical encoding that keyark takes.

The same key loads from several encodings: compressed points, other algorithm identifiers, odd parameters.
Uniqueness and key roles compare bytes, so all but one encoding are refused. For every supported type that
encoding has a fixed size and fixed bytes around the key, which makes the check a comparison of prefixes.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final, assert_never, cast

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from keyark.errors import InvalidInputError
from keyark.keys import der as _der
from keyark.keys.key_facts import RSA_PUBLIC_EXPONENT, Algorithm
from keyark.keys.key_types import KeyType, PublicKey, UnsupportedKeyError, key_type_of
from keyark.keys.library import PARSING_ERRORS

KEY_IDENTIFIER_SIZE: Final = 20
FIELD_25519: Final = 2**255 - 19
"""The field of X25519 and Ed25519 (RFC 7748 §4.1)."""


class SpkiNotCanonicalError(InvalidInputError):
    """The public key does not load, or its encoding is not the canonical one."""

    reason = "SPKI_NOT_CANONICAL"
    is_final = True


@dataclass(frozen=True, kw_only=True)
class _Shape:
    """The canonical encoding of one key type: what stands before and after the key's own bytes."""

    key_type: KeyType
    size: int
    header: bytes
    trailer: bytes
    algorithm: bytes
    bits_offset: int


_RSA_EXPONENT: Final = _der.unsigned_integer(RSA_PUBLIC_EXPONENT.to_bytes(3, "big"))


def _shape(key_type: KeyType) -> _Shape:
    prefix, trailer = _around(key_type)
    bits = prefix + bytes(key_type.facts.key_size) + trailer
    algorithm = _der.sequence(key_type.facts.algorithm_identifier)
    spki = _der.sequence(algorithm, _der.bit_string(bits))
    bits_offset = len(spki) - len(bits)
    return _Shape(
        key_type=key_type,
        size=len(spki),
        header=spki[: bits_offset + len(prefix)],
        trailer=trailer,
        algorithm=algorithm,
        bits_offset=bits_offset,
    )


def _around(key_type: KeyType) -> tuple[bytes, bytes]:
    """Return what stands in the BIT STRING before and after that which differs between two keys."""
    match key_type.algorithm:
        case Algorithm.RSA:
            size = key_type.facts.key_size
            key = _der.sequence(_der.unsigned_integer(b"\x80" + bytes(size - 1)), _RSA_EXPONENT)
            return key[: -len(_RSA_EXPONENT) - size], _RSA_EXPONENT
        case Algorithm.EC:
            return b"\x04", b""
        case Algorithm.ED25519 | Algorithm.X25519 | Algorithm.ML_DSA | Algorithm.ML_KEM:
            return b"", b""
        case _:
            assert_never(key_type.algorithm)


_ALL_SHAPES: Final = tuple(map(_shape, KeyType))
_BY_TYPE: Final = {shape.key_type: shape for shape in _ALL_SHAPES}
_BY_SIZE: Final = {s.size: tuple(t for t in _ALL_SHAPES if t.size == s.size) for s in _ALL_SHAPES}


def _match(der: bytes) -> _Shape | None:
    for shape in _BY_SIZE.get(len(der), ()):
        if der.startswith(shape.header) and der.endswith(shape.trailer):
            return shape
    return None


def spki_key_type(der: bytes, *, field: str = "") -> KeyType:
    """Return the key type of a canonical SPKI (DER) without loading it: the key itself may be invalid.

    Raises UnsupportedKeyError for keys of other types and SpkiNotCanonicalError for other encodings.
    """
    shape = _match(der)
    if shape is None:
        raise _refusal(der, field)
    return shape.key_type


def load_spki(der: bytes, *, field: str = "") -> PublicKey:
    """Load a canonical SPKI (DER).

    Raises UnsupportedKeyError for keys of other types, sizes, curves or exponents, and SpkiNotCanonicalError
    where the key is invalid (for example no point of its curve) or encoded in another way.
    """
    shape = _match(der)
    if shape is None:
        raise _refusal(der, field)
    try:
        key = cast("PublicKey", load_der_public_key(der))
    except PARSING_ERRORS:
        raise SpkiNotCanonicalError(
            "The public key is not valid; make a new key pair.", field=field
        ) from None
    _check_coordinate(shape.key_type, der[shape.bits_offset :], field)
    return key


def _check_coordinate(key_type: KeyType, key: bytes, field: str) -> None:
    """Refuse the other encodings of a coordinate: OpenSSL reduces it and ignores the highest bit of a u-coordinate."""
    match key_type.algorithm:
        case Algorithm.X25519:
            coordinate = int.from_bytes(key, "little")
        case Algorithm.ED25519:
            coordinate = int.from_bytes(key, "little") % (1 << 255)  # the highest bit is the sign of x
        case Algorithm.RSA | Algorithm.EC | Algorithm.ML_DSA | Algorithm.ML_KEM:
            return
        case _:
            assert_never(key_type.algorithm)
    if coordinate >= FIELD_25519:
        raise SpkiNotCanonicalError(
            "The public key's coordinate is not reduced (RFC 7748 §5, RFC 8032 §5.1.3); send its canonical encoding.",
            field=field,
        )


def _refusal(der: bytes, field: str) -> InvalidInputError:
    """Tell why no canonical encoding matches; only algorithms that keyark knows are ever parsed."""
    if not any(der.startswith(shape.algorithm, offset) for shape in _ALL_SHAPES for offset in (2, 3, 4)):
        supported = ", ".join(t.value for t in KeyType)
        return UnsupportedKeyError(
            f"The public key is not of a supported type; use one of {supported}.", field=field
        )
    try:
        key_type_of(load_der_public_key(der), field=field)
    except UnsupportedKeyError as error:
        return error
    except PARSING_ERRORS:
        return SpkiNotCanonicalError("The public key is not a SubjectPublicKeyInfo in DER.", field=field)
    return SpkiNotCanonicalError(
        "The public key is not in its canonical encoding; send its DER SubjectPublicKeyInfo with an "
        "uncompressed point and the usual algorithm identifier.",
        field=field,
    )


def encode_spki(public_key: PublicKeyTypes) -> bytes:
    """Return the canonical SPKI of a public key, DER."""
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_bytes(der: bytes) -> bytes:
    """Return what the BIT STRING of a canonical SPKI (DER) holds; raises as ``spki_key_type`` does."""
    shape = _match(der)
    if shape is None:
        raise _refusal(der, "")
    return der[shape.bits_offset :]


def rsa_modulus(der: bytes) -> bytes:
    """Return the modulus of a canonical RSA SPKI (DER), big-endian; its highest bit is set."""
    return key_bytes(der)[: -len(_RSA_EXPONENT)][-spki_key_type(der).facts.key_size :]


def encode_key_bytes(key_type: KeyType, key: bytes) -> bytes:
    """Return the canonical SPKI (DER) around such bytes, which are not checked."""
    shape = _BY_TYPE[key_type]
    return shape.header[: shape.bits_offset] + key


def key_id(der: bytes) -> bytes:
    """Return the key id of a canonical SPKI: its SHA-256, 32 bytes."""
    return sha256(der).digest()


def public_key_id(public_key: PublicKeyTypes) -> bytes:
    """Return the key id of a public key, 32 bytes."""
    return key_id(encode_spki(public_key))


def key_identifier(der: bytes) -> bytes:
    """Return the key identifier for certificates, 20 bytes (RFC 7093 §2 method 1, SHA-256).

    Raises as ``spki_key_type`` does.
    """
    return sha256(key_bytes(der)).digest()[:KEY_IDENTIFIER_SIZE]
