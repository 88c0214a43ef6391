"""The policy in force: logged before it counts, changed as a whole or not at all, the same after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyark.errors import ConfigurationError
from keyark.v1.audit_pb2 import AuditEvent, EventType
from tests.support.running.deployment import Deployment, running
from tests.support.stories.enrolling import Enroller, enrolling, holdings

RULE = """
[[policy.rule]]
name = "nobody"
type = "Expression"
stage = "submit"
condition = "false"
message = "nobody is enrolled today"
"""
ROLES = ("rm", "cm", "drm")


async def logged(deployment: Deployment, role: str) -> list[bytes]:
    """The policies that came into force, by the log."""
    log = deployment.services[role].policy.log
    events = [AuditEvent.FromString(entry.event.leaf) for entry in await log.entries(limit=1000)]
    return [e.policy_sha256 for e in events if e.type == EventType.EVENT_TYPE_POLICY_IN_FORCE]


async def refused_by(client: Enroller) -> list[str]:
    """The rules that refuse a request that is good otherwise."""
    (outcome,) = await client.send(client.request())
    return [violation.rule for violation in getattr(outcome, "violations", ())]


async def test_the_log_says_which_policy_is_in_force_and_says_it_once(deployment_folder: Path) -> None:
    async with running(deployment_folder) as deployment:
        first = {role: await logged(deployment, role) for role in ROLES}
        for role in ROLES:
            live = deployment.services[role].policy
            assert first[role] == [bytes.fromhex(live.config.policy.digest())]
            assert "still in force" in await live.reload()
            assert await logged(deployment, role) == first[role]
    async with running(deployment_folder) as deployment:
        assert {role: await logged(deployment, role) for role in ROLES} == first


async def test_a_changed_policy_counts_at_once_and_after_a_restart_without_a_second_entry(
    deployment_folder: Path,
) -> None:
    path = deployment_folder / "rm" / "rm.toml"
    before = path.read_text()
    async with running(deployment_folder) as deployment, enrolling(deployment.home()) as client:
        path.write_text(before + RULE)
        told = await deployment.services["rm"].policy.reload()
        digests = await logged(deployment, "rm")
        assert len(digests) == 2
        assert f"policy {digests[1].hex()} is now in force" in told
        assert await refused_by(client) == ["nobody"]
        path.write_text(before)
        await deployment.services["rm"].reload()
        assert await logged(deployment, "rm") == [*digests, digests[0]]
        assert await refused_by(client) == []
        path.write_text(before + RULE)
    async with running(deployment_folder) as deployment:
        assert await logged(deployment, "rm") == [*digests, digests[0], digests[1]]


@pytest.mark.parametrize(
    "text",
    [
        RULE.replace("false", "fals"),
        RULE.replace("submit", "issue"),
        RULE + RULE,
        "[[policy.rule]",
        "unknown = 1\n",
    ],
)
async def test_a_file_with_anything_wrong_changes_nothing(deployment: Deployment, text: str) -> None:
    path = deployment.folder / "rm" / "rm.toml"
    live = deployment.services["rm"].policy
    before, rules = await logged(deployment, "rm"), live.engine.rules
    path.write_text(path.read_text() + text)
    with pytest.raises(ConfigurationError, match="rm"):
        await live.reload()
    assert live.engine.rules is rules
    assert await logged(deployment, "rm") == before


async def test_a_policy_that_cannot_be_logged_does_not_come_into_force(deployment: Deployment) -> None:
    path = deployment.folder / "rm" / "rm.toml"
    live = deployment.services["rm"].policy
    path.write_text(path.read_text() + RULE)
    rules = live.engine.rules
    await live.log.close()
    with pytest.raises(Exception, match="log is closed"):
        await live.reload()
    assert live.engine.rules is rules


@pytest.mark.parametrize(("role", "stage", "archived"), [("drm", "archive", 0), ("cm", "issue", 1)])
async def test_an_rm_that_skips_its_own_rules_gains_nothing(
    deployment_folder: Path, role: str, stage: str, archived: int
) -> None:
    path = deployment_folder / role / f"{role}.toml"
    path.write_text(path.read_text() + RULE.replace("submit", stage))
    async with running(deployment_folder) as deployment, enrolling(deployment.home()) as client:
        before = await holdings(deployment.home())
        deployment.services["rm"].policy.engine.rules = {}  # the RM's program was changed
        assert await refused_by(client) == ["nobody"]
        after = await holdings(deployment.home())
    assert after.certificates == before.certificates
    assert after.keys == before.keys + archived  # UNCERTIFIED, so not recoverable


async def test_what_the_cm_refused_after_archival_is_never_issued(deployment_folder: Path) -> None:
    path = deployment_folder / "cm" / "cm.toml"
    lenient = path.read_text()
    path.write_text(lenient + RULE.replace("submit", "issue"))
    async with running(deployment_folder) as deployment, enrolling(deployment.home()) as client:
        before = await holdings(deployment.home())
        request, other = client.request(), client.request()
        (refused,) = await client.send(request)
        path.write_text(lenient)
        await deployment.services["cm"].policy.reload()
        (again,) = await client.send(request)
        assert (again.message, again.violations) == (refused.message, refused.violations)
        (issued,) = await client.send(other)
        assert issued.certificates.signing_certificate
    async with running(deployment_folder) as deployment, enrolling(deployment.home()) as client:
        assert [v.rule for v in (await client.send(request))[0].violations] == ["nobody"]
        after = await holdings(deployment.home())
    assert after.certificates == before.certificates + 2
    assert after.keys == before.keys + 2
