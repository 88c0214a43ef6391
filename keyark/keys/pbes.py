"""Encryption under passwords: PBES2 of RFC 8018, and the older scheme of RFC 7292 for importers that know no other.

``cryptography`` encrypts PKCS#8 with 2,048 rounds of PBKDF2 and takes no other number; here they are 600,000.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.padding import PKCS7

from keyark.keys.der import NULL, object_identifier, octet_string, sequence, small_integer

PBKDF2_ROUNDS: Final = 600_000

_PBES2: Final = object_identifier("1.2.840.113549.1.5.13")
_PBKDF2: Final = object_identifier("1.2.840.113549.1.5.12")
_HMAC_SHA256: Final = object_identifier("1.2.840.113549.2.9")
_AES256_CBC: Final = object_identifier("2.16.840.1.101.3.4.1.42")
_SHA1_AND_3DES: Final = object_identifier("1.2.840.113549.1.12.1.3")
_SALT_SIZE: Final = 16
_KEY_MATERIAL, _IV_MATERIAL, _MAC_MATERIAL = 1, 2, 3  # the diversifiers of RFC 7292 appendix B.3


@dataclass(frozen=True, repr=False)
class _Protection:
    """A password, and the MAC key that is derived from it once (RFC 7292 appendix B)."""

    password: bytes
    rounds: int
    mac_hash: str
    mac_salt: bytes = field(default_factory=lambda: os.urandom(_SALT_SIZE))

    @cached_property
    def mac_key(self) -> bytes:
        """As long as the hash."""
        return derive(
            self.password,
            self.mac_salt,
            purpose=_MAC_MATERIAL,
            rounds=self.rounds,
            hash_name=self.mac_hash,
            size=hashlib.new(self.mac_hash).digest_size,
        )


@dataclass(frozen=True, repr=False)
class ModernProtection(_Protection):
    """PBES2 with AES-256-CBC under PBKDF2-HMAC-SHA-256 (RFC 8018 §6.2); all that it encrypts shares one derived key."""

    rounds: int = field(default_factory=lambda: PBKDF2_ROUNDS)
    mac_hash: str = "sha256"
    _salt: bytes = field(default_factory=lambda: os.urandom(_SALT_SIZE))

    @cached_property
    def _key(self) -> bytes:
        return hashlib.pbkdf2_hmac("sha256", self.password, self._salt, self.rounds, 32)

    def encrypt(self, plain: bytes) -> tuple[bytes, bytes]:
        """Return the AlgorithmIdentifier (DER) and the ciphertext, under a random IV of its own."""
        iv = os.urandom(16)
        derivation = sequence(
            octet_string(self._salt), small_integer(self.rounds), sequence(_HMAC_SHA256, NULL)
        )
        parameters = sequence(sequence(_PBKDF2, derivation), sequence(_AES256_CBC, octet_string(iv)))
        return sequence(_PBES2, parameters), _cbc(AES256(self._key), iv, plain)


@dataclass(frozen=True, repr=False)
class CompatibleProtection(_Protection):
    """pbeWithSHAAnd3-KeyTripleDES-CBC (RFC 7292 appendix C), for importers that know nothing newer.

    Rounds add nothing to a generated password of 128 bits, the only kind that it is for.
    """

    rounds: int = 2_048
    mac_hash: str = "sha1"

    def encrypt(self, plain: bytes) -> tuple[bytes, bytes]:
        """Return the AlgorithmIdentifier (DER) and the ciphertext, under a random salt of its own."""
        salt = self._salt()
        key, iv = (
            derive(self.password, salt, purpose=purpose, rounds=self.rounds, hash_name="sha1", size=size)
            for purpose, size in ((_KEY_MATERIAL, 24), (_IV_MATERIAL, 8))
        )
        return sequence(_SHA1_AND_3DES, sequence(octet_string(salt), small_integer(self.rounds))), _cbc(
            TripleDES(key), iv, plain
        )

    def _salt(self) -> bytes:
        """Draw a salt under which no block of the derivation begins with a zero byte.

        gpgsm 2.2 drops such a byte and derives another key, so it could not read one file in 70.
        """
        while True:
            salt = os.urandom(_SALT_SIZE)
            blocks = _blocks_of_second_hash(
                self.password, salt, purpose=_KEY_MATERIAL, rounds=self.rounds, hash_name="sha1"
            )
            if all(block[0] for block in blocks):
                return salt


Protection = ModernProtection | CompatibleProtection


def encrypt_private_key_info(plain: bytes, password: bytes) -> bytes:
    """Return an EncryptedPrivateKeyInfo (DER, RFC 5958 §3) of a PrivateKeyInfo (DER)."""
    algorithm, ciphertext = ModernProtection(password).encrypt(plain)
    return sequence(algorithm, octet_string(ciphertext))


def derive(password: bytes, salt: bytes, *, purpose: int, rounds: int, hash_name: str, size: int) -> bytes:
    """Return key material (RFC 7292 appendix B.2) of at most one hash, or of two where ``size`` needs them.

    ``password`` is UTF-8; the derivation takes it as UTF-16 with two zero bytes behind it.
    """
    blocks = _first_blocks(password, salt, hash_name=hash_name)
    result = b""
    while True:
        digest = _hashed(blocks, purpose=purpose, rounds=rounds, hash_name=hash_name)
        result += digest
        if len(result) >= size:
            return result[:size]
        blocks = _next_blocks(blocks, digest)


def _blocks_of_second_hash(
    password: bytes, salt: bytes, *, purpose: int, rounds: int, hash_name: str
) -> list[bytes]:
    blocks = _first_blocks(password, salt, hash_name=hash_name)
    return _next_blocks(blocks, _hashed(blocks, purpose=purpose, rounds=rounds, hash_name=hash_name))


def _first_blocks(password: bytes, salt: bytes, *, hash_name: str) -> list[bytes]:
    block = hashlib.new(hash_name).block_size
    text = password.decode().encode("utf-16-be") + b"\0\0"
    material = _filled(salt, block) + _filled(text, block)
    return [material[start : start + block] for start in range(0, len(material), block)]


def _hashed(blocks: list[bytes], *, purpose: int, rounds: int, hash_name: str) -> bytes:
    new_hash: Callable[..., Any] = getattr(hashlib, hash_name)  # in half the time of hashlib.new
    digest: bytes = new_hash(bytes([purpose]) * len(blocks[0]) + b"".join(blocks)).digest()
    for _ in range(rounds - 1):
        digest = new_hash(digest).digest()
    return digest


def _next_blocks(blocks: list[bytes], digest: bytes) -> list[bytes]:
    size = len(blocks[0])
    step = int.from_bytes(_filled(digest, size)[:size], "big") + 1
    sums = ((int.from_bytes(block, "big") + step) % (1 << 8 * size) for block in blocks)
    return [total.to_bytes(size, "big") for total in sums]


def _filled(part: bytes, block: int) -> bytes:
    """Repeat a part until it fills whole blocks."""
    size = -(-len(part) // block) * block
    return (part * (size // len(part) + 1))[:size]


def _cbc(algorithm: AES256 | TripleDES, iv: bytes, plain: bytes) -> bytes:
    padder = PKCS7(algorithm.block_size).padder()
    encryptor = Cipher(algorithm, modes.CBC(iv)).encryptor()
    return encryptor.update(padder.update(plain) + padder.finalize()) + encryptor.finalize()
