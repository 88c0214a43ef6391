"""Keys that are known to be weak, as far as the key itself shows: what RM, CM and DRM refuse in every statement.

A public key shows a little (S/MIME Baseline Requirements §6.1.1.3 and §6.1.6); the DRM, which sees the private half of
archived keys, adds NIST SP 800-56B §6.4.1.2. A public key shows neither whether its factors are prime nor how large
they are, so a signing key may still be one that only its owner could make so.

RSA: small factors, the fingerprint of ROCA, and factors so close that Fermat's method finds them. X25519 and Ed25519:
points outside the group of prime order, where other public keys have the same private half (RFC 7748 §6.1, §7). ML-KEM
and ML-DSA keys are checked where they are loaded.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Final, assert_never

from cryptography.hazmat.primitives.asymmetric import rsa, x25519

from keyark.errors import InvalidInputError
from keyark.keys.key_facts import RSA_PUBLIC_EXPONENT, Algorithm
from keyark.keys.related_keys import ed25519_to_x25519
from keyark.keys.spki import key_bytes, spki_key_type

_FERMAT_ROUNDS: Final = 100
"""S/MIME Baseline Requirements §6.1.1.3."""
_DISTANCE_BITS: Final = 100
"""SP 800-56B §6.4.1.2.1: the factors differ within their first 100 bits."""


class WeakKeyError(InvalidInputError):
    """The key is of a supported type, and others could compute its private half or use it."""

    reason = "WEAK_KEY"
    is_final = True


def check_public_key(spki: bytes, public_key: Any, *, field: str = "") -> None:
    """Raise WeakKeyError where a canonical SPKI (DER), loaded as ``public_key``, shows that the key is weak."""
    key_type = spki_key_type(spki, field=field)
    match key_type.algorithm:
        case Algorithm.RSA:
            _check_modulus(public_key.public_numbers().n, field)
        case Algorithm.X25519:
            _check_in_group(key_bytes(spki), field)
        case Algorithm.ED25519:
            _check_in_group(ed25519_to_x25519(key_bytes(spki)), field)
        case Algorithm.EC | Algorithm.ML_DSA | Algorithm.ML_KEM:
            return
        case _:
            assert_never(key_type.algorithm)


def check_private_key(private_key: Any, *, field: str = "") -> None:
    """Raise WeakKeyError where a private key that matched its public key shows that it is weak.

    Only RSA keys show more than their public halves do (SP 800-56B §6.4.1.2.1).
    """
    if isinstance(private_key, rsa.RSAPrivateKey):
        numbers = private_key.private_numbers()
        _check_factors(numbers.p, numbers.q, numbers.d, field)


def check_apart(signing_key: Any, encryption_key: Any, *, field: str = "") -> None:
    """Raise WeakKeyError where two RSA public keys share a factor: the private half of one reveals the other (P8)."""
    if isinstance(signing_key, rsa.RSAPublicKey) and isinstance(encryption_key, rsa.RSAPublicKey):
        moduli = signing_key.public_numbers().n, encryption_key.public_numbers().n
        if math.gcd(*moduli) != 1:
            raise _weak("shares a factor with the signing key", field)


def _weak(why: str, field: str) -> WeakKeyError:
    return WeakKeyError(f"The key {why}; make a new key pair with current software.", field=field)


# RSA


def _primes_below(limit: int) -> list[int]:
    return [n for n in range(2, limit) if all(n % d for d in range(2, math.isqrt(n) + 1))]


def _powers_of_65537(prime: int) -> int:
    """Return the residues that powers of 65537 have modulo a prime, each a bit."""
    bits, power = 0, 1
    for _ in range(prime):
        bits |= 1 << power
        power = power * RSA_PUBLIC_EXPONENT % prime
    return bits


_SMALL_PRIMES: Final = math.prod(_primes_below(752))
_ROCA: Final = tuple((prime, _powers_of_65537(prime)) for prime in _primes_below(702)[1:])
"""Nemec et al., "The Return of Coppersmith's Attack" (2017), §2.2: modulo each of the first 126 primes a modulus of
1984 bits or more is a power of 65537. One honest modulus in 2¹⁶⁹ is too."""
_SQUARES: Final = frozenset(i * i % 5040 for i in range(5040))


def _check_modulus(n: int, field: str) -> None:
    if math.gcd(n, _SMALL_PRIMES) != 1:
        raise _weak("has a factor below 752", field)
    if all(residues >> n % prime & 1 for prime, residues in _ROCA):
        raise _weak("has the fingerprint of ROCA (CVE-2017-15361)", field)
    if _factors_by_fermat(n):
        raise _weak("has factors that lie close together", field)


def _factors_by_fermat(n: int) -> bool:
    """Whether n = a² − b² for one of the first values of a."""
    a = math.isqrt(n - 1) + 1
    b_squared, step = a * a - n, 2 * a + 1
    for _ in range(_FERMAT_ROUNDS):
        if b_squared % 5040 in _SQUARES and math.isqrt(b_squared) ** 2 == b_squared:
            return True
        b_squared, step = b_squared + step, step + 2
    return False


def _check_factors(p: int, q: int, d: int, field: str) -> None:
    half = (p * q).bit_length() // 2
    if not all(factor.bit_length() == half and factor * factor >> (2 * half - 1) for factor in (p, q)):
        raise _weak(f"has a factor that is not between √2·2^{half - 1} and 2^{half}", field)
    if abs(p - q) >> (half - _DISTANCE_BITS) == 0:
        raise _weak("has factors that lie close together", field)
    if d % math.lcm(p - 1, q - 1) >> half == 0:
        raise _weak("has a small private exponent", field)


# X25519 and Ed25519

_GROUP_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_TO_SAME_POINT: Final = 8 * _GROUP_ORDER - 8 * pow(8, -1, _GROUP_ORDER)
"""A multiple of 8 that is −1 modulo the group's order; bit 254 is its highest, so that clamping lets it be."""


@cache
def _multiplier() -> x25519.X25519PrivateKey:
    return x25519.X25519PrivateKey.from_private_bytes(_TO_SAME_POINT.to_bytes(32, "little"))


def _check_in_group(u: bytes, field: str) -> None:
    """A multiple of 8 brings every point into the group; one that was there has the same u-coordinate as before."""
    try:
        same = _multiplier().exchange(x25519.X25519PublicKey.from_public_bytes(u)) == u
    except ValueError:  # the point at infinity: its order is 8 or less
        same = False
    if not same:
        raise _weak("is not a point of the group of prime order", field)
