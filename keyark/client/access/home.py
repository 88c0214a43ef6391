"""Where a deployment's people find it: addresses, trust anchors, and their own identity.

A home is a folder with ``keyark.toml``; identities lie below it as ``identities/<role>/<name>/``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from keyark.config import Addresses, Config, ConfigPath, load_config
from keyark.errors import ConfigurationError
from keyark.identity.revoked import (
    IDENTITY_LIST,
    NOBODY_REVOKED,
    RevokedIdentities,
    load_revoked,
)
from keyark.rpc.identities import LocalIdentity
from keyark.x509.certificates import load_certificates
from keyark.x509.chains import KnownChains


class HomeConfig(Config):
    """keyark.toml: what every client of a deployment needs to know; nothing in it is secret."""

    trust_domain: str
    rm: Addresses
    cm: Addresses
    drm: Addresses
    trust_anchor: ConfigPath
    ca: ConfigPath
    transport: ConfigPath
    rm_log_key: ConfigPath
    cm_log_key: ConfigPath
    revoked_identities: ConfigPath | None = None


@dataclass(frozen=True, kw_only=True)
class Home:
    """A deployment as seen by one of its people; ``ca_chain`` is all of ca.pem."""

    folder: Path
    config: HomeConfig
    trust_anchor: x509.Certificate
    ca_chain: tuple[x509.Certificate, ...]
    revoked: RevokedIdentities = NOBODY_REVOKED

    @property
    def known_chains(self) -> KnownChains:
        """The current and former chains of the issuing CA, from ca.pem."""
        return KnownChains.among(self.ca_chain)

    @classmethod
    def load(cls, folder: Path | str) -> Home:
        """Read ``folder/keyark.toml`` and the public certificates that it names.

        The list of revoked identities (revoked-identities.crl) may be missing before the first revocation.
        Raises ConfigurationError where a file is missing or malformed, and IdentityListError.
        """
        folder = Path(folder)
        path = folder / "keyark.toml"
        if not path.is_file():
            raise ConfigurationError(
                f"{folder} is not a keyark home, since it has no keyark.toml. Name one with --home or "
                "KEYARK_HOME, or make a deployment with `keyark init`."
            )
        config = load_config(path, HomeConfig)
        anchors = load_certificates(config.trust_anchor)
        return cls(
            folder=folder,
            config=config,
            trust_anchor=anchors[0],
            ca_chain=tuple(load_certificates(config.ca)),
            revoked=load_revoked(config.revoked_identities or folder / IDENTITY_LIST, anchors),
        )

    def identity_folder(self, name: str) -> Path:
        """Return the folder of the identity ``<role>/<name>``; raises ConfigurationError if there is none."""
        folder = self.folder / "identities" / name
        if not (folder / "key.pem").is_file():
            there = sorted(
                str(p.parent.relative_to(self.folder / "identities"))
                for p in self.folder.glob("identities/*/*/key.pem")
            )
            raise ConfigurationError(
                f"There is no identity {name!r} here. These exist: {', '.join(there) or 'none'}."
            )
        return folder

    def identity(self, name: str, password: Callable[[Path], bytes | None]) -> LocalIdentity:
        """Load the identity ``<role>/<name>``; ``password`` is called if its key is encrypted.

        Raises ConfigurationError if there is none, and the errors of ``keyark.keys.private_keys``.
        """
        folder = self.identity_folder(name)
        return LocalIdentity.load(
            key=folder / "key.pem",
            certificate=folder / "cert.pem",
            trust_anchor=self.config.trust_anchor,
            password=lambda: password(folder / "key.pem"),
        )
