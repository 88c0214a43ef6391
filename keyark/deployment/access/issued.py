"""What an authority signed for services and people: a record beside its keys to which lines are only added.

A certificate is written down before it leaves, so that every one that is in force can be found and revoked.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography import x509

from keyark.erasure import sync_folder
from keyark.errors import ConfigurationError
from keyark.files import UnwritableFileError, read_file
from keyark.identity.certificates import identity_of
from keyark.keys.spki import encode_spki
from keyark.x509.certificates import Validity

FILE: Final = "issued-identities.jsonl"
MAX_SIZE: Final = 1 << 30


@dataclass(frozen=True, kw_only=True)
class IssuedIdentity:
    """A certificate: of whom ("rm", "client/alice"), its serial number and key (hexadecimal), and until when (UTC)."""

    identity: str
    serial: str
    spki_sha256: str
    not_before: int
    not_after: int

    @classmethod
    def of(cls, certificate: x509.Certificate) -> IssuedIdentity:
        """Return what is written down of a certificate."""
        validity = Validity.of(certificate)
        return cls(
            identity=identity_of(certificate).path,
            serial=f"{certificate.serial_number:x}",
            spki_sha256=sha256(encode_spki(certificate.public_key())).hexdigest(),
            not_before=validity.not_before,
            not_after=validity.not_after,
        )


@dataclass(frozen=True)
class IssuedIdentities:
    """The record in the folder of an authority; an authority of an earlier release begins with none."""

    folder: Path

    def record(self, certificate: x509.Certificate) -> None:
        """Write a certificate down, durably, unless it is there; raises UnwritableFileError."""
        entry = IssuedIdentity.of(certificate)
        with self._locked() as descriptor:
            entries, whole = self._read()
            if entry in entries:
                return
            os.ftruncate(descriptor, whole)  # of a line that a crash cut off, no certificate left
            os.lseek(descriptor, 0, os.SEEK_END)
            line = json.dumps(asdict(entry)).encode() + b"\n"
            if os.write(descriptor, line) != len(line):  # a disk that became full in the middle of it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        sync_folder(self.folder)

    def entries(self) -> list[IssuedIdentity]:
        """Return them in the order of their issuance; raises ConfigurationError for a damaged record."""
        return self._read()[0] if self._path.exists() else []

    @property
    def _path(self) -> Path:
        return self.folder / FILE

    def _read(self) -> tuple[list[IssuedIdentity], int]:
        """Return the entries, and the bytes of the lines that are whole."""
        *lines, _cut = read_file(self._path, max_size=MAX_SIZE).split(b"\n")
        try:
            entries = [IssuedIdentity(**json.loads(line)) for line in lines]
        except (ValueError, TypeError, RecursionError):
            raise ConfigurationError(f"{self._path} is damaged; restore it from a backup.") from None
        return entries, sum(len(line) + 1 for line in lines)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UnwritableFileError(f"{self._path} cannot be written: {error.strerror}.") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        except OSError as error:
            raise UnwritableFileError(f"{self._path} cannot be written: {error.strerror}.") from None
        finally:
            os.close(descriptor)
