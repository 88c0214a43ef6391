"""P6: what people read as verified is in the log that RM and CM follow; where one is away, the answer says so."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from keyark.cli.agents.ceremonies import ceremony_facts, show_ceremony
from keyark.client import KeyarkError, RecoveryClient
from keyark.client.access.home import Home
from keyark.client.access.passwords import no_password
from keyark.client.administration.lists import get_proven_key
from keyark.client.audit.log_heads import LogAudit, audit_logs
from keyark.client.recovery.agent_keys import AgentKeys
from keyark.client.recovery.review import CeremonyReview, confirmed
from keyark.client.trust.witnesses import Witnesses
from keyark.errors import Kind
from keyark.rpc.calling.retries import NO_RETRIES
from keyark.statements.ceremonies import ceremony_digest
from keyark.v1.audit_pb2 import EventType
from keyark.v1.recovery_pb2 import CeremonyState
from tests.recovery.attacks.test_hostile_archive import recovery
from tests.support.running.deployment import Deployment, running
from tests.support.stories.hostile_archive import HostileArchive, hostile_archive
from tests.support.stories.recovering import lose_key

EXPIRED = CeremonyState.CEREMONY_STATE_EXPIRED
CLOSED = EventType.EVENT_TYPE_RECOVERY_CLOSED


@pytest_asyncio.fixture
async def archive(deployment_folder: Path) -> AsyncIterator[HostileArchive]:
    """With RM and CM, who never saw another log of the DRM."""
    async with running(deployment_folder), hostile_archive(deployment_folder) as archive:
        yield archive


def without(home: Home, *roles: str) -> Home:
    """A home from which these services are not reached."""
    away = Home.load(home.folder)
    config = home.config.model_copy(update=dict.fromkeys(roles, "127.0.0.1:1"))
    object.__setattr__(away, "config", config)
    return away


def auditing(home: Home) -> Any:
    return Witnesses.open(home, identity="auditor/auditor", password=no_password, retries=NO_RETRIES)


async def audited(home: Home) -> LogAudit:
    async with auditing(home) as witnesses:
        return await audit_logs(witnesses)


async def opened(archive: HostileArchive, **dates: int) -> bytes:
    """A recovery that alice asked for, with her one-time key on her disk; returns the ceremony's id."""
    token = archive.token()
    archive.pin(token)
    wanted, key = await archive.archive(token)
    ceremony_id = await archive.open(recovery(wanted), opens=[token], keys=[key], **dates)
    AgentKeys.of(archive.home, "agent/alice", no_password).recipients.create(ceremony_id)
    return ceremony_id


async def keeps_key(archive: HostileArchive, ceremony_id: bytes, home: Home | None = None) -> bool:
    """Whether alice's one-time key is still there after she looked."""
    async with RecoveryClient.open(home or archive.home, identity="agent/alice", retries=NO_RETRIES) as alice:
        await alice.review(ceremony_id)
    folder = archive.folder / "identities" / "agent" / "alice" / "recoveries"
    return (folder / f"{ceremony_id.hex()}.pem").exists()


async def test_no_unproven_end_erases_the_requesters_one_time_key(archive: HostileArchive) -> None:
    ceremony_id = await opened(archive)
    digest = ceremony_digest(archive.view.request.statement)
    proven = await archive.close(CLOSED, digest)
    archive.view.closing_proof = proven
    assert await keeps_key(archive, ceremony_id)  # the archive itself calls it open
    for state in CeremonyState.values()[4:]:
        archive.view.state = state
        for proof in (
            b"",
            archive.view.opening_proof,
            await archive.close(CLOSED, os.urandom(32)),
            await archive.close(EventType.EVENT_TYPE_KEYS_RECOVERED, digest),
        ):
            archive.view.closing_proof = proof
            assert await keeps_key(archive, ceremony_id)
    archive.view.closing_proof = proven
    for away in ("rm", "cm"):
        assert await keeps_key(archive, ceremony_id, without(archive.home, away))
    assert not await keeps_key(archive, ceremony_id)


async def test_a_recovery_that_ran_out_of_time_needs_no_proof_of_its_end(archive: HostileArchive) -> None:
    now = time.time_ns() // 1000
    ceremony_id = await opened(archive, time_us=now - 200 * 10**6, expires_time_us=now - 1)
    assert await keeps_key(archive, ceremony_id)  # it may have been approved in time, and wait for alice
    archive.view.state = EXPIRED
    assert not await keeps_key(archive, ceremony_id)


async def test_what_is_shown_while_a_witness_is_away_says_so(
    archive: HostileArchive, capsys: pytest.CaptureFixture[str]
) -> None:
    ceremony_id = await opened(archive)
    for away in (("rm",), ("cm",), ("rm", "cm"), ()):
        home = without(archive.home, *away)
        async with RecoveryClient.open(home, identity="agent/bob", retries=NO_RETRIES) as bob:
            by_agent = await bob.review(ceremony_id)
        async with auditing(home) as witnesses:
            by_auditor = await confirmed(CeremonyReview(home).review(archive.view), witnesses)
        for seen in (by_agent, by_auditor):
            assert tuple(seen.unconfirmed) == away
            facts = ceremony_facts(seen)
            assert ("log" in facts["unproven"], tuple(facts["unconfirmed"])) == (bool(away), away)
            show_ceremony(seen, as_json=False)
            names = " and ".join(role.upper() for role in away)
            told = f"unproven    {names} did not confirm" in capsys.readouterr().out
            assert told == bool(away)
        remembered = (archive.folder / "checkpoints" / "drm.note").exists()
        assert remembered == (not away)  # what nobody confirmed is nothing to hold an honest log against


async def test_a_log_of_its_own_is_shown_to_nobody_as_verified(deployment_folder: Path) -> None:
    """RM and CM follow the real log; the archive shows readers another, in which all is as it should be."""
    async with running(deployment_folder) as deployment, hostile_archive(deployment_folder) as archive:
        await lose_key(deployment)
        ceremony_id = await opened(archive)
        await assert_refused(archive, ceremony_id, archive.home)
        (deployment_folder / "checkpoints" / "drm.note").rename(deployment_folder / "kept")
        for away in ("rm", "cm"):  # one honest witness is enough, and so is this home's memory
            await assert_refused(archive, ceremony_id, without(archive.home, away))
        (deployment_folder / "kept").rename(deployment_folder / "checkpoints" / "drm.note")
        await assert_refused(archive, ceremony_id, without(archive.home, "rm", "cm"))
        report = await audited(deployment.home())
        report.check()
        assert (set(report.logs), report.unconfirmed) == ({"rm", "cm", "drm"}, {})


async def assert_refused(archive: HostileArchive, ceremony_id: bytes, home: Home) -> None:
    """Nobody who reads gets to see a ceremony, a key or a log that others do not see."""
    async with RecoveryClient.open(home, identity="agent/bob", retries=NO_RETRIES) as bob:
        with pytest.raises(KeyarkError) as refused:
            await bob.review(ceremony_id)
    assert refused.value.reason == "PRIVATE_LOG"
    async with auditing(home) as witnesses:
        with pytest.raises(KeyarkError) as refused:
            await confirmed(CeremonyReview(home).review(archive.view), witnesses)
    assert refused.value.reason == "PRIVATE_LOG"
    report = await audited(home)
    assert report.failures["drm"].reason == "PRIVATE_LOG"
    with pytest.raises(KeyarkError) as refused:
        report.check()
    assert refused.value.reason == "PRIVATE_LOG"


async def test_a_log_of_rm_or_cm_that_forgot_what_this_home_saw_is_not_called_consistent(
    deployment: Deployment,
) -> None:
    home = deployment.home()
    (await audited(home)).check()
    seen = home.folder / "checkpoints" / "rm.note"
    cms = (home.folder / "checkpoints" / "cm.note").read_bytes()
    earlier = seen.read_bytes()
    await lose_key(deployment)
    report = await audited(home)
    report.check()
    assert seen.read_bytes() != earlier
    seen.write_bytes(cms)  # no checkpoint of the RM's log at all
    report = await audited(home)
    assert (report.failures["rm"].reason, set(report.logs)) == ("LOG_MISMATCH", {"cm", "drm"})


async def test_logs_of_services_that_answer_are_verified_while_another_is_away(
    deployment: Deployment,
) -> None:
    lost = await lose_key(deployment)
    home = without(deployment.home(), "cm")
    report = await audited(home)
    assert (set(report.logs), set(report.unconfirmed)) == ({"rm", "drm"}, {"cm"})
    with pytest.raises(KeyarkError) as refused:
        report.check()
    assert refused.value.kind is Kind.UNAVAILABLE
    async with auditing(home) as witnesses:
        key = await get_proven_key(witnesses.archive, lost.key_id)
        assert set(await witnesses.confirm_where_possible([key.receipt.head])) == {"cm"}
