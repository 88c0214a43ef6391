"""The DRM's configuration file, drm.toml."""

from __future__ import annotations

from keyark.config import Config, ConfigPath
from keyark.policy.config import PolicyConfig
from keyark.service.settings import KeyUri, ServiceSettings, StoreSettings, WorkerSettings


class TransportSettings(Config):
    """[transport]: the key pair that opens envelopes and signs checkpoints."""

    key: KeyUri
    certificate: ConfigPath
    chain: ConfigPath


class CertificateSettings(Config):
    """[certificates]: the CAs whose certificates are linked to archived keys."""

    issuers: ConfigPath


class DrmConfig(Config):
    """All of drm.toml."""

    service: ServiceSettings
    store: StoreSettings
    workers: WorkerSettings = WorkerSettings()
    transport: TransportSettings
    certificates: CertificateSettings
    policy: PolicyConfig
