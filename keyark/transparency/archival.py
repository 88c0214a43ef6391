"""What comes along with archival receipts, and whether a receipt is the one of a statement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from keyark.errors import InvalidInputError
from keyark.statements.enrollment import Statement
from keyark.transparency.receipts import ArchivalReceipt, check_receipt
from keyark.v1.audit_pb2 import CheckpointLink, TransportKeyChange
from keyark.v1.ceremony_pb2 import CeremonyProof
from keyark.v1.common_pb2 import TransportCertificate

MAX_CHANGES: Final = 64
MAX_LINKS: Final = 256
"""Steps of the log that one call may bring; one step can lead over any distance."""


@dataclass(frozen=True, kw_only=True)
class ArchiveEvidence:
    """What comes with a batch of receipts: steps of the DRM's log, who signs it, and whose storage keys it names.

    The transport certificates count for a reader that knows no transport key yet; from then on the changes do.
    ``brought_by`` is the SPIFFE ID of who brought it: an alarm names it.
    """

    brought_by: str
    links: Sequence[CheckpointLink]
    transport_certificates: Sequence[TransportCertificate] = ()
    transport_key_changes: Sequence[TransportKeyChange] = ()
    trust_changes: Sequence[CeremonyProof] = ()

    def check_sizes(self) -> None:
        """Raise InvalidInputError for more than one call needs: verifying each costs time."""
        for name, given, most in (
            ("links", self.links, MAX_LINKS),
            ("transport_key_changes", self.transport_key_changes, MAX_CHANGES),
            ("trust_changes", self.trust_changes, MAX_CHANGES),
        ):
            if len(given) > most:
                raise InvalidInputError(
                    f"A call has at most {most} {name}, and this one has {len(given)}; send fewer.",
                    field=name,
                )


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
