"""Transport keys of a deployment on one machine: the DRM's own commands, with the authority's signature between."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from keyark.client.access.home import Home
from keyark.clock import SECONDS_PER_DAY
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.access.bundle import keep_bundle
from keyark.deployment.commands import ServiceCommandError, service_command
from keyark.errors import ConfigurationError
from keyark.files import is_there
from keyark.identity.spiffe import TRANSPORT_ROLE, SpiffeId
from keyark.keys.key_types import KeyType, key_type_of
from keyark.x509.certificates import Validity, load_certificates, save_certificates

LAST_SECONDS: Final = 2 * SECONDS_PER_DAY
"""A certificate that ends sooner is renewed where the DRM does not run, so that it can be rotated once it does."""


class DrmElsewhereError(ConfigurationError):
    """The DRM, which has the transport keys, is on another host; nothing was changed."""

    reason = "DRM_ELSEWHERE"


@dataclass(frozen=True, kw_only=True)
class TransportKeyRotation:
    """Rotates and retires the transport keys of a running deployment below one folder.

    Every method raises ServiceCommandError with the DRM's words, also where it does not run, and DrmElsewhereError
    where the DRM is on another host.
    """

    home: Path

    def keys(self) -> list[dict[str, Any]]:
        """Return the keys as the DRM shows them, the newest first."""
        keys: list[dict[str, Any]] = self._ask("list")
        return keys

    def rotate(self, key_type: KeyType) -> list[dict[str, Any]]:
        """Make, certify and put in force a new key; called again after an interruption it goes on.

        The home's transport certificates then name it first, and keep the older ones for older receipts.
        """
        keys = self.keys()
        if not self._is_published(keys[0]):
            # An earlier call was interrupted after the key came into force: this one finishes it.
            self._publish(keys)
            return keys
        authority = DeploymentAuthority.load(self.home / "authority")
        new = self._ask("new", "--key-type", key_type.value)
        # Signed again after an interruption too: the certificate must not be older than that of the key in force.
        authority.sign_identity(
            Path(new["request"]),
            SpiffeId(authority.trust_domain, TRANSPORT_ROLE),
            Path(new["certificate"]),
        )
        service_command("drm", "reload", self._config("drm"))
        keys = self.keys()
        if keys[0]["generation"] != new["generation"]:
            raise ConfigurationError("The DRM did not put the new transport key in force; read its log.")
        self._publish(keys)
        return keys

    def renew(self) -> list[str]:
        """Renew the newest key's certificate, for the same key; returns what was done.

        It is the way back for a deployment that was off when its certificate ended: a service that does not run has the
        new certificate when it starts. Raises ConfigurationError where no transport key has a certificate.
        """
        self._config("drm")
        authority = DeploymentAuthority.load(self.home / "authority")
        path = self._newest_certificate()
        identity = SpiffeId(authority.trust_domain, TRANSPORT_ROLE)
        authority.sign_identity(path.with_name("transport.csr"), identity, path)
        renewed = load_certificates(path)[0]
        target = Home.load(self.home).config.transport
        others = [c for c in load_certificates(target) if c.public_key() != renewed.public_key()]
        save_certificates(target, [renewed, *others])
        keep_bundle(self.home)
        _, until = Validity.of(renewed).dates()
        done = [f"transport key {path.parent.name} is certified until {until:%Y-%m-%d}"]
        return done + [self._reload(role) for role in ("drm", "rm")]

    def ends(self) -> int:
        """Return when the newest certificate ends, seconds UTC."""
        return Validity.of(load_certificates(self._newest_certificate())[0]).not_after

    def rotate_or_renew_when_due(self) -> list[str]:
        """Do what is due: rotate in the last third of a certificate's life, or renew where the DRM does not run.

        Returns what was done.
        """
        validity = Validity.of(load_certificates(self._newest_certificate())[0])
        left = validity.not_after - time.time()
        if left > (validity.not_after - validity.not_before) / 3:
            return []
        try:
            keys = self.keys()
        except ServiceCommandError as error:
            if "SERVICE_NOT_RUNNING" not in error.message:
                raise
            return self.renew() if left < LAST_SECONDS else []
        present = load_certificates(Path(keys[0]["certificate"]))[0]
        newest = self.rotate(key_type_of(present.public_key()))[0]
        return [f"transport key {newest['generation']} is in force"]

    def _newest_certificate(self) -> Path:
        folder = self.home / "drm" / "transport-keys"
        found = {
            int(path.parent.name): path
            for path in folder.glob("*/transport.pem")
            if path.parent.name.isascii() and path.parent.name.isdigit()
        }
        if not found:
            raise ConfigurationError(
                f"{folder} has no transport certificate; have the newest transport.csr on the DRM's host "
                "signed again."
            )
        return found[max(found)]

    def _reload(self, role: str) -> str:
        try:
            service_command(role, "reload", self._config(role))
        except ServiceCommandError as error:
            if "SERVICE_NOT_RUNNING" not in error.message:
                raise
            return f"{role} is not running, and uses it from its next start"
        return f"{role} has it"

    def retire(self, generation: str) -> dict[str, Any]:
        """Have envelopes to a key refused, and its private half deleted."""
        key: dict[str, Any] = self._ask("retire", generation)
        return key

    def _is_published(self, key: dict[str, Any]) -> bool:
        published = load_certificates(Home.load(self.home).config.transport)[0]
        return published.public_key() == load_certificates(Path(key["certificate"]))[0].public_key()

    def _publish(self, keys: Sequence[dict[str, Any]]) -> None:
        """Write the home's transport certificates, the newest first, in one step, and have the RM offer it at once."""
        target = Home.load(self.home).config.transport
        save_certificates(target, [load_certificates(Path(key["certificate"]))[0] for key in keys])
        keep_bundle(self.home)
        self._reload("rm")  # one that does not run has it when it starts

    def _ask(self, action: str, *arguments: str) -> Any:
        return json.loads(service_command("drm", "transport-key", action, self._config("drm"), *arguments))

    def _config(self, role: str) -> str:
        folder = self.home / role
        if role == "drm" and not is_there(folder):
            raise DrmElsewhereError(
                f"{folder} does not exist here; transport keys are on the DRM's host. Use the DRM's own "
                "command there: `keyark-drm transport-key list|new|retire drm/drm.toml`."
            )
        return str(folder / f"{role}.toml")
