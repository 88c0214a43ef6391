"""Enrollments that queries ask about: the newest of this process, or a sample of all that a deployment ever had.

A sample lies in a file, so that look-ups among a million certificates meet old ones as well as new ones: each entry is
a request id (16 bytes), the length of the encryption certificate (4 bytes, big-endian), and the certificate (DER).
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from keyark.x509.serials import encode_serial

NEWEST: Final = 4096
SHARE: Final = 0.01
"""Of the enrollments of a run, how many go into the file."""
_ID: Final = 16
_LENGTH: Final = 4


@dataclass(frozen=True)
class Issued:
    """An enrollment that was answered, for queries to ask about."""

    request_id: bytes
    certificate: bytes

    @property
    def serial(self) -> bytes:
        """The encryption certificate's serial number, as requests name it."""
        return encode_serial(x509.load_der_x509_certificate(self.certificate).serial_number)


class KnownEnrollments:
    """What may be asked about; ``path`` is the file of the sample, or None for the newest only."""

    def __init__(self, path: Path | None, *, seed: int) -> None:
        self._path = path
        self._chance = random.Random(seed)  # noqa: S311 — which enrollments, not keys
        self._sample = list(_read(path)) if path is not None and path.exists() else []
        self._newest: deque[Issued] = deque(maxlen=NEWEST)

    def __bool__(self) -> bool:
        return bool(self._sample or self._newest)

    def add(self, issued: Issued) -> None:
        """Remember an enrollment, and write a share of them down."""
        self._newest.append(issued)
        if self._path is not None and self._chance.random() < SHARE:
            length = len(issued.certificate).to_bytes(_LENGTH, "big")
            _append(self._path, issued.request_id + length + issued.certificate)

    def choose(self) -> Issued:
        """Return any one of the sample, or of the newest where there is none."""
        return self._chance.choice(self._sample or self._newest)


def _read(path: Path) -> Iterator[Issued]:
    with path.open("rb") as file:
        while len(head := file.read(_ID + _LENGTH)) == _ID + _LENGTH:
            length = int.from_bytes(head[_ID:], "big")
            if len(certificate := file.read(length)) == length:
                yield Issued(head[:_ID], certificate)


def _append(path: Path, entry: bytes) -> None:
    """Write an entry whole: other processes append to the same file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, entry)
    finally:
        os.close(descriptor)
