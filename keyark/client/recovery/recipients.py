"""The requester's one-time keys, and what comes back sealed to them.

Each waits on disk for one recovery, and is deleted when that is over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from cryptography import x509

from keyark.custody.agents import ShareKey
from keyark.custody.matching import prove_match
from keyark.errors import ConfigurationError, InvalidInputError
from keyark.files import erase_secret_file, make_private_folder, read_secret_file, write_new_file
from keyark.keys.spki import encode_spki, key_id
from keyark.statements.ceremonies import open_recovered_key
from keyark.transparency.receipts import ArchivalReceipt
from keyark.v1 import recovery_pb2
from keyark.x509.certificates import load_certificate
from keyark.x509.chains import KnownChains

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
                f"{path} does not exist. Collect in the home in which the recovery was requested, or ask "
                "again with a new request."
            )
        return ShareKey.from_pem(read_secret_file(path, max_size=MAX_PEM), password=self.password)

    def delete(self, ceremony_id: bytes) -> None:
        """Erase the key of a recovery that is over; raises UnwritableFileError."""
        erase_secret_file(self._path(ceremony_id))

    def _path(self, ceremony_id: bytes) -> Path:
        return self.folder / f"{ceremony_id.hex()}.pem"


@dataclass(frozen=True, kw_only=True)
class RecoveredKey:
    """A recovered private key (PKCS#8 DER), proven to belong to its certificate, with the certificate's chain.

    ``archive_index`` is the position of its archival in the DRM's log, which distinguishes keys of the same
    second.
    """

    key_id: bytes
    email: str
    private_key: bytes = field(repr=False)
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    archive_index: int

    @classmethod
    def open(
        cls,
        sealed: recovery_pb2.RecoveredKey,
        recipient: ShareKey,
        *,
        digest: bytes,
        owner: ArchivalReceipt,
        chains: KnownChains,
    ) -> Self:
        """Open a key that was sealed for the request with this digest, and prove that it belongs to its
        certificate.

        The certificate and its CA's certificate may have ended. Raises SealError, KeyMismatchError,
        CertificateChainError and InvalidInputError.
        """
        private_key = open_recovered_key(sealed.ciphertext, recipient, digest, sealed.key_id)
        certificate = load_certificate(sealed.certificate)
        chain = chains.verify(certificate)[1:]
        spki = encode_spki(certificate.public_key())
        if key_id(spki) != sealed.key_id:
            raise InvalidInputError("The archive sent the certificate of another key.", field="certificate")
        return cls(
            key_id=sealed.key_id,
            email=owner.details.email,
            private_key=prove_match(private_key, spki),
            certificate=certificate,
            chain=tuple(chain),
            archive_index=owner.index,
        )
