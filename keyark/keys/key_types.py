"""The key types of keyark, a row each: whatever differs between them follows from it. How to make and recognise one."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, TypeAlias, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from keyark.errors import InvalidInputError
from keyark.keys.key_facts import (
    RSA_PUBLIC_EXPONENT,
    Algorithm,
    Fit,
    KeyFacts,
    ec_facts,
    raw_encryption_facts,
    raw_signing_facts,
    rsa_facts,
)
from keyark.v1 import common_pb2

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
    def facts(self) -> KeyFacts:
        """The row of this type."""
        return _ROWS[self]

    @property
    def algorithm(self) -> Algorithm:
        """The family that this type belongs to."""
        return self.facts.algorithm

    @property
    def proto(self) -> common_pb2.KeyType.ValueType:
        """The number that stands for this type in messages."""
        return self.facts.number

    @classmethod
    def from_proto(cls, number: int, *, field: str = "key_type") -> KeyType:
        """Return the type that a message's number stands for; raises InvalidInputError for an unknown one."""
        try:
            return _FROM_PROTO[number]
        except KeyError:
            raise InvalidInputError(
                f"{number} is not a key type of this release; use one of {_listed(tuple(cls))}.", field=field
            ) from None


_ROWS: Final = {
    KeyType.RSA_2048: rsa_facts(
        2048, number=common_pb2.KEY_TYPE_RSA_2048, fit=frozenset(), match_milliseconds=32
    ),
    KeyType.RSA_3072: rsa_facts(
        3072,
        number=common_pb2.KEY_TYPE_RSA_3072,
        fit=frozenset({Fit.ISSUING, Fit.TRANSPORT}),
        match_milliseconds=104,
    ),
    KeyType.RSA_4096: rsa_facts(
        4096, number=common_pb2.KEY_TYPE_RSA_4096, fit=frozenset({Fit.ISSUING}), match_milliseconds=240
    ),
    KeyType.EC_P256: ec_facts(
        number=common_pb2.KEY_TYPE_EC_P256,
        fit=frozenset({Fit.ISSUING, Fit.TRANSPORT, Fit.IDENTITY, Fit.SMIME}),
        curve=ec.SECP256R1(),
        oid="1.2.840.10045.3.1.7",
        field=2**256 - 2**224 + 2**192 + 2**96 - 1,
        signature=(hashes.SHA256(), "1.2.840.10045.4.3.2"),
    ),
    KeyType.EC_P384: ec_facts(
        number=common_pb2.KEY_TYPE_EC_P384,
        fit=frozenset({Fit.ISSUING, Fit.SMIME}),
        curve=ec.SECP384R1(),
        oid="1.3.132.0.34",
        field=2**384 - 2**128 - 2**96 + 2**32 - 1,
        signature=(hashes.SHA384(), "1.2.840.10045.4.3.3"),
    ),
    KeyType.EC_P521: ec_facts(
        number=common_pb2.KEY_TYPE_EC_P521,
        fit=frozenset(),
        curve=ec.SECP521R1(),
        oid="1.3.132.0.35",
        field=2**521 - 1,
        signature=(hashes.SHA512(), "1.2.840.10045.4.3.4"),
    ),
    KeyType.ED25519: raw_signing_facts(
        number=common_pb2.KEY_TYPE_ED25519,
        algorithm=Algorithm.ED25519,
        fit=frozenset({Fit.ISSUING, Fit.PKCS12, Fit.SMIME}),
        classes=(ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey),
        oid="1.3.101.112",
        key_size=32,
    ),
    KeyType.X25519: raw_encryption_facts(
        number=common_pb2.KEY_TYPE_X25519,
        algorithm=Algorithm.X25519,
        fit=frozenset(),
        classes=(x25519.X25519PrivateKey, x25519.X25519PublicKey),
        oid="1.3.101.110",
        key_size=32,
        usages=("keyAgreement", "encipherOnly", "decipherOnly"),
    ),
    KeyType.ML_DSA_44: raw_signing_facts(
        number=common_pb2.KEY_TYPE_ML_DSA_44,
        algorithm=Algorithm.ML_DSA,
        fit=frozenset({Fit.SMIME}),
        classes=(mldsa.MLDSA44PrivateKey, mldsa.MLDSA44PublicKey),
        oid="2.16.840.1.101.3.4.3.17",
        key_size=1312,
    ),
    KeyType.ML_DSA_65: raw_signing_facts(
        number=common_pb2.KEY_TYPE_ML_DSA_65,
        algorithm=Algorithm.ML_DSA,
        fit=frozenset({Fit.ISSUING, Fit.SMIME}),
        classes=(mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey),
        oid="2.16.840.1.101.3.4.3.18",
        key_size=1952,
    ),
    KeyType.ML_DSA_87: raw_signing_facts(
        number=common_pb2.KEY_TYPE_ML_DSA_87,
        algorithm=Algorithm.ML_DSA,
        fit=frozenset({Fit.SMIME}),
        classes=(mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey),
        oid="2.16.840.1.101.3.4.3.19",
        key_size=2592,
    ),
    KeyType.ML_KEM_768: raw_encryption_facts(
        number=common_pb2.KEY_TYPE_ML_KEM_768,
        algorithm=Algorithm.ML_KEM,
        fit=frozenset({Fit.SMIME}),
        classes=(mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey),
        oid="2.16.840.1.101.3.4.4.2",
        key_size=1184,
        usages=("keyEncipherment",),
    ),
    KeyType.ML_KEM_1024: raw_encryption_facts(
        number=common_pb2.KEY_TYPE_ML_KEM_1024,
        algorithm=Algorithm.ML_KEM,
        fit=frozenset({Fit.SMIME}),
        classes=(mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey),
        oid="2.16.840.1.101.3.4.4.3",
        key_size=1568,
        usages=("keyEncipherment",),
    ),
}


def _fitting(fit: Fit) -> tuple[KeyType, ...]:
    return tuple(t for t in KeyType if fit in t.facts.fit)


def _p256_first(key_types: tuple[KeyType, ...]) -> tuple[KeyType, ...]:
    return tuple(sorted(key_types, key=lambda t: t is not KeyType.EC_P256))


RSA_KEY_TYPES: Final = tuple(t for t in KeyType if t.algorithm is Algorithm.RSA)
EC_KEY_TYPES: Final = tuple(t for t in KeyType if t.algorithm is Algorithm.EC)
SIGNING_KEY_TYPES: Final = _fitting(Fit.SIGNING)
ENCRYPTION_KEY_TYPES: Final = _fitting(Fit.ENCRYPTION)
CA_KEY_TYPES: Final = _p256_first(_fitting(Fit.ISSUING))
TRANSPORT_KEY_TYPES: Final = _p256_first(_fitting(Fit.TRANSPORT))
IDENTITY_KEY_TYPES: Final = _fitting(Fit.IDENTITY)
PKCS12_KEY_TYPES: Final = _fitting(Fit.PKCS12)
SMIME_KEY_TYPES: Final = _fitting(Fit.SMIME)

_FROM_PROTO: Final[dict[int, KeyType]] = {t.proto: t for t in KeyType}


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


def generate(key_type: KeyType) -> PrivateKey:
    """Make a new private key of this type with the operating system's randomness."""
    return cast("PrivateKey", key_type.facts.generate())


def generate_signing(key_type: KeyType) -> SigningPrivateKey:
    """Make a new private key that signs; raises UnsupportedKeyError for a type that does not."""
    return narrow_signing_key(generate(key_type))


def narrow_signing_key(private_key: PrivateKey) -> SigningPrivateKey:
    """Return a private key that signs as one; raises UnsupportedKeyError for any other."""
    check_key_type(key_type_of(private_key.public_key()), SIGNING_KEY_TYPES)
    return cast("SigningPrivateKey", private_key)


_BY_CURVE: Final = {t.facts.curve.name: t for t in EC_KEY_TYPES if t.facts.curve}
_BY_MODULUS_BITS: Final = {t.facts.bits: t for t in RSA_KEY_TYPES}
_BY_CLASS: Final = tuple(
    (t.facts.public_class, t) for t in KeyType if t.algorithm not in (Algorithm.RSA, Algorithm.EC)
)


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
            f"Curve {public_key.curve.name} is not supported; use one of {_listed(EC_KEY_TYPES)}.",
            field=field,
        ) from None


def _by_modulus(public_key: rsa.RSAPublicKey, field: str) -> KeyType:
    if public_key.key_size not in _BY_MODULUS_BITS:
        raise UnsupportedKeyError(
            f"RSA keys of {public_key.key_size} bits are not supported; use one of {_listed(RSA_KEY_TYPES)}.",
            field=field,
        )
    if public_key.public_numbers().e != RSA_PUBLIC_EXPONENT:
        raise UnsupportedKeyError(
            f"RSA keys need the public exponent {RSA_PUBLIC_EXPONENT}; make a new key pair.", field=field
        )
    return _BY_MODULUS_BITS[public_key.key_size]
