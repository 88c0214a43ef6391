"""One public key, one enrollment, one role: the register behind promise P8, kept by every subsystem.

A row stands under the key's own id. Keys that reveal one another are one key, so the ids of all of them are looked up:
rows of earlier releases are found like new ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from keyark.errors import KeyarkError, Kind
from keyark.pki.statements import Statement
from keyark.records.v1.keys_pb2 import KeyUse
from keyark.store import ReadTransaction, WriteTransaction
from keyark.v1.certificates_pb2 import KeyRole

TABLE: Final = "key_uses"


class KeyRoleConflictError(KeyarkError):
    """A signing key stands where an encryption key should, or the other way round (P8)."""

    reason = "KEY_ROLE_CONFLICT"
    kind = Kind.PRECONDITION
    is_final = True


class PublicKeyInUseError(KeyarkError):
    """Another enrollment already holds this public key."""

    reason = "PUBLIC_KEY_IN_USE"
    kind = Kind.CONFLICT
    is_final = True


def check_key_uses(txn: ReadTransaction, statement: Statement) -> None:
    """Raise where either public key belongs to another enrollment or to the other role."""
    for key_ids, role in _roles(statement):
        for key_id in key_ids:
            _check(txn, statement, key_id, role)


def claim_key_uses(txn: WriteTransaction, statement: Statement) -> None:
    """Record both public keys for this enrollment and their roles; raise as ``check_key_uses`` does."""
    check_key_uses(txn, statement)
    for (key_id, *_), role in _roles(statement):
        txn.put(TABLE, key_id, KeyUse(enrollment_id=statement.enrollment_id, role=role).SerializeToString())


def reserve_signing_key(txn: WriteTransaction, statement: Statement) -> None:
    """Record that a statement's signing key signs, and for no enrollment; raises KeyRoleConflictError.

    The enrollment of such a key is recorded by who issues for it.
    """
    for key_id in statement.signing_key_ids:
        _check_role(_find(txn, key_id), KeyRole.KEY_ROLE_SIGNING)
    if txn.get(TABLE, statement.signing_spki_sha256) is None:
        use = KeyUse(role=KeyRole.KEY_ROLE_SIGNING)
        txn.put(TABLE, statement.signing_spki_sha256, use.SerializeToString())


def _roles(statement: Statement) -> Iterator[tuple[tuple[bytes, ...], KeyRole.ValueType]]:
    yield statement.signing_key_ids, KeyRole.KEY_ROLE_SIGNING
    if statement.encryption_spki:
        yield statement.encryption_key_ids, KeyRole.KEY_ROLE_ENCRYPTION


def _check(txn: ReadTransaction, statement: Statement, key_id: bytes, role: KeyRole.ValueType) -> None:
    use = _find(txn, key_id)
    _check_role(use, role)
    if use is not None and use.enrollment_id not in (b"", statement.enrollment_id):
        raise PublicKeyInUseError(
            "A public key of this request belongs to another enrollment; make a new key pair and enroll that."
        )


def _find(txn: ReadTransaction, key_id: bytes) -> KeyUse | None:
    value = txn.get(TABLE, key_id)
    return None if value is None else KeyUse.FromString(value)


def _check_role(use: KeyUse | None, role: KeyRole.ValueType) -> None:
    if use is not None and use.role != role:
        raise KeyRoleConflictError(
            "A public key of this request, or one that reveals its private half, is already known in the other role; "
            "a signing key is never archived and an encryption key never signs: make a new key pair."
        )
