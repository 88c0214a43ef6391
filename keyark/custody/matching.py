"""The match check: proof that a private key is the one of a given public key, before it is archived (P1).

The public key that counts is the one of the signed statement; one that travels inside the private key is
never believed, only refused where it differs. Of RSA keys the arithmetic comes first, for it says more about the match
and costs microseconds; numbers that fail it never become a key object. OpenSSL's full validation then decides whether
the factors are prime, with at least 64 Miller-Rabin rounds each under random bases: a liar who chooses the numbers
passes with a chance of 2⁻¹²⁸. The equations alone hold for composite factors too.

Accepted are, within the PKCS#8 of ``keyark.keys.pkcs8``: RSAPrivateKey of two primes (RFC 8017 §A.1.2);
ECPrivateKey with or without curve and public key (RFC 5915 §3); the X25519 scalar (RFC 8410 §7); the seed of
ML-KEM (RFC 9935 §6), which alone proves where an expanded key came from.
"""

from __future__ import annotations

import hmac
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, assert_never, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyark.errors import KeyarkError, Kind
from keyark.keys.key_facts import RSA_PUBLIC_EXPONENT, Algorithm
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, KeyType, PrivateKey, check_key_type
from keyark.keys.pkcs8 import (
    INTEGER,
    OCTET_STRING,
    SEQUENCE,
    Element,
    InvalidPrivateKeyError,
    parse_private_key_info,
    read_elements,
    read_one,
    read_unsigned,
)
from keyark.keys.spki import encode_spki, load_spki, spki_key_type
from keyark.keys.weak_keys import check_private_key

__all__ = [
    "InvalidPrivateKeyError",
    "KeyMismatchError",
    "MlKemSeedRequiredError",
    "match_proof_name",
    "prove_fit",
    "prove_match",
]

_OAEP: Final = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
_MlKemPrivateKey: TypeAlias = mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey
_CHALLENGE_SIZE: Final = 32
_X25519_SIZE: Final = 32
_ML_KEM_SEED: Final = 0x80  # [0] IMPLICIT OCTET STRING; expandedKey is an OCTET STRING, both a SEQUENCE
_ML_KEM_SEED_SIZE: Final = 64
_EC_PARAMETERS: Final = 0xA0
_EC_PUBLIC_KEY: Final = 0xA1


class MlKemSeedRequiredError(InvalidPrivateKeyError):
    """The ML-KEM private key comes in its expanded form, which says nothing of the seed it came from."""

    reason = "ML_KEM_SEED_REQUIRED"


class KeyMismatchError(KeyarkError):
    """The private key is not the one of the given public key."""

    reason = "KEY_MISMATCH"
    kind = Kind.INVALID
    is_final = True


def match_proof_name(key_type: KeyType) -> str:
    """Return how a key of this type is proven to match, as the log says it: "ec-p256: derived public key".

    Raises UnsupportedKeyError for types that are not for encryption.
    """
    return f"{key_type.value}: {_proof_of(key_type)[0]}"


def prove_fit(private_key: bytes, encryption_spki: bytes) -> bytes:
    """Prove that a private key is fit to be archived: as ``prove_match``, and it is not weak.

    Raises WeakKeyError too. What was archived once is not judged again when it is recovered.
    """
    proven = _prove(private_key, encryption_spki)
    check_private_key(proven, field="encryption_spki")
    return _encode(proven)


def prove_match(private_key: bytes, encryption_spki: bytes) -> bytes:
    """Prove that a private key (PKCS#8 DER, at most 16 KiB) matches an SPKI (canonical DER).

    Returns the private key re-encoded (PKCS#8 DER, version 0), made of what was proven and nothing else.
    Raises InvalidPrivateKeyError, MlKemSeedRequiredError and KeyMismatchError; for the SPKI
    UnsupportedKeyError and SpkiNotCanonicalError.
    """
    return _encode(_prove(private_key, encryption_spki))


def _encode(proven: PrivateKey) -> bytes:
    return proven.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _prove(private_key: bytes, encryption_spki: bytes) -> PrivateKey:
    given = _GivenKey.of(encryption_spki)
    info = parse_private_key_info(private_key)
    if info.algorithm.encoding != given.algorithm.encoding:
        raise KeyMismatchError(
            f"The private key's algorithm is not that of the public key ({given.key_type.value}); wrap the "
            "private key that belongs to it, with the algorithm identifier that the public key has."
        )
    proven = _proof_of(given.key_type)[1](info.private_key, given)
    if info.public_key is not None and info.public_key != given.bit_string.content:
        raise _foreign_public_key()
    return proven


@dataclass(frozen=True)
class _GivenKey:
    """The public key of the statement."""

    key_type: KeyType
    key: Any  # its class follows from key_type
    spki: bytes
    algorithm: Element
    bit_string: Element

    @classmethod
    def of(cls, spki: bytes) -> _GivenKey:
        key_type = spki_key_type(spki, field="encryption_spki")
        check_key_type(key_type, ENCRYPTION_KEY_TYPES, field="encryption_spki")
        key = load_spki(spki, field="encryption_spki")
        algorithm, bit_string = read_elements(read_one(spki, SEQUENCE).content)
        return cls(key_type, key, spki, algorithm, bit_string)


@dataclass(frozen=True, repr=False)
class _RsaNumbers:
    """RSAPrivateKey of two primes (RFC 8017 §A.1.2), as it came."""

    n: int
    e: int
    d: int
    p: int
    q: int
    dp: int
    dq: int
    qinv: int

    @classmethod
    def read(cls, der: bytes) -> _RsaNumbers:
        version, *numbers = map(read_unsigned, read_elements(read_one(der, SEQUENCE).content))
        if version != 0 or len(numbers) != len(cls.__dataclass_fields__):
            raise InvalidPrivateKeyError("The private key is not an RSA key of two primes; make a new one.")
        return cls(*numbers)

    def check_consistent(self) -> None:
        """RFC 8017 §3.2: ranges first, so that no arithmetic meets a number out of range."""
        n, d, p, q = self.n, self.d, self.p, self.q
        if not (1 < p < n and 1 < q < n and p % 2 and q % 2 and p * q == n):
            raise InvalidPrivateKeyError(
                "The RSA key's modulus is not the product of its two primes; make a new key."
            )
        if not (1 < d < n and self.e * d % math.lcm(p - 1, q - 1) == 1):
            raise InvalidPrivateKeyError(
                "The RSA key's private exponent does not match its modulus; encode it again."
            )
        if not (
            self.dp == d % (p - 1) and self.dq == d % (q - 1) and self.qinv < p and self.qinv * q % p == 1
        ):
            raise InvalidPrivateKeyError("The RSA key's CRT values do not match its primes; encode it again.")

    def private_key(self) -> rsa.RSAPrivateKey:
        """Return the key once OpenSSL found both factors prime; raises ValueError where one is not."""
        public = rsa.RSAPublicNumbers(self.e, self.n)
        numbers = rsa.RSAPrivateNumbers(self.p, self.q, self.d, self.dp, self.dq, self.qinv, public)
        return numbers.private_key()


def _prove_rsa(content: bytes, given: _GivenKey) -> PrivateKey:
    """The numbers carry the proof, for with a wrong d or CRT value a key may still decrypt.

    With composite factors it decrypts a fraction of the messages that the liar chooses, so both have to be prime.
    """
    numbers, public = _RsaNumbers.read(content), given.key.public_numbers()
    if numbers.e != RSA_PUBLIC_EXPONENT:
        raise InvalidPrivateKeyError(
            f"The RSA key's public exponent is not {RSA_PUBLIC_EXPONENT}; make a new key."
        )
    if numbers.n != public.n:  # before the arithmetic, whose size it bounds
        raise _mismatch()
    numbers.check_consistent()
    try:
        private_key = numbers.private_key()
    except ValueError:
        raise KeyMismatchError(
            "The RSA key's factors are not both prime, so it would not open every message; make a new key pair."
        ) from None
    challenge = os.urandom(_CHALLENGE_SIZE)
    try:
        answer = private_key.decrypt(given.key.encrypt(challenge, _OAEP), _OAEP)
    except ValueError:
        raise _mismatch() from None
    if not hmac.compare_digest(answer, challenge):
        raise _mismatch()
    return private_key


def _prove_ec(content: bytes, given: _GivenKey) -> PrivateKey:
    """The public key is derived from the scalar, whatever public key came along with it."""
    curve = cast("ec.EllipticCurve", given.key_type.facts.curve)
    elements = read_elements(read_one(content, SEQUENCE).content)
    required, optional = elements[:2], [(element.tag, element.content) for element in elements[2:]]
    if [element.tag for element in required] != [INTEGER, OCTET_STRING]:
        raise _not_rfc5915()
    version, scalar = (element.content for element in required)
    if version != b"\x01" or len(scalar) != (curve.key_size + 7) // 8:
        raise _not_rfc5915()
    try:
        private_key = ec.derive_private_key(int.from_bytes(scalar, "big"), curve)
    except ValueError:
        raise InvalidPrivateKeyError("The EC key's scalar is out of range; make a new key.") from None
    _check_derived(private_key, given)
    _check_ec_options(optional, given)
    return private_key


def _check_ec_options(optional: list[tuple[int, bytes]], given: _GivenKey) -> None:
    """What may follow the scalar: the same curve, then the same public key, each or none."""
    parameters = (_EC_PARAMETERS, read_elements(given.algorithm.content)[1].encoding)
    public_key = (_EC_PUBLIC_KEY, given.bit_string.encoding)
    if optional in ([], [parameters], [public_key], [parameters, public_key]):
        return
    if [tag for tag, _ in optional] in ([_EC_PUBLIC_KEY], [_EC_PARAMETERS, _EC_PUBLIC_KEY]):
        raise _foreign_public_key()
    raise _not_rfc5915()


def _not_rfc5915() -> InvalidPrivateKeyError:
    return InvalidPrivateKeyError(
        "The EC private key does not have the form of RFC 5915 §3; encode it again."
    )


def _prove_x25519(content: bytes, given: _GivenKey) -> PrivateKey:
    scalar = read_one(content, OCTET_STRING).content
    if len(scalar) != _X25519_SIZE:
        raise InvalidPrivateKeyError(
            f"An X25519 private key must have {_X25519_SIZE} bytes; encode it again."
        )
    private_key = x25519.X25519PrivateKey.from_private_bytes(scalar)
    _check_derived(private_key, given)
    return private_key


def _check_derived(private_key: PrivateKey, given: _GivenKey) -> None:
    if encode_spki(private_key.public_key()) != given.spki:
        raise _mismatch()


def _prove_ml_kem(content: bytes, given: _GivenKey) -> PrivateKey:
    elements = read_elements(content)
    tags = [element.tag for element in elements]
    if tags in ([OCTET_STRING], [SEQUENCE]):
        raise MlKemSeedRequiredError(
            "The ML-KEM private key is not its seed alone; encode it as the 64-byte seed (RFC 9935 §6)."
        )
    if tags != [_ML_KEM_SEED] or len(elements[0].content) != _ML_KEM_SEED_SIZE:
        raise InvalidPrivateKeyError(
            f"An ML-KEM seed must have {_ML_KEM_SEED_SIZE} bytes; encode the key again."
        )
    load_seed = cast("Callable[[bytes], _MlKemPrivateKey]", given.key_type.facts.load_seed)
    private_key = load_seed(elements[0].content)
    secret, ciphertext = given.key.encapsulate()
    if not hmac.compare_digest(private_key.decapsulate(ciphertext), secret):
        raise _mismatch()
    return private_key


def _mismatch() -> KeyMismatchError:
    return KeyMismatchError(
        "The private key does not belong to the statement's encryption key; wrap the one that does."
    )


def _foreign_public_key() -> InvalidPrivateKeyError:
    return InvalidPrivateKeyError(
        "The public key inside the private key is not the statement's; encode the private key without it."
    )


_Prove = Callable[[bytes, _GivenKey], PrivateKey]


def _proof_of(key_type: KeyType) -> tuple[str, _Prove]:
    """Return how keys of this type are proven to match; raises UnsupportedKeyError for one that does not encrypt."""
    check_key_type(key_type, ENCRYPTION_KEY_TYPES)
    match key_type.algorithm:
        case Algorithm.RSA:
            return "prime factors, components and decryption", _prove_rsa
        case Algorithm.EC:
            return "derived public key", _prove_ec
        case Algorithm.X25519:
            return "derived public key", _prove_x25519
        case Algorithm.ML_KEM:
            return "encapsulation", _prove_ml_kem
        case Algorithm.ED25519 | Algorithm.ML_DSA:
            raise TypeError(f"a key of type {key_type.value} encrypts nothing")
        case _:
            assert_never(key_type.algorithm)
