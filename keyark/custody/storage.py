"""Storage keys: what archived private keys are sealed under. Archiving needs the public half only.

The pair is MLKEM768-X25519 (HPKE KEM 0x647A), for archives outlive today's curves. The library serializes
neither half, so keyark does: private = ML-KEM seed (64 bytes) then X25519 private key (32); public =
ML-KEM-768 encapsulation key (1184) then X25519 public key (32).
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from keyark.contexts import context
from keyark.errors import InvalidInputError, KeyarkError, Kind
from keyark.records.v1.drm_pb2 import SealedKey, SealSuite

STORAGE_LABEL: Final = "keyark/v1/storage"
SEED_SIZE: Final = 64
X25519_SIZE: Final = 32
PRIVATE_SIZE: Final = SEED_SIZE + X25519_SIZE
ENCAPSULATION_SIZE: Final = 1184
PUBLIC_SIZE: Final = ENCAPSULATION_SIZE + X25519_SIZE
ENCAPSULATED_SIZE: Final = 1088 + X25519_SIZE

_HPKE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class SealError(KeyarkError):
    """What was sealed does not open: wrong key, wrong leaf, or altered."""

    reason = "SEAL"
    kind = Kind.PRECONDITION


class HybridPublicKey:
    """An MLKEM768-X25519 public key; ``key_id`` is SHA-256 of its 1216 bytes."""

    def __init__(self, mlkem: MLKEM768PublicKey, x25519: X25519PublicKey) -> None:
        self._key = MLKEM768X25519PublicKey(mlkem, x25519)
        self._bytes = mlkem.public_bytes_raw() + x25519.public_bytes_raw()
        self.key_id = sha256(self._bytes).digest()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Load 1216 bytes; raises InvalidInputError."""
        if len(data) != PUBLIC_SIZE:
            raise _malformed()
        try:
            return cls(
                MLKEM768PublicKey.from_public_bytes(data[:ENCAPSULATION_SIZE]),
                X25519PublicKey.from_public_bytes(data[ENCAPSULATION_SIZE:]),
            )
        except ValueError:
            raise _malformed() from None

    def to_bytes(self) -> bytes:
        """Return the 1216 bytes of the key."""
        return self._bytes

    def encrypt(self, plaintext: bytes, info: bytes) -> bytes:
        """Seal (HPKE base mode, RFC 9180 §6.1); returns encapsulated key (1120 bytes), then ciphertext.

        Raises InvalidInputError for a key whose X25519 half is no key (RFC 7748 §6.1, a point of small order).
        """
        try:
            return _HPKE.encrypt(plaintext, self._key, info)
        except ValueError:
            raise _malformed() from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.key_id.hex()})"


class HybridPrivateKey:
    """An MLKEM768-X25519 private key; its ``repr`` shows the public key's id only."""

    def __init__(self, mlkem: MLKEM768PrivateKey, x25519: X25519PrivateKey) -> None:
        self._mlkem, self._x25519 = mlkem, x25519
        self._key = MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public_key = HybridPublicKey(mlkem.public_key(), x25519.public_key())

    @classmethod
    def generate(cls) -> Self:
        """Make a new key pair."""
        return cls(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Load 96 bytes; raises InvalidInputError."""
        if len(data) != PRIVATE_SIZE:
            raise InvalidInputError(
                f"An MLKEM768-X25519 private key has {PRIVATE_SIZE} bytes; restore it from a backup.",
                field="private_key",
            )
        return cls(
            MLKEM768PrivateKey.from_seed_bytes(data[:SEED_SIZE]),
            X25519PrivateKey.from_private_bytes(data[SEED_SIZE:]),
        )

    @property
    def parts(self) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
        """Both component keys."""
        return self._mlkem, self._x25519

    def to_bytes(self) -> bytes:
        """Return the 96 secret bytes of the key."""
        return self._mlkem.private_bytes_raw() + self._x25519.private_bytes_raw()

    def decrypt(self, ciphertext: bytes, info: bytes) -> bytes:
        """Open what ``HybridPublicKey.encrypt`` sealed; raises SealError."""
        try:
            return _HPKE.decrypt(ciphertext, self._key, info)
        except (InvalidTag, ValueError):
            raise SealError(
                "The sealed data does not open with this key for this purpose; check the key and where the "
                "data comes from."
            ) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.public_key.key_id.hex()})"


class StoragePublicKey(HybridPublicKey):
    """Seals private keys into the archive."""

    def seal(self, private_key: bytes, leaf: bytes) -> SealedKey:
        """Seal a private key (PKCS#8 DER), bound to the exact bytes of its KEY_ARCHIVED leaf."""
        return SealedKey(
            suite=SealSuite.SEAL_SUITE_HPKE_MLKEM768_X25519_SHA256_AES256GCM,
            storage_key_id=self.key_id,
            ciphertext=self.encrypt(private_key, _info(self.key_id, leaf)),
        )


class StoragePrivateKey(HybridPrivateKey):
    """Opens archived private keys; exists in a disposable worker, after a quorum came together."""

    def open(self, sealed: SealedKey, leaf: bytes) -> bytes:
        """Return the private key (PKCS#8 DER) that was sealed for this leaf; raises SealError."""
        if sealed.suite != SealSuite.SEAL_SUITE_HPKE_MLKEM768_X25519_SHA256_AES256GCM:
            raise SealError(
                "The key is sealed in a way that this release does not know; use a newer release."
            )
        key_id = self.public_key.key_id
        if sealed.storage_key_id != key_id:
            raise SealError("The key is sealed under another storage key generation; open that one's token.")
        return self.decrypt(sealed.ciphertext, _info(key_id, leaf))


def _info(storage_key_id: bytes, leaf: bytes) -> bytes:
    return context(STORAGE_LABEL, storage_key_id, sha256(leaf).digest())


def _malformed() -> InvalidInputError:
    return InvalidInputError(
        f"The key is not an MLKEM768-X25519 public key of {PUBLIC_SIZE} bytes; make a new key pair.",
        field="public_key",
    )
