"""What happens to a ceremony, made durable: each step is one commit of its row and its leaf."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from drm_service.ceremonies.quorum import check_present
from drm_service.ceremonies.records import (
    CLOSED,
    ENDABLE,
    OPENED,
    RECOVER,
    ceremony_event_type,
    ceremony_leaf,
    check_open,
    closed,
    decision_indices,
    find_ceremony,
    forget_opening,
    put_ceremony,
    read_ceremony,
    recovery_key,
    request_of,
)
from drm_service.ceremonies.trust_changes import newest_change
from drm_service.ceremonies.work import CeremonyOutcome
from drm_service.keys.storage_keys import read_tokens, storage_key_id
from drm_service.records import RECOVERIES
from keyark.clock import Clock
from keyark.custody.storage import HybridPublicKey
from keyark.errors import KeyarkError
from keyark.errors.recovery import CeremonyMovedError
from keyark.identity.spiffe import SpiffeId
from keyark.records.v1.drm_pb2 import CeremonyRecord
from keyark.service.failures import pack_failure
from keyark.statements.ceremonies import CeremonyRequest
from keyark.store import ReadTransaction, Store, WriteTransaction
from keyark.transparency.log import LeafRef, Log
from keyark.transparency.opening_facts import encode_facts, facts_digest
from keyark.v1.audit_pb2 import AuditDetails, LoggedEvent
from keyark.v1.ceremony_pb2 import DecisionStatement, SignedStatement
from keyark.v1.recovery_pb2 import CeremonyState

Check = Callable[[WriteTransaction], None]
"""Raises what keeps a ceremony from being opened, in the transaction that opens it."""


@dataclass(frozen=True, kw_only=True)
class Decided:
    """A ceremony after an agent's decision, and where the leaf of that decision stands (0: not known)."""

    record: CeremonyRecord
    log_index: int


@dataclass(frozen=True, kw_only=True)
class CeremonyJournal:
    """Writes the steps of ceremonies; what a transaction finds in the store decides, not what was read before."""

    store: Store
    log: Log
    clock: Clock

    async def open_first(
        self, request: CeremonyRequest, record: CeremonyRecord, share_recipient: HybridPublicKey, check: Check
    ) -> CeremonyRecord:
        """Open a ceremony if ``check`` lets it; returns the one of its id that stands already, where it does."""
        event = self._opening(request, record, share_recipient, why="")

        def write(txn: WriteTransaction) -> CeremonyRecord:
            known = read_ceremony(txn, request.ceremony_id)
            if known is not None:
                return known
            check(txn)
            if request.type == RECOVER:
                txn.put(RECOVERIES, recovery_key(record, request), str(request.requester).encode())
            self._put_opening(txn, record, event)
            return record

        return await self.store.update(write)

    async def reopen(
        self, request: CeremonyRequest, record: CeremonyRecord, share_recipient: HybridPublicKey, *, why: str
    ) -> None:
        """Open an open ceremony under another one-time key; raises CeremonyClosedError where it ended."""
        event = self._opening(request, record, share_recipient, why=why)

        def write(txn: WriteTransaction) -> None:
            check_open(find_ceremony(txn, request.ceremony_id))
            self._put_opening(txn, record, event)

        await self.store.update(write)

    def _opening(
        self, request: CeremonyRequest, record: CeremonyRecord, share_recipient: HybridPublicKey, *, why: str
    ) -> LoggedEvent:
        """Make the leaf that decisions and shares are bound to, and note it in the record."""
        details = AuditDetails(
            caller=str(request.requester),
            reason=why,
            message=request.message.reason,
            ceremony_request=record.request,
        )
        record.opening_facts = self.store.read(lambda txn: _facts(txn, record))
        event = ceremony_leaf(
            ceremony_event_type(request.type, OPENED),
            request,
            time_us=self.clock.now_us(),
            details=details,
            share_recipient_sha256=share_recipient.key_id,
            expires_time_us=record.expires_time_us,
            storage_key_id=storage_key_id(record.new_token) if record.HasField("new_token") else b"",
            opening_facts_sha256=facts_digest(record.opening_facts),
        )
        record.state = CeremonyState.CEREMONY_STATE_OPEN
        record.share_recipient_key = share_recipient.to_bytes()
        record.openings += 1
        record.opening_leaf = event.leaf
        record.opening_salt = event.salt
        record.opening_details = event.details
        return event

    def _put_opening(self, txn: WriteTransaction, record: CeremonyRecord, event: LoggedEvent) -> None:
        def note(txn: WriteTransaction, index: int) -> None:
            record.opening_index = index
            put_ceremony(txn, record)

        if _facts(txn, record) != record.opening_facts:
            raise CeremonyMovedError("The agents or storage keys have changed meanwhile; ask again.")
        put_ceremony(txn, record)
        self.log.append(txn, event, on_index=note)

    async def add_decision(self, record: CeremonyRecord, signed: SignedStatement, what: str) -> Decided:
        """Write a verified decision with its leaf, which carries the agent's signature in its details.

        ``what`` is APPROVED or REJECTED. Raises CeremonyClosedError, NoShareError, and CeremonyMovedError where
        the ceremony was opened anew since ``record`` was read.
        """
        request, raw = request_of(record), signed.SerializeToString(deterministic=True)
        agent = DecisionStatement.FromString(signed.statement).agent
        event = ceremony_leaf(
            ceremony_event_type(request.type, what),
            request,
            time_us=self.clock.now_us(),
            details=AuditDetails(caller=agent, decision=raw),
            decision_sha256=sha256(signed.statement).digest(),
        )

        def note(txn: WriteTransaction, index: int) -> None:
            decided = find_ceremony(txn, request.ceremony_id)
            if raw in decided.decisions:  # else it was opened anew meanwhile
                decided.decision_indices[list(decided.decisions).index(raw)] = index
                put_ceremony(txn, decided)

        def write(txn: WriteTransaction) -> tuple[CeremonyRecord, LeafRef]:
            current = _same_opening(txn, record)
            check_present(txn, SpiffeId.parse(agent))  # the agents may have changed since it was verified
            current.decisions.append(raw)
            current.decision_indices[:] = decision_indices(current)
            put_ceremony(txn, current)
            return current, self.log.append(txn, event, on_index=note)

        decided, leaf = await self.store.update(write)
        return Decided(record=decided, log_index=leaf.index)

    async def finish(self, record: CeremonyRecord, outcome: CeremonyOutcome) -> None:
        """Write what carrying out came to; raises as ``add_decision`` does, and what the outcome's own write does."""

        def write(txn: WriteTransaction) -> None:
            current = _same_opening(txn, record)
            outcome.write(txn, current)
            current.state = outcome.state
            forget_opening(current)
            put_ceremony(txn, current)
            self.log.append(txn, outcome.leaf)

        await self.store.update(write)

    async def close(
        self, request: CeremonyRequest, state: CeremonyState.ValueType, error: KeyarkError
    ) -> None:
        """End a ceremony without what it was asked for; what was recovered and not fetched is erased.

        Raises CeremonyClosedError where it ended before.
        """
        event = ceremony_leaf(
            ceremony_event_type(request.type, CLOSED),
            request,
            time_us=self.clock.now_us(),
            details=AuditDetails(caller=str(request.requester), reason=error.reason, message=error.message),
        )

        def note(txn: WriteTransaction, index: int) -> None:
            ended = find_ceremony(txn, request.ceremony_id)
            ended.closing_index = index
            put_ceremony(txn, ended)

        def write(txn: WriteTransaction) -> None:
            current = find_ceremony(txn, request.ceremony_id)
            if current.state not in ENDABLE:
                raise closed(current)
            current.state = state
            current.failure.CopyFrom(pack_failure(error))
            current.ClearField("recovered")
            current.ClearField("new_token")
            forget_opening(current)
            put_ceremony(txn, current)
            self.log.append(txn, event, on_index=note)

        await self.store.update(write)


def _facts(txn: ReadTransaction, record: CeremonyRecord) -> bytes:
    """Say which storage keys an approval opens, and which one comes into force, after which change."""
    opened = [token for token in read_tokens(txn) if storage_key_id(token) in record.storage_key_ids]
    new = record.new_token if record.HasField("new_token") else None
    return encode_facts(opened, new, newest_change=newest_change(txn))


def _same_opening(txn: WriteTransaction, record: CeremonyRecord) -> CeremonyRecord:
    """Return what stands in the store, if agents still decide on the opening that ``record`` has."""
    current = find_ceremony(txn, request_of(record).ceremony_id)
    check_open(current)
    if current.opening_index != record.opening_index:
        raise CeremonyMovedError("The ceremony was opened again; show it, and decide again.")
    return current
