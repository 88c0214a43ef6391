"""Step 5, issue: both certificates of an enrollment, or neither.

The order is the one that survives a crash at every point: verify, apply policy, take both serial numbers from a
block that is durably reserved, sign, compare, commit both. What was signed and not committed leaves this process for
nobody, and its serial numbers are burned. The RM is not trusted for anything: statement and archival receipt are
verified here again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Final, Protocol

from cm_service.certificates.index import index_pair
from cm_service.issuance.approved import apply_approval
from cm_service.issuance.pairs import new_record, serials_of, signing_task
from cm_service.issuance.policy import Judged, apply_policy, judge_again
from cm_service.issuance.refusals import ArchivedRequest, Refused, check_not_refused, refuse_for_good
from cm_service.issuance.renewals import check_renewal, record_renewal
from cm_service.issuance.serial_blocks import SerialBlocks, SerialPair
from cm_service.issuance.signing_worker import check_signed
from cm_service.issuer.profiles import ProfileSettings
from cm_service.records import PAIRS, SERIALS, is_issued, read_pair, roles_of
from keyark.clock import SECONDS_PER_DAY, Clock
from keyark.errors import KeyarkError, PolicyRejectedError
from keyark.errors.enrollment import UnknownProfileError
from keyark.errors.services import SigningMismatchError
from keyark.keys.known_keys import NO_KNOWN_KEYS, KnownKeys
from keyark.policy.engine import PolicyEngine
from keyark.policy.requests import PolicyRequest
from keyark.records.v1.cm_pb2 import PairRecord, SerialRecord, SignPairResult
from keyark.service.checks.callers import CallerChecks
from keyark.service.checks.evidence import ReceiptChecks
from keyark.service.checks.key_uses import (
    ClaimsUnderWay,
    KeyClaim,
    Possession,
    TakenKeys,
    check_key_uses,
    claim_key_uses,
)
from keyark.service.checks.leaves import enrollment_leaf
from keyark.service.checks.requests import SentStatement, accept_statement, check_same_statement
from keyark.statements.approvals import Approval
from keyark.statements.enrollment import Statement
from keyark.store import ReadTransaction, Store, WriteTransaction
from keyark.transparency.archival import ArchiveEvidence
from keyark.transparency.log import Log
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.receipts import ArchivalReceipt
from keyark.v1.audit_pb2 import EventType, LoggedEvent
from keyark.v1.common_pb2 import CertificatePair
from keyark.workers.turns import Turns
from keyark.x509.certificates import Validity

STAGE: Final = "issue"


class SigningWorkers(Protocol):
    """Where the CA key is."""

    async def run(self, items: Sequence[bytes]) -> Sequence[bytes | KeyarkError]:
        """Turn each serialized SignPairTask into a serialized SignPairResult."""


@dataclass(frozen=True, kw_only=True)
class PairRequest(SentStatement):
    """A statement with its archival receipt, which is empty without archival."""

    receipt: bytes


@dataclass(frozen=True, kw_only=True)
class _Accepted:
    """A request that may be issued, as an officer approved it; ``archived`` is None without archival.

    ``to_judge_again`` is what policy saw, where its verdict depends on what else is issued meanwhile.
    """

    statement: Statement
    claim: KeyClaim
    archived: ArchivedRequest | None
    approval: Approval | None
    to_judge_again: PolicyRequest | None


@dataclass(frozen=True, kw_only=True)
class _Claimed:
    """A request whose keys nobody else gets to sign with, or to have archived, while it is carried out."""

    accepted: _Accepted
    keys: TakenKeys


@dataclass(frozen=True, kw_only=True)
class _Reserved:
    """A request with its serial numbers: the record as it will be, certificates missing."""

    accepted: _Accepted
    record: PairRecord


@dataclass(frozen=True, kw_only=True)
class _Signed:
    """Both certificates of a request, and the leaf that will say so; nothing of it is durable yet."""

    accepted: _Accepted
    record: PairRecord
    event: LoggedEvent


@dataclass(frozen=True, kw_only=True)
class Issuance:
    """Issues pairs under one CA key; ``chain`` is its certificate and those above it, DER, of earlier keys as well."""

    trust_domain: str
    chain: Sequence[bytes]
    issuer_validity: Validity
    issuer_key_type: str
    profiles: dict[str, ProfileSettings]
    store: Store
    log: Log
    policy: PolicyEngine
    clock: Clock
    receipts: ReceiptChecks
    callers: CallerChecks
    pool: SigningWorkers = field(repr=False)
    serials: SerialBlocks
    claims: ClaimsUnderWay = field(default_factory=ClaimsUnderWay, repr=False)
    crl_shards: int = 1
    known_keys: KnownKeys = NO_KNOWN_KEYS
    generation: int = 0
    chains: Mapping[int, Sequence[bytes]] = field(default_factory=dict)
    turns: Turns = field(default_factory=Turns, repr=False)

    async def issue_pairs(
        self, requests: Sequence[PairRequest], evidence: ArchiveEvidence
    ) -> list[CertificatePair | KeyarkError]:
        """Issue a batch; outcomes stand in the order of the requests.

        Raises CheckpointGapError and LogInconsistentError, which concern the whole batch; every other error
        is the outcome of its item.
        """
        receipts = await self.receipts.verify_receipts([request.receipt for request in requests], evidence)
        accept = [partial(self.accept_request, *pair) for pair in zip(requests, receipts, strict=True)]
        judged = await self.turns.run(STAGE, accept)
        claimed = self.claim_keys(await self.refuse_archived(judged))
        try:
            reserved = await self.reserveserials_of(claimed)
            signed = await self.sign_pairs(reserved)
            return await self.commit_pairs(signed)
        finally:
            for item in claimed:
                if isinstance(item, _Claimed):
                    self.claims.give_up(item.keys)

    def accept_request(
        self, request: PairRequest, receipt: ArchivalReceipt | KeyarkError | None
    ) -> _Accepted | Refused | CertificatePair | KeyarkError:
        """Verify the statement, hold the receipt against it, apply profile and policy; or find the earlier pair."""
        try:
            statement = accept_statement(
                request.statement,
                request.signature,
                self.trust_domain,
                known_keys=self.known_keys,
                sender=request.sender,
            )
            profile = self._profile(statement.profile)
            signers = self.callers.check(statement, request, rule=profile.caller_signature)
            pair = self.store.read(lambda txn: read_pair(txn, statement.enrollment_id))
            if pair is not None:
                check_same_statement(statement, pair.statement_sha256)
                if is_issued(pair):
                    return self._pair(pair)
            self.store.read(lambda txn: check_not_refused(txn, statement))
            shown = Possession.shown_by(request.receipt)
            claim = KeyClaim(statement=statement, encryption_key=shown, signers=signers)
            self.store.read(lambda txn: check_key_uses(txn, claim))
            profile.check(statement, receipt=request.receipt)
            if isinstance(receipt, KeyarkError):
                return receipt
            archived = None
            if receipt is not None:
                self.receipts.check(receipt, statement)
                archived = ArchivedRequest(claim=claim, receipt=receipt, time_us=self.clock.now_us())
            approval, statement = apply_approval(request.approval, statement, self.receipts)
            now = self.clock.now_us() // 1_000_000
            renewed = self.store.read(lambda txn: check_renewal(txn, statement, now))
            judged = Judged(
                statement=statement,
                validity=self._validity(profile, approval),
                approval=approval,
                has_receipt=archived is not None,
                renewed=renewed,
            )
            try:
                asked = judged.request(now=now, issuer_key_type=self.issuer_key_type)
                to_judge_again = apply_policy(self.policy, judged, asked, self.store.read)
            except PolicyRejectedError as error:
                return error if archived is None else Refused(archived=archived, error=error)
        except KeyarkError as error:
            return error
        return _Accepted(
            statement=statement,
            claim=claim,
            archived=archived,
            approval=approval,
            to_judge_again=to_judge_again,
        )

    async def refuse_archived(
        self, items: Sequence[_Accepted | Refused | CertificatePair | KeyarkError]
    ) -> list[_Accepted | CertificatePair | KeyarkError]:
        """Refuse for good, durably, what policy rejects although its key is archived."""
        refused = [item for item in items if isinstance(item, Refused)]

        def write(txn: WriteTransaction) -> None:
            for item in refused:
                refuse_for_good(txn, self.log, item.archived, item.error)

        if refused:
            await self.store.update(write)
        return [item.error if isinstance(item, Refused) else item for item in items]

    def _profile(self, name: str) -> ProfileSettings:
        if name not in self.profiles:
            raise UnknownProfileError(
                f"There is no profile {name!r}. These exist: {', '.join(sorted(self.profiles))}."
            )
        return self.profiles[name]

    def _validity(self, profile: ProfileSettings, approval: Approval | None) -> Validity:
        """As the officer said or else the profile; backdated for slow clocks, inside the issuing CA's own validity."""
        days = (approval.edits.validity_days if approval else 0) or profile.validity_days
        return Validity.starting(
            self.clock.now_us() // 1_000_000,
            lifetime_seconds=days * SECONDS_PER_DAY,
            backdate_seconds=profile.backdate_seconds,
            within=self.issuer_validity,
        )

    def claim_keys(
        self, items: Sequence[_Accepted | CertificatePair | KeyarkError]
    ) -> list[_Claimed | CertificatePair | KeyarkError]:
        """Take the keys of every request, before anything is signed; they are recorded with its certificates."""
        # P8: a key that a receipt says is archived has its role before another request gets to sign with it
        order = sorted(range(len(items)), key=lambda i: not _is_archived(items[i]))
        outcomes = self.store.read(lambda txn: {i: self._claim(txn, items[i]) for i in order})
        return [outcomes[i] for i in range(len(items))]

    def _claim(
        self, txn: ReadTransaction, item: _Accepted | CertificatePair | KeyarkError
    ) -> _Claimed | CertificatePair | KeyarkError:
        if not isinstance(item, _Accepted):
            return item
        try:
            return _Claimed(accepted=item, keys=self.claims.claim(txn, item.claim))
        except KeyarkError as error:
            return error

    async def reserveserials_of(
        self, items: Sequence[_Claimed | CertificatePair | KeyarkError]
    ) -> list[_Reserved | CertificatePair | KeyarkError]:
        """Give every request serial numbers that are durably reserved."""
        pairs = iter(await self.serials.take(sum(isinstance(item, _Claimed) for item in items)))
        return [
            self._reserved(item.accepted, next(pairs)) if isinstance(item, _Claimed) else item
            for item in items
        ]

    def _reserved(self, accepted: _Accepted, serials: SerialPair) -> _Reserved:
        statement = accepted.statement
        validity = self._validity(self._profile(statement.profile), accepted.approval)
        record = new_record(statement, serials, validity, generation=self.generation)
        return _Reserved(accepted=accepted, record=record)

    async def sign_pairs(
        self, items: Sequence[_Reserved | CertificatePair | KeyarkError]
    ) -> list[_Signed | CertificatePair | KeyarkError]:
        """Let the workers sign both certificates of every reservation."""
        waiting = [item for item in items if isinstance(item, _Reserved)]
        tasks = [
            signing_task(item.record, item.accepted.statement, crl_shards=self.crl_shards) for item in waiting
        ]
        results = iter(await self.pool.run(tasks) if tasks else ())
        return [self._compare(item, next(results)) if isinstance(item, _Reserved) else item for item in items]

    def _compare(self, item: _Reserved, result: bytes | KeyarkError) -> _Signed | KeyarkError:
        """Check that each certificate holds the serial number and the public key that were asked for."""
        if isinstance(result, KeyarkError):
            return result
        statement, signed = item.accepted.statement, SignPairResult.FromString(result)
        try:
            check_signed(signed, item.record, statement)
        except SigningMismatchError as error:
            return error
        record = PairRecord()
        record.CopyFrom(item.record)
        record.signing_certificate = signed.signing_certificate
        record.encryption_certificate = signed.encryption_certificate
        return _Signed(accepted=item.accepted, record=record, event=self._leaf(item.accepted, record))

    def _leaf(self, accepted: _Accepted, record: PairRecord) -> LoggedEvent:
        return enrollment_leaf(
            EventType.EVENT_TYPE_PAIR_ISSUED,
            accepted.statement,
            time_us=self.clock.now_us(),
            serials=serials_of(record),
            certificate_sha256=[
                sha256(certificate).digest()
                for certificate in (record.signing_certificate, record.encryption_certificate)
                if certificate
            ],
            receipt_leaf_hash=leaf_hash(accepted.archived.receipt.leaf) if accepted.archived else b"",
            approval=accepted.approval.signed if accepted.approval else None,
        )

    async def commit_pairs(
        self, items: Sequence[_Signed | CertificatePair | KeyarkError]
    ) -> list[CertificatePair | KeyarkError]:
        """Make every signed pair durable, both certificates in one row, in one transaction."""

        def commit(txn: WriteTransaction) -> list[CertificatePair | KeyarkError]:
            self.receipts.record(txn)
            return [self._commit(txn, item) if isinstance(item, _Signed) else item for item in items]

        if not any(isinstance(item, _Signed) for item in items):
            return [item for item in items if not isinstance(item, _Signed)]
        return await self.store.update(commit)

    def _commit(self, txn: WriteTransaction, item: _Signed) -> CertificatePair | KeyarkError:
        """Write the pair; where another call for the same enrollment was quicker, its pair is the outcome."""
        enrollment_id = item.accepted.statement.enrollment_id
        earlier = read_pair(txn, enrollment_id)
        if earlier is not None and is_issued(earlier):
            return self._pair(earlier)
        statement, again = item.accepted.statement, item.accepted.to_judge_again
        try:
            check_not_refused(txn, statement)
            claim_key_uses(txn, item.accepted.claim)
            if again is not None:
                judge_again(self.policy, txn, again, statement)
            renewed = check_renewal(txn, statement, self.clock.now_us() // 1_000_000)
        except PolicyRejectedError as error:
            if item.accepted.archived is not None:
                refuse_for_good(txn, self.log, item.accepted.archived, error)
            return error
        except KeyarkError as error:
            return error
        if renewed is not None:
            item.record.renews = renewed.enrollment_id
            record_renewal(txn, renewed, by=enrollment_id)
        for serial, role in zip(serials_of(item.record), roles_of(item.record), strict=True):
            row = SerialRecord(enrollment_id=enrollment_id, role=role)
            txn.insert(SERIALS, serial, row.SerializeToString())
        txn.put(PAIRS, enrollment_id, item.record.SerializeToString())
        index_pair(txn, enrollment_id, item.record)
        self.log.append(txn, item.event)
        return self._pair(item.record)

    def _pair(self, record: PairRecord) -> CertificatePair:
        return CertificatePair(
            signing_certificate=record.signing_certificate,
            encryption_certificate=record.encryption_certificate,
            chain=self.chains.get(record.issuer_generation, self.chain),
        )


def _is_archived(item: _Accepted | CertificatePair | KeyarkError) -> bool:
    return isinstance(item, _Accepted) and item.archived is not None
