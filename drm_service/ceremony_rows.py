"""Rows of ceremonies: what must vanish lies in a row of its own, which goes when it is handed over or given up.

That is what was recovered and not acknowledged, and the token of a storage key that no quorum approved yet.
"""

from __future__ import annotations

from typing import Final

from keyark.records.v1.drm_pb2 import CeremonyRecord
from keyark.store import Backups, ReadTransaction, VanishingTable, WriteTransaction

PAGE: Final = 256
CEREMONIES: Final = "ceremonies"


def separate_secrets(txn: WriteTransaction) -> None:
    """Move what must vanish out of rows that an earlier release wrote."""
    after: bytes | None = None
    while rows := txn.scan(CEREMONIES, after=after, limit=PAGE):
        for ceremony_id, value in rows:
            put_row(txn, ceremony_id, CeremonyRecord.FromString(value))
        after = rows[-1][0]


CEREMONY_SECRETS: Final = VanishingTable(
    "ceremony_secrets", backups=Backups.WITHOUT_KEYS, take_over=separate_secrets
)


def read_row(txn: ReadTransaction, ceremony_id: bytes) -> CeremonyRecord | None:
    """Return the record of a ceremony (16 bytes) with its secrets, or None."""
    value = txn.get(CEREMONIES, ceremony_id)
    if value is None:
        return None
    record = CeremonyRecord.FromString(value)
    record.MergeFromString(txn.get(CEREMONY_SECRETS, ceremony_id) or b"")
    return record


def put_row(txn: WriteTransaction, ceremony_id: bytes, record: CeremonyRecord) -> None:
    """Write a record and, where they changed, its secrets; those that it has no more vanish."""
    row, secrets = CeremonyRecord(), CeremonyRecord(recovered=record.recovered)
    row.CopyFrom(record)
    if record.HasField("new_token"):
        secrets.new_token.CopyFrom(record.new_token)
    row.ClearField("recovered")
    row.ClearField("new_token")
    txn.put(CEREMONIES, ceremony_id, row.SerializeToString())
    kept = secrets.SerializeToString()
    if not kept:
        txn.delete(CEREMONY_SECRETS, ceremony_id)
    elif kept != txn.get(CEREMONY_SECRETS, ceremony_id):
        txn.put(CEREMONY_SECRETS, ceremony_id, kept)
