"""P6: an agent's client sees its own decision in the log that everybody follows, or says that it is not there."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest
import pytest_asyncio

from keyark.cli.agents.ceremonies import ceremony_facts, show_ceremony
from keyark.client import KeyarkError, RecoveryClient
from keyark.client.recovery.review import CeremonyReview, ReviewedCeremony
from keyark.errors import Kind
from keyark.statements.ceremonies import Opening, ceremony_digest, sign_decision
from keyark.v1.audit_pb2 import EventType
from keyark.v1.ceremony_pb2 import Decision, SignedStatement
from keyark.v1.recovery_pb2 import CeremonyState
from tests.recovery.attacks.test_hostile_archive import recovery
from tests.recovery.attacks.test_readers import without
from tests.recovery.test_review import altered
from tests.support.running.deployment import Deployment, edit, running
from tests.support.stories.hostile_archive import (
    RECOVERY_APPROVED,
    RECOVERY_REJECTED,
    HostileArchive,
    hostile_archive,
)
from tests.support.stories.recovering import REASON, agents, approve, drm_log, lose_key, state

APPROVE = Decision.DECISION_APPROVE
REJECT = Decision.DECISION_REJECT


@pytest_asyncio.fixture
async def archive(deployment_folder: Path) -> AsyncIterator[HostileArchive]:
    """With RM and CM, who never saw another log of the DRM."""
    async with running(deployment_folder), hostile_archive(deployment_folder) as archive:
        yield archive


async def opened(archive: HostileArchive) -> bytes:
    token = archive.token()
    archive.pin(token)
    wanted, key = await archive.archive(token)
    return await archive.open(recovery(wanted), opens=[token], keys=[key])


def signed(
    archive: HostileArchive, agent: str, opening: Opening, decision: Decision.ValueType
) -> SignedStatement:
    reason = "no" if decision == REJECT else ""
    return sign_decision(
        opening, archive.signer(agent), decision=decision, time_us=time.time_ns() // 1000, reason=reason
    )


async def false_proofs(archive: HostileArchive, ceremony: ReviewedCeremony) -> list[bytes]:
    """Proofs of what is not bob's approval of this opening, all in the log that everybody follows."""
    mine, others = ceremony.opening, Opening(digest=os.urandom(32), leaf_hash=os.urandom(32))
    approval = signed(archive, "bob", mine, APPROVE)
    unsigned = SignedStatement(statement=approval.statement, certificate=approval.certificate)
    return [
        b"",
        b"no proof",
        archive.view.opening_proof,
        await archive.decided(signed(archive, "carol", mine, APPROVE)),
        await archive.decided(signed(archive, "bob", mine, REJECT)),
        await archive.decided(signed(archive, "bob", others, APPROVE)),
        await archive.decided(approval, type=RECOVERY_REJECTED),
        await archive.decided(approval, ceremony_digest=os.urandom(32)),
        await archive.decided(approval, decision_sha256=os.urandom(32)),
        await archive.decided(unsigned),
    ]


async def test_an_approval_that_is_kept_out_of_the_log_is_told(archive: HostileArchive) -> None:
    ceremony_id = await opened(archive)
    async with RecoveryClient.open(archive.home, identity="agent/bob") as bob:
        seen = await bob.review(ceremony_id)
        for proof in await false_proofs(archive, seen):
            archive.decision_proof = proof
            error = await failure(bob.approve(seen))
            assert (error.reason, error.kind) == ("DECISION_NOT_LOGGED", Kind.PRECONDITION)
            assert "share has left this machine" in error.message
        archive.decision_proof = await archive.decided(signed(archive, "bob", seen.opening, APPROVE))
        approved = await bob.approve(
            seen
        )  # an earlier approval of the same opening counts, and its entry with it
        assert approved.unconfirmed == {}


async def test_an_approval_in_a_log_of_its_own_is_told(archive: HostileArchive) -> None:
    ceremony_id = await opened(archive)
    private = HostileArchive(folder=archive.folder)
    await private.log.open(private.store)
    async with RecoveryClient.open(archive.home, identity="agent/bob") as bob:
        seen = await bob.review(ceremony_id)
        archive.decision_proof = await private.decided(signed(archive, "bob", seen.opening, APPROVE))
        error = await failure(bob.approve(seen))
    assert error.reason == "DECISION_NOT_LOGGED"
    assert "inconsistent with" in error.message


async def test_a_rejection_or_cancellation_that_is_kept_out_of_the_log_is_told(
    archive: HostileArchive,
) -> None:
    ceremony_id = await opened(archive)
    async with RecoveryClient.open(archive.home, identity="agent/bob") as bob:
        seen = await bob.review(ceremony_id)
        for proof in (
            b"",
            await archive.decided(signed(archive, "bob", seen.opening, REJECT), type=RECOVERY_APPROVED),
        ):
            archive.decision_proof = proof
            error = await failure(bob.reject(seen, reason="no"))
            assert error.reason == "DECISION_NOT_LOGGED"
            assert "may not count" in error.message
        archive.decision_proof = None
        await bob.reject(seen, reason="no")
    async with RecoveryClient.open(archive.home, identity="agent/alice") as alice:
        for archive.view.state in (CeremonyState.CEREMONY_STATE_OPEN, CeremonyState.CEREMONY_STATE_CANCELED):
            assert (await failure(alice.cancel(ceremony_id))).reason == "DECISION_NOT_LOGGED"
        digest = ceremony_digest(archive.view.request.statement)
        archive.view.closing_proof = await archive.close(EventType.EVENT_TYPE_RECOVERY_CLOSED, digest)
        assert (await alice.cancel(ceremony_id)).unconfirmed == {}


async def failure(attempt: Awaitable[object]) -> KeyarkError:
    with pytest.raises(KeyarkError) as failed:
        await attempt
    return failed.value


async def test_every_decision_is_shown_with_its_log_entry(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        await bob.approve(await bob.review(asked.ceremony_id))
        again = await bob.approve(await bob.review(asked.ceremony_id))  # the first one's entry
        seen = await carol.reject(await carol.review(asked.ceremony_id), reason="no")
    assert [again.decisions.unlogged, seen.decisions.unlogged] == [[], []]
    logged = {event.decision_sha256: name for name, event, _ in await drm_log(deployment)}
    shown = [entry.event.decision_sha256 for entry in seen.decisions.entries.values()]
    assert [logged[digest] for digest in shown] == ["RECOVERY_APPROVED", "RECOVERY_REJECTED"]
    proofs = list(seen.view.decision_proofs)
    for lie, unlogged in (
        ([], "bob carol"),
        ([b"", proofs[1]], "bob"),
        (proofs[::-1], ""),
        ([proofs[0]] * 2, "carol"),
    ):
        told = CeremonyReview(deployment.home()).review(altered(seen.view, decision_proofs=lie))
        names = [f"spiffe://example.org/agent/{name}" for name in unlogged.split()]
        assert ceremony_facts(told)["not_in_log"] == names
        show_ceremony(told, as_json=False)
        careful = [line for line in capsys.readouterr().out.splitlines() if "shows no log entry" in line]
        assert len(careful) == len(names)


async def test_decisions_of_before_a_restart_keep_their_entries(deployment_folder: Path) -> None:
    """A rejection stands through another opening, and its entry stays the one that it was."""
    edit(deployment_folder / "drm" / "drm.toml", '"separate"', '"self-approval"')
    async with running(deployment_folder) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice", "bob", "carol") as (alice, bob, carol):
            asked = await alice.request_keys([lost.key_id], reason=REASON)
            await approve(asked.ceremony_id, bob)
            await carol.reject(await carol.review(asked.ceremony_id), reason="no")
    async with running(deployment_folder) as deployment, agents(deployment, "bob", "carol") as (bob, carol):
        seen = await carol.review(asked.ceremony_id)
        assert (seen.decisions.rejected, seen.decisions.unlogged) == ([str(CAROL)], [])
        again = await carol.reject(seen, reason="still no")
        assert again.decisions.unlogged == []
        assert (await bob.approve(await bob.review(asked.ceremony_id))).decisions.unlogged == []
        assert state(again) == "OPEN"


async def test_an_agent_whose_witness_is_away_after_it_approved_is_told(
    archive: HostileArchive,
) -> None:
    ceremony_id = await opened(archive)
    async with RecoveryClient.open(archive.home, identity="agent/bob") as bob:
        seen = await bob.review(ceremony_id)
    async with RecoveryClient.open(without(archive.home, "cm"), identity="agent/bob") as bob:
        assert set((await bob.reject(seen, reason="no")).unconfirmed) == {"cm"}


CAROL = "spiffe://example.org/agent/carol"
