"""The key types of keyark, what each is fit for, and how to make and recognise one."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, TypeAlias, cast

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from keyark.errors import InvalidInputError
from keyark.v1 import common_pb2

RSA_PUBLIC_EXPONENT: Final = 65537

SigningPrivateKey: TypeAlias = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | mldsa.MLDSA44PrivateKey
    | mldsa.MLDSA65PrivateKey
    | mldsa.MLDSA87PrivateKey
)
SigningPublicKey: TypeAlias = (
    rsa.RSAPublicKey
    | ec.EllipticCurvePublicKey
    | ed25519.Ed25519PublicKey
    | mldsa.MLDSA44PublicKey
    | mldsa.MLDSA65PublicKey
    | mldsa.MLDSA87PublicKey
)
PrivateKey: TypeAlias = (
    SigningPrivateKey | x25519.X25519PrivateKey | mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey
)
PublicKey: TypeAlias = (
    SigningPublicKey | x25519.X25519PublicKey | mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey
)


class UnsupportedKeyError(InvalidInputError):
    """The key is of a type, size, curve or exponent that keyark does not take for this purpose."""

    reason = "UNSUPPORTED_KEY"
    is_final = True


class KeyType(enum.Enum):
    """A type and size of key; the value is the name in commands, configuration and policy."""

    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    EC_P521 = "ec-p521"
    ED25519 = "ed25519"
    X25519 = "x25519"
    ML_DSA_44 = "ml-dsa-44"
    ML_DSA_65 = "ml-dsa-65"
    ML_DSA_87 = "ml-dsa-87"
    ML_KEM_768 = "ml-kem-768"
    ML_KEM_1024 = "ml-kem-1024"

    @property
    def proto(self) -> common_pb2.KeyType.ValueType:
        """The number that stands for this type in messages."""
        return _PROTO_NUMBERS[self]

    @classmethod
    def from_proto(cls, number: int, *, field: str = "key_type") -> KeyType:
        """Return the type that a message's number stands for; raises InvalidInputError for an unknown one."""
        try:
            return _FROM_PROTO[number]
        except KeyError:
            raise InvalidInputError(
                f"{number} is not a key type of this release; use one of {_listed(tuple(cls))}.", field=field
            ) from None


_RSA: Final = (KeyType.RSA_2048, KeyType.RSA_3072, KeyType.RSA_4096)
_EC: Final = (KeyType.EC_P256, KeyType.EC_P384, KeyType.EC_P521)
_ML_DSA: Final = (KeyType.ML_DSA_44, KeyType.ML_DSA_65, KeyType.ML_DSA_87)
_ML_KEM: Final = (KeyType.ML_KEM_768, KeyType.ML_KEM_1024)

RSA_KEY_TYPES: Final = _RSA
EC_KEY_TYPES: Final = _EC
SIGNING_KEY_TYPES: Final = (*_RSA, *_EC, KeyType.ED25519, *_ML_DSA)
ENCRYPTION_KEY_TYPES: Final = (*_RSA, *_EC, KeyType.X25519, *_ML_KEM)
CA_KEY_TYPES: Final = (
    KeyType.EC_P256,
    KeyType.EC_P384,
    KeyType.RSA_3072,
    KeyType.RSA_4096,
    KeyType.ED25519,
    KeyType.ML_DSA_65,
)
TRANSPORT_KEY_TYPES: Final = (KeyType.EC_P256, KeyType.RSA_3072)
IDENTITY_KEY_TYPES: Final = (KeyType.EC_P256,)

_PROTO_NUMBERS: Final = {t: common_pb2.KeyType.Value(f"KEY_TYPE_{t.name}") for t in KeyType}
_FROM_PROTO: Final[dict[int, KeyType]] = {number: t for t, number in _PROTO_NUMBERS.items()}


def parse_key_type(
    name: str, *, permitted: Sequence[KeyType] = tuple(KeyType), field: str = "key_type"
) -> KeyType:
    """Return the permitted type of this name, for example "ec-p256"; raises InvalidInputError."""
    for key_type in permitted:
        if key_type.value == name:
            return key_type
    raise InvalidInputError(
        f"Key type {name!r} does not fit here; use one of {_listed(permitted)}.", field=field
    )


def check_key_type(key_type: KeyType, permitted: Sequence[KeyType], *, field: str = "") -> None:
    """Raise UnsupportedKeyError unless the type is among the permitted ones."""
    if key_type not in permitted:
        raise UnsupportedKeyError(
            f"A key of type {key_type.value} does not fit here; use one of {_listed(permitted)}.", field=field
        )


def _listed(key_types: Sequence[KeyType]) -> str:
    return ", ".join(t.value for t in key_types)


_GENERATORS: Final[dict[KeyType, Callable[[], PrivateKey]]] = {
    KeyType.RSA_2048: partial(rsa.generate_private_key, RSA_PUBLIC_EXPONENT, 2048),
    KeyType.RSA_3072: partial(rsa.generate_private_key, RSA_PUBLIC_EXPONENT, 3072),
    KeyType.RSA_4096: partial(rsa.generate_private_key, RSA_PUBLIC_EXPONENT, 4096),
    KeyType.EC_P256: partial(ec.generate_private_key, ec.SECP256R1()),
    KeyType.EC_P384: partial(ec.generate_private_key, ec.SECP384R1()),
    KeyType.EC_P521: partial(ec.generate_private_key, ec.SECP521R1()),
    KeyType.ED25519: ed25519.Ed25519PrivateKey.generate,
    KeyType.X25519: x25519.X25519PrivateKey.generate,
    KeyType.ML_DSA_44: mldsa.MLDSA44PrivateKey.generate,
    KeyType.ML_DSA_65: mldsa.MLDSA65PrivateKey.generate,
    KeyType.ML_DSA_87: mldsa.MLDSA87PrivateKey.generate,
    KeyType.ML_KEM_768: mlkem.MLKEM768PrivateKey.generate,
    KeyType.ML_KEM_1024: mlkem.MLKEM1024PrivateKey.generate,
}


def generate(key_type: KeyType) -> PrivateKey:
    """Make a new private key of this type with the operating system's randomness."""
    return _GENERATORS[key_type]()


def generate_signing(key_type: KeyType) -> SigningPrivateKey:
    """Make a new private key that signs; raises UnsupportedKeyError for a type that does not."""
    return narrow_signing_key(generate(key_type))


def narrow_signing_key(private_key: PrivateKey) -> SigningPrivateKey:
    """Return a private key that signs as one; raises UnsupportedKeyError for any other."""
    check_key_type(key_type_of(private_key.public_key()), SIGNING_KEY_TYPES)
    return cast("SigningPrivateKey", private_key)


_BY_CLASS: Final[tuple[tuple[type, KeyType], ...]] = (
    (ed25519.Ed25519PublicKey, KeyType.ED25519),
    (x25519.X25519PublicKey, KeyType.X25519),
    (mldsa.MLDSA44PublicKey, KeyType.ML_DSA_44),
    (mldsa.MLDSA65PublicKey, KeyType.ML_DSA_65),
    (mldsa.MLDSA87PublicKey, KeyType.ML_DSA_87),
    (mlkem.MLKEM768PublicKey, KeyType.ML_KEM_768),
    (mlkem.MLKEM1024PublicKey, KeyType.ML_KEM_1024),
)
_BY_CURVE: Final = {
    "secp256r1": KeyType.EC_P256,
    "secp384r1": KeyType.EC_P384,
    "secp521r1": KeyType.EC_P521,
}
_BY_MODULUS_BITS: Final = {2048: KeyType.RSA_2048, 3072: KeyType.RSA_3072, 4096: KeyType.RSA_4096}


def key_type_of(public_key: PublicKeyTypes, *, field: str = "") -> KeyType:
    """Return the type of a public key.

    Raises UnsupportedKeyError for other algorithms, curves and sizes, and for RSA with an exponent that is
    not 65537.
    """
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return _by_curve(public_key, field)
    if isinstance(public_key, rsa.RSAPublicKey):
        return _by_modulus(public_key, field)
    for key_class, key_type in _BY_CLASS:
        if isinstance(public_key, key_class):
            return key_type
    raise UnsupportedKeyError(
        f"Keys of this algorithm are not supported; use one of {_listed(tuple(KeyType))}.", field=field
    )


def _by_curve(public_key: ec.EllipticCurvePublicKey, field: str) -> KeyType:
    try:
        return _BY_CURVE[public_key.curve.name]
    except KeyError:
        raise UnsupportedKeyError(
            f"Curve {public_key.curve.name} is not supported; use one of {_listed(_EC)}.", field=field
        ) from None


def _by_modulus(public_key: rsa.RSAPublicKey, field: str) -> KeyType:
    if public_key.key_size not in _BY_MODULUS_BITS:
        raise UnsupportedKeyError(
            f"RSA keys of {public_key.key_size} bits are not supported; use one of {_listed(_RSA)}.",
            field=field,
        )
    if public_key.public_numbers().e != RSA_PUBLIC_EXPONENT:
        raise UnsupportedKeyError(
            f"RSA keys need the public exponent {RSA_PUBLIC_EXPONENT}; make a new key pair.", field=field
        )
    return _BY_MODULUS_BITS[public_key.key_size]
