"""Ceremonies as their rows tell them, and the leaves that they leave in the log."""

from __future__ import annotations

from typing import Any, Final, cast

from drm_service.ceremony_rows import CEREMONIES, put_row, read_row
from drm_service.records import OPEN_CEREMONIES
from keyark.errors import NotFoundError
from keyark.errors.enrollment import RequestIdReusedError
from keyark.errors.recovery import (
    CeremonyClosedError,
)
from keyark.identity.spiffe import SpiffeId
from keyark.records.v1.drm_pb2 import CeremonyRecord
from keyark.statements.ceremonies import CeremonyRequest, Opening, ceremony_digest
from keyark.store import ReadTransaction, WriteTransaction
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.merkle import leaf_hash
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent
from keyark.v1.ceremony_pb2 import (
    CeremonyStatement,
    CeremonyType,
    Decision,
    DecisionStatement,
    SignedStatement,
)
from keyark.v1.recovery_pb2 import CeremonyState

OPENED: Final = "OPENED"
APPROVED: Final = "APPROVED"
REJECTED: Final = "REJECTED"
CLOSED: Final = "CLOSED"

_PAGE: Final = 256
RECOVER: Final = CeremonyType.CEREMONY_TYPE_RECOVER_KEYS
ENDABLE: Final = (CeremonyState.CEREMONY_STATE_OPEN, CeremonyState.CEREMONY_STATE_READY)
"""States that a ceremony can be ended in without what it was asked for."""


def read_ceremony(txn: ReadTransaction, ceremony_id: bytes) -> CeremonyRecord | None:
    """Return the record of a ceremony (16 bytes), or None."""
    return read_row(txn, ceremony_id)


def find_ceremony(txn: ReadTransaction, ceremony_id: bytes) -> CeremonyRecord:
    """Return the record of a ceremony (16 bytes); raises NotFoundError."""
    record = read_ceremony(txn, ceremony_id)
    if record is None:
        raise NotFoundError("There is no ceremony with this id; `keyark recover list` lists them.")
    return record


def put_ceremony(txn: WriteTransaction, record: CeremonyRecord) -> None:
    """Write a record, and keep the list of open ones."""
    ceremony_id = statement_of(record).ceremony_id
    put_row(txn, ceremony_id, record)
    if record.state == CeremonyState.CEREMONY_STATE_OPEN:
        txn.put(OPEN_CEREMONIES, ceremony_id, b"")
    else:
        txn.delete(OPEN_CEREMONIES, ceremony_id)


def statement_of(record: CeremonyRecord) -> CeremonyStatement:
    """Return what a record's ceremony was asked to do; it was verified before it was written."""
    return CeremonyStatement.FromString(SignedStatement.FromString(record.request).statement)


def request_of(record: CeremonyRecord) -> CeremonyRequest:
    """Return the verified request that a record holds."""
    raw = SignedStatement.FromString(record.request).statement
    message = CeremonyStatement.FromString(raw)
    return CeremonyRequest(
        message=message,
        digest=ceremony_digest(raw),
        requester=SpiffeId.parse(message.requester, field="requester"),
    )


def same_request(record: CeremonyRecord, request: CeremonyRequest) -> CeremonyRecord:
    """Return a record where it is of this request; raises RequestIdReusedError."""
    if request_of(record).digest != request.digest:
        raise RequestIdReusedError("This ceremony id was already used for another request; make a new one.")
    return record


def state_of(record: CeremonyRecord) -> CeremonyState.ValueType:
    """Return where a ceremony stands."""
    return cast("CeremonyState.ValueType", record.state)


def opening_of(record: CeremonyRecord) -> Opening:
    """Return what decisions and shares have to be bound to now."""
    return Opening(digest=request_of(record).digest, leaf_hash=leaf_hash(record.opening_leaf))


def decisions_of(record: CeremonyRecord) -> list[DecisionStatement]:
    """Return the decisions that count, as they came."""
    return [
        DecisionStatement.FromString(SignedStatement.FromString(decision).statement)
        for decision in record.decisions
    ]


def decision_indices(record: CeremonyRecord) -> list[int]:
    """Return where the leaf of each decision stands, in their order; 0 where nobody noted it."""
    missing = len(record.decisions) - len(record.decision_indices)
    return [*record.decision_indices, *[0] * missing]


def agents_who_decided(decision: Decision.ValueType, record: CeremonyRecord) -> list[str]:
    """Return the agents (SPIFFE IDs) who decided so."""
    return [message.agent for message in decisions_of(record) if message.decision == decision]


def check_open(record: CeremonyRecord) -> None:
    """Raise CeremonyClosedError unless agents decide on the ceremony now."""
    if record.state != CeremonyState.CEREMONY_STATE_OPEN:
        raise closed(record)


def closed(record: CeremonyRecord) -> CeremonyClosedError:
    """Return the error that says where a ceremony stands."""
    state = CeremonyState.Name(state_of(record)).removeprefix("CEREMONY_STATE_")
    way_out = "wait until a quorum has approved it" if state == "OPEN" else "ask for a new one"
    return CeremonyClosedError(
        f"The ceremony is {state}, so this is not possible; {way_out}.", metadata={"state": state}
    )


def forget_opening(record: CeremonyRecord) -> None:
    """Take out of a record what only an open ceremony has."""
    record.ClearField("share_recipient_key")
    record.ClearField("approvals_to_repeat")


def ceremony_event_type(ceremony_type: CeremonyType.ValueType, what: str) -> EventType.ValueType:
    """Return the event type of a ceremony's step: recoveries have names of their own."""
    recovers = ceremony_type == CeremonyType.CEREMONY_TYPE_RECOVER_KEYS
    return EventType.Value(f"EVENT_TYPE_{'RECOVERY' if recovers else 'CEREMONY'}_{what}")


def ceremony_leaf(
    event_type: EventType.ValueType,
    request: CeremonyRequest,
    *,
    time_us: int,
    details: AuditDetails | None = None,
    **ids: Any,
) -> LoggedEvent:
    """Make the entry of a ceremony's step, with further ``ids`` of AuditEvent."""
    event = AuditEvent(
        version=EVENT_VERSION,
        type=event_type,
        time_us=time_us,
        ceremony_id=request.ceremony_id,
        ceremony_digest=request.digest,
        **ids,
    )
    return new_event(event, details or AuditDetails(caller=str(request.requester)))


def open_ceremonies(txn: ReadTransaction, *, limit: int) -> list[CeremonyRecord]:
    """Return the open ceremonies, oldest first."""
    return [find_ceremony(txn, ceremony_id) for ceremony_id, _ in txn.scan(OPEN_CEREMONIES, limit=limit)]


def ceremonies_after(txn: ReadTransaction, *, after: bytes) -> list[tuple[bytes, CeremonyRecord]]:
    """Return a page of all ceremonies after an id, open or not, with their ids; empty after the last."""
    rows = txn.scan(CEREMONIES, after=after or None, limit=_PAGE)
    return [(ceremony_id, find_ceremony(txn, ceremony_id)) for ceremony_id, _ in rows]


def recovery_key(record: CeremonyRecord, request: CeremonyRequest) -> bytes:
    """Return the key of a recovery in the table by time: opened (8 bytes), then its id."""
    return record.opened_time_us.to_bytes(8, "big") + request.ceremony_id
