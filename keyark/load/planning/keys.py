"""Key pairs for load tests, made beforehand and kept: making keys is the users' work, not the deployment's.

A folder (0700) holds a file per key type (0600), each key as its length (4 bytes, big-endian) and PKCS#8 DER, and
``used.json``: how many keys of each type each deployment has seen. A public key enrolls once, so none is handed out
twice for a deployment; for another one all of them are new again.

The keys protect nothing. RSA keys share primes with one another, which makes hundreds out of a few: whoever has two of
their public keys has the private ones. keyark refuses two such keys in one statement, so each block of 256 has primes
of its own, and what is taken begins with a block.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import lcm
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyark.errors import ConfigurationError, KeyarkError, Kind
from keyark.files import make_private_folder, write_file
from keyark.keys.key_facts import RSA_PUBLIC_EXPONENT
from keyark.keys.key_types import RSA_KEY_TYPES, KeyType, generate

LENGTH: Final = 4
CHUNK: Final = 2000
USED: Final = "used.json"
BLOCK: Final = 256


class KeysExhaustedError(KeyarkError):
    """A run needed more key pairs than were made for it."""

    reason = "KEYS_EXHAUSTED"
    kind = Kind.EXHAUSTED


@dataclass(frozen=True)
class KeyRange:
    """Keys of one type in a cache file: those from ``start`` on, ``count`` of them."""

    path: Path
    start: int
    count: int

    def part(self, index: int, of: int) -> KeyRange:
        """Return one of ``of`` equal parts."""
        each = self.count // of
        return KeyRange(self.path, self.start + index * each, each)

    def read(self) -> Iterator[bytes]:
        """Yield the private keys, PKCS#8 DER."""
        with self.path.open("rb") as file:
            for position in range(self.start + self.count):
                length = int.from_bytes(file.read(LENGTH), "big")
                if position < self.start:
                    file.seek(length, os.SEEK_CUR)
                else:
                    yield file.read(length)


class KeyCache:
    """A folder of key pairs; ``say`` gets a line when making some takes a while."""

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self._folder, self._say = folder, say

    def take(self, key_type: KeyType, count: int, *, deployment: str) -> KeyRange:
        """Reserve keys that this deployment has not seen, making those that lack.

        ``deployment`` is any name that no other deployment has. Raises ConfigurationError where the folder is not
        this user's alone.
        """
        make_private_folder(self._folder)
        with self._locked():
            used = self._used()
            mine = used.setdefault(deployment, {})
            start = mine.get(key_type.value, 0)
            if key_type in RSA_KEY_TYPES:
                start = -(-start // BLOCK) * BLOCK
            self._ensure(key_type, start + count)
            mine[key_type.value] = start + count
            write_file(self._folder / USED, json.dumps(used).encode(), mode=0o600)
        return KeyRange(self._path(key_type), start, count)

    def _path(self, key_type: KeyType) -> Path:
        blocks = f".{BLOCK}" if key_type in RSA_KEY_TYPES else ""
        return self._folder / f"{key_type.value}{blocks}.keys"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other runs with the same folder out."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _used(self) -> dict[str, dict[str, int]]:
        try:
            used: dict[str, dict[str, int]] = json.loads((self._folder / USED).read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            raise ConfigurationError(
                f"{self._folder / USED} is not a key ledger; delete the folder, and new keys will be made."
            ) from None
        return used

    def _ensure(self, key_type: KeyType, count: int) -> None:
        path = self._path(key_type)
        path.touch(mode=0o600)
        have = _count(path)
        lacking = count - have
        if lacking <= 0:
            return
        self._say(f"making {lacking} {key_type.value} keys")
        made = _rsa_keys(key_type, have, lacking) if key_type in RSA_KEY_TYPES else _keys(key_type, lacking)
        with path.open("ab") as file:
            while chunk := list(itertools.islice(made, CHUNK)):
                file.write(b"".join(len(der).to_bytes(LENGTH, "big") + der for der in chunk))


def _count(path: Path) -> int:
    """Count the keys of a file; one that a crash left half is cut off."""
    count = end = 0
    size = path.stat().st_size
    with path.open("r+b") as file:
        while head := file.read(LENGTH):
            after = end + LENGTH + int.from_bytes(head, "big")
            if after > size or len(head) < LENGTH:
                file.truncate(end)
                break
            count, end = count + 1, after
            file.seek(end)
    return count


def _keys(key_type: KeyType, count: int) -> Iterator[bytes]:
    for _ in range(count):
        key = generate(key_type)
        yield key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _rsa_keys(key_type: KeyType, have: int, lacking: int) -> Iterator[bytes]:
    """Make keys from the position ``have`` on; those of another block share no prime with them."""
    end = have + lacking
    while have < end:
        count = min(BLOCK - have % BLOCK, end - have)
        yield from _rsa_block(key_type, count)
        have += count


def _rsa_block(key_type: KeyType, count: int) -> Iterator[bytes]:
    """Every pair of a pool of primes is a key; OpenSSL sets both top bits, so each product has full length."""
    bits = key_type.facts.bits
    primes: list[int] = []
    while len(primes) * (len(primes) - 1) // 2 < count:
        numbers = rsa.generate_private_key(RSA_PUBLIC_EXPONENT, bits).private_numbers()
        primes += [numbers.p, numbers.q]
    for p, q in itertools.islice(itertools.combinations(sorted(primes, reverse=True), 2), count):
        yield _rsa_key(p, q)


def _rsa_key(p: int, q: int) -> bytes:
    d = pow(RSA_PUBLIC_EXPONENT, -1, lcm(p - 1, q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=d % (p - 1),
        dmq1=d % (q - 1),
        iqmp=pow(q, -1, p),
        public_numbers=rsa.RSAPublicNumbers(RSA_PUBLIC_EXPONENT, p * q),
    )
    key = numbers.private_key(unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
