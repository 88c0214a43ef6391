"""Revocation, hold and release: durable with its leaf in the log, its CRL entry and its index rows, or not at all.

Certificates are named by serial numbers; what is asked for one call happens to all of them or to none. What is the case
already is confirmed and not done again, so a retry is safe. Nothing here touches an archived key.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, cast

from cm_service.certificates.index import move_pair
from cm_service.records import PAIRS, find_by_serial, find_certificate, revocation_field, revocation_of
from cm_service.revocation.crl_rows import remove_entry, write_entry
from keyark.clock import Clock
from keyark.errors import InvalidInputError
from keyark.keys.key_types import SigningPublicKey
from keyark.policy.engine import PolicyEngine
from keyark.policy.requests import RevocationRequest
from keyark.records.v1.cm_pb2 import PairRecord, Revocation, SerialRecord
from keyark.statements.revocations import (
    AlreadyExpiredError,
    AlreadyRevokedError,
    NotOnHoldError,
    parse_revocation,
    verify_revocation,
)
from keyark.store import Store, WriteTransaction
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.v1.certificates_pb2 import Certificate, KeyRole
from keyark.v1.revocation_pb2 import RevocationReason
from keyark.x509.certificates import load_certificate
from keyark.x509.crl_entries import REASONS
from keyark.x509.serials import check_serial

STAGE: Final = "revoke"
MAX_SERIALS: Final = 100
HOLD: Final = RevocationReason.REVOCATION_REASON_CERTIFICATE_HOLD
COMPROMISE: Final = RevocationReason.REVOCATION_REASON_KEY_COMPROMISE


_REASON_NAMES: Final = {number: name for name, number in REASONS.items()}


class Change(enum.Enum):
    """What is to become of a certificate, by the type of its leaf."""

    REVOKE = EventType.EVENT_TYPE_CERTIFICATE_REVOKED
    HOLD = EventType.EVENT_TYPE_CERTIFICATE_HELD
    RELEASE = EventType.EVENT_TYPE_CERTIFICATE_RELEASED


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """One change of some certificates, and who asks for it; ``statement`` is what a holder signed."""

    change: Change
    serials: Sequence[bytes]
    caller: str
    now_us: int
    reason: RevocationReason.ValueType = RevocationReason.REVOCATION_REASON_UNSPECIFIED
    invalidity_time: int = 0
    statement: SignedStatement | None = None

    @property
    def now(self) -> int:
        """Seconds UTC."""
        return self.now_us // 1_000_000


@dataclass(frozen=True, kw_only=True)
class Revocations:
    """Changes the standing of certificates; callers are the SPIFFE IDs that the log names."""

    trust_domain: str
    store: Store
    log: Log
    clock: Clock
    policy: PolicyEngine

    async def revoke(
        self,
        serials: Sequence[bytes],
        *,
        caller: str,
        reason: RevocationReason.ValueType,
        invalidity_time: int = 0,
    ) -> list[Certificate]:
        """Revoke for good; one that is revoked for another reason can still become one of a compromised key.

        ``invalidity_time`` is in seconds UTC, 0 where it is not known. Raises InvalidInputError, NotFoundError,
        AlreadyExpiredError, AlreadyRevokedError and PolicyRejectedError, with nothing changed.
        """
        if reason == HOLD or reason not in RevocationReason.values():
            raise InvalidInputError(
                "This reason is for a suspension; hold the certificate instead.", field="reason"
            )
        return await self._carry_out(
            _Asked(
                change=Change.REVOKE,
                serials=serials,
                caller=caller,
                now_us=self.clock.now_us(),
                reason=reason,
                invalidity_time=invalidity_time,
            )
        )

    async def hold(self, serials: Sequence[bytes], *, caller: str) -> list[Certificate]:
        """Put on hold; raises InvalidInputError, NotFoundError, AlreadyExpiredError and AlreadyRevokedError."""
        now_us = self.clock.now_us()
        return await self._carry_out(
            _Asked(change=Change.HOLD, serials=serials, caller=caller, now_us=now_us, reason=HOLD)
        )

    async def release(self, serials: Sequence[bytes], *, caller: str) -> list[Certificate]:
        """Put in force again; raises InvalidInputError, NotFoundError, NotOnHoldError and AlreadyRevokedError."""
        now_us = self.clock.now_us()
        return await self._carry_out(
            _Asked(change=Change.RELEASE, serials=serials, caller=caller, now_us=now_us)
        )

    async def revoke_own(self, raw: bytes, *, signature: bytes, caller: str) -> list[Certificate]:
        """Revoke what a statement names, on the proof of possession of the pair's signing key.

        Raises InvalidInputError, RevocationSignatureError, NotFoundError, AlreadyExpiredError and
        AlreadyRevokedError, with nothing changed.
        """
        statement = parse_revocation(raw, self.trust_domain)
        _, pair = self.store.read(lambda txn: find_by_serial(txn, statement.serials[0]))
        holder = load_certificate(pair.signing_certificate)
        verify_revocation(raw, signature, cast("SigningPublicKey", holder.public_key()))
        if not set(statement.serials) <= {pair.signing_serial, pair.encryption_serial}:
            raise InvalidInputError(
                "The statement names certificates that do not belong to one pair.", field="serials"
            )
        signed = SignedStatement(statement=raw, signature=signature, certificate=pair.signing_certificate)
        return await self._carry_out(
            _Asked(
                change=Change.REVOKE,
                serials=statement.serials,
                caller=caller,
                now_us=self.clock.now_us(),
                reason=statement.reason,
                invalidity_time=statement.invalidity_time,
                statement=signed,
            )
        )

    async def _carry_out(self, asked: _Asked) -> list[Certificate]:
        _check(asked)
        # Leaves are made before the transaction (they hold randomness); those of certificates that need no change
        # are not appended. Policy judges between the two: all is found, nothing is changed yet.
        found = self.store.read(lambda txn: [(s, *find_by_serial(txn, s)) for s in asked.serials])
        leaves = {serial: _leaf(pair, row, serial, asked) for serial, row, pair in found}
        for _, row, pair in found:
            self.policy.enforce(STAGE, _policy_request(pair, row, asked))
        return await self.store.update(lambda txn: self._change_all(txn, asked, leaves))

    def _change_all(
        self, txn: WriteTransaction, asked: _Asked, leaves: Mapping[bytes, LoggedEvent]
    ) -> list[Certificate]:
        for serial in asked.serials:
            if _change(txn, serial, asked):
                self.log.append(txn, leaves[serial])
        return [find_certificate(txn, serial, asked.now) for serial in asked.serials]


def _check(asked: _Asked) -> None:
    if not 1 <= len(asked.serials) <= MAX_SERIALS or len(set(asked.serials)) < len(asked.serials):
        raise InvalidInputError(f"Give 1 to {MAX_SERIALS} serial numbers, each once.", field="serials")
    for serial in asked.serials:
        check_serial(serial)
    if not 0 <= asked.invalidity_time <= asked.now:
        raise InvalidInputError(
            "The invalidity time is in the future or before 1970.", field="invalidity_time"
        )


def _policy_request(pair: PairRecord, found: SerialRecord, asked: _Asked) -> RevocationRequest:
    return RevocationRequest(
        requester=asked.caller,
        profile=pair.profile,
        common_name=pair.common_name,
        email=pair.email,
        change=asked.change.name.lower(),
        reason="" if asked.change is Change.RELEASE else _REASON_NAMES[asked.reason],
        role="signing" if found.role == KeyRole.KEY_ROLE_SIGNING else "encryption",
        by_holder=asked.statement is not None,
    )


def _leaf(pair: PairRecord, found: SerialRecord, serial: bytes, asked: _Asked) -> LoggedEvent:
    certificate = pair.signing_certificate if serial == pair.signing_serial else pair.encryption_certificate
    event = AuditEvent(
        version=EVENT_VERSION,
        type=asked.change.value,
        time_us=asked.now_us,
        enrollment_id=found.enrollment_id,
        serials=[serial],
        certificate_sha256=[sha256(certificate).digest()],
    )
    details = AuditDetails(
        caller=asked.caller,
        common_name=pair.common_name,
        email=pair.email,
        profile=pair.profile,
        reason="" if asked.change is Change.RELEASE else RevocationReason.Name(asked.reason),
        invalidity_time=asked.invalidity_time,
        revocation_statement=asked.statement.SerializeToString() if asked.statement else b"",
    )
    return new_event(event, details)


def _change(txn: WriteTransaction, serial: bytes, asked: _Asked) -> bool:
    """Change one certificate; False where it is already as it should be."""
    found, pair = find_by_serial(txn, serial)
    present = revocation_of(pair, found.role)
    wanted = _judge(present, asked, expired=asked.now > pair.not_after)
    if wanted == present:
        return False
    changed = PairRecord()
    changed.CopyFrom(pair)
    name = revocation_field(found.role)
    changed.ClearField(name)
    if wanted is None:
        remove_entry(txn, serial, now=asked.now, generation=pair.issuer_generation)
    else:
        getattr(changed, name).CopyFrom(wanted)
        write_entry(
            txn,
            serial,
            expiry=pair.not_after,
            revocation=wanted,
            generation=pair.issuer_generation,
        )
    txn.put(PAIRS, found.enrollment_id, changed.SerializeToString())
    move_pair(txn, found.enrollment_id, before=pair, after=changed)
    return True


def _judge(present: Revocation | None, asked: _Asked, *, expired: bool) -> Revocation | None:
    """Return what the certificate should have from now on; raises where the change cannot be made."""
    final = present is not None and present.reason != HOLD
    if asked.change is Change.RELEASE:
        if present is None:
            raise NotOnHoldError("The certificate is not suspended, so it cannot be released.")
        if final:
            raise AlreadyRevokedError("The certificate is revoked permanently; submit a new request instead.")
        return None
    if present is not None and present.reason == asked.reason:
        return present
    if present is not None and final and asked.reason != COMPROMISE:
        raise AlreadyRevokedError(
            "The certificate is revoked for another reason; only the compromise of its key can still be recorded."
        )
    if expired:
        raise AlreadyExpiredError(
            "The certificate has expired, so revocation lists no longer name it; nothing was changed."
        )
    return Revocation(
        reason=asked.reason,
        # Since it was first put on a list it was not in force.
        revocation_time=present.revocation_time if present is not None else asked.now,
        invalidity_time=asked.invalidity_time,
    )
