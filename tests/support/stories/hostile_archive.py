"""A DRM in the wrong hands: identity and transport key of the real one, its own log, and it shows what it likes."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from drm_service.ceremonies.views import show_storage_keys
from keyark.client.access.home import Home
from keyark.client.access.passwords import no_password
from keyark.client.access.transport_memory import pinned_certificates
from keyark.client.recovery.agent_keys import AgentKeys
from keyark.client.recovery.archive_pins import ArchivePins
from keyark.clock import SystemClock
from keyark.custody.agents import AgentShareKey
from keyark.custody.shares import QuorumRule
from keyark.custody.storage import HybridPrivateKey
from keyark.custody.token import create_software_token
from keyark.identity.revoked import RevokedIdentities
from keyark.identity.spiffe import SpiffeId
from keyark.keys.private_keys import load_private_key
from keyark.meters import Meters
from keyark.records.v1.drm_pb2 import SoftwareToken
from keyark.rpc.identities import PeerReader
from keyark.rpc.serving.audit import AuditServicer
from keyark.rpc.serving.server import ServedService, build_server
from keyark.statements.ceremonies import AgentSigner, Opening, ceremony_digest, sign_decision, sign_request
from keyark.statements.enrollment import new_request_id
from keyark.store import MemoryStore
from keyark.transparency.checkpoint import NoteSigner
from keyark.transparency.events import new_event
from keyark.transparency.log import TABLES, Log
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.opening_facts import encode_facts, facts_digest
from keyark.v1 import archive_pb2, audit_pb2, recovery_pb2
from keyark.v1.archive_pb2_grpc import TransportKeyServiceServicer, add_TransportKeyServiceServicer_to_server
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent
from keyark.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from keyark.v1.ceremony_pb2 import (
    CeremonyProof,
    CeremonyStatement,
    CeremonyType,
    Decision,
    DecisionStatement,
    SignedStatement,
)
from keyark.v1.recovery_pb2 import ArchiveChange, Ceremony, CeremonyKey, CeremonyState, StorageKey
from keyark.v1.recovery_pb2_grpc import (
    KeyRecoveryServiceServicer,
    add_KeyRecoveryServiceServicer_to_server,
)
from tests.support.running.rpc import budgets
from tests.support.stories.relays import service_identity

ORIGIN = "example.org/drm"
AGENTS = ("alice", "bob", "carol")
OPEN = CeremonyState.CEREMONY_STATE_OPEN
RECOVERY_APPROVED = EventType.EVENT_TYPE_RECOVERY_APPROVED
RECOVERY_REJECTED = EventType.EVENT_TYPE_RECOVERY_REJECTED


def share_key(folder: Path, agent: str) -> AgentShareKey:
    """An agent's public file."""
    return AgentShareKey.from_json((folder / "identities" / "agent" / agent / "share-key.json").read_text())


@dataclass(kw_only=True)
class HostileArchive(KeyRecoveryServiceServicer, TransportKeyServiceServicer):
    """Serves ``view`` and ``changes``, and keeps every approval that reaches it.

    ``decision_proof`` is what it answers agents in place of the proof that their decision is in its log.
    """

    folder: Path
    view: Ceremony = field(default_factory=Ceremony)
    changes: list[ArchiveChange] = field(default_factory=list)
    newest_change: bytes = b""
    approvals: list[recovery_pb2.ApproveCeremonyRequest] = field(default_factory=list)
    decision_proof: bytes | None = None

    def __post_init__(self) -> None:
        key: Any = load_private_key(self.folder / "drm" / "transport-keys" / "1" / "key.pem")
        signer = NoteSigner.from_private_key(ORIGIN, key)
        self.log = Log(origin=ORIGIN, signer=signer, clock=SystemClock())
        self.store = MemoryStore(tables=TABLES, finisher=self.log.finisher)
        self.home = Home.load(self.folder)

    def token(self, *agents: str, generation: int = 1, quorum: int = 2) -> SoftwareToken:
        """A storage key of its making, split among agents."""
        keys = [share_key(self.folder, agent) for agent in agents or AGENTS]
        return create_software_token(keys, quorum, generation=generation)[0]

    def pin(self, *tokens: SoftwareToken) -> None:
        """Let the agents have pinned alice, bob and carol, two of them, and these storage keys."""
        self.newest_change = b""
        pins = ArchivePins.first(
            [share_key(self.folder, agent) for agent in AGENTS],
            quorum=2,
            rule=QuorumRule.SEPARATE,
            storage_keys=[sha256(token.public_key).digest() for token in tokens],
        )
        for agent in AGENTS:
            pins.save(self.folder / "identities" / "agent" / agent)

    def signer(self, agent: str) -> Any:
        """An agent's certificate key; a hostile archive has those of its friends at most."""
        return AgentKeys.of(self.home, f"agent/{agent}", no_password).signer

    async def append(self, event: LoggedEvent) -> int:
        """Log something."""
        return (await self.store.update(lambda txn: self.log.append(txn, event))).index

    async def proof(self, event: LoggedEvent, index: int) -> bytes:
        """Prove that something is in this log."""
        return self.log.prove(event, index, await self.log.checkpoint(covering=index))

    async def archive(self, token: SoftwareToken, **ids: bytes) -> tuple[bytes, CeremonyKey]:
        """Log a key as archived under a storage key; returns its id and how a ceremony shows it."""
        key_id = ids.setdefault("encryption_spki_sha256", os.urandom(32))
        for name in ("enrollment_id", "statement_sha256", "signing_spki_sha256"):
            ids.setdefault(name, os.urandom(32))
        event = AuditEvent(
            version=1,
            type=EventType.EVENT_TYPE_KEY_ARCHIVED,
            time_us=time.time_ns() // 1000,
            storage_key_id=sha256(token.public_key).digest(),
            **ids,
        )
        logged = new_event(event, AuditDetails(common_name="Alice", email="alice@example.org"))
        return key_id, CeremonyKey(receipt=await self.proof(logged, await self.append(logged)))

    async def reseal(self, key: CeremonyKey, token: SoftwareToken, **ids: bytes) -> CeremonyKey:
        """Log that an archived key lies under another storage key by now."""
        ids.setdefault("enrollment_id", os.urandom(32))
        event = AuditEvent(
            version=1,
            type=EventType.EVENT_TYPE_KEY_RESEALED,
            time_us=time.time_ns() // 1000,
            storage_key_id=sha256(token.public_key).digest(),
            **ids,
        )
        logged = new_event(event, AuditDetails())
        key.resealing_proof = await self.proof(logged, await self.append(logged))
        return key

    async def open(
        self,
        statement: CeremonyStatement,
        *,
        opens: Sequence[SoftwareToken] = (),
        makes: SoftwareToken | None = None,
        keys: Sequence[CeremonyKey] = (),
        signer: AgentSigner | None = None,
        told: AuditDetails | None = None,
        **dates: int,
    ) -> bytes:
        """Open what alice, or another signer, asks for: logged in full and shown to bob; returns the ceremony's id.

        It is coherent in itself, but for what ``told`` says in the log and for its ``dates``.
        """
        statement.ceremony_id, statement.reason = new_request_id(), "why not"
        request = sign_request(statement, signer or self.signer("alice"))
        one_time, facts = (
            HybridPrivateKey.generate().public_key,
            encode_facts(opens, makes, newest_change=self.newest_change),
        )
        logged = opening_leaf(
            request,
            statement,
            share_recipient_sha256=one_time.key_id,
            opening_facts_sha256=facts_digest(facts),
            storage_key_id=sha256(makes.public_key).digest() if makes else b"",
            told=told,
            **dates,
        )
        bob = SpiffeId("example.org", "agent/bob")
        self.view = Ceremony(
            ceremony_id=statement.ceremony_id,
            state=OPEN,
            request=request,
            opening_proof=await self.proof(logged, await self.append(logged)),
            opening_facts=facts,
            share_recipient_key=one_time.to_bytes(),
            quorum=2,
            keys=keys,
            storage_keys=show_storage_keys(opens, bob),
        )
        if makes is not None:
            self.view.new_storage_key.CopyFrom(show_storage_keys([makes], bob)[0])
        return statement.ceremony_id

    async def change(
        self,
        statement: CeremonyStatement,
        *,
        approve: Sequence[str],
        opens: Sequence[SoftwareToken] = (),
        makes: SoftwareToken | None = None,
        signer: AgentSigner | None = None,
    ) -> ArchiveChange:
        """A change of agents or storage keys as it is shown to those who follow; what is opened next names it."""
        await self.open(statement, opens=opens, makes=makes, signer=signer)
        request = self.view.request
        logged = self.log.entry(self.log.size - 1)
        opening = Opening(digest=ceremony_digest(request.statement), leaf_hash=leaf_hash(logged.leaf))
        self.newest_change = opening.leaf_hash
        return ArchiveChange(
            change=CeremonyProof(
                request=request,
                opening_leaf=logged.leaf,
                opening_facts=self.view.opening_facts,
                approvals=[
                    sign_decision(
                        opening,
                        self.signer(name),
                        decision=Decision.DECISION_APPROVE,
                        time_us=time.time_ns() // 1000,
                    )
                    for name in approve
                ],
            ),
            opening_proof=self.view.opening_proof,
        )

    async def close(self, event_type: EventType.ValueType, digest: bytes) -> bytes:
        """Log an end of a ceremony and prove it."""
        event = AuditEvent(version=1, type=event_type, time_us=time.time_ns() // 1000, ceremony_digest=digest)
        logged = new_event(event, AuditDetails())
        return await self.proof(logged, await self.append(logged))

    async def GetCeremony(self, request: Any, context: Any) -> recovery_pb2.GetCeremonyResponse:
        """What it likes to show."""
        return recovery_pb2.GetCeremonyResponse(ceremony=self.view)

    async def ListArchiveChanges(
        self, request: recovery_pb2.ListArchiveChangesRequest, context: Any
    ) -> recovery_pb2.ListArchiveChangesResponse:
        """The changes that it claims."""
        known = [leaf_hash(shown.change.opening_leaf) for shown in self.changes]
        start = known.index(request.newest_change) + 1 if request.newest_change in known else 0
        return recovery_pb2.ListArchiveChangesResponse(changes=self.changes[start:])

    async def ListTransportKeyChanges(
        self, request: Any, context: Any
    ) -> archive_pb2.ListTransportKeyChangesResponse:
        """The transport key of the real DRM."""
        return archive_pb2.ListTransportKeyChangesResponse(
            transport_certificate=pinned_certificates(self.home)[0]
        )

    async def ListStorageKeys(self, request: Any, context: Any) -> recovery_pb2.ListStorageKeysResponse:
        """A friend's key, for whoever believes it."""
        keys: list[StorageKey] = list(self.view.storage_keys)
        return recovery_pb2.ListStorageKeysResponse(storage_keys=keys)

    async def ApproveCeremony(
        self, request: recovery_pb2.ApproveCeremonyRequest, context: Any
    ) -> recovery_pb2.ApproveCeremonyResponse:
        """An agent was fooled."""
        self.approvals.append(request)
        proof = await self._shown_of(request.approval)
        return recovery_pb2.ApproveCeremonyResponse(ceremony=self.view, decision_proof=proof)

    async def RejectCeremony(
        self, request: recovery_pb2.RejectCeremonyRequest, context: Any
    ) -> recovery_pb2.RejectCeremonyResponse:
        """An agent is in the way."""
        proof = await self._shown_of(request.rejection)
        return recovery_pb2.RejectCeremonyResponse(ceremony=self.view, decision_proof=proof)

    async def CancelCeremony(
        self, request: recovery_pb2.CancelCeremonyRequest, context: Any
    ) -> recovery_pb2.CancelCeremonyResponse:
        """Canceled, it says."""
        return recovery_pb2.CancelCeremonyResponse(ceremony=self.view)

    async def _shown_of(self, signed: SignedStatement) -> bytes:
        return await self.decided(signed) if self.decision_proof is None else self.decision_proof

    async def decided(self, signed: SignedStatement, **fields: Any) -> bytes:
        """Log an agent's decision and prove it; ``fields`` are what the leaf says otherwise."""
        message = DecisionStatement.FromString(signed.statement)
        approves = message.decision == Decision.DECISION_APPROVE
        event = AuditEvent(
            version=1,
            **{
                "type": RECOVERY_APPROVED if approves else RECOVERY_REJECTED,
                "time_us": time.time_ns() // 1000,
                "ceremony_digest": message.ceremony_digest,
                "decision_sha256": sha256(signed.statement).digest(),
            }
            | fields,
        )
        details = AuditDetails(caller=message.agent, decision=signed.SerializeToString(deterministic=True))
        logged = new_event(event, details)
        return await self.proof(logged, await self.append(logged))


def opening_leaf(
    request: SignedStatement, statement: CeremonyStatement, told: AuditDetails | None = None, **fields: Any
) -> LoggedEvent:
    """The leaf that opens a ceremony; ``told`` is what it says in place of the request's own words."""
    recovers = statement.type == CeremonyType.CEREMONY_TYPE_RECOVER_KEYS
    now = time.time_ns() // 1000
    event = AuditEvent(
        version=1,
        type=EventType.EVENT_TYPE_RECOVERY_OPENED if recovers else EventType.EVENT_TYPE_CEREMONY_OPENED,
        ceremony_id=statement.ceremony_id,
        ceremony_digest=ceremony_digest(request.statement),
        **{"time_us": now, "expires_time_us": now + 10**12} | fields,
    )
    return new_event(event, told or AuditDetails(caller=statement.requester, message=statement.reason))


@asynccontextmanager
async def hostile_archive(folder: Path) -> AsyncIterator[HostileArchive]:
    """Serve in the DRM's place; ``home`` leads people to it."""
    archive = HostileArchive(folder=folder)
    await archive.log.open(archive.store)

    async def ignore(*_: Any) -> None:
        """Refusals of a hostile subsystem are its own business."""

    recovery = recovery_pb2.DESCRIPTOR.services_by_name["KeyRecoveryService"]
    audit = audit_pb2.DESCRIPTOR.services_by_name["AuditService"]
    everyone = {"rm", "cm", "client", "officer", "agent", "auditor"}
    transport = archive_pb2.DESCRIPTOR.services_by_name["TransportKeyService"]
    identity = service_identity(folder, "drm")
    server = build_server(
        present=lambda: identity,
        address="127.0.0.1:0",
        services=[
            ServedService(
                descriptor=recovery, add=add_KeyRecoveryServiceServicer_to_server, servicer=archive
            ),
            ServedService(
                descriptor=transport, add=add_TransportKeyServiceServicer_to_server, servicer=archive
            ),
            ServedService(
                descriptor=audit,
                add=add_AuditServiceServicer_to_server,
                servicer=AuditServicer(
                    archive.log, SystemClock(), None, waits_for=str, discloses=lambda _: EventType.values()
                ),
            ),
        ],
        allow={f"/{d.full_name}/{m.name}": everyone for d in (recovery, transport, audit) for m in d.methods},
        peers=PeerReader(lambda: int(time.time()), RevokedIdentities([])),
        budgets=budgets(),
        on_rejected=ignore,
        meters=Meters(Path()),
    )
    await server.start()
    moved = archive.home.config.model_copy(update={"drm": f"127.0.0.1:{server.port}"})
    object.__setattr__(archive.home, "config", moved)
    try:
        yield archive
    finally:
        await server.drain(1)
        await archive.log.close()
        await archive.store.close()
