"""Which auditors see the details of which log entries: those that a grant names, and nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyark.errors import ConfigurationError
from keyark.identity.spiffe import SpiffeId
from keyark.policy.config import PolicyConfig, build_engine, describe_policy, policy_section
from keyark.policy.disclosure import EVENTS
from keyark.policy.engine import PolicyEngine
from keyark.v1.audit_pb2 import EventType

REJECTED = EventType.EVENT_TYPE_REQUEST_REJECTED


def granting(tmp_path: Path, *grants: str) -> PolicyConfig:
    """A CM's policy with these [[policy.details]] sections."""
    sections = "".join(f"[[policy.details]]\n{grant}\n" for grant in grants)
    (tmp_path / "cm.toml").write_text(f"[policy]\nrule = []\n{sections}")
    return policy_section(tmp_path / "cm.toml")


def shown(engine: PolicyEngine, reader: str) -> set[int]:
    return set(engine.discloses(SpiffeId("example.org", reader)))


def test_without_a_grant_nobody_sees_details(tmp_path: Path) -> None:
    engine = build_engine("cm", granting(tmp_path))
    assert shown(engine, "auditor/ann") == set()


def test_an_auditor_sees_what_its_grants_name_together(tmp_path: Path) -> None:
    policy = granting(
        tmp_path,
        'auditors = ["auditor/ann", "auditor/bo"]\nevents = ["REQUEST_REJECTED"]',
        'auditors = ["auditor/bo"]\nevents = ["PAIR_ISSUED"]',
    )
    engine = build_engine("cm", policy)
    assert shown(engine, "auditor/ann") == {REJECTED}
    assert shown(engine, "auditor/bo") == {REJECTED, EventType.EVENT_TYPE_PAIR_ISSUED}
    assert shown(engine, "auditor/carl") == set()
    assert "log: auditor/bo see the details of PAIR_ISSUED" in describe_policy("cm", policy)


def test_the_grant_for_all_auditors_is_for_no_other_role(tmp_path: Path) -> None:
    engine = build_engine("cm", granting(tmp_path, 'auditors = ["auditor/*"]\nevents = ["*"]'))
    assert shown(engine, "auditor/ann") == set(EVENTS.values())
    for other in ("rm", "cm", "drm", "officer/ann", "agent/ann", "client/ann"):
        assert shown(engine, other) == set()


def test_another_policy_takes_grants_away(tmp_path: Path) -> None:
    engine = build_engine("cm", granting(tmp_path, 'auditors = ["auditor/*"]\nevents = ["*"]'))
    before = granting(tmp_path, 'auditors = ["auditor/*"]\nevents = ["*"]').digest()
    other = granting(tmp_path)
    engine.replace(build_engine("cm", other))
    assert shown(engine, "auditor/ann") == set()
    assert other.digest() != before  # so that the log tells of it


@pytest.mark.parametrize(
    ("grant", "told"),
    [
        ('auditors = ["officer/ann"]\nevents = ["*"]', "only identities of the form auditor/NAME"),
        ('auditors = ["*"]\nevents = ["*"]', "details"),
        ('auditors = ["auditor/ann"]\nevents = ["KEY_ARCHIVD"]', "'KEY_ARCHIVD' is not a type"),
        ('auditors = ["auditor/ann"]\nevents = ["UNSPECIFIED"]', "'UNSPECIFIED' is not a type"),
        ('auditors = ["auditor/ann"]', "events"),
        ('auditors = []\nevents = ["*"]', "auditors"),
    ],
)
def test_a_grant_that_says_something_else_stops_the_start(tmp_path: Path, grant: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cm\.toml:\d+") as refused:
        granting(tmp_path, grant)
    assert told in refused.value.message
