"""The RM's configuration file, rm.toml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from keyark.config import Config
from keyark.policy.config import PolicyConfig
from keyark.service.settings import ArchiveTrust, Host, LogSettings, ServiceSettings, StoreSettings


class DownstreamSettings(Config):
    """[downstream]: where CM and DRM are, and how many items may wait for each."""

    cm: Host
    drm: Host
    max_waiting: Annotated[int, Field(ge=1, le=1_000_000)] = 8192


class EnrollmentSettings(Config):
    """[enrollment]: how long one may take from acceptance to outcome."""

    seconds: Annotated[float, Field(gt=0, le=600)] = 60.0


class RmConfig(Config):
    """All of rm.toml."""

    service: ServiceSettings
    store: StoreSettings
    downstream: DownstreamSettings
    archive: ArchiveTrust
    log: LogSettings
    enrollment: EnrollmentSettings = EnrollmentSettings()
    policy: PolicyConfig
