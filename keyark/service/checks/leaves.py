"""Log entries about an enrollment, as every subsystem writes them."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from keyark.errors import KeyarkError
from keyark.statements.enrollment import Statement
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.rejections import MAX_MESSAGE
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent
from keyark.v1.ceremony_pb2 import SignedStatement


def enrollment_leaf(
    event_type: EventType.ValueType,
    statement: Statement,
    *,
    time_us: int,
    match_proof: str = "",
    approval: SignedStatement | None = None,
    refused: KeyarkError | None = None,
    salt: bytes | None = None,
    **ids: Any,
) -> LoggedEvent:
    """Make the entry: ids and hashes of the statement and further ``ids`` of AuditEvent; its owner in the details.

    Where an officer's ``approval`` led to it, the entry binds that and the details hold it; where it was ``refused``,
    they say why. ``salt`` is as in ``new_event``.
    """
    if approval is not None:
        ids["decision_sha256"] = sha256(approval.statement).digest()
    event = AuditEvent(
        version=EVENT_VERSION,
        type=event_type,
        time_us=time_us,
        enrollment_id=statement.enrollment_id,
        statement_sha256=statement.sha256,
        signing_spki_sha256=statement.signing_spki_sha256,
        encryption_spki_sha256=statement.encryption_spki_sha256,
        **ids,
    )
    details = AuditDetails(
        caller=str(statement.caller),
        common_name=statement.common_name,
        email=statement.email,
        profile=statement.profile,
        match_proof=match_proof,
        decision=b"" if approval is None else approval.SerializeToString(),
        reason=refused.reason if refused else "",
        message=refused.message[:MAX_MESSAGE] if refused else "",
    )
    return new_event(event, details, salt=salt)
