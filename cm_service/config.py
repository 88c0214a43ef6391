"""The CM's configuration file, cm.toml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cm_service.crl_settings import CrlSettings
from cm_service.profiles import ProfileSettings
from keyark.config import Config, ConfigPath
from keyark.policy.config import PolicyConfig
from keyark.service.settings import (
    ArchiveTrust,
    KeyUri,
    LogSettings,
    ServiceSettings,
    StoreSettings,
    WorkerSettings,
)


class IssuerSettings(Config):
    """[issuer]: the CA key and its certificate, followed by those above it."""

    key: KeyUri
    chain: ConfigPath


class CmConfig(Config):
    """All of cm.toml."""

    service: ServiceSettings
    store: StoreSettings
    workers: WorkerSettings = WorkerSettings()
    issuer: IssuerSettings
    log: LogSettings
    archive: ArchiveTrust
    profiles: Annotated[dict[str, ProfileSettings], Field(min_length=1)]
    policy: PolicyConfig
    crl: CrlSettings | None = None
