"""Whether an archival receipt is the one of a statement."""

from __future__ import annotations

from keyark.pki.statements import Statement
from keyark.transparency.receipts import ArchivalReceipt, check_receipt


def check_receipt_for(receipt: ArchivalReceipt, statement: Statement) -> None:
    """Raise ReceiptMismatchError unless a verified receipt is for this statement, its keys and its owner."""
    check_receipt(
        receipt,
        enrollment_id=statement.enrollment_id,
        statement_sha256=statement.sha256,
        signing_spki_sha256=statement.signing_spki_sha256,
        encryption_spki_sha256=statement.encryption_spki_sha256,
        caller=str(statement.caller),
        common_name=statement.common_name,
        email=statement.email,
    )
