"""The transport key pairs on the DRM's disk: a folder per generation, numbered from 1.

========================== =========================================================================
``N/key.pem``              the private key (0600); gone once the generation is retired
``N/transport.csr``        the request for its certificate, which the internal CA signs
``N/transport.pem``        the certificate, put there by the operator; kept for old receipts
========================== =========================================================================

Which of them are in force is not for these files to say: it is in the store, and in the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from drm_service.config import DrmConfig
from keyark.erasure import sync_folder
from keyark.errors import ConfigurationError
from keyark.files import UnwritableFileError, erase_secret_file, make_private_folder
from keyark.identity.certificates import request_identity
from keyark.identity.spiffe import TRANSPORT_ROLE, SpiffeId
from keyark.identity.transport import TransportTrust
from keyark.keys.key_types import KeyType, SigningPrivateKey, key_type_of
from keyark.keys.private_keys import load_private_key
from keyark.keys.spki import encode_spki
from keyark.service.program.initialization import new_signing_key, save_request
from keyark.v1.common_pb2 import TransportCertificate
from keyark.x509.certificates import encode_certificate, load_certificates


class TransportKeyFileError(ConfigurationError):
    """A transport key's files do not belong together, or are of another key than the log says."""

    reason = "TRANSPORT_KEY_FILE"


@dataclass(frozen=True, kw_only=True)
class TransportFiles:
    """The folder of all generations, and the file of the certificates' issuers."""

    folder: Path
    chain: Path
    trust_domain: str

    @classmethod
    def of(cls, config: DrmConfig) -> TransportFiles:
        """Where a DRM's transport keys are."""
        return cls(
            folder=config.transport.folder,
            chain=config.transport.chain,
            trust_domain=config.service.trust_domain,
        )

    def key_path(self, generation: int) -> Path:
        """Where the private key of a generation lies."""
        return self.folder / str(generation) / "key.pem"

    def key_uri(self, generation: int) -> str:
        """Name the private key for a worker."""
        return f"file:{self.key_path(generation).resolve()}"

    def request_path(self, generation: int) -> Path:
        """Where the certificate request of a generation lies."""
        return self.folder / str(generation) / "transport.csr"

    def certificate_path(self, generation: int) -> Path:
        """Where the certificate of a generation belongs."""
        return self.folder / str(generation) / "transport.pem"

    def make_key(self, generation: int, key_type: KeyType) -> SigningPrivateKey:
        """Make key pair and request; what an interrupted call left is completed, not made anew.

        Raises TransportKeyFileError where a key of another type waits there.
        """
        make_private_folder(self.folder)
        path = self.key_path(generation)
        make_private_folder(path.parent)
        if not path.exists():
            new_signing_key(path, key_type)
        key = cast("SigningPrivateKey", load_private_key(path))
        if key_type_of(key.public_key()) is not key_type:
            raise TransportKeyFileError(
                f"Transport key {generation} waits for its certificate and is of another type; install the "
                f"certificate and reload, or delete {path.parent}."
            )
        if not self.request_path(generation).exists():
            request = request_identity(key, SpiffeId(self.trust_domain, TRANSPORT_ROLE))
            save_request(self.request_path(generation), request)
        return key

    def load_key(self, generation: int, spki: bytes) -> SigningPrivateKey:
        """Load a private key; raises TransportKeyFileError unless it is the one of this SPKI (DER)."""
        path = self.key_path(generation)
        key = cast("SigningPrivateKey", load_private_key(path))
        if encode_spki(key.public_key()) != spki:
            raise TransportKeyFileError(
                f"{path} and its certificate do not belong together; restore the right files."
            )
        return key

    def set_aside(self, *, after: int, suffix: str) -> list[Path]:
        """Rename the folders of all generations after one, durably, so that new keys take their numbers.

        Returns their new paths. Raises UnwritableFileError.
        """
        try:
            waiting = [f for f in self.folder.iterdir() if f.name.isdecimal() and int(f.name) > after]
            moved = [folder.rename(folder.with_name(f"{folder.name}.{suffix}")) for folder in waiting]
            sync_folder(self.folder)
        except OSError as error:
            raise UnwritableFileError(
                f"{self.folder} cannot be written: {error.strerror}; move the transport keys after number {after} away."
            ) from None
        return moved

    def delete_key(self, generation: int) -> None:
        """Erase a private key, durably; copies of the disk keep theirs. Raises UnwritableFileError."""
        erase_secret_file(self.key_path(generation))

    def certificate(self, generation: int) -> TransportCertificate:
        """Load a certificate with its chain, as it is handed out; raises UnreadableFileError and the like."""
        return TransportCertificate(
            certificate=encode_certificate(load_certificates(self.certificate_path(generation))[0]),
            chain=[encode_certificate(issuer) for issuer in load_certificates(self.chain)],
        )

    def trust(self) -> TransportTrust:
        """Return what says whether a certificate is good: the last certificate of the chain is its anchor."""
        return TransportTrust(anchors=load_certificates(self.chain)[-1:], trust_domain=self.trust_domain)
