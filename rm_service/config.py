"""The RM's configuration file, rm.toml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from keyark.clock import SECONDS_PER_DAY
from keyark.config import Addresses, Config
from keyark.policy.config import PolicyConfig
from keyark.service.settings import ArchiveTrust, LogSettings, ServiceSettings, StoreSettings
from rm_service.reviews import QueueRoom


class DownstreamSettings(Config):
    """[downstream]: where CM and DRM are, and how many items may wait for each."""

    cm: Addresses
    drm: Addresses
    max_waiting: Annotated[int, Field(ge=1, le=1_000_000)] = 8192


class EnrollmentSettings(Config):
    """[enrollment]: how long one may take from acceptance to outcome, and how many a caller may have under way."""

    seconds: Annotated[float, Field(gt=0, le=600)] = 60.0
    max_items_per_caller: Annotated[int, Field(ge=1, le=1_000_000)] = 2048


class ApprovalSettings(Config):
    """[approvals]: how long and how many requests wait for an officer, and who may not decide on them.

    With ``separation_of_duties`` no officer decides on what a client of the same name submitted, and no recovery agent
    is an officer.
    """

    expire_days: Annotated[int, Field(ge=1, le=30)] = 7
    max_waiting: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    max_waiting_per_caller: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    separation_of_duties: bool = True

    @property
    def room(self) -> QueueRoom:
        """How many requests wait at most."""
        return QueueRoom(everybody=self.max_waiting, each_caller=self.max_waiting_per_caller)

    @property
    def expire_us(self) -> int:
        """How long a request waits, microseconds."""
        return self.expire_days * SECONDS_PER_DAY * 1_000_000


class RmConfig(Config):
    """All of rm.toml."""

    service: ServiceSettings
    store: StoreSettings
    downstream: DownstreamSettings
    archive: ArchiveTrust
    log: LogSettings
    enrollment: EnrollmentSettings = EnrollmentSettings()
    approvals: ApprovalSettings = ApprovalSettings()
    policy: PolicyConfig
