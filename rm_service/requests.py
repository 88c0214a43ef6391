"""Requests on their way through the RM: with the caller's signed call, which is handed along once per batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from keyark.identity.spiffe import SpiffeId
from keyark.records.v1.rm_pb2 import EnrollmentRecord
from keyark.statements.calls import CallTrust, SignedCall
from keyark.statements.enrollment import reread_statement
from keyark.statements.signed import CLOCK_SKEW_SECONDS
from keyark.store import Store
from keyark.v1.ceremony_pb2 import SignedStatement
from rm_service.reviews import wrapped_key

WEIGHT: Final = 1024
"""What a call that came alone adds to an item, bytes; many items share a larger one. 256 calls are 2.5 MiB at most."""


@dataclass(frozen=True, kw_only=True)
class EnrollmentRequest:
    """Statement, its signature, and the transport envelope (empty to be asked for it), all serialized.

    ``call`` is the caller's signed word for the statement, ``approval`` an officer's, where policy deferred it.
    ``lacks_private_key`` tells that the envelope it came with is not here any more: a backup was restored, which leaves
    envelopes out.
    """

    statement: bytes
    signature: bytes
    wrapped_private_key: bytes
    call: SignedCall | None = None
    approval: SignedStatement | None = None
    lacks_private_key: bool = False


def accept_call(
    trust: CallTrust, caller: SpiffeId, call: SignedCall, statements: Sequence[bytes], *, now: int
) -> None:
    """Verify that the caller signed for these serialized statements just now (seconds UTC), and for no others.

    Raises the errors of ``CallTrust.verify`` and ``Call.check_sends``.
    """
    verified = trust.verify(call, now=now, max_age_seconds=CLOCK_SKEW_SECONDS)
    verified.check_sends(caller, statements)


@dataclass(frozen=True, kw_only=True)
class BatchCalls:
    """The calls of a batch, each once, and for each item the place of its own, counted from 1; 0 stands for none."""

    calls: Sequence[SignedStatement]
    places: Sequence[int]

    @classmethod
    def gather(cls, calls: Iterable[SignedCall | None]) -> BatchCalls:
        """Gather the call of each item."""
        known: dict[SignedCall | None, int] = {None: 0}
        places = [known.setdefault(call, len(known)) for call in calls]
        return cls(calls=[call.message for call in known if call is not None], places=places)


def approved_request(
    store: Store, record: EnrollmentRecord, *, newer: EnrollmentRequest | None = None
) -> EnrollmentRequest:
    """Return the request of a record that an officer approved; ``newer`` has a newer wrapped key and call."""
    enrollment_id = reread_statement(record.statement).enrollment_id
    newer_key, newer_call = (newer.wrapped_private_key, newer.call) if newer else (b"", None)
    kept = newer_key or store.read(lambda txn: wrapped_key(txn, enrollment_id))
    kept_call = SignedCall.of(record.call) if record.HasField("call") else None
    return EnrollmentRequest(
        statement=record.statement,
        signature=record.signature,
        wrapped_private_key=kept if record.review.with_private_key else b"",
        call=newer_call or kept_call,
        approval=record.review.approval,
        lacks_private_key=record.review.with_private_key and not kept,
    )
