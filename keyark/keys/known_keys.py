"""Public keys whose private half is known to everybody: Debian's weak keys, and keys that somebody published.

The operator has the list, which is the blocklist of the badkeys project (`badkeys --update-bl` fetches it): records of
16 bytes in ascending order, the SHA-256 of a key cut to 15 bytes, then the number of its source. Hashed are the modulus
of RSA keys, the x-coordinate of NIST curves and the key of Ed25519 and X25519, each as a big-endian number without
leading zeros, and the key of ML-KEM and ML-DSA as it is.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, assert_never

from keyark.errors import ConfigurationError
from keyark.files import UnreadableFileError, opened_file
from keyark.keys.key_facts import Algorithm
from keyark.keys.spki import key_bytes, rsa_modulus, spki_key_type
from keyark.keys.weak_keys import WeakKeyError

_RECORD: Final = 16
_HASH: Final = 15


class KnownKeys:
    """What the operator's lists say; without a list no key is known."""

    def __init__(self, lists: Sequence[Sequence[bytes]] = ()) -> None:
        self._lists = lists

    @classmethod
    def load(cls, paths: Sequence[Path]) -> KnownKeys:
        """Open lists; raises ConfigurationError where one is none or its records are not in order."""
        return cls([_HashList.load(path) for path in paths])

    def check(self, spki: bytes, *, field: str = "") -> None:
        """Raise WeakKeyError where a canonical SPKI (DER) is on a list."""
        if not self._lists:
            return
        wanted = sha256(_hashed(spki)).digest()[:_HASH]
        for hashes in self._lists:
            place = bisect_left(hashes, wanted)
            if place < len(hashes) and hashes[place] == wanted:
                raise WeakKeyError(
                    "The private key of this public key is publicly known; make a new key pair with "
                    "current software.",
                    field=field,
                )


NO_KNOWN_KEYS: Final = KnownKeys()


class _HashList(Sequence[bytes]):
    """The hashes of a list, read where they lie."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data

    @classmethod
    def load(cls, path: Path) -> _HashList:
        try:
            with opened_file(path) as descriptor:
                data = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        except UnreadableFileError as error:
            raise ConfigurationError(f"The list of known keys cannot be read: {error.message}") from None
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"The list of known keys {path} cannot be read: {error}.") from None
        hashes, last = cls(data), b""
        if len(data) % _RECORD == 0 and all(last <= (last := hashes[place]) for place in range(len(hashes))):
            return hashes
        raise ConfigurationError(
            f"The list of known keys {path} is not a sorted blocklist of the badkeys project; fetch it again."
        )

    def __len__(self) -> int:
        return len(self._data) // _RECORD

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]  # no slices
        return self._data[index * _RECORD : index * _RECORD + _HASH]


def _hashed(spki: bytes) -> bytes:
    key_type, key = spki_key_type(spki), key_bytes(spki)
    match key_type.algorithm:
        case Algorithm.RSA:
            return rsa_modulus(spki)
        case Algorithm.EC:
            return key[1 : 1 + len(key) // 2].lstrip(b"\0")
        case Algorithm.ED25519 | Algorithm.X25519:
            return key.lstrip(b"\0")
        case Algorithm.ML_DSA | Algorithm.ML_KEM:
            return key
        case _:
            assert_never(key_type.algorithm)
