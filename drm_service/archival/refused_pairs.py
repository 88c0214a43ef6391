"""Pairs of public keys whose private half did not match: refused for good, so that no later try passes by luck.

A pair is a signing and an encryption key together. Its statement is signed with the signing key, so nobody makes the
archive refuse a pair of somebody else's.
"""

from __future__ import annotations

from drm_service.records import REFUSED_PAIRS
from keyark.errors.enrollment import KeyPairRefusedError
from keyark.records.v1.drm_pb2 import RefusedPair
from keyark.statements.enrollment import Statement
from keyark.store import ReadTransaction, WriteTransaction


def check_not_refused(txn: ReadTransaction, statement: Statement) -> None:
    """Raise KeyPairRefusedError where the keys of a statement were refused for good."""
    if txn.get(REFUSED_PAIRS, _pair(statement)) is not None:
        raise KeyPairRefusedError(
            "The private key that was sent did not match these public keys, so they are refused "
            "permanently; make two new key pairs and enroll those."
        )


def refuse_for_good(txn: WriteTransaction, statement: Statement, *, time_us: int) -> None:
    """Remember that the private key for a statement's keys did not match (``time_us``: microseconds UTC)."""
    record = RefusedPair(enrollment_id=statement.enrollment_id, time_us=time_us)
    txn.put(REFUSED_PAIRS, _pair(statement), record.SerializeToString())


def _pair(statement: Statement) -> bytes:
    return statement.signing_spki_sha256 + statement.encryption_spki_sha256
