"""The DRM's configuration file, drm.toml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from keyark.config import Config, ConfigPath
from keyark.custody.shares import QuorumRule
from keyark.policy.config import PolicyConfig
from keyark.service.checks.callers import CallerSettings
from keyark.service.settings import ServiceSettings, StoreSettings, WorkerSettings


class TransportSettings(Config):
    """[transport]: the key pairs that open envelopes and sign checkpoints, and the issuers of their certificates."""

    folder: ConfigPath
    chain: ConfigPath


class CertificateSettings(Config):
    """[certificates]: the CAs whose certificates are linked to archived keys."""

    issuers: ConfigPath


class ArchiveCallerSettings(CallerSettings):
    """[callers]: as the CM's, and the profiles whose callers need not sign their calls."""

    waived_profiles: frozenset[str] = frozenset()


class RecoverySettings(Config):
    """[recovery]: how long agents have to decide, whether who asks may approve as well, how often one agent may ask."""

    expiry_hours: Annotated[float, Field(gt=0, le=8760)] = 24
    quorum_rule: QuorumRule = QuorumRule.SEPARATE
    requests_per_hour: Annotated[int, Field(ge=1)] = 1000


class DrmConfig(Config):
    """All of drm.toml."""

    service: ServiceSettings
    store: StoreSettings
    workers: WorkerSettings = WorkerSettings()
    transport: TransportSettings
    certificates: CertificateSettings
    callers: ArchiveCallerSettings = ArchiveCallerSettings()
    recovery: RecoverySettings = RecoverySettings()
    policy: PolicyConfig
