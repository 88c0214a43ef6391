"""Whether an archived key may be recovered, and how an agent keeps one from it."""

from __future__ import annotations

from dataclasses import dataclass

from drm_service.ceremonies.quorum import check_present
from drm_service.records import find_by_key_id, put_row
from keyark.clock import Clock
from keyark.errors.recovery import KeyDeactivatedError, KeyUncertifiedError
from keyark.identity.spiffe import SpiffeId
from keyark.records.v1.drm_pb2 import ArchivedKeyRecord
from keyark.statements.ceremonies import check_reason
from keyark.store import Store, WriteTransaction
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent


def check_recoverable(record: ArchivedKeyRecord) -> None:
    """Raise KeyUncertifiedError or KeyDeactivatedError unless the key may be recovered."""
    if not record.certificate_serial:
        raise KeyUncertifiedError(
            "The archive knows no certificate for this key, so it cannot be recovered; run `keyark doctor`."
        )
    if record.deactivated_reason:
        raise KeyDeactivatedError(f"The key is deactivated ({record.deactivated_reason}); activate it first.")


@dataclass(frozen=True, kw_only=True)
class KeyStates:
    """Deactivates and activates archived keys, on one agent's word and in the log."""

    store: Store
    log: Log
    clock: Clock

    async def deactivate(self, caller: SpiffeId, key_id: bytes, reason: str) -> ArchivedKeyRecord:
        """Keep a key from being recovered; done before for the same reason, it stands.

        Raises InvalidInputError for a reason that is none, NoShareError, NotFoundError, and KeyDeactivatedError where
        it was done for another reason.
        """
        event = self._leaf(EventType.EVENT_TYPE_KEY_DEACTIVATED, caller, key_id, check_reason(reason))

        def write(txn: WriteTransaction) -> ArchivedKeyRecord:
            check_present(txn, caller)
            record = find_by_key_id(txn, key_id)
            if record.deactivated_reason == reason:
                return record
            if record.deactivated_reason:
                raise KeyDeactivatedError(
                    f"The key is deactivated already ({record.deactivated_reason}); activate it first."
                )
            record.deactivated_reason = reason
            return self._put(txn, record, event)

        return await self.store.update(write)

    async def activate(self, caller: SpiffeId, key_id: bytes, reason: str) -> ArchivedKeyRecord:
        """Let a key be recovered again; one that is not deactivated stays as it is. Raises as ``deactivate``."""
        event = self._leaf(EventType.EVENT_TYPE_KEY_ACTIVATED, caller, key_id, check_reason(reason))

        def write(txn: WriteTransaction) -> ArchivedKeyRecord:
            check_present(txn, caller)
            record = find_by_key_id(txn, key_id)
            if not record.deactivated_reason:
                return record
            record.ClearField("deactivated_reason")
            return self._put(txn, record, event)

        return await self.store.update(write)

    def _leaf(
        self, event_type: EventType.ValueType, caller: SpiffeId, key_id: bytes, reason: str
    ) -> LoggedEvent:
        event = AuditEvent(
            version=EVENT_VERSION,
            type=event_type,
            time_us=self.clock.now_us(),
            encryption_spki_sha256=key_id,
        )
        return new_event(event, AuditDetails(caller=str(caller), message=reason))

    def _put(self, txn: WriteTransaction, record: ArchivedKeyRecord, event: LoggedEvent) -> ArchivedKeyRecord:
        put_row(txn, AuditEvent.FromString(record.leaf).enrollment_id, record)
        self.log.append(txn, event)
        return record
