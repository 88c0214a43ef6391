"""The sections that every service's TOML file has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field

from keyark.config import Config, ConfigPath, Listen
from keyark.identity.revoked import IDENTITY_LIST
from keyark.keys.known_keys import KnownKeys
from keyark.policy.config import PolicyConfig

KeyUri = Annotated[str, Field(pattern=r"^[a-z0-9+.-]+:.+$")]
"""Where a private key is: "file:NAME", relative to the configuration file."""

StorageKeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of a storage public key, hexadecimal."""


AgentPath = Annotated[str, Field(pattern=r"^agent/[a-z0-9][a-z0-9._-]{0,62}$")]
"""An agent of the trust domain: "agent/NAME"."""


class ServiceSettings(Config):
    """[service]: who this is, where it listens, and how much it takes on at once."""

    trust_domain: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,253}[a-z0-9])?$")]
    listen: Listen
    identity_key: ConfigPath
    identity_certificate: ConfigPath
    trust_anchor: ConfigPath
    revoked_identities: ConfigPath | None = None
    known_keys: tuple[ConfigPath, ...] = ()
    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = 4096
    max_request_mib: Annotated[int, Field(ge=16, le=65_536)] = 256
    drain_seconds: Annotated[float, Field(gt=0, le=300)] = 8.0
    rejections_per_hour: Annotated[int, Field(ge=1, le=100_000)] = 100

    @property
    def folder(self) -> Path:
        """The service's folder, where relative key URIs start."""
        return self.identity_key.parent

    def load_known_keys(self) -> KnownKeys:
        """Open the lists of keys whose private half is known; raises ConfigurationError."""
        return KnownKeys.load(self.known_keys)

    @property
    def identity_list(self) -> Path:
        """The list of revoked identities; a configuration that names none has it in the service's folder."""
        return self.revoked_identities or self.folder / IDENTITY_LIST


class StoreSettings(Config):
    """[store]: where the subsystem keeps its rows and its log."""

    path: ConfigPath
    map_gib: Annotated[int, Field(ge=1, le=16_384)] = 1024

    @property
    def map_size(self) -> int:
        """Address space that the store reserves, bytes."""
        return self.map_gib << 30


class ServiceConfig(Protocol):
    """What every service's configuration has."""

    @property
    def service(self) -> ServiceSettings:
        """[service]."""

    @property
    def store(self) -> StoreSettings:
        """[store]."""

    @property
    def policy(self) -> PolicyConfig:
        """[policy]."""


class WorkerSettings(Config):
    """[workers]: the processes that hold keys."""

    count: Annotated[int, Field(ge=1, le=256)] = 2
    max_batch: Annotated[int, Field(ge=1, le=1024)] = 64
    max_waiting: Annotated[int, Field(ge=1, le=1_000_000)] = 8192
    batch_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    recycle_after: Annotated[int, Field(ge=1)] = 20_000


class LogSettings(Config):
    """[log]: the Ed25519 key that signs this service's checkpoints."""

    key: KeyUri


class ArchiveTrust(Config):
    """[archive]: which storage keys a receipt may name at first, and the agents whose quorum may change that."""

    trusted_storage_keys: Annotated[list[StorageKeyId], Field(min_length=1)]
    agents: Annotated[list[AgentPath], Field(min_length=1)]
    quorum: Annotated[int, Field(ge=1, le=255)]
    self_approval: bool = False

    @property
    def storage_key_ids(self) -> frozenset[bytes]:
        """The ids, 32 bytes each."""
        return frozenset(bytes.fromhex(key_id) for key_id in self.trusted_storage_keys)
