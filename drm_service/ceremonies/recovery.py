"""Recovery: a quorum of agents brings archived keys back to the agent that asked, and to nobody else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from drm_service.ceremonies.key_states import check_recoverable
from drm_service.ceremonies.quorum import check_present
from drm_service.ceremonies.records import (
    ceremony_leaf,
    closed,
    find_ceremony,
    put_ceremony,
    request_of,
)
from drm_service.ceremonies.work import ApprovedCeremony, CeremonyOutcome, all_of
from drm_service.keys.failed_keys import KeyFailure, forget_failure
from drm_service.records import RECOVERIES, find_by_key_id, read_contents
from keyark.clock import SECONDS_PER_DAY, Clock
from keyark.errors import KeyarkError, PermissionDeniedError
from keyark.errors.recovery import CeremonyMovedError, KeyIntegrityError, RecoveredKeysLostError
from keyark.identity.spiffe import SpiffeId
from keyark.policy.engine import PolicyEngine
from keyark.policy.requests import RecoveryRequest
from keyark.records.v1.drm_pb2 import (
    ArchivedKeyRecord,
    CeremonyRecord,
    CeremonyResult,
    CeremonyTask,
    RecoverKeyTask,
)
from keyark.statements.ceremonies import CeremonyRequest
from keyark.store import ReadTransaction, Store, WriteTransaction
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import EventType
from keyark.v1.recovery_pb2 import CeremonyState, RecoveredKey

STAGE: Final = "recover"
DAY_US: Final = SECONDS_PER_DAY * 1_000_000
MAX_COUNTED: Final = 100_000


@dataclass(frozen=True, kw_only=True)
class RecoverKeys:
    """The ceremony that brings keys back: all that were asked for, or none."""

    store: Store
    log: Log
    policy: PolicyEngine
    clock: Clock

    async def prepare(self, request: CeremonyRequest, record: CeremonyRecord) -> None:
        """Check that every key may be recovered, policy included, and say which storage keys that takes.

        Raises NotFoundError, KeyUncertifiedError, KeyDeactivatedError and PolicyRejectedError.
        """
        records = self.store.read(lambda txn: self.accept_keys(txn, request, record))
        record.storage_key_ids[:] = _storage_key_ids(records)

    def accept_keys(
        self, txn: ReadTransaction, request: CeremonyRequest, record: CeremonyRecord
    ) -> list[ArchivedKeyRecord]:
        """Return the records of the keys that were asked for, once state and policy let each be recovered."""
        records = [find_by_key_id(txn, key_id) for key_id in request.message.key_ids]
        earlier = _recoveries_in_a_day(txn, request, record)
        for found in records:
            check_recoverable(found)
            self.policy.enforce(STAGE, self._policy_request(found, request, earlier))
        return records

    def _policy_request(
        self, record: ArchivedKeyRecord, request: CeremonyRequest, earlier: int
    ) -> RecoveryRequest:
        statement, archived = read_contents(record)
        return RecoveryRequest(
            requester=str(request.requester),
            profile=statement.profile,
            caller=str(statement.caller),
            common_name=statement.common_name,
            email=statement.email,
            encryption_key_type=statement.archived_key_type.value,
            archived_days=(self.clock.now_us() - archived.time_us) / DAY_US,
            recoveries_in_a_day=earlier + 1,
        )

    async def carry_out(self, approved: ApprovedCeremony) -> CeremonyOutcome:
        """Have the disposable worker open every key, prove its match again, and seal it to the requester.

        Raises as ``prepare`` does, KeyIntegrityError, and CeremonyMovedError where a key lies under another storage
        key than agents released shares for.
        """
        request, record = approved.request, approved.record
        records = self.store.read(lambda txn: self.accept_keys(txn, request, record))
        if _storage_key_ids(records) != list(record.storage_key_ids):
            raise CeremonyMovedError(
                "The keys are now sealed under another storage key; the agents have to approve again."
            )
        tasks = [
            CeremonyTask(
                recover_key=RecoverKeyTask(
                    record=found, recipient_public_key=request.message.recipient_public_key
                )
            )
            for found in records
        ]
        outcomes = await approved.outcomes(tasks)
        await self._note_failures(request, records, outcomes)
        results = all_of(outcomes)
        recovered = [
            RecoveredKey(key_id=key_id, ciphertext=result.recovered, certificate=found.certificate)
            for key_id, result, found in zip(request.message.key_ids, results, records, strict=True)
        ]

        def write(txn: WriteTransaction, current: CeremonyRecord) -> None:
            check_present(txn, request.requester)
            self.accept_keys(txn, request, current)  # none was deactivated while it was opened
            for found in records:
                forget_failure(txn, found)
            current.recovered[:] = [key.SerializeToString() for key in recovered]

        return CeremonyOutcome(
            state=CeremonyState.CEREMONY_STATE_READY,
            leaf=ceremony_leaf(EventType.EVENT_TYPE_KEYS_RECOVERED, request, time_us=self.clock.now_us()),
            write=write,
        )

    async def _note_failures(
        self,
        request: CeremonyRequest,
        records: Sequence[ArchivedKeyRecord],
        outcomes: Sequence[CeremonyResult | KeyarkError],
    ) -> None:
        """Remember every key that did not open, whatever becomes of the ceremony."""
        now = self.clock.now_us()
        failures = [
            KeyFailure.of(record, outcome, request, time_us=now)
            for record, outcome in zip(records, outcomes, strict=True)
            if isinstance(outcome, KeyIntegrityError)
        ]

        def write(txn: WriteTransaction) -> None:
            for failure in failures:
                failure.write(txn, self.log)

        if failures:
            await self.store.update(write)


@dataclass(frozen=True, kw_only=True)
class RecoveredKeyDelivery:
    """Gives recovered keys to their requester, the same bytes until it has them, and never after."""

    store: Store
    log: Log
    clock: Clock

    def recovered_keys(self, caller: SpiffeId, ceremony_id: bytes) -> list[RecoveredKey]:
        """Return what was sealed to the requester.

        Raises PermissionDeniedError, CeremonyClosedError and RecoveredKeysLostError.
        """
        record = self.store.read(lambda txn: find_ceremony(txn, ceremony_id))
        _check_requester(record, caller)
        if record.state != CeremonyState.CEREMONY_STATE_READY:
            raise closed(record)
        if not record.recovered:
            raise RecoveredKeysLostError(
                "The archive was restored from a backup, which contains no recovered keys; cancel this "
                "recovery and ask for the keys again."
            )
        return [RecoveredKey.FromString(key) for key in record.recovered]

    async def acknowledge(self, caller: SpiffeId, ceremony_id: bytes) -> None:
        """Erase what was recovered, for the requester has it; raises as ``recovered_keys``, not where it was done."""
        record = self.store.read(lambda txn: find_ceremony(txn, ceremony_id))
        _check_requester(record, caller)
        event = ceremony_leaf(
            EventType.EVENT_TYPE_KEYS_DELIVERED, request_of(record), time_us=self.clock.now_us()
        )

        def note(txn: WriteTransaction, index: int) -> None:
            delivered = find_ceremony(txn, ceremony_id)
            delivered.closing_index = index
            put_ceremony(txn, delivered)

        def write(txn: WriteTransaction) -> None:
            current = find_ceremony(txn, ceremony_id)
            if current.state == CeremonyState.CEREMONY_STATE_COMPLETED:
                return
            if current.state != CeremonyState.CEREMONY_STATE_READY:
                raise closed(current)
            current.state = CeremonyState.CEREMONY_STATE_COMPLETED
            current.ClearField("recovered")
            put_ceremony(txn, current)
            self.log.append(txn, event, on_index=note)

        await self.store.update(write)


def _check_requester(record: CeremonyRecord, caller: SpiffeId) -> None:
    if request_of(record).requester != caller:
        raise PermissionDeniedError("Recovered keys are given only to the agent who asked for them.")


def _storage_key_ids(records: Sequence[ArchivedKeyRecord]) -> list[bytes]:
    return sorted({record.sealed_key.storage_key_id for record in records})


def _recoveries_in_a_day(txn: ReadTransaction, request: CeremonyRequest, record: CeremonyRecord) -> int:
    """Count the requester's other recoveries in the day before this one was opened."""
    until, since = record.opened_time_us, max(0, record.opened_time_us - DAY_US)
    rows = txn.scan(RECOVERIES, after=since.to_bytes(8, "big"), limit=MAX_COUNTED)
    requester = str(request.requester).encode()
    return sum(
        value == requester and key[8:] != request.ceremony_id and int.from_bytes(key[:8], "big") <= until
        for key, value in rows
    )
