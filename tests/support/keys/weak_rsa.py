"""RSA keys that no honest generator makes: the numbers agree with one another, and the key is no good all the same."""

from __future__ import annotations

import math
from hashlib import sha512
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

E = 65537


def consistent_rsa(p: int, q: int) -> dict[str, int]:
    """The fields of RSAPrivateKey that pass the arithmetic, whatever p and q are."""
    d = pow(E, -1, math.lcm(p - 1, q - 1))
    numbers = {"version": 0, "n": p * q, "e": E, "d": d, "p": p, "q": q}
    return numbers | {"dp": d % (p - 1), "dq": d % (q - 1), "qinv": pow(q, -1, p)}


def rsa_key(p: int, q: int) -> Any:
    """A key of these factors, loaded without a look at them."""
    n = consistent_rsa(p, q)
    public = rsa.RSAPublicNumbers(E, n["n"])
    numbers = rsa.RSAPrivateNumbers(n["p"], n["q"], n["d"], n["dp"], n["dq"], n["qinv"], public)
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


# Primes, each the least one from some round number on: to search for them takes longer than all tests of a file.
_A = (0xD << 1020) + int.from_bytes(sha512(b"keyark").digest(), "big") + 1878
PRIME = _A
NEAR = _A + 2**500 + 2908
"""So near that Fermat's method finds both."""
TOO_NEAR = _A + 2**923 + 496
"""It does not find this one, and the first 100 bits are the same."""
FAR = _A - 2**925 + 130
COFACTOR_OF_743 = 2**2047 // 743 + 2**1900 + 2802
SMALL = 3 * 2**1000 + 773
LARGE = 2**2047 // SMALL + 2**1000 + 81
BELOW_ROOT = 11 * 2**1020 + 63
ABOVE_ROOT = 15 * 2**1020 + 1627
_COMMON = 2**1016 + 1440163
SMALL_EXPONENT = 2 * 124 * _COMMON + 1, 2 * 100 * _COMMON + 1
"""p − 1 and q − 1 have nearly all in common, and modulo their lcm the inverse of 65537 has 1024 bits."""

_T = int(
    "a6368cd942da0d3c5c1158d6196e992150c90b6e8460689cbd0d769fccef70d7"
    "49e2eae300a68529410cbfa0625a0b624bdc7aa8898a20abb48a1411132b9e70",
    16,
)
COMPOSITE = (_T + 1) * (2 * _T + 1)
"""1024 bits, two primes: e and d modulo COMPOSITE − 1 undo one another for every second message."""

ROCA = tuple(
    int(factor, 16)
    for factor in (
        "f19d81dd5b4fac8868fb60b0c6179f8fef542c157e9b2cdf442ec71da135f18175df4353dec887addeda40ff0b874c10"
        "1b7bf48627c6cf23bb0fdfdf14687bff65e8d2876f5a77c31cc7ecb95320bf58e7523a530dc02ce4993aa49a7bb89c33"
        "c4d06358ebd87c9dfe731eacb4f8fee72fad6e8c4e8dc56ab9cc5ffb708f9b75",
        "eb0ebce9f8a8e15eea24b22a91325e18b05aca62a9cc39b079713a14a6d629503dadbd111f2debcc1a063cec56abb621"
        "cb33603a5be83f30ee854bb1a4b0211ecdbf305e1b3cebf91b5b9145013e51b74b50e0946d0fe8a26746d85e4d9336d3"
        "5406e081d9d58732d96aea761138036405515e0cf5e072209ca2a06474bfbab7",
    )
)
"""Primes k·M + (65537^a mod M), M the product of the first 126 primes, as the faulty chips made them."""
