"""Under what certificates are found: rows whose keys end with an enrollment id (32 bytes), written with the pair.

    e ‖ digest (16) ‖ id                               the e-mail address, lower case
    n ‖ digest (16) ‖ id                               the common name, case folded
    x ‖ standing (1) ‖ expiry (8) ‖ id                 what has this standing, by expiry
    p ‖ digest (16) ‖ standing (1) ‖ expiry (8) ‖ id   the same within a profile

One row stands for both certificates of a pair: they share names, profile and expiry. Where they differ in standing,
each standing has its row. Serial numbers and keys have tables of their own.
"""

from __future__ import annotations

import enum
from hashlib import sha256
from typing import Final

from cm_service.records import INDEX, PAIRS, is_issued, revocation_of, roles_of
from keyark.records.v1.cm_pb2 import PairRecord
from keyark.store import Store, WriteTransaction
from keyark.v1.revocation_pb2 import RevocationReason
from keyark.x509.names import folded_name

BATCH: Final = 500

_COMPLETE: Final = b"\x00complete"
_DIGEST_SIZE: Final = 16


class Standing(enum.IntEnum):
    """What was decided about a certificate, whatever the clock says."""

    IN_FORCE = 0
    ON_HOLD = 1
    REVOKED = 2


def standing(pair: PairRecord, role: int) -> Standing:
    """Return the standing of one certificate of an issued pair."""
    revocation = revocation_of(pair, role)
    if revocation is None:
        return Standing.IN_FORCE
    held = revocation.reason == RevocationReason.REVOCATION_REASON_CERTIFICATE_HOLD
    return Standing.ON_HOLD if held else Standing.REVOKED


def email_prefix(email: str) -> bytes:
    """Return what keys of this e-mail address begin with."""
    return b"e" + _digest(email.lower())


def name_prefix(common_name: str) -> bytes:
    """Return what keys of this common name begin with."""
    return b"n" + _digest(folded_name(common_name))


def expiry_prefix(state: Standing, *, profile: str = "") -> bytes:
    """Return what keys of this standing begin with, of one profile or ("") of all; the expiry follows."""
    start = b"p" + _digest(profile) if profile else b"x"
    return start + bytes([state])


def expiry_key(seconds: int) -> bytes:
    """Return an expiry (seconds UTC) as it stands in keys."""
    return seconds.to_bytes(8, "big")


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()[:_DIGEST_SIZE]


def index_pair(txn: WriteTransaction, enrollment_id: bytes, pair: PairRecord) -> None:
    """Write the rows of an issued pair, in the transaction that writes the pair."""
    for prefix in (email_prefix(pair.email), name_prefix(pair.common_name)):
        txn.put(INDEX, prefix + enrollment_id, b"")
    for key in _standing_keys(enrollment_id, pair):
        txn.put(INDEX, key, b"")


def move_pair(txn: WriteTransaction, enrollment_id: bytes, *, before: PairRecord, after: PairRecord) -> None:
    """Write the rows of a pair of which a certificate changed its standing, in the transaction that changes it."""
    old, new = _standing_keys(enrollment_id, before), _standing_keys(enrollment_id, after)
    for key in old - new:
        txn.delete(INDEX, key)
    for key in new - old:
        txn.put(INDEX, key, b"")


def _standing_keys(enrollment_id: bytes, pair: PairRecord) -> set[bytes]:
    standings = {standing(pair, role) for role in roles_of(pair)}
    end = expiry_key(pair.not_after) + enrollment_id
    return {expiry_prefix(s, profile=profile) + end for s in standings for profile in ("", pair.profile)}


async def complete_index(store: Store) -> None:
    """Write the rows of what an earlier release issued; once done, later starts find that at once."""
    after: bytes | None = None
    if store.get(INDEX, _COMPLETE) is not None:
        return
    while True:
        rows = await store.view(lambda txn, last=after: txn.scan(PAIRS, after=last, limit=BATCH))  # type: ignore[misc]
        pairs = [(key, PairRecord.FromString(value)) for key, value in rows]

        def write(txn: WriteTransaction, batch: list[tuple[bytes, PairRecord]] = pairs) -> None:
            for enrollment_id, pair in batch:
                if is_issued(pair):
                    index_pair(txn, enrollment_id, pair)

        await store.update(write)
        if len(rows) < BATCH:
            await store.update(lambda txn: txn.put(INDEX, _COMPLETE, b"1"))
            return
        after = rows[-1][0]
