"""What the CM's policy refused although its key was archived is refused for good: no later policy certifies that key.

The archived key stays UNCERTIFIED, which nobody can recover; the person enrolls anew, under a new request id. The
refusal and its entry in the log are one transaction.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field

from cm_service.records import REFUSED
from keyark.errors import KeyarkError, NotFoundError, PolicyRejectedError, Violation
from keyark.records.v1.cm_pb2 import RefusalRecord, RefusedByRule
from keyark.service.checks.key_uses import KeyClaim, claim_key_uses
from keyark.service.checks.leaves import enrollment_leaf
from keyark.service.checks.requests import check_same_statement
from keyark.statements.enrollment import Statement
from keyark.store import ReadTransaction, WriteTransaction
from keyark.transparency.events import SALT_SIZE
from keyark.transparency.log import Log
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.receipts import ArchivalReceipt
from keyark.v1.audit_pb2 import EventType


@dataclass(frozen=True, kw_only=True)
class ArchivedRequest:
    """What a refusal for good is written from: whose keys, under which receipt, and since when.

    Made before the transaction that finds out whether policy rejects: that one has neither clock nor randomness.
    """

    claim: KeyClaim
    receipt: ArchivalReceipt
    time_us: int
    salt: bytes = field(default_factory=lambda: os.urandom(SALT_SIZE), repr=False)


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A request that policy rejects, and whose key is archived."""

    archived: ArchivedRequest
    error: PolicyRejectedError


def find_refusal(txn: ReadTransaction, enrollment_id: bytes) -> RefusalRecord:
    """Return why an enrollment (id of 32 bytes) was refused for good; raises NotFoundError where it was not."""
    value = txn.get(REFUSED, enrollment_id)
    if value is None:
        raise NotFoundError("The CM has not refused this enrollment; `keyark keys list` shows the ids.")
    return RefusalRecord.FromString(value)


def check_not_refused(txn: ReadTransaction, statement: Statement) -> None:
    """Raise the PolicyRejectedError of the first time where this enrollment was refused for good."""
    value = txn.get(REFUSED, statement.enrollment_id)
    if value is None:
        return
    record = RefusalRecord.FromString(value)
    check_same_statement(statement, record.statement_sha256)
    violations = [Violation(rule=r.rule, subsystem="cm", message=r.message) for r in record.rules]
    raise PolicyRejectedError(record.message, violations=violations)


def refuse_for_good(
    txn: WriteTransaction, log: Log, request: ArchivedRequest, error: PolicyRejectedError
) -> None:
    """Remember that an enrollment was refused, and why, with its entry in the log; the first refusal stands.

    Its keys, of which one is archived, keep their roles (P8).
    """
    statement = request.claim.statement
    if txn.get(REFUSED, statement.enrollment_id) is not None:
        return
    with suppress(KeyarkError):  # another enrollment has them
        claim_key_uses(txn, request.claim)
    record = RefusalRecord(
        statement_sha256=statement.sha256,
        message=error.message,
        rules=[RefusedByRule(rule=v.rule, message=v.message) for v in error.violations],
    )
    txn.put(REFUSED, statement.enrollment_id, record.SerializeToString())
    leaf = enrollment_leaf(
        EventType.EVENT_TYPE_ENROLLMENT_REFUSED,
        statement,
        time_us=request.time_us,
        salt=request.salt,
        refused=error,
        receipt_leaf_hash=leaf_hash(request.receipt.leaf),
    )
    log.append(txn, leaf)
