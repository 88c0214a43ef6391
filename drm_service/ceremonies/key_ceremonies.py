"""The ceremonies about the archive's own keys: other agents, a new storage key, old keys sealed under the new one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from drm_service.ceremonies.records import ceremony_leaf, find_ceremony, put_ceremony
from drm_service.ceremonies.trust_changes import former_share_keys, put_trust_change
from drm_service.ceremonies.work import (
    ApprovedCeremony,
    CeremonyOutcome,
    RunTasks,
    StartWorker,
    all_of,
    work_tasks,
)
from drm_service.keys.failed_keys import KeyFailure
from drm_service.keys.storage_keys import StorageKeys, put_token, read_tokens, storage_key_id
from drm_service.records import FAILED_KEYS, put_row, put_sealed_key, read_row, scan_records
from keyark.clock import Clock
from keyark.custody.agents import check_not_former
from keyark.custody.shares import QuorumRule, check_quorum
from keyark.errors import InvalidInputError, KeyarkError
from keyark.errors.recovery import CeremonyMovedError, KeyIntegrityError, NothingToResealError
from keyark.records.v1.drm_pb2 import (
    ArchivedKeyRecord,
    CeremonyRecord,
    CeremonyResult,
    CeremonyTask,
    CeremonyWorkerSetup,
    ChangeAgentsTask,
    NewStorageKeyTask,
    ResealKeyTask,
    SealedKey,
    SoftwareToken,
)
from keyark.statements.ceremonies import AgentTrust, CeremonyRequest
from keyark.store import Store, WriteTransaction
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent
from keyark.v1.ceremony_pb2 import AgentKey
from keyark.v1.recovery_pb2 import CeremonyState
from keyark.x509.certificates import load_certificate

RESEAL_BATCH: Final = 64
BATCHES_PER_WORKER: Final = 100
COMPLETED: Final = CeremonyState.CEREMONY_STATE_COMPLETED


@dataclass(frozen=True, kw_only=True)
class ChangeAgents:
    """Every storage key under a new PIN, split among another set of agents; no archived key is touched."""

    store: Store
    clock: Clock
    trust: AgentTrust
    quorum_rule: QuorumRule
    agents_changed: Callable[[], Awaitable[None]]

    async def prepare(self, request: CeremonyRequest, record: CeremonyRecord) -> None:
        """Check the new agents' keys and quorum; raises as ``_check_agents`` does, and QuorumError."""
        self._check_agents(request)
        check_quorum(len(request.agents), request.message.quorum, rule=self.quorum_rule)
        record.storage_key_ids[:] = [storage_key_id(token) for token in self.store.read(read_tokens)]

    def _check_agents(self, request: CeremonyRequest) -> None:
        """Raise unless each new agent is named once, by a certificate in force and a share key that no change took out.

        Raises InvalidInputError, ShareKeyError, FormerShareKeyError, CertificateChainError and IdentityRevokedError.
        """
        agents = request.agents
        if len({agent.agent for agent in agents}) != len(agents):
            raise InvalidInputError("The change names an agent twice; name each once.", field="agents")
        for agent in agents:
            agent.verify(self.trust.anchors[0], at=self.clock.now_us() // 1_000_000)
            self.trust.revoked.check(load_certificate(agent.certificate))
        check_not_former(agents, self.store.read(former_share_keys))

    async def carry_out(self, approved: ApprovedCeremony) -> CeremonyOutcome:
        """Replace all tokens at once, so that no old share opens what is here from then on."""
        request = approved.request
        self._check_agents(request)  # one of them may have been revoked since it was opened
        task = ChangeAgentsTask(holders=request.message.agents, quorum=request.message.quorum)
        (result,) = await approved.results([CeremonyTask(change_agents=task)])

        def write(txn: WriteTransaction, record: CeremonyRecord) -> None:
            _check_successors(read_tokens(txn), result.tokens.tokens)
            for token in result.tokens.tokens:
                put_token(txn, token)
            put_trust_change(txn, record)

        details = AuditDetails(
            caller=str(request.requester),
            message=f"{request.message.quorum} of {', '.join(a.agent for a in request.message.agents)}",
        )
        leaf = ceremony_leaf(
            EventType.EVENT_TYPE_AGENTS_CHANGED, request, time_us=self.clock.now_us(), details=details
        )
        return CeremonyOutcome(state=COMPLETED, leaf=leaf, write=write, afterwards=self.agents_changed)


@dataclass(frozen=True, kw_only=True)
class RotateStorageKey:
    """A new storage key generation with the present agents, in force once they approved that very key."""

    store: Store
    clock: Clock
    storage_keys: StorageKeys
    start_worker: StartWorker
    reconfigure_workers: Callable[[Sequence[bytes]], Awaitable[None]]
    storage_key_changed: Callable[[], Awaitable[None]]

    async def prepare(self, request: CeremonyRequest, record: CeremonyRecord) -> None:
        """Make the key that agents are to approve, in a disposable worker; it is in force for nothing yet."""
        newest = self.store.read(read_tokens)[-1]
        task = NewStorageKeyTask(
            generation=newest.generation + 1, holders=holders_of(newest), quorum=newest.quorum
        )
        async with self.start_worker(CeremonyWorkerSetup().SerializeToString()) as worker:
            (result,) = all_of(await work_tasks(worker, [CeremonyTask(new_storage_key=task)]))
        record.new_token.CopyFrom(result.tokens.tokens[0])

    async def carry_out(self, approved: ApprovedCeremony) -> CeremonyOutcome:
        """Put the new key in force; archival workers know it before the first key is archived under it."""
        token, request = approved.record.new_token, approved.request
        await self.reconfigure_workers([*self.storage_keys.public_keys, token.public_key])

        def write(txn: WriteTransaction, record: CeremonyRecord) -> None:
            newest = read_tokens(txn)[-1]
            if newest.generation + 1 != token.generation:
                raise CeremonyMovedError(
                    "The storage key has changed meanwhile; the agents have to approve again."
                )
            if (holders_of(newest), newest.quorum) != (holders_of(token), token.quorum):
                raise CeremonyMovedError(
                    "The agents have changed meanwhile; the current agents have to approve again."
                )
            put_token(txn, token)
            put_trust_change(txn, record)
            record.ClearField("new_token")

        leaf = ceremony_leaf(
            EventType.EVENT_TYPE_STORAGE_KEY_CREATED,
            request,
            time_us=self.clock.now_us(),
            storage_key_id=storage_key_id(token),
        )
        return CeremonyOutcome(state=COMPLETED, leaf=leaf, write=write, afterwards=self._in_force)

    async def _in_force(self) -> None:
        self.storage_keys.replace(self.store.read(read_tokens))
        await self.storage_key_changed()


@dataclass(frozen=True, kw_only=True)
class ResealKeys:
    """Seals the keys of older storage keys under the newest, batch by batch; what is done stays done."""

    store: Store
    log: Log
    clock: Clock
    storage_keys: StorageKeys
    keys_moved: Callable[[], Awaitable[None]]

    async def prepare(self, request: CeremonyRequest, record: CeremonyRecord) -> None:
        """Say which storage keys have to be opened; raises NothingToResealError."""
        older = [storage_key_id(token) for token in self.store.read(read_tokens)[:-1]]
        if not older or request.message.storage_key_id != self.storage_keys.active_id:
            raise NothingToResealError(
                "There is no older storage key, or the request does not name the newest one; compare it with "
                "`keyark agents list`."
            )
        record.storage_key_ids[:] = older

    async def carry_out(self, approved: ApprovedCeremony) -> CeremonyOutcome:
        """Seal every key that lies under an older storage key anew, its match proven again.

        Raises the first key's KeyIntegrityError at the end, once all others are done.
        """
        refused: list[KeyarkError] = []
        rows = await self._page(approved.record.resealed_until or None)
        while rows:
            async with approved.open_worker() as run:  # now and then a new one: memory cannot be wiped
                for _ in range(BATCHES_PER_WORKER):
                    refused += await self._reseal_batch(approved.request, run, rows)
                    if not (rows := await self._page(rows[-1][0])):
                        break
        if refused:
            raise refused[0]
        leaf = ceremony_leaf(
            EventType.EVENT_TYPE_RESEAL_COMPLETED,
            approved.request,
            time_us=self.clock.now_us(),
            storage_key_id=approved.request.message.storage_key_id,
        )
        return CeremonyOutcome(state=COMPLETED, leaf=leaf, write=_write_nothing, afterwards=self.keys_moved)

    async def _page(self, after: bytes | None) -> list[tuple[bytes, ArchivedKeyRecord]]:
        return await self.store.view(lambda txn: scan_records(txn, after=after, limit=RESEAL_BATCH))

    async def _reseal_batch(
        self, request: CeremonyRequest, run: RunTasks, rows: Sequence[tuple[bytes, ArchivedKeyRecord]]
    ) -> list[KeyarkError]:
        target = request.message.storage_key_id
        older = [(key, record) for key, record in rows if record.sealed_key.storage_key_id != target]
        public_key = self.storage_keys.public_key(target)
        results = await run(
            [
                CeremonyTask(reseal_key=ResealKeyTask(record=record, storage_public_key=public_key))
                for _, record in older
            ]
        )
        done = [
            (key, result.sealed_key, self._leaf(request, record))
            for (key, record), result in zip(older, results, strict=True)
            if isinstance(result, CeremonyResult)
        ]
        failed = [
            KeyFailure.of(record, result, request, time_us=self.clock.now_us())
            for (_, record), result in zip(older, results, strict=True)
            if isinstance(result, KeyIntegrityError)
        ]

        def write(txn: WriteTransaction) -> None:
            for failure in failed:
                failure.write(txn, self.log)
            self._write_batch(txn, request, done, rows)

        await self.store.update(write)
        return [result for result in results if isinstance(result, KeyarkError)]

    def _write_batch(
        self,
        txn: WriteTransaction,
        request: CeremonyRequest,
        done: Sequence[tuple[bytes, SealedKey, LoggedEvent]],
        rows: Sequence[tuple[bytes, ArchivedKeyRecord]],
    ) -> None:
        for key, sealed, leaf in done:
            record = read_row(txn, key)
            if record is None:
                continue
            put_sealed_key(txn, record.log_index, sealed)
            txn.delete(FAILED_KEYS, key)
            self.log.append(txn, leaf, on_index=partial(_note_resealing, key))
        ceremony = find_ceremony(txn, request.ceremony_id)
        ceremony.resealed += len(done)
        ceremony.looked_at += len(rows)
        ceremony.resealed_until = rows[-1][0]
        put_ceremony(txn, ceremony)

    def _leaf(self, request: CeremonyRequest, record: ArchivedKeyRecord) -> LoggedEvent:
        archived = AuditEvent.FromString(record.leaf)
        event = AuditEvent(
            version=EVENT_VERSION,
            type=EventType.EVENT_TYPE_KEY_RESEALED,
            time_us=self.clock.now_us(),
            enrollment_id=archived.enrollment_id,
            encryption_spki_sha256=archived.encryption_spki_sha256,
            storage_key_id=request.message.storage_key_id,
            ceremony_id=request.ceremony_id,
            ceremony_digest=request.digest,
        )
        return new_event(event, AuditDetails())


def _note_resealing(enrollment_id: bytes, txn: WriteTransaction, index: int) -> None:
    """Note in a record where the leaf stands that says which storage key its key lies under now."""
    record = read_row(txn, enrollment_id)
    if record is not None:
        record.resealed_index = index
        put_row(txn, enrollment_id, record)


def holders_of(token: SoftwareToken) -> list[AgentKey]:
    """Return the agents of a token, in the order of their shares."""
    return [
        AgentKey(
            agent=share.agent,
            certificate=share.agent_certificate,
            share_public_key=share.share_public_key,
            signature=share.share_key_signature,
        )
        for share in token.shares
    ]


def _check_successors(before: Sequence[SoftwareToken], after: Sequence[SoftwareToken]) -> None:
    if [(t.generation, t.pin_epoch + 1) for t in before] != [(t.generation, t.pin_epoch) for t in after]:
        raise CeremonyMovedError("The storage keys have changed meanwhile; the agents have to approve again.")


def _write_nothing(_: WriteTransaction, __: CeremonyRecord) -> None:
    """All was written batch by batch."""
