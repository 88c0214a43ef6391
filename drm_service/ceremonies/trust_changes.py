"""The changes of agents and storage keys, each leading on from the one before: what everybody else believes them by."""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from drm_service.ceremonies.records import find_ceremony
from drm_service.keys.storage_keys import read_tokens
from drm_service.records import TRUST_CHANGES
from keyark.errors.recovery import CeremonyMovedError, UnknownChangeError
from keyark.records.v1.drm_pb2 import CeremonyRecord
from keyark.store import ReadTransaction, WriteTransaction
from keyark.transparency.opening_facts import change_id, parse_facts
from keyark.v1.ceremony_pb2 import (
    CeremonyProof,
    CeremonyStatement,
    Decision,
    DecisionStatement,
    SignedStatement,
)

MAX_CHANGES: Final = 100
APPROVE: Final = Decision.DECISION_APPROVE


def newest_change(txn: ReadTransaction) -> bytes:
    """Return the id of the newest change that is in force; empty before the first."""
    number = txn.count(TRUST_CHANGES)
    return change_id(_change(txn, number - 1).opening_leaf) if number else b""


def change_ids(txn: ReadTransaction) -> list[bytes]:
    """Return the ids of all changes, the newest last."""
    return [change_id(_change(txn, number).opening_leaf) for number in range(txn.count(TRUST_CHANGES))]


def put_trust_change(txn: WriteTransaction, record: CeremonyRecord) -> None:
    """Keep what others need in order to believe a change: the request, its opening, and the quorum's approvals.

    Raises CeremonyMovedError where another change came since it was opened: it would not lead on from that one.
    """
    if parse_facts(record.opening_facts).newest_change != newest_change(txn):
        raise CeremonyMovedError(
            "The agents or storage keys have changed meanwhile; the agents have to approve again."
        )
    approvals = [SignedStatement.FromString(raw) for raw in record.decisions]
    proof = CeremonyProof(
        opening_facts=record.opening_facts,
        request=SignedStatement.FromString(record.request),
        opening_leaf=record.opening_leaf,
        approvals=[a for a in approvals if DecisionStatement.FromString(a.statement).decision == APPROVE],
    )
    txn.put(TRUST_CHANGES, _key(txn.count(TRUST_CHANGES)), proof.SerializeToString())


def read_trust_changes(txn: ReadTransaction, *, known: bytes) -> list[tuple[CeremonyProof, int]]:
    """Return the changes after the one of id ``known`` (empty: all), each with its opening's index.

    Raises UnknownChangeError where there is no change of that id.
    """
    after = _key(_number_of(txn, known)) if known else None
    rows = txn.scan(TRUST_CHANGES, after=after, limit=MAX_CHANGES)
    changes = [CeremonyProof.FromString(value) for _, value in rows]
    return [(change, _opening_index(txn, change)) for change in changes]


def change_made_by(txn: ReadTransaction, record: CeremonyRecord) -> CeremonyProof | None:
    """Return the newest change where this ceremony made it; None where it made none, or another came since."""
    number = txn.count(TRUST_CHANGES)
    change = _change(txn, number - 1) if number else None
    return change if change is not None and change.opening_leaf == record.opening_leaf else None


def former_share_keys(txn: ReadTransaction) -> set[bytes]:
    """Return the share keys that changes of agents took out: SHA-256 of their public keys, 32 bytes each.

    A change of agents opens every storage key, so its facts say who held shares until then.
    """
    held = set()
    for number in range(txn.count(TRUST_CHANGES)):
        facts = parse_facts(_change(txn, number).opening_facts)
        held |= {share.share_key_id for key in facts.storage_keys for share in key.shares}
    present = {sha256(s.share_public_key).digest() for token in read_tokens(txn) for s in token.shares}
    return held - present


def _number_of(txn: ReadTransaction, known: bytes) -> int:
    for number in reversed(range(txn.count(TRUST_CHANGES))):
        if change_id(_change(txn, number).opening_leaf) == known:
            return number
    raise UnknownChangeError(
        "The archive does not know that change of agents or storage keys. If it was restored from a "
        "backup, the agents pin again with `keyark agents pin`. Otherwise, its operators should "
        "examine its log."
    )


def _change(txn: ReadTransaction, number: int) -> CeremonyProof:
    return CeremonyProof.FromString(txn.get(TRUST_CHANGES, _key(number)) or b"")


def _key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _opening_index(txn: ReadTransaction, change: CeremonyProof) -> int:
    ceremony_id = CeremonyStatement.FromString(change.request.statement).ceremony_id
    return find_ceremony(txn, ceremony_id).opening_index
