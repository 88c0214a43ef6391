"""Issued pairs as rows of the CM's store, without signing anything: for search, revocation and CRLs of many."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from cm_service.certificates.index import index_pair
from cm_service.records import PAIRS, SERIALS
from keyark.records.v1.cm_pb2 import PairRecord, SerialRecord
from keyark.records.v1.keys_pb2 import KeyUse
from keyark.service.checks import key_uses
from keyark.store import Store, WriteTransaction
from keyark.v1.certificates_pb2 import KeyRole
from tests.support.keys.pki import DAY, NOW


def serial_of(number: int, role: int) -> bytes:
    """The serial number of a pair's certificate: 20 bytes that look random and are the same every time."""
    return b"\x40" + sha256(b"%d/%d" % (number, role)).digest()[:19]


def pair_record(number: int, **replaced: Any) -> PairRecord:
    """The record of an issued pair; the certificates are not ones."""
    values: dict[str, Any] = {
        "signing_serial": serial_of(number, 1),
        "encryption_serial": serial_of(number, 2),
        "signing_certificate": b"signing %d" % number,
        "encryption_certificate": b"encryption %d" % number,
        "common_name": f"Person {number}",
        "email": f"person{number}@example.org",
        "profile": "user",
        "not_before": NOW,
        "not_after": NOW + 365 * DAY,
        "signing_spki_sha256": sha256(b"s%d" % number).digest(),
        "encryption_spki_sha256": sha256(b"e%d" % number).digest(),
    }
    return PairRecord(**(values | replaced))


def enrollment_id(number: int) -> bytes:
    """32 bytes, ordered as the numbers are."""
    return number.to_bytes(16, "big") + sha256(b"%d" % number).digest()[:16]


def write_pair(txn: WriteTransaction, number: int, pair: PairRecord) -> None:
    """Write all rows that an issued pair has."""
    identifier = enrollment_id(number)
    txn.put(PAIRS, identifier, pair.SerializeToString())
    index_pair(txn, identifier, pair)
    for serial, digest, role in (
        (pair.signing_serial, pair.signing_spki_sha256, KeyRole.KEY_ROLE_SIGNING),
        (pair.encryption_serial, pair.encryption_spki_sha256, KeyRole.KEY_ROLE_ENCRYPTION),
    ):
        txn.put(SERIALS, serial, SerialRecord(enrollment_id=identifier, role=role).SerializeToString())
        txn.put(key_uses.TABLE, digest, KeyUse(enrollment_id=identifier, role=role).SerializeToString())


async def add_pairs(store: Store, pairs: Sequence[PairRecord]) -> None:
    """Write pairs, numbered from 0."""

    def write(txn: WriteTransaction) -> None:
        for number, pair in enumerate(pairs):
            write_pair(txn, number, pair)

    await store.update(write)
