"""One public key, one enrollment, one role: the register behind promise P8, kept by every subsystem.

A row stands under the key's own id. Keys that reveal one another are one key, so the ids of all of them are looked up:
rows of earlier releases are found like new ones.

The identity keys that sign a request's call and its approval are signing keys too. They belong to no enrollment.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from keyark.errors.enrollment import KeyRoleConflictError, PublicKeyInUseError
from keyark.records.v1.keys_pb2 import KeyUse
from keyark.statements.enrollment import Statement
from keyark.v1.certificates_pb2 import KeyRole

TABLE: Final = "key_uses"

KeyIds: TypeAlias = tuple[bytes, ...]
"""The ids (32 bytes) of one key: its own first, then those of the keys that reveal it."""

_CALLER_HASH: Final = slice(16, 32)  # of an enrollment id


class Uses(Protocol):
    """Where the register is read: a transaction of the store, or what stands before one."""

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the row of a key id, or None."""


class WritableUses(Uses, Protocol):
    """Where the register is written too."""

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Write the row of a key id."""


class Possession(enum.Enum):
    """Whether somebody showed that the caller holds the private half of the encryption key."""

    PROVEN = "proven"
    """The archive opened the private key and proved that it matches."""
    ASSERTED = "asserted"
    """The caller says so, in a statement that the signing key signed."""

    @classmethod
    def shown_by(cls, evidence: bytes) -> Possession:
        """PROVEN where there is a receipt, or a wrapped key of which the archive will make one."""
        return cls.PROVEN if evidence else cls.ASSERTED


@dataclass(frozen=True, kw_only=True)
class KeyClaim:
    """The keys that a request claims: those of its statement, and the identity keys that signed for the request."""

    statement: Statement
    encryption_key: Possession
    signers: Sequence[KeyIds] = ()


def check_key_uses(txn: Uses, claim: KeyClaim) -> None:
    """Raise where a key belongs to another enrollment or to the other role.

    A key whose possession is proven is not kept from its owner by another caller who only asserted that it has the key.
    """
    for key in _enrolled(claim):
        for use in _others(txn, claim, key):
            _check_role(use, key.role)
            _check_enrollment(use, claim.statement)
    _check_signers(txn, claim)


def claim_key_uses(txn: WritableUses, claim: KeyClaim) -> None:
    """Record the keys with their roles, the statement's for this enrollment; raise as ``check_key_uses`` does."""
    check_key_uses(txn, claim)
    for key in _enrolled(claim):
        _put(txn, key, enrollment_id=claim.statement.enrollment_id)
    _reserve_signers(txn, claim)


def reserve_signing_keys(txn: WritableUses, claim: KeyClaim) -> None:
    """Record that the keys of a claim that archives nothing sign, for no enrollment.

    Raises KeyRoleConflictError, and PublicKeyInUseError where the encryption key is archived for another enrollment.
    The enrollment of the signing key is recorded by the service that issues for it.
    """
    signing, *encryption = _enrolled(claim)
    for use in _others(txn, claim, signing):
        _check_role(use, signing.role)
    for key in encryption:
        for use in _others(txn, claim, key):
            _check_role(use, key.role)
            _check_enrollment(use, claim.statement)
    _check_signers(txn, claim)
    _reserve(txn, signing)
    _reserve_signers(txn, claim)


class TakenKeys:
    """The register with the uses of claims that are under way, and with those of one more, which are here alone."""

    def __init__(self, txn: Uses, under_way: dict[bytes, list[TakenKeys]]) -> None:
        self._txn, self._under_way = txn, under_way
        self.uses: dict[bytes, bytes] = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        """Return the newest use of a key."""
        for taken in (self, *reversed(self._under_way.get(key, ()))):
            if key in taken.uses:
                return taken.uses[key]
        return self._txn.get(table, key)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        """Write a use of a key."""
        self.uses[key] = value


class ClaimsUnderWay:
    """Claims of requests that are being carried out: they count as recorded ones do until they are given up.

    Who carries a claim out records it in the store with the outcome, where ``claim_key_uses`` decides again.
    """

    def __init__(self) -> None:
        self._uses: dict[bytes, list[TakenKeys]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no claim is under way."""
        return not self._uses

    def claim(self, txn: Uses, claim: KeyClaim) -> TakenKeys:
        """Take the keys; raises as ``claim_key_uses`` does, also where another claim that is under way has them."""
        taken = TakenKeys(txn, self._uses)
        claim_key_uses(taken, claim)
        for key_id in taken.uses:
            self._uses.setdefault(key_id, []).append(taken)
        return taken

    def give_up(self, taken: TakenKeys) -> None:
        """Let go of the keys of a claim that is over, whatever came of it."""
        for key_id in taken.uses:
            others = [other for other in self._uses[key_id] if other is not taken]
            if others:
                self._uses[key_id] = others
            else:
                del self._uses[key_id]


@dataclass(frozen=True, kw_only=True)
class _Key:
    ids: KeyIds
    role: KeyRole.ValueType
    possession: Possession


def _enrolled(claim: KeyClaim) -> Iterator[_Key]:
    statement = claim.statement
    yield _signing_key(statement.signing_key_ids)
    if statement.encryption_spki:
        yield _Key(
            ids=statement.encryption_key_ids,
            role=KeyRole.KEY_ROLE_ENCRYPTION,
            possession=claim.encryption_key,
        )


def _signing_key(ids: KeyIds) -> _Key:
    """A key whose signature was verified."""
    return _Key(ids=ids, role=KeyRole.KEY_ROLE_SIGNING, possession=Possession.PROVEN)


def _others(txn: Uses, claim: KeyClaim, key: _Key) -> Iterator[KeyUse]:
    """The uses that a key has to agree with; what another caller asserted gives way to what is proven."""
    caller = claim.statement.enrollment_id[_CALLER_HASH]
    for key_id in key.ids:
        use = _find(txn, key_id)
        if use is None:
            continue
        is_anothers_word = use.unproven and use.enrollment_id[_CALLER_HASH] != caller
        if not (is_anothers_word and key.possession is Possession.PROVEN):
            yield use


def _check_signers(txn: Uses, claim: KeyClaim) -> None:
    for ids in claim.signers:
        for use in _others(txn, claim, _signing_key(ids)):
            if use.role != KeyRole.KEY_ROLE_SIGNING:
                raise KeyRoleConflictError(
                    "An identity key that signed this request was also enrolled as an encryption key (or "
                    "reveals one that was). Renew that identity, which makes a new key."
                )


def _reserve_signers(txn: WritableUses, claim: KeyClaim) -> None:
    for ids in claim.signers:
        _reserve(txn, _signing_key(ids))


def _reserve(txn: WritableUses, key: _Key) -> None:
    use = _find(txn, key.ids[0])
    if use is None or use.unproven:
        _put(txn, key, enrollment_id=b"")


def _put(txn: WritableUses, key: _Key, *, enrollment_id: bytes) -> None:
    """Write the use of a key, unless it says what is known already and better."""
    unproven = key.possession is Possession.ASSERTED
    earlier = _find(txn, key.ids[0])
    if unproven and earlier is not None and not earlier.unproven:
        return
    use = KeyUse(enrollment_id=enrollment_id, role=key.role, unproven=unproven)
    txn.put(TABLE, key.ids[0], use.SerializeToString())


def _find(txn: Uses, key_id: bytes) -> KeyUse | None:
    value = txn.get(TABLE, key_id)
    return None if value is None else KeyUse.FromString(value)


def _check_enrollment(use: KeyUse, statement: Statement) -> None:
    if use.enrollment_id not in (b"", statement.enrollment_id):
        raise PublicKeyInUseError(
            "A public key of this request belongs to another enrollment; make a new key pair and enroll that."
        )


def _check_role(use: KeyUse, role: KeyRole.ValueType) -> None:
    if use.role != role:
        raise KeyRoleConflictError(
            "A public key of this request (or one whose private key reveals it) is already enrolled in "
            "the other role. A signing key is never archived and an encryption key never signs, so make "
            "a new key pair."
        )
