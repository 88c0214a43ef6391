"""An agent's keys, made on the agent's own machine: a request first, the share key once the certificate is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from keyark.crypto.agents import AgentShareKey, ShareKey
from keyark.errors import ConfigurationError
from keyark.pki.certificates import load_certificates, save_certificates
from keyark.pki.files import make_private_folder, write_new_file
from keyark.pki.identities import identity_of, request_identity
from keyark.pki.key_types import KeyType, PrivateKey, generate_signing
from keyark.pki.keys import load_private_key, save_private_key
from keyark.pki.spiffe import SpiffeId
from keyark.service.initialization import PRIVATE, PUBLIC, save_request


@dataclass(frozen=True, kw_only=True)
class AgentEnrollment:
    """The folder (0700) of one agent: key.pem, cert.pem, share-key.pem and, to be given away, share-key.json."""

    folder: Path
    trust_domain: str
    name: str
    password: bytes | None = field(repr=False)

    @property
    def identity(self) -> SpiffeId:
        """Who the agent is; raises InvalidInputError for a name that is none."""
        return SpiffeId(self.trust_domain, f"agent/{self.name}")

    def request(self) -> Path:
        """Make the certificate key and its request (PEM), which is returned; raises where the folder is in use."""
        identity = self.identity
        make_private_folder(self.folder)
        key = generate_signing(KeyType.EC_P256)
        save_private_key(self.folder / "key.pem", key, password=self.password)
        save_request(self.folder / "identity.csr", request_identity(key, identity))
        return self.folder / "identity.csr"

    def complete(self, certificate: Path) -> Path:
        """Take the certificate, make the share key, and return its signed public file.

        Raises ConfigurationError where the certificate is another's, ShareKeyError where it is not of the key that
        lies here, and the errors of ``load_private_key``.
        """
        issued = load_certificates(certificate)
        if identity_of(issued[0]) != self.identity:
            raise ConfigurationError(f"{certificate} is not the certificate of {self.identity}.")
        key = load_private_key(self.folder / "key.pem", ask_password=lambda: self.password or b"")
        save_certificates(self.folder / "cert.pem", issued)
        return make_share_key(self.folder, key, password=self.password)


def make_share_key(folder: Path, certificate_key: PrivateKey, *, password: bytes | None) -> Path:
    """Make the share key of the agent whose cert.pem lies in ``folder``; returns its signed public file."""
    share_key = ShareKey.generate()
    public = AgentShareKey.create(
        share_key=share_key,
        certificate=load_certificates(folder / "cert.pem")[0],
        certificate_key=certificate_key,
    )
    write_new_file(folder / "share-key.pem", share_key.to_pem(password=password), mode=PRIVATE)
    write_new_file(folder / "share-key.json", public.to_json().encode(), mode=PUBLIC)
    return folder / "share-key.json"
