"""An agent's own keys on disk: the certificate key that signs its words, and the share key that opens its shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from keyark.client.access.home import Home
from keyark.client.access.passwords import PasswordSource
from keyark.client.recovery.recipients import RecipientKeys
from keyark.custody.agents import ShareKey
from keyark.files import read_secret_file
from keyark.identity.files import IdentityFiles
from keyark.keys.key_types import narrow_signing_key
from keyark.statements.ceremonies import AgentSigner

MAX_PEM: Final = 1 << 16


@dataclass(frozen=True, kw_only=True)
class AgentKeys:
    """The keys below ``identities/agent/NAME``; the password that opened one opens the others."""

    folder: Path
    signer: AgentSigner
    password: bytes | None = field(repr=False)

    @classmethod
    def of(cls, home: Home, identity: str, ask: PasswordSource) -> AgentKeys:
        """Load an agent's certificate key; ``ask`` is asked once, and only where it is encrypted.

        Raises ConfigurationError where there is no such identity, and the errors of ``IdentityFiles.load``.
        """
        folder, password = home.identity_folder(identity), []

        def remember() -> bytes:
            password.append(ask(folder / "key.pem") or b"")
            return password[0]

        files = IdentityFiles(key=folder / "key.pem", certificate=folder / "cert.pem")
        key, (certificate, *_) = files.load(ask_password=remember)
        return cls(
            folder=folder,
            signer=AgentSigner(certificate=certificate, private_key=narrow_signing_key(key)),
            password=password[0] if password else None,
        )

    @cached_property
    def share_key(self) -> ShareKey:
        """The share key; raises the errors of ``ShareKey.from_pem``."""
        data = read_secret_file(self.folder / "share-key.pem", max_size=MAX_PEM)
        return ShareKey.from_pem(data, password=self.password)

    @property
    def recipients(self) -> RecipientKeys:
        """The one-time keys of the recoveries that this agent asked for."""
        return RecipientKeys(folder=self.folder / "recoveries", password=self.password)
