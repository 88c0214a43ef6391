"""Renews the certificates of a deployment's services and people before they end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keyark.deployment.access.agents import certify_share_key_anew
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.commands import ServiceCommandError, service_command
from keyark.errors import ConfigurationError, KeyarkError
from keyark.extras import need_extra
from keyark.folders import alone_in
from keyark.identity.files import IdentityFiles
from keyark.identity.spiffe import SERVICE_ROLES
from keyark.keys.private_keys import PasswordRequiredError
from keyark.x509.certificates import Validity, load_certificates


@dataclass(frozen=True, kw_only=True)
class RenewedIdentity:
    """An identity whose certificate was renewed: its name ("rm", "client/alice"), and until when (seconds UTC)."""

    name: str
    not_after: int
    note: str


@dataclass(frozen=True, kw_only=True)
class IdentityRenewal:
    """The identities of a deployment below one folder, and the authority that renews them."""

    home: Path
    authority: DeploymentAuthority

    def identities(self) -> dict[str, Path]:
        """Return where the certificate of each identity is, services first."""
        return identity_files(self.home)

    def in_force(self) -> list[str]:
        """Return those that are not revoked; whoever is gets a new identity by name only."""
        revoked = self.authority.revoked().serials
        files = self.identities().items()
        return [name for name, path in files if load_certificates(path)[0].serial_number not in revoked]

    def due(self, within: int) -> list[str]:
        """Return whose certificates end within so many seconds; revoked ones are left out."""
        latest, files = time.time() + within, self.identities()
        return [name for name in self.in_force() if _end(files[name]) < latest]

    def renew(self, names: Sequence[str]) -> list[RenewedIdentity]:
        """Renew these identities, and let services that run present the new certificates at once.

        Each gets a new key and certificate, switched together; where the key is not here or encrypted, a certificate
        for the same key. One renewal at a time: a second waits.
        Raises ConfigurationError before anything is changed where there is no such identity.
        """
        there = self.identities()
        for name in names:
            if name not in there:
                raise ConfigurationError(
                    f"There is no identity {name!r} here. These exist: {', '.join(there)}."
                )
        if set(names) & set(SERVICE_ROLES):  # which are told of it
            need_extra("server")
        with alone_in(self.authority.folder):
            return [self._renew(name, there[name]) for name in names]

    def _renew(self, name: str, path: Path) -> RenewedIdentity:
        if name in SERVICE_ROLES:
            self.authority.replace_identity(
                IdentityFiles(key=path.with_name("identity-key.pem"), certificate=path)
            )
            note = self._tell(name)
        else:
            note = self._renew_person(path)
        end = _end(path)
        if end == self.authority.internal.validity.not_after:
            note = "; ".join(filter(None, [note, "the internal CA ends then too: `keyark authority renew`"]))
        return RenewedIdentity(name=name, not_after=end, note=note)

    def _renew_person(self, path: Path) -> str:
        """Renew a person's identity, and with an agent's the certificate in the public file of its share key."""
        files = IdentityFiles(key=path.with_name("key.pem"), certificate=path)
        signer, note = None, "not renewed: its key is not here"
        if files.key.exists():
            try:
                self.authority.replace_identity(files)
                signer, note = files.load()[0], ""
            except PasswordRequiredError:
                note = "not renewed: its key is encrypted"
        if signer is None:
            self.authority.renew_identity(path)
        anchor = self.authority.internal.certificate
        try:
            certify_share_key_anew(path.parent, trust_anchor=anchor, certificate_key=signer)
        except KeyarkError as error:
            note = "; ".join(filter(None, [note, f"its share-key.json was not renewed: {error.message}"]))
        return note

    def _tell(self, role: str) -> str:
        try:
            service_command(role, "reload", str(self.home / role / f"{role}.toml"))
        except ServiceCommandError as error:
            if "SERVICE_NOT_RUNNING" not in error.message:
                raise
            return "it is not running, and uses it from its next start"
        return "the running service uses it"


def identity_files(home: Path) -> dict[str, Path]:
    """Return where the certificate of each identity of a deployment is, services first."""
    services = {role: home / role / "identity.pem" for role in sorted(SERVICE_ROLES)}
    people = sorted(home.glob("identities/*/*/cert.pem"))
    found = services | {f"{path.parent.parent.name}/{path.parent.name}": path for path in people}
    return {name: path for name, path in found.items() if path.is_file()}


def _end(path: Path) -> int:
    return Validity.of(load_certificates(path)[0]).not_after
