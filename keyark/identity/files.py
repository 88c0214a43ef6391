"""An identity on disk: key and certificate in two files that change together.

Two files cannot be renamed in one step. So the new key first waits beside the present one, the rename of the
certificate decides, and then the new key takes the older one's place. Whoever reads in between, or after a crash, takes
the key that the certificate is of.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from keyark.errors import ConfigurationError
from keyark.files import erase_secret_file, exchange_secret_file, finish_secret_exchange, write_file
from keyark.keys.key_types import PrivateKey
from keyark.keys.private_keys import AskPassword, encode_key_file, load_private_key
from keyark.keys.spki import encode_spki
from keyark.x509.certificates import load_certificates, save_certificates


@dataclass(frozen=True, kw_only=True)
class IdentityFiles:
    """Where the private key (PEM, 0600) and the certificate (PEM, the own one first) of an identity are."""

    key: Path
    certificate: Path

    @property
    def next_key(self) -> Path:
        """Where a new key waits for its certificate."""
        return self.key.with_name(f"{self.key.stem}-next{self.key.suffix}")

    def load(
        self, *, ask_password: AskPassword | None = None
    ) -> tuple[PrivateKey, Sequence[x509.Certificate]]:
        """Load a key and the certificate of that key; ``ask_password`` is called only if the key is encrypted.

        Raises ConfigurationError where they do not belong together, and the errors of keys and certificates.
        """
        key = load_private_key(self.key, ask_password=ask_password)
        chain = load_certificates(self.certificate)
        if _belong(key, chain[0]):
            return key, chain
        source = self.next_key if self.next_key.exists() else self.key  # where it is gone, it took its place
        key, chain = load_private_key(source, ask_password=ask_password), load_certificates(self.certificate)
        if not _belong(key, chain[0]):
            raise ConfigurationError(
                f"{self.certificate} is not the certificate of {self.key}; copy the right one."
            )
        return key, chain

    def finish(self, *, ask_password: AskPassword | None = None) -> None:
        """Put the next key in place where an interrupted change had decided on it; raises as ``load``."""
        if self.next_key.exists() and _belong(
            load_private_key(self.next_key, ask_password=ask_password), load_certificates(self.certificate)[0]
        ):
            exchange_secret_file(self.next_key, self.key)
        finish_secret_exchange(self.key)

    def replace(self, key: PrivateKey, chain: Sequence[x509.Certificate]) -> None:
        """Switch to another key, kept as the folder's keys are, and its certificate, and erase the former key.

        The files stay the owner's that they were.

        One at a time, after ``finish``. Raises ConfigurationError where they do not belong together, and
        UnwritableFileError.
        """
        if not _belong(key, chain[0]):
            raise ConfigurationError(
                f"The new certificate for {self.certificate} does not belong to the new key."
            )
        self.prepare(key, password=None)
        save_certificates(self.certificate, chain)
        exchange_secret_file(self.next_key, self.key)

    def prepare(self, key: PrivateKey, *, password: bytes | None) -> None:
        """Let a new key wait beside the present one for its certificate; the file is the owner's of the present one.

        Raises UnwritableFileError.
        """
        owner = self.key.stat()
        erase_secret_file(self.next_key)  # of a renewal that was interrupted before it was decided
        write_file(self.next_key, encode_key_file(self.next_key, key, password=password), mode=0o600)
        if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(self.next_key, owner.st_uid, owner.st_gid)

    def install(
        self, chain: Sequence[x509.Certificate], *, ask_password: AskPassword | None = None
    ) -> PrivateKey:
        """Put a certificate into force: of the key that waits, which takes the present one's place, or of this one.

        Returns the key. Raises ConfigurationError for a certificate of neither, and the errors of keys and files.
        """
        for source in filter(Path.exists, (self.next_key, self.key)):
            key = load_private_key(source, ask_password=ask_password)
            if _belong(key, chain[0]):
                save_certificates(self.certificate, chain)
                if source == self.next_key:
                    exchange_secret_file(self.next_key, self.key)
                return key
        raise ConfigurationError(
            f"The certificate does not belong to the key in {self.key.parent}; have it issued again."
        )


def _belong(key: PrivateKey, certificate: x509.Certificate) -> bool:
    return encode_spki(certificate.public_key()) == encode_spki(key.public_key())
