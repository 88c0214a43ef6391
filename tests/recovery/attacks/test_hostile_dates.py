"""P4, P6: a hostile archive dates its leaves as it likes, and lets people act who may not any more. No share leaves."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from keyark.client import KeyarkError, RecoveryClient
from keyark.client.access.passwords import no_password
from keyark.client.recovery.agent_keys import AgentKeys
from keyark.custody.agents import AgentShareKey, ShareKey
from keyark.custody.storage import HybridPrivateKey
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.initialize import DeploymentPlan, make_person
from keyark.identity.spiffe import SpiffeId
from keyark.statements.ceremonies import AgentSigner, Opening, agent_key_of, ceremony_digest, sign_decision
from keyark.transparency.merkle import leaf_hash
from keyark.v1.audit_pb2 import AuditDetails
from keyark.v1.ceremony_pb2 import CeremonyStatement, CeremonyType, Decision
from keyark.x509.certificates import load_pem_certificates
from tests.support.running.deployment import running
from tests.support.stories.attacks import forge_identity
from tests.support.stories.hostile_archive import HostileArchive, hostile_archive, share_key

SECOND = 10**6


@pytest_asyncio.fixture
async def archive(deployment_folder: Path) -> AsyncIterator[HostileArchive]:
    authority = DeploymentAuthority.load(deployment_folder / "authority")
    make_person(DeploymentPlan(folder=deployment_folder), authority, SpiffeId("example.org", "agent/mallory"))
    async with running(deployment_folder), hostile_archive(deployment_folder) as archive:
        yield archive


def now() -> int:
    return time.time_ns() // 1000


def recovery(key_id: bytes) -> CeremonyStatement:
    return CeremonyStatement(
        type=CeremonyType.CEREMONY_TYPE_RECOVER_KEYS,
        key_ids=[key_id],
        recipient_public_key=HybridPrivateKey.generate().public_key.to_bytes(),
    )


def change(*agents: AgentShareKey) -> CeremonyStatement:
    return CeremonyStatement(
        type=CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS,
        agents=[agent_key_of(agent) for agent in agents],
        quorum=2,
    )


def expired_signer(folder: Path, agent: str) -> AgentSigner:
    """A stolen identity key whose certificate has ended; the CA of the tests is minutes old."""
    old = forge_identity(folder, uris=[f"spiffe://example.org/agent/{agent}"], starting=-280, seconds=60)
    return AgentSigner(
        certificate=load_pem_certificates(old.certificate)[0],
        private_key=load_pem_private_key(old.private_key, None),
    )


async def refusal(archive: HostileArchive, ceremony_id: bytes) -> str:
    """How bob's client refuses to approve; no share leaves it."""
    async with RecoveryClient.open(archive.home, identity="agent/bob") as bob:
        with pytest.raises(KeyarkError) as refused:
            await bob.approve(await bob.review(ceremony_id))
    assert archive.approvals == []
    return refused.value.reason


async def test_what_expired_or_was_asked_for_by_an_expired_identity_gets_no_share(
    archive: HostileArchive,
) -> None:
    first = archive.token()
    archive.pin(first)
    wanted, key = await archive.archive(first)
    past = now() - 230 * SECOND
    revived = await archive.open(
        recovery(wanted), opens=[first], keys=[key], time_us=past, expires_time_us=past + 30 * SECOND
    )
    assert await refusal(archive, revived) == "CEREMONY_CLOSED"
    stolen = expired_signer(archive.folder, "alice")
    asked = await archive.open(recovery(wanted), opens=[first], keys=[key], signer=stolen, time_us=past)
    assert await refusal(archive, asked) == "CERTIFICATE_EXPIRED"
    ahead = await archive.open(
        recovery(wanted), opens=[first], keys=[key], time_us=now() + 10**6 * 86_400 * 730
    )
    assert await refusal(archive, ahead) in {"CEREMONY_MISMATCH", "CERTIFICATE_EXPIRED"}


async def test_an_agent_who_is_not_pinned_asks_in_vain(archive: HostileArchive) -> None:
    first = archive.token()
    archive.pin(first)
    wanted, key = await archive.archive(first)
    asked = await archive.open(recovery(wanted), opens=[first], keys=[key], signer=archive.signer("mallory"))
    assert await refusal(archive, asked) == "CEREMONY_MISMATCH"


async def test_no_share_goes_to_an_expired_identity_or_to_a_former_share_key(archive: HostileArchive) -> None:
    first, folder = archive.token(), archive.folder
    archive.pin(first)
    alice, carol = (share_key(folder, name) for name in ("alice", "carol"))
    own = AgentKeys.of(archive.home, "agent/bob", no_password).signer
    lost = AgentShareKey.create(
        share_key=ShareKey.generate(), certificate=own.certificate, certificate_key=own.private_key
    )
    asked = await archive.open(change(alice, lost, carol), opens=[first])
    assert await refusal(archive, asked) == "CEREMONY_MISMATCH"
    thief = expired_signer(folder, "mallory")
    stolen = AgentShareKey.create(
        share_key=ShareKey.generate(), certificate=thief.certificate, certificate_key=thief.private_key
    )
    asked = await archive.open(
        change(alice, share_key(folder, "bob"), stolen), opens=[first], time_us=now() - 230 * SECOND
    )
    assert await refusal(archive, asked) == "CERTIFICATE_EXPIRED"


async def test_the_log_tells_auditors_what_agents_approve(archive: HostileArchive) -> None:
    first = archive.token()
    archive.pin(first)
    wanted, key = await archive.archive(first)
    for lie in (
        AuditDetails(caller="spiffe://example.org/agent/carol", message="why not"),
        AuditDetails(caller="spiffe://example.org/agent/alice", message="a drill with a test key"),
    ):
        asked = await archive.open(recovery(wanted), opens=[first], keys=[key], told=lie)
        assert await refusal(archive, asked) == "CEREMONY_MISMATCH"


async def test_an_approval_that_an_expired_key_dates_back_is_not_shown_as_one(
    archive: HostileArchive,
) -> None:
    first = archive.token()
    archive.pin(first)
    wanted, key = await archive.archive(first)
    asked = await archive.open(recovery(wanted), opens=[first], keys=[key])
    leaf = archive.log.entry(archive.log.size - 1).leaf
    opening = Opening(digest=ceremony_digest(archive.view.request.statement), leaf_hash=leaf_hash(leaf))
    forged = sign_decision(
        opening,
        expired_signer(archive.folder, "carol"),
        decision=Decision.DECISION_APPROVE,
        time_us=now() - 240 * SECOND,
    )
    archive.view.decisions.append(forged)
    assert await refusal(archive, asked) == "CEREMONY_MISMATCH"
