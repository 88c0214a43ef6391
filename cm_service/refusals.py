"""What the CM's policy refused although its key was archived is refused for good: no later policy certifies that key.

The archived key stays UNCERTIFIED, which nobody can recover; the person enrolls anew, under a new request id.
"""

from __future__ import annotations

from contextlib import suppress

from cm_service.records import REFUSED
from keyark.errors import KeyarkError, NotFoundError, PolicyRejectedError, Violation
from keyark.pki.statements import Statement
from keyark.records.v1.cm_pb2 import RefusalRecord, RefusedByRule
from keyark.service.key_uses import KeyClaim, claim_key_uses
from keyark.service.requests import check_same_statement
from keyark.store import ReadTransaction, WriteTransaction


def find_refusal(txn: ReadTransaction, enrollment_id: bytes) -> RefusalRecord:
    """Return why an enrollment (id of 32 bytes) was refused for good; raises NotFoundError where it was not."""
    value = txn.get(REFUSED, enrollment_id)
    if value is None:
        raise NotFoundError("The CM refused no such enrollment; `keyark keys list` shows the ids.")
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


def refuse_for_good(txn: WriteTransaction, claim: KeyClaim, error: PolicyRejectedError) -> None:
    """Remember that an enrollment was refused, and why; its keys, of which one is archived, keep their roles (P8)."""
    with suppress(KeyarkError):  # another enrollment has them
        claim_key_uses(txn, claim)
    statement = claim.statement
    record = RefusalRecord(
        statement_sha256=statement.sha256,
        message=error.message,
        rules=[RefusedByRule(rule=v.rule, message=v.message) for v in error.violations],
    )
    txn.put(REFUSED, statement.enrollment_id, record.SerializeToString())
