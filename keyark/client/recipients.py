"""The requester's one-time keys: each waits on disk for one recovery, and is deleted when that is over."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from keyark.crypto.agents import ShareKey
from keyark.errors import ConfigurationError
from keyark.pki.files import erase_secret_file, make_private_folder, read_secret_file, write_new_file

MAX_PEM: Final = 1 << 16


class RecipientKeyMissingError(ConfigurationError):
    """The one-time private key of a recovery is not in this home."""

    reason = "RECIPIENT_KEY_MISSING"


@dataclass(frozen=True, kw_only=True)
class RecipientKeys:
    """The folder (0700) of an agent's one-time keys, encrypted as the identity's key is."""

    folder: Path
    password: bytes | None = field(default=None, repr=False)

    def create(self, ceremony_id: bytes) -> ShareKey:
        """Make the key of a recovery and write it durably, before anybody can seal to it."""
        key = ShareKey.generate()
        make_private_folder(self.folder)
        write_new_file(self._path(ceremony_id), key.to_pem(password=self.password), mode=0o600)
        return key

    def load(self, ceremony_id: bytes) -> ShareKey:
        """Return the key of a recovery; raises RecipientKeyMissingError and the errors of ``ShareKey.from_pem``."""
        path = self._path(ceremony_id)
        if not path.is_file():
            raise RecipientKeyMissingError(
                f"{path} is not there: collect in the home that the recovery was asked for in, or ask anew."
            )
        return ShareKey.from_pem(read_secret_file(path, max_size=MAX_PEM), password=self.password)

    def delete(self, ceremony_id: bytes) -> None:
        """Erase the key of a recovery that is over; raises UnwritableFileError."""
        erase_secret_file(self._path(ceremony_id))

    def _path(self, ceremony_id: bytes) -> Path:
        return self.folder / f"{ceremony_id.hex()}.pem"
