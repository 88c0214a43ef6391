"""What CRLs are made from: an encoded entry for each revoked certificate, and the order in which they changed.

    crl_entries   last byte of the serial ‖ serial → generation (1) ‖ expiry (7) ‖ entry (DER)
    crl_changes   sequence (8) → generation (1) ‖ time (7) ‖ serial
    crl_state     ``changes`` → the last sequence; ``number`` → the last CRL number; ``list/NAME`` → CrlRecord

The rows are written in the transaction that revokes. So whatever was acknowledged is in the next list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cm_service.records import CRL_CHANGES, CRL_ENTRIES, CRL_STATE
from keyark.records.v1.cm_pb2 import Revocation
from keyark.store import ReadTransaction, WriteTransaction
from keyark.x509.crl_entries import encode_entry

LAST_CHANGE: Final = b"changes"
LAST_NUMBER: Final = b"number"
LIST_PREFIX: Final = b"list/"


def entry_key(serial: bytes) -> bytes:
    """Return the key of a serial number's entry; its first byte says which shard it belongs to."""
    return serial[-1:] + serial


def last_change(txn: ReadTransaction) -> int:
    """Return the sequence of the newest change, 0 before the first."""
    return int.from_bytes(txn.get(CRL_STATE, LAST_CHANGE) or b"", "big")


def write_entry(
    txn: WriteTransaction, serial: bytes, *, expiry: int, revocation: Revocation, generation: int
) -> None:
    """Put a certificate on its issuer's lists or replace its entry; ``expiry`` is in seconds UTC."""
    entry = encode_entry(
        serial,
        revocation_time=revocation.revocation_time,
        reason=revocation.reason,
        invalidity_time=revocation.invalidity_time,
    )
    txn.put(CRL_ENTRIES, entry_key(serial), _stamp(generation, expiry) + entry)
    _write_change(txn, serial, _stamp(generation, revocation.revocation_time))


def remove_entry(txn: WriteTransaction, serial: bytes, *, now: int, generation: int) -> None:
    """Take a certificate off its issuer's lists; ``now`` is in seconds UTC."""
    txn.delete(CRL_ENTRIES, entry_key(serial))
    _write_change(txn, serial, _stamp(generation, now))


def _write_change(txn: WriteTransaction, serial: bytes, stamp: bytes) -> None:
    sequence = (last_change(txn) + 1).to_bytes(8, "big")
    txn.put(CRL_STATE, LAST_CHANGE, sequence)
    txn.put(CRL_CHANGES, sequence, stamp + serial)


def _stamp(generation: int, seconds: int) -> bytes:
    return bytes([generation]) + seconds.to_bytes(7, "big")


def is_listed(value: bytes, *, generation: int, oldest: int) -> bool:
    """Whether a row of ``crl_entries`` stands on a generation's lists that keep what expires at a time or later."""
    return value[0] == generation and int.from_bytes(value[1:8], "big") >= oldest


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A certificate whose standing changed, and how it stands now: its entry (DER) and expiry, or no entry."""

    sequence: int
    time: int
    serial: bytes
    generation: int
    entry: bytes
    expiry: int | None


def changed_since(txn: ReadTransaction, sequence: int, limit: int) -> list[Changed]:
    """Return up to ``limit`` changes after one, oldest first; a certificate stands there once for each change."""
    return [
        _changed(txn, key, value)
        for key, value in txn.scan(CRL_CHANGES, after=sequence.to_bytes(8, "big"), limit=limit)
    ]


def _changed(txn: ReadTransaction, key: bytes, value: bytes) -> Changed:
    serial = value[8:]
    present = txn.get(CRL_ENTRIES, entry_key(serial))
    return Changed(
        sequence=int.from_bytes(key, "big"),
        time=int.from_bytes(value[1:8], "big"),
        serial=serial,
        generation=value[0],
        entry=present[8:] if present else b"",
        expiry=int.from_bytes(present[1:8], "big") if present else None,
    )


def prune_changes(txn: WriteTransaction, sequence: int, limit: int) -> int:
    """Delete up to ``limit`` changes up to and including a sequence; returns how many."""
    keys = [key for key, _ in txn.scan(CRL_CHANGES, limit=limit) if int.from_bytes(key, "big") <= sequence]
    for key in keys:
        txn.delete(CRL_CHANGES, key)
    return len(keys)


def reserve_number(txn: WriteTransaction) -> int:
    """Return a number that no list has, durably once the transaction is."""
    number = int.from_bytes(txn.get(CRL_STATE, LAST_NUMBER) or b"", "big") + 1
    txn.put(CRL_STATE, LAST_NUMBER, number.to_bytes(8, "big"))
    return number
