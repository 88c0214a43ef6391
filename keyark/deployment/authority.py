"""The authority of a deployment: the internal CA for mutual TLS and the root above the issuing CA.

Its folder can be taken offline once the deployment runs; it is needed again for new identities, renewals and a
new issuing CA only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509

from keyark.errors import ConfigurationError
from keyark.pki.authority import Authority, ca_name, create_internal_ca, create_root, issue_ca
from keyark.pki.certificates import Validity, save_certificates
from keyark.pki.files import read_file
from keyark.pki.identities import issue_identity
from keyark.pki.key_types import KeyType
from keyark.pki.spiffe import SpiffeId
from keyark.service.initialization import new_folder, new_signing_key

YEAR: Final = 365 * 86_400
INTERNAL_CA_SECONDS: Final = 15 * YEAR
ROOT_SECONDS: Final = 25 * YEAR
ISSUING_CA_SECONDS: Final = 12 * YEAR
SERVICE_SECONDS: Final = 2 * YEAR
PERSON_SECONDS: Final = 2 * YEAR
TRANSPORT_SECONDS: Final = 5 * YEAR
MAX_REQUEST: Final = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class DeploymentAuthority:
    """Signs what the services and people of one trust domain ask for."""

    trust_domain: str
    internal: Authority
    root: Authority

    @classmethod
    def create(cls, folder: Path, *, trust_domain: str, root_key_type: KeyType) -> DeploymentAuthority:
        """Make both CAs in a new folder: internal-ca.pem, root.pem, and their keys beside them (0600)."""
        new_folder(folder)
        now = int(time.time())
        internal = create_internal_ca(
            new_signing_key(folder / "internal-ca-key.pem", KeyType.EC_P256),
            subject=ca_name(f"keyark internal CA of {trust_domain}"[:64]),
            validity=Validity.starting(now, lifetime_seconds=INTERNAL_CA_SECONDS),
        )
        root = create_root(
            new_signing_key(folder / "root-key.pem", root_key_type),
            subject=ca_name(f"Root CA of {trust_domain}"[:64]),
            validity=Validity.starting(now, lifetime_seconds=ROOT_SECONDS),
        )
        save_certificates(folder / "internal-ca.pem", [internal.certificate])
        save_certificates(folder / "root.pem", [root.certificate])
        return cls(trust_domain=trust_domain, internal=internal, root=root)

    def sign_identity(self, request: Path, identity: SpiffeId, certificate: Path) -> None:
        """Issue the certificate of a service, a person or the transport key, and write it as PEM."""
        lifetime = TRANSPORT_SECONDS if identity.role == "drm/transport" else SERVICE_SECONDS
        validity = self._validity(self.internal, lifetime)
        issued = issue_identity(self.internal, _load_request(request), identity=identity, validity=validity)
        save_certificates(certificate, [issued])

    def sign_issuing_ca(self, request: Path, name: str, certificate: Path) -> None:
        """Issue the issuing CA's certificate, and write it followed by the root, as PEM."""
        validity = self._validity(self.root, ISSUING_CA_SECONDS)
        issued = issue_ca(self.root, _load_request(request), subject=ca_name(name), validity=validity)
        save_certificates(certificate, [issued, self.root.certificate])

    def _validity(self, issuer: Authority, seconds: int) -> Validity:
        return Validity.starting(int(time.time()), lifetime_seconds=seconds, within=issuer.validity)


def _load_request(path: Path) -> x509.CertificateSigningRequest:
    try:
        return x509.load_pem_x509_csr(read_file(path, max_size=MAX_REQUEST))
    except ValueError:
        raise ConfigurationError(f"{path} holds no certificate signing request; make it again.") from None
