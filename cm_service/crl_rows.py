"""What CRLs are made from: an encoded entry for each revoked certificate, and the order in which they changed.

    crl_entries   last byte of the serial ‖ serial → expiry (8) ‖ entry (DER)
    crl_changes   sequence (8) → time (8) ‖ serial
    crl_state     ``changes`` → the last sequence, and what ``cm_service.crls`` keeps of each list

The rows are written in the transaction that revokes. So whatever was acknowledged is in the next list.
"""

from __future__ import annotations

from typing import Final

from cm_service.records import CRL_CHANGES, CRL_ENTRIES, CRL_STATE
from keyark.pki.crl_entries import encode_entry
from keyark.records.v1.cm_pb2 import Revocation
from keyark.store import ReadTransaction, WriteTransaction

LAST_CHANGE: Final = b"changes"


def entry_key(serial: bytes) -> bytes:
    """Return the key of a serial number's entry; its first byte says which shard it belongs to."""
    return serial[-1:] + serial


def last_change(txn: ReadTransaction) -> int:
    """Return the sequence of the newest change, 0 before the first."""
    return int.from_bytes(txn.get(CRL_STATE, LAST_CHANGE) or b"", "big")


def write_entry(txn: WriteTransaction, serial: bytes, *, expiry: int, revocation: Revocation) -> None:
    """Put a certificate on the lists or replace its entry; ``expiry`` is in seconds UTC."""
    entry = encode_entry(
        serial,
        revocation_time=revocation.revocation_time,
        reason=revocation.reason,
        invalidity_time=revocation.invalidity_time,
    )
    txn.put(CRL_ENTRIES, entry_key(serial), expiry.to_bytes(8, "big") + entry)
    _write_change(txn, serial, revocation.revocation_time)


def remove_entry(txn: WriteTransaction, serial: bytes, now: int) -> None:
    """Take a certificate off the lists; ``now`` is in seconds UTC."""
    txn.delete(CRL_ENTRIES, entry_key(serial))
    _write_change(txn, serial, now)


def _write_change(txn: WriteTransaction, serial: bytes, now: int) -> None:
    sequence = (last_change(txn) + 1).to_bytes(8, "big")
    txn.put(CRL_STATE, LAST_CHANGE, sequence)
    txn.put(CRL_CHANGES, sequence, now.to_bytes(8, "big") + serial)
