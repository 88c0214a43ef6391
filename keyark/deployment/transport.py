"""Transport keys of a deployment on one machine: the DRM's own commands, with the authority's signature between."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyark.client.home import Home
from keyark.deployment.authority import DeploymentAuthority
from keyark.deployment.commands import service_command
from keyark.errors import ConfigurationError
from keyark.pki.certificates import load_certificates, save_certificates
from keyark.pki.key_types import KeyType
from keyark.pki.spiffe import TRANSPORT_ROLE, SpiffeId


@dataclass(frozen=True, kw_only=True)
class TransportKeyRotation:
    """Rotates and retires the transport keys of a running deployment below one folder.

    Every method raises ServiceCommandError with the DRM's words, also where it does not run.
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
        if not Path(new["certificate"]).exists():
            authority.sign_identity(
                Path(new["request"]),
                SpiffeId(authority.trust_domain, TRANSPORT_ROLE),
                Path(new["certificate"]),
            )
        service_command("drm", "reload", self._config("drm"))
        keys = self.keys()
        if keys[0]["generation"] != new["generation"]:
            raise ConfigurationError("The DRM did not put the new transport key in force; look at its log.")
        self._publish(keys)
        return keys

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
        service_command("rm", "reload", self._config("rm"))

    def _ask(self, action: str, *arguments: str) -> Any:
        return json.loads(service_command("drm", "transport-key", action, self._config("drm"), *arguments))

    def _config(self, role: str) -> str:
        return str(self.home / role / f"{role}.toml")
