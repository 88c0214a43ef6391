"""Keys that were archived, certified and lost, and agents who bring them back, on a deployment that runs here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography import x509

from keyark.client import EnrollmentClient, RecoveryClient
from keyark.client.access.passwords import no_password
from keyark.client.access.sessions import open_session
from keyark.client.recovery.agent_keys import AgentKeys
from keyark.client.recovery.review import ReviewedCeremony, token_of
from keyark.client.trust.receipts import list_entries
from keyark.custody.storage import HybridPublicKey
from keyark.custody.token import open_share
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.access.revocation import IdentityRevocation
from keyark.rpc.calling.channels import call, open_channel
from keyark.rpc.calling.retries import NO_RETRIES
from keyark.rpc.identities import LocalIdentity
from keyark.statements.ceremonies import seal_released_share, sign_decision
from keyark.v1 import archive_pb2, recovery_pb2
from keyark.v1.archive_pb2_grpc import KeyArchiveServiceStub
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.v1.ceremony_pb2 import Decision
from keyark.v1.recovery_pb2 import CeremonyState
from keyark.v1.recovery_pb2_grpc import KeyRecoveryServiceStub
from keyark.x509.certificates import encode_certificate
from tests.support.running.deployment import Deployment
from tests.support.stories.enrolling import pkcs8

REASON = "Alice's disk broke"


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A key that is archived and certified; the original is kept to compare with."""

    key_id: bytes
    private_key: bytes
    serial: int
    statement_sha256: bytes
    enrollment_id: bytes


async def lose_key(
    deployment: Deployment,
    *,
    email: str = "alice@example.org",
    client_password: bytes | None = None,
    **request: Any,
) -> Lost:
    """Enroll somebody, and see to it that the archive knows the certificate."""
    async with EnrollmentClient.open(
        deployment.home(), password=lambda _: client_password, retries=NO_RETRIES
    ) as client:
        prepared = await client.prepare(common_name="Alice Example", email=email, **request)
        enrolled = await client.submit(prepared)
    await link(
        deployment, prepared.statement.enrollment_id, encode_certificate(enrolled.encryption_certificate)
    )
    return Lost(
        key_id=prepared.statement.encryption_spki_sha256,
        private_key=pkcs8(prepared.encryption_key),
        serial=enrolled.encryption_certificate.serial_number,
        statement_sha256=prepared.statement.sha256,
        enrollment_id=prepared.statement.enrollment_id,
    )


async def link(deployment: Deployment, enrollment_id: bytes, certificate: bytes) -> None:
    """Tell the archive of a certificate as the RM's outbox does, which may do so too."""
    item = archive_pb2.CertificateLink(enrollment_id=enrollment_id, certificate=certificate)
    async with service_stub(deployment, "rm") as stub:
        answer = await call(
            stub.LinkCertificates, archive_pb2.LinkCertificatesRequest(items=[item]), timeout=30
        )
    assert [outcome.code for outcome in answer.outcomes] == [0]


@asynccontextmanager
async def service_stub(deployment: Deployment, role: str) -> AsyncIterator[KeyArchiveServiceStub]:
    """The DRM's face to the RM, called with the identity of a service."""
    home, folder = deployment.home(), deployment.folder / role
    identity = LocalIdentity.load(
        key=folder / "identity-key.pem",
        certificate=folder / "identity.pem",
        trust_anchor=folder / "trust-anchor.pem",
    )
    channel = open_channel(
        home.config.drm, identity, server_role="drm", trust_domain=home.config.trust_domain
    )
    try:
        yield KeyArchiveServiceStub(channel)
    finally:
        await channel.close()


@asynccontextmanager
async def agents(deployment: Deployment, *names: str) -> AsyncIterator[list[RecoveryClient]]:
    """Be several agents at once."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                RecoveryClient.open(deployment.home(), identity=f"agent/{name}", retries=NO_RETRIES)
            )
            for name in names
        ]


async def approve(ceremony_id: bytes, *clients: RecoveryClient) -> ReviewedCeremony:
    """Let agents look at a ceremony and approve it, one after the other."""
    for client in clients:
        reviewed = await client.approve(await client.review(ceremony_id))
    return reviewed


def state(reviewed: ReviewedCeremony) -> str:
    """The name of a ceremony's state."""
    return CeremonyState.Name(reviewed.state).removeprefix("CEREMONY_STATE_")


async def drm_log(deployment: Deployment) -> list[tuple[str, AuditEvent, AuditDetails]]:
    """The DRM's log: short type, event, details."""
    async with open_session(deployment.home(), "drm", identity="auditor/auditor") as session:
        events = [
            (AuditEvent.FromString(e.event.leaf), AuditDetails.FromString(e.event.details))
            async for e in list_entries(session)
        ]
    return [
        (EventType.Name(event.type).removeprefix("EVENT_TYPE_"), event, details) for event, details in events
    ]


async def ceremony_steps(deployment: Deployment, ceremony_id: bytes) -> list[str]:
    """What the log says of one ceremony, in order."""
    return [name for name, event, _ in await drm_log(deployment) if event.ceremony_id == ceremony_id]


def identity_file(folder: Path, agent: str, name: str) -> Path:
    """A file of an agent's identity."""
    return folder / "identities" / "agent" / agent / name


def raw_stub(client: RecoveryClient) -> KeyRecoveryServiceStub:
    """The RPCs themselves, with an agent's channel: anything can be sent."""
    return KeyRecoveryServiceStub(client.session.channel)


def approval(
    agent: RecoveryClient, ceremony: ReviewedCeremony, **wrong: Any
) -> recovery_pb2.ApproveCeremonyRequest:
    """An approval made by hand; ``opening``, ``signer``, ``shares`` and ``ceremony_id`` can be other ones."""
    keys = agent_keys(agent)
    opening = wrong.get("opening", ceremony.opening)
    signed = sign_decision(
        opening,
        wrong.get("signer", keys.signer),
        decision=Decision.DECISION_APPROVE,
        time_us=ceremony.opened.event.time_us + 1,
    )
    shares = wrong.get("shares")
    if shares is None:
        shares = [released(agent, ceremony, key, opening=opening) for key in ceremony.view.storage_keys]
    return recovery_pb2.ApproveCeremonyRequest(
        ceremony_id=wrong.get("ceremony_id", ceremony.ceremony_id), approval=signed, shares=shares
    )


def released(
    agent: RecoveryClient, ceremony: ReviewedCeremony, storage_key: recovery_pb2.StorageKey, **wrong: Any
) -> recovery_pb2.ReleasedShare:
    """A share sealed by hand; ``share`` and ``opening`` can be other ones."""
    keys = agent_keys(agent)
    share = wrong.get("share") or open_share(token_of(storage_key), keys.share_key, str(keys.signer.identity))
    recipient = HybridPublicKey.from_bytes(ceremony.view.share_recipient_key)
    key_id = sha256(storage_key.public_key).digest()
    ciphertext = seal_released_share(share, recipient, wrong.get("opening", ceremony.opening), key_id)
    return recovery_pb2.ReleasedShare(storage_key_id=key_id, ciphertext=ciphertext)


def agent_keys(agent: RecoveryClient) -> AgentKeys:
    """An agent's keys, as on its own disk."""
    name = agent.identity
    return AgentKeys.of(agent.session.home, name, no_password)


async def send_approval(
    sender: RecoveryClient, request: recovery_pb2.ApproveCeremonyRequest
) -> recovery_pb2.Ceremony:
    """Send what was made by hand."""
    return (await call(raw_stub(sender).ApproveCeremony, request, timeout=60)).ceremony


async def revoke(deployment: Deployment, *names: str) -> None:
    """Have the archive know that these identities are revoked."""
    authority = DeploymentAuthority.load(deployment.folder / "authority")
    revocation = IdentityRevocation(authority=authority, home=deployment.folder)
    revocation.revoke(names, x509.ReasonFlags.key_compromise)
    await deployment.services["drm"].reloads[1]()
