"""What policy costs: ten rules in each subsystem (ten_rules.toml), every enrollment with a request of its own.

Rules that count (Quota, UniqueSubjectName) are not among them, for they read the store.
"""

from __future__ import annotations

import time
import tomllib
from pathlib import Path
from typing import Any, Final

from keyark.clock import SECONDS_PER_DAY
from keyark.load.planning.suites import KeySuite
from keyark.policy.config import PolicyConfig, build_engine
from keyark.policy.requests import Archival, PolicyRequest, Receipt

STAGES: Final = {"rm": "submit", "drm": "archive", "cm": "issue"}
ROUNDS: Final = 2000


def measure_policy(suite: KeySuite, *, server_cpu_us: float) -> dict[str, float]:
    """Return the CPU of ten rules in each subsystem: microseconds per enrollment, and as a share of the services'."""
    sections = tomllib.loads(Path(__file__).with_name("ten_rules.toml").read_text())
    engines = {role: build_engine(role, PolicyConfig.model_validate(sections[role])) for role in STAGES}
    started = time.process_time_ns()
    for number in range(ROUNDS):
        for role, stage in STAGES.items():
            engines[role].enforce(stage, _request(suite, stage, number))
    spent = (time.process_time_ns() - started) / 1000 / ROUNDS
    return {"cpu_us": spent, "share": spent / server_cpu_us}


def _request(suite: KeySuite, stage: str, number: int) -> PolicyRequest:
    issuing: dict[str, Any] = (
        {"now": 0, "not_before": 0, "not_after": 365 * SECONDS_PER_DAY} if stage == "issue" else {}
    )
    return PolicyRequest(
        caller="spiffe://example.org/client/enroller",
        profile="user",
        common_name=f"Alice Example {number}",
        email=f"alice{number}@example.org",
        signing_key_type=suite.signing.value,
        encryption_key_type=suite.encryption.value,
        archival=Archival.REQUESTED,
        receipt=Receipt.PRESENT if stage == "issue" else Receipt.ABSENT,
        issuer_key_type="ec-p256" if stage == "issue" else None,
        **issuing,
    )
