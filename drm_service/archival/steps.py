"""Step 4, archive: prove that each private key matches, store it sealed, answer with archival receipts.

A batch goes through the steps together: one trip to the workers, one durable commit, one signature. An item
that fails drops out alone, with its own typed error. What was archived before gets its first receipt again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from drm_service.archival import refused_pairs
from drm_service.keys.search import index_archived
from drm_service.keys.storage_keys import StorageKeys
from drm_service.records import append_sealed_key, put_row, read_record, read_row
from drm_service.transport.restored import refusal
from keyark.clock import Clock
from keyark.custody.matching import KeyMismatchError, match_proof_name
from keyark.errors import InvalidInputError, KeyarkError, UnavailableError
from keyark.keys.known_keys import NO_KNOWN_KEYS, KnownKeys
from keyark.policy.engine import PolicyEngine
from keyark.policy.requests import Archival, PolicyRequest, Receipt
from keyark.records.v1.drm_pb2 import ArchivedKeyRecord, ArchiveResult, ArchiveTask, SealedKey
from keyark.service.checks.callers import CallerChecks, CallerSignature
from keyark.service.checks.key_uses import (
    KeyClaim,
    Possession,
    check_key_uses,
    claim_key_uses,
    reserve_signing_keys,
)
from keyark.service.checks.leaves import enrollment_leaf
from keyark.service.checks.policy_requests import policy_request
from keyark.service.checks.requests import SentStatement, accept_statement, check_same_statement
from keyark.service.failures import unpack_failure
from keyark.statements.enrollment import Statement
from keyark.store import ReadTransaction, Store, WriteTransaction
from keyark.transparency.log import LeafRef, Log
from keyark.v1.audit_pb2 import AuditEvent, CheckpointLink, EventType, LoggedEvent
from keyark.workers.turns import Turns

STAGE: Final = "archive"


class KeyWorkers(Protocol):
    """Where private keys are opened, proven to match and sealed: it returns ciphertext only."""

    async def run(self, items: Sequence[bytes]) -> Sequence[bytes | KeyarkError]:
        """Turn each serialized ArchiveTask into a serialized ArchiveResult."""


@dataclass(frozen=True, kw_only=True)
class ArchiveRequest(SentStatement):
    """One key to archive: a statement with its transport envelope, serialized."""

    wrapped_private_key: bytes


@dataclass(frozen=True, kw_only=True)
class SigningKeyRequest(SentStatement):
    """The statement of an enrollment that archives nothing."""


@dataclass(frozen=True, kw_only=True)
class ArchiveBatch:
    """What a batch came to: a receipt or a typed error per item, and the link to the receipts' tree."""

    outcomes: list[bytes | KeyarkError]
    link: CheckpointLink | None


@dataclass(frozen=True, kw_only=True)
class _Accepted:
    """A request that may be archived, and the leaf that will say so."""

    request: ArchiveRequest
    claim: KeyClaim
    event: LoggedEvent
    time_us: int

    @property
    def statement(self) -> Statement:
        """What the caller asks for."""
        return self.claim.statement


@dataclass(frozen=True, kw_only=True)
class _Sealed:
    """A key proven to match, sealed under the storage key and bound to its leaf."""

    accepted: _Accepted
    sealed_key: SealedKey


@dataclass(frozen=True, kw_only=True)
class _Mismatched:
    """A request whose private key is not the one of its public keys."""

    accepted: _Accepted
    error: KeyMismatchError
    event: LoggedEvent


@dataclass(frozen=True, kw_only=True)
class _Archived:
    """A durable record's leaf and where it stands in the log."""

    event: LoggedEvent
    place: LeafRef


@dataclass(frozen=True, kw_only=True)
class _Overtaken:
    """A request that another one of the same id was quicker than, perhaps in the same commit group."""

    statement: Statement


@dataclass(frozen=True, kw_only=True)
class KeyArchive:
    """Archives keys under the newest storage key, of callers who signed for them unless their profile waives that."""

    trust_domain: str
    storage_keys: StorageKeys
    store: Store
    log: Log
    policy: PolicyEngine
    clock: Clock
    callers: CallerChecks
    waived_profiles: frozenset[str]
    pool: KeyWorkers = field(repr=False)
    known_keys: KnownKeys = NO_KNOWN_KEYS
    turns: Turns = field(default_factory=Turns, repr=False)

    async def archive_keys(self, requests: Sequence[ArchiveRequest], *, known_tree_size: int) -> ArchiveBatch:
        """Archive a batch; outcomes stand in the order of the requests.

        ``known_tree_size`` is the size of the tree that the caller accepted last; the link leads from it. An archive
        that came from a backup gives no receipts, of earlier keys neither: each is an ArchiveRestoredError.
        """
        accept = [partial(self.accept_request, request) for request in requests]
        accepted = await self.turns.run(STAGE, accept)
        if (restored := self.store.read(refusal)) is not None:
            refused = [item if isinstance(item, KeyarkError) else restored for item in accepted]
            return ArchiveBatch(outcomes=[*refused], link=None)
        sealed = await self.prove_and_seal(accepted)
        recorded = await self.store.update(lambda txn: [self.record_key(txn, item) for item in sealed])
        return await self.give_receipts([self._placed(item) for item in recorded], known_tree_size)

    async def reserve_signing_keys(self, requests: Sequence[SigningKeyRequest]) -> list[KeyarkError | None]:
        """Keep the signing keys of enrollments that archive nothing out of the archive, durably (P8).

        An encryption key that is archived for another enrollment is refused (P5). Outcomes stand in the order of the
        requests; None for a key that signs from now on, or did before.
        """
        accept = [partial(self._accept_statement, request) for request in requests]
        claims = await self.turns.run("reserve", accept)

        def reserve(txn: WriteTransaction) -> list[KeyarkError | None]:
            return [_reserve(txn, claim) for claim in claims]

        return await self.store.update(reserve)

    def _accept_statement(self, request: SigningKeyRequest) -> KeyClaim | KeyarkError:
        try:
            return self._accept_sent(request, encryption_key=Possession.ASSERTED)
        except KeyarkError as error:
            return error

    def _accept_sent(self, request: SentStatement, *, encryption_key: Possession) -> KeyClaim:
        """Return what is claimed once it is in order and its caller's own word, or its profile waives that."""
        statement = accept_statement(
            request.statement,
            request.signature,
            self.trust_domain,
            known_keys=self.known_keys,
            sender=request.sender,
        )
        waived = statement.profile in self.waived_profiles
        rule = CallerSignature.WAIVED if waived else CallerSignature.REQUIRED
        signers = self.callers.check(statement, request, rule=rule)
        return KeyClaim(statement=statement, encryption_key=encryption_key, signers=signers)

    def accept_request(self, request: ArchiveRequest) -> _Accepted | _Archived | KeyarkError:
        """Verify the statement, find an earlier outcome, apply policy, and write the leaf to be."""
        try:
            claim = self._accept_sent(request, encryption_key=Possession.PROVEN)  # before anything is stored
            statement = claim.statement
            if not request.wrapped_private_key:
                raise InvalidInputError(
                    "The request has no wrapped private key; send one.", field="wrapped_private_key"
                )
            _ = statement.archived_key_type  # a statement without one is refused here
            record = self.store.read(lambda txn: self._find_earlier(txn, claim))
            if record is not None:
                return _earlier(statement, record)
            self.policy.enforce(STAGE, _policy_request(statement))
        except KeyarkError as error:
            return error
        now = self.clock.now_us()
        event = self._leaf(statement, now)
        return _Accepted(request=request, claim=claim, event=event, time_us=now)

    @staticmethod
    def _find_earlier(txn: ReadTransaction, claim: KeyClaim) -> ArchivedKeyRecord | None:
        """Return what was archived for this enrollment; where nothing was, its keys must be nobody else's."""
        record = read_record(txn, claim.statement.enrollment_id)
        if record is None:
            refused_pairs.check_not_refused(txn, claim.statement)
            check_key_uses(txn, claim)
        return record

    def _leaf(self, statement: Statement, time_us: int) -> LoggedEvent:
        return enrollment_leaf(
            EventType.EVENT_TYPE_KEY_ARCHIVED,
            statement,
            time_us=time_us,
            match_proof=match_proof_name(statement.archived_key_type),
            storage_key_id=self.storage_keys.active_id,
        )

    async def prove_and_seal(
        self, items: Sequence[_Accepted | _Archived | KeyarkError]
    ) -> list[_Sealed | _Mismatched | _Archived | KeyarkError]:
        """Let the workers open each envelope, prove the match, and seal under the storage key."""
        waiting = [item for item in items if isinstance(item, _Accepted)]
        results = iter(await self.pool.run([_task(item) for item in waiting]) if waiting else ())
        return [_sealed(item, next(results)) if isinstance(item, _Accepted) else item for item in items]

    def record_key(
        self, txn: WriteTransaction, item: _Sealed | _Mismatched | _Archived | KeyarkError
    ) -> _Archived | _Overtaken | KeyarkError:
        """Write row, key uses and leaf of one sealed key; nothing is written where a check fails.

        Public keys whose private half did not match are refused for good.
        """
        if isinstance(item, _Mismatched):
            refused_pairs.refuse_for_good(txn, item.accepted.statement, time_us=item.accepted.time_us)
            self.log.append(txn, item.event)
            return item.error
        if not isinstance(item, _Sealed):
            return item
        statement, event = item.accepted.statement, item.accepted.event
        try:
            if read_row(txn, statement.enrollment_id) is not None:
                return _Overtaken(statement=statement)
            claim_key_uses(txn, item.accepted.claim)
        except KeyarkError as error:
            return error
        record = ArchivedKeyRecord(
            statement=statement.raw,
            signature=item.accepted.request.signature,
            sealed_key=item.sealed_key,
        )
        put_row(txn, statement.enrollment_id, record)
        index_archived(txn, statement, time_us=item.accepted.time_us)
        place = self.log.append(txn, event, on_index=partial(_put_in_place, record, statement.enrollment_id))
        return _Archived(event=event, place=place)

    def _placed(self, item: _Archived | _Overtaken | KeyarkError) -> _Archived | KeyarkError:
        """Find what overtook a request, now that its place in the log is committed."""
        if not isinstance(item, _Overtaken):
            return item
        try:
            record = self.store.read(lambda txn: read_record(txn, item.statement.enrollment_id))
            if record is None:
                raise UnavailableError("The archive is still working on the same request; try again.")
            return _earlier(item.statement, record)
        except KeyarkError as error:
            return error

    async def give_receipts(
        self, items: Sequence[_Archived | KeyarkError], known_tree_size: int
    ) -> ArchiveBatch:
        """Answer every archived key with an inclusion proof under one checkpoint signature."""
        archived = [item for item in items if isinstance(item, _Archived)]
        if not archived:
            return ArchiveBatch(outcomes=[item for item in items if isinstance(item, KeyarkError)], link=None)
        head = await self.log.checkpoint(covering=max(item.place.index for item in archived))
        outcomes: list[bytes | KeyarkError] = []
        for item in items:
            if isinstance(item, KeyarkError):
                outcomes.append(item)
                continue
            outcomes.append(self.log.prove(item.event, item.place.index, head))
        return ArchiveBatch(outcomes=outcomes, link=self.log.link(known_tree_size, head))


def _reserve(txn: WriteTransaction, claim: KeyClaim | KeyarkError) -> KeyarkError | None:
    if isinstance(claim, KeyarkError):
        return claim
    try:
        reserve_signing_keys(txn, claim)
    except KeyarkError as error:
        return error
    return None


def _earlier(statement: Statement, record: ArchivedKeyRecord) -> _Archived:
    event = AuditEvent.FromString(record.leaf)
    check_same_statement(statement, event.statement_sha256)
    logged = LoggedEvent(leaf=record.leaf, salt=record.salt, details=record.details)
    return _Archived(event=logged, place=LeafRef(index=record.log_index))


def _policy_request(statement: Statement) -> PolicyRequest:
    return policy_request(statement, archival=Archival.REQUESTED, receipt=Receipt.ABSENT)


def _task(item: _Accepted) -> bytes:
    return ArchiveTask(
        wrapped_private_key=item.request.wrapped_private_key,
        statement_sha256=item.statement.sha256,
        encryption_spki=item.statement.encryption_spki,
        leaf=item.event.leaf,
        storage_key_id=AuditEvent.FromString(item.event.leaf).storage_key_id,
    ).SerializeToString()


def _sealed(item: _Accepted, result: bytes | KeyarkError) -> _Sealed | _Mismatched | KeyarkError:
    if isinstance(result, KeyarkError):
        return result
    outcome = ArchiveResult.FromString(result)
    if outcome.HasField("failure"):
        error = unpack_failure(outcome.failure)
        if not isinstance(error, KeyMismatchError):
            return error
        refused = EventType.EVENT_TYPE_KEY_PAIR_REFUSED
        event = enrollment_leaf(refused, item.statement, time_us=item.time_us, refused=error)
        return _Mismatched(accepted=item, error=error, event=event)
    return _Sealed(accepted=item, sealed_key=outcome.sealed_key)


def _put_in_place(record: ArchivedKeyRecord, enrollment_id: bytes, txn: WriteTransaction, index: int) -> None:
    """Complete the rows with the place of their leaf, which is known once the commit group is."""
    record.log_index = index
    put_row(txn, enrollment_id, record)
    append_sealed_key(txn, index, record.sealed_key)
