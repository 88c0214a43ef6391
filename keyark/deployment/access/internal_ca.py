"""Renews the internal CA before or after it ended, and gives the services and people of one machine its certificate."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from cryptography import x509
from pydantic import ConfigDict

from keyark.client.access.home import HomeConfig
from keyark.config import Config, ConfigPath, load_config
from keyark.deployment.access.authority import INTERNAL_CA_SECONDS, DeploymentAuthority
from keyark.deployment.access.bundle import keep_bundle
from keyark.deployment.access.revocation import IdentityRevocation
from keyark.folders import alone_in
from keyark.identity.revoked import IDENTITY_LIST
from keyark.identity.spiffe import SERVICE_ROLES
from keyark.keys.spki import encode_spki
from keyark.x509.authority import renew_internal_ca
from keyark.x509.certificates import load_certificates, save_certificates


class _Service(Config):
    model_config = ConfigDict(extra="ignore")

    trust_anchor: ConfigPath


class _Transport(Config):
    model_config = ConfigDict(extra="ignore")

    chain: ConfigPath


class _ServiceFile(Config):
    """A service's file, of which only where it has the internal CA's certificate is looked at."""

    model_config = ConfigDict(extra="ignore")

    service: _Service
    transport: _Transport | None = None

    @property
    def anchors(self) -> list[Path]:
        """Where it has the internal CA's certificate: as its trust anchor, and above the DRM's transport key."""
        return [self.service.trust_anchor, *([self.transport.chain] if self.transport else [])]


@dataclass(frozen=True, kw_only=True)
class RenewedCa:
    """Until when the internal CA is valid now, where its certificate is, which files of this machine have it.

    ``list_file`` is the list of revoked identities, signed anew; None where nobody was ever revoked.
    """

    until: datetime
    source: Path
    files: Sequence[Path]
    list_file: Path | None


@dataclass(frozen=True, kw_only=True)
class InternalCaRenewal:
    """An authority, and the deployment below one folder that gets its certificate, where there is one here."""

    authority: DeploymentAuthority
    home: Path | None

    def renew(self) -> RenewedCa:
        """Renew the internal CA for another fifteen years; after an interruption, call it again.

        Raises the errors of files and configurations before anything is changed where the deployment's cannot be read.
        """
        with alone_in(self.authority.folder):
            targets = self._anchors()
            renewed = renew_internal_ca(
                self.authority.internal, not_after=int(time.time()) + INTERNAL_CA_SECONDS
            )
            source = self.authority.folder / "internal-ca.pem"
            for path in (source, *targets):
                save_certificates(path, _replaced(load_certificates(path), renewed.certificate))
            authority = replace(self.authority, internal=renewed)
            IdentityRevocation(authority=authority, home=self.home).sign_again()
            if self.home is not None:
                keep_bundle(self.home, authority)
        list_file = authority.folder / IDENTITY_LIST
        return RenewedCa(
            until=renewed.certificate.not_valid_after_utc,
            source=source,
            files=targets,
            list_file=list_file if list_file.exists() else None,
        )

    def _anchors(self) -> list[Path]:
        """Return the files of the home and its services that have the present certificate."""
        if self.home is None:
            return []
        found = [
            anchor
            for role in sorted(SERVICE_ROLES)
            if (path := self.home / role / f"{role}.toml").exists()
            for anchor in load_config(path, _ServiceFile).anchors
        ]
        if (path := self.home / "keyark.toml").exists():
            found.insert(0, load_config(path, HomeConfig).trust_anchor)
        key = encode_spki(self.authority.internal.certificate.public_key())
        return [
            path
            for path in dict.fromkeys(found)
            if any(encode_spki(one.public_key()) == key for one in load_certificates(path))
        ]


def _replaced(certificates: Sequence[x509.Certificate], renewed: x509.Certificate) -> list[x509.Certificate]:
    """Return certificates with the renewed one in the place of what its key had before; others stay."""
    key = encode_spki(renewed.public_key())
    return [renewed if encode_spki(one.public_key()) == key else one for one in certificates]
