"""Ceremonies and storage keys as agents see them: all that a decision rests on, with its proofs, and no secret."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drm_service.ceremonies.key_ceremonies import holders_of
from drm_service.ceremonies.quorum import CeremonyQuorum
from drm_service.ceremonies.records import decision_indices, find_ceremony, request_of, state_of
from drm_service.ceremonies.trust_changes import change_made_by, read_trust_changes
from drm_service.keys.storage_keys import read_tokens
from drm_service.records import KEYS, describe, find_by_key_id
from keyark.custody.shares import QuorumRule
from keyark.identity.spiffe import SpiffeId
from keyark.records.v1.drm_pb2 import ArchivedKeyRecord, CeremonyRecord, SoftwareToken
from keyark.rpc.errors import error_to_status
from keyark.service.failures import unpack_failure
from keyark.store import Store
from keyark.transparency.log import Log, SignedHead
from keyark.v1.audit_pb2 import AuditEvent, LoggedEvent
from keyark.v1.ceremony_pb2 import CeremonyType, SignedStatement
from keyark.v1.recovery_pb2 import (
    ArchiveChange,
    Ceremony,
    CeremonyKey,
    CeremonyState,
    StorageKey,
    StorageKeyShare,
)

RUNNING = CeremonyState.CEREMONY_STATE_RUNNING
OPEN = CeremonyState.CEREMONY_STATE_OPEN


@dataclass(frozen=True, kw_only=True)
class CeremonyViews:
    """Shows ceremonies; ``is_running`` tells of an id whether it is being carried out."""

    store: Store
    log: Log
    quorum_rule: QuorumRule
    is_running: Callable[[bytes], bool]

    def brief(self, record: CeremonyRecord) -> Ceremony:
        """Return a ceremony as a list shows it: without proofs, keys and storage keys."""
        request = request_of(record)
        quorum = self.store.read(lambda txn: CeremonyQuorum.of(txn, record, self.quorum_rule))
        view = Ceremony(
            ceremony_id=request.ceremony_id,
            state=RUNNING if self.is_running(request.ceremony_id) else state_of(record),
            request=SignedStatement.FromString(record.request),
            share_recipient_key=record.share_recipient_key,
            opened_time_us=record.opened_time_us,
            expires_time_us=record.expires_time_us,
            quorum=quorum.quorum,
            decisions=[SignedStatement.FromString(raw) for raw in record.decisions],
            openings=record.openings,
            approvals_to_repeat=record.approvals_to_repeat,
            self_approval=quorum.self_approval,
        )
        if request.type == CeremonyType.CEREMONY_TYPE_RESEAL_KEYS:
            view.resealed, view.looked_at = record.resealed, record.looked_at
            view.archived_keys = self.store.read(lambda txn: txn.count(KEYS))
        if record.HasField("failure"):
            view.failure.CopyFrom(error_to_status(unpack_failure(record.failure)))
        return view

    async def whole(self, record: CeremonyRecord, viewer: SpiffeId) -> Ceremony:
        """Return a ceremony with the proof of its opening, its keys' receipts, and the viewer's own sealed shares."""
        view, request = self.brief(record), request_of(record)
        quorum = self.store.read(lambda txn: CeremonyQuorum.of(txn, record, self.quorum_rule))
        keys = self.store.read(lambda txn: [find_by_key_id(txn, key) for key in request.message.key_ids])
        indices = [index for key in keys for index in (key.log_index, key.resealed_index)]
        indices += [record.opening_index, record.closing_index, *record.decision_indices]
        head = await self.log.checkpoint(covering=max(indices))
        view.opening_proof = self._prove_opening(record, head)
        view.opening_facts = record.opening_facts
        view.closing_proof = self._prove(record.closing_index, head)
        view.decision_proofs.extend(self._prove(index, head) for index in decision_indices(record))
        view.keys.extend(self._key(key, head) for key in keys)
        if record.state == OPEN:
            view.storage_keys.extend(show_storage_keys(quorum.tokens, viewer))
        if record.HasField("new_token"):
            view.new_storage_key.CopyFrom(show_storage_keys([record.new_token], viewer)[0])
        return view

    def _key(self, record: ArchivedKeyRecord, head: SignedHead) -> CeremonyKey:
        event = LoggedEvent(leaf=record.leaf, salt=record.salt, details=record.details)
        key = CeremonyKey(key=describe(record), receipt=self.log.prove(event, record.log_index, head))
        key.resealing_proof = self._prove(record.resealed_index, head)
        return key

    async def decision_proof(self, index: int) -> bytes:
        """Return the proof of a decision's leaf at an index, under a checkpoint of now; empty for 0."""
        return self._prove(index, await self.log.checkpoint(covering=index))

    def _prove(self, index: int, head: SignedHead) -> bytes:
        """Return the proof of an entry; empty for index 0, where every log begins and nothing else stands."""
        return self.log.prove(self.log.entry(index), index, head) if index else b""

    async def receipt(self, key_id: bytes) -> bytes:
        """Return the archival receipt of a key, under a checkpoint of now; raises NotFoundError."""
        record = self.store.read(lambda txn: find_by_key_id(txn, key_id))
        head = await self.log.checkpoint(covering=record.log_index)
        event = LoggedEvent(leaf=record.leaf, salt=record.salt, details=record.details)
        return self.log.prove(event, record.log_index, head)

    async def archive_changes(self, *, known: bytes) -> list[ArchiveChange]:
        """Return the changes of agents and storage keys after the one of id ``known``, each with its proofs."""
        found = self.store.read(lambda txn: read_trust_changes(txn, known=known))
        changes = [change for change, _ in found]
        ids = [AuditEvent.FromString(change.opening_leaf).ceremony_id for change in changes]
        records = self.store.read(lambda txn: [find_ceremony(txn, ceremony_id) for ceremony_id in ids])
        head = await self.log.checkpoint(covering=max((r.opening_index for r in records), default=0))
        return [
            ArchiveChange(change=change, opening_proof=self._prove_opening(record, head))
            for change, record in zip(changes, records, strict=True)
        ]

    async def change_of(self, record: CeremonyRecord) -> ArchiveChange | None:
        """Return the newest change of agents or storage keys where a ceremony just made it, with its proofs."""
        change = self.store.read(lambda txn: change_made_by(txn, record))
        if change is None:
            return None
        head = await self.log.checkpoint(covering=record.opening_index)
        return ArchiveChange(change=change, opening_proof=self._prove_opening(record, head))

    def _prove_opening(self, record: CeremonyRecord, head: SignedHead) -> bytes:
        opening = LoggedEvent(
            leaf=record.opening_leaf, salt=record.opening_salt, details=record.opening_details
        )
        return self.log.prove(opening, record.opening_index, head)

    def storage_keys(self, viewer: SpiffeId) -> list[StorageKey]:
        """Return all storage key generations, the newest last, with the viewer's own sealed shares."""
        return show_storage_keys(self.store.read(read_tokens), viewer)


def show_storage_keys(tokens: Sequence[SoftwareToken], viewer: SpiffeId) -> list[StorageKey]:
    """Return what an agent may see of tokens: who holds shares, and the agent's own one, still sealed."""
    return [
        StorageKey(
            generation=token.generation,
            pin_epoch=token.pin_epoch,
            public_key=token.public_key,
            quorum=token.quorum,
            shares=[
                StorageKeyShare(
                    index=share.index,
                    holder=holder,
                    ciphertext=share.ciphertext if share.agent == str(viewer) else b"",
                    commitment=share.commitment,
                )
                for share, holder in zip(token.shares, holders_of(token), strict=True)
            ],
        )
        for token in tokens
    ]
