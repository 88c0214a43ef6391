"""Which storage keys and agents of the archive RM and CM believe: first their operator's word, then a quorum's.

The configuration names the storage keys and agents of the beginning. From there on a change counts only with the
approvals of a quorum of the agents that are believed at that moment, each signed with the agent's own key and bound to
one opening of one ceremony: neither the archive alone nor one agent can direct new keys to friends.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError

from keyark.clock import Clock
from keyark.custody.agents import check_not_former
from keyark.custody.shares import MAX_AGENTS
from keyark.errors import KeyarkError
from keyark.errors.recovery import TrustChangeError
from keyark.identity.revoked import NOBODY_REVOKED, IdentityRevokedError, RevokedIdentities
from keyark.records.v1.trust_pb2 import ArchiveTrustRecord
from keyark.service.settings import ArchiveTrust, ServiceSettings
from keyark.statements.ceremonies import AgentTrust, CeremonyRequest, Opening, verify_decision, verify_request
from keyark.store import ReadTransaction, Store, WriteTransaction
from keyark.transparency.events import EVENT_VERSION, new_event, parse_leaf
from keyark.transparency.log import Log
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.opening_facts import change_id, facts_digest, parse_facts
from keyark.transparency.receipts import ProvenLeaf
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.v1.ceremony_pb2 import (
    CeremonyProof,
    CeremonyType,
    DecisionStatement,
    OpeningFacts,
    SignedStatement,
)
from keyark.workers.turns import Turns
from keyark.x509.certificates import load_certificates

TABLE: Final = "archive_trust"

LANE: Final = "trust changes"

_KEY: Final = b"archive"
_KEPT: Final = b"after "
_MAX_KEPT: Final = 10_000
_CHANGE: Final = CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS
_ROTATE: Final = CeremonyType.CEREMONY_TYPE_ROTATE_STORAGE_KEY


class _Change(NamedTuple):
    """What is believed after a change, if a quorum that counts now speaks for it; else why not."""

    record: ArchiveTrustRecord
    opened: AuditEvent
    request: CeremonyRequest
    refusal: KeyarkError | None


@dataclass(kw_only=True)
class StorageKeyTrust:
    """What one subsystem believes; ``configured`` holds until the first change is accepted, storage keys for good."""

    agent_trust: AgentTrust
    configured: ArchiveTrust
    store: Store
    log: Log
    clock: Clock
    turns: Turns = field(default_factory=Turns, repr=False)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    def __post_init__(self) -> None:
        domain = self.agent_trust.trust_domain
        self._take(self.store.read(lambda txn: read_trust(txn, self.configured, domain)))

    def _take(self, record: ArchiveTrustRecord) -> None:
        self._record = record
        self.storage_key_ids = self.configured.storage_key_ids | frozenset(record.storage_key_ids)

    @property
    def agents(self) -> frozenset[str]:
        """The SPIFFE IDs of the agents that are believed now."""
        return frozenset(self._record.agents)

    @property
    def newest_change(self) -> bytes:
        """The id of the newest change that was accepted, 32 bytes; empty before the first. The next one names it."""
        return self._record.newest_change

    async def accept_changes(
        self, changes: Sequence[CeremonyProof], prove: Callable[[bytes], ProvenLeaf]
    ) -> None:
        """Believe changes, in their order, each with its entry in the log; those accepted before are passed over.

        Each is verified in its turn with other work.

        ``prove`` verifies that a leaf is in the archive's log, as it is followed here. The agents' certificates have to
        be good now, when a change is first taken: what an expired key signs today can carry any date. A change whose
        approvers are not in force any more counts once a later one leads on from it that has a quorum's word: that
        quorum approved an opening which names all changes before it.
        Raises TrustChangeError, FormerShareKeyError and the errors of ``prove``, ``verify_request`` and
        ``verify_decision`` for the first that is not proven; those before it stand.
        """
        async with self._lock:
            assumed, refusal = self._record, None
            passed: list[ArchiveTrustRecord] = []
            for change in changes:
                (found,) = await self.turns.run(LANE, [partial(self._verify, change, prove, assumed)])
                if found is None:
                    assumed = assumed if refusal else self._record
                    continue
                assumed = found.record
                if found.refusal is None:
                    await self._write(found, passed)
                passed = [*passed, found.record] if found.refusal else []
                refusal = found.refusal and (refusal or found.refusal)
        if refusal is not None:
            raise refusal

    def _verify(
        self, change: CeremonyProof, prove: Callable[[bytes], ProvenLeaf], assumed: ArchiveTrustRecord
    ) -> _Change | None:
        """Return what a change makes of what is believed, or assumed until a quorum speaks for a later one.

        None where it was accepted before.
        """
        opened = parse_leaf(change.opening_leaf)
        request = verify_request(change.request, self._requesters, at=opened.time_us // 1_000_000)
        if request.digest in self._record.accepted:
            self._pass_over(change, request)
            return None
        self._check_opening(opened, request)
        facts = _facts(change, opened, assumed)
        if request.type == _ROTATE:
            _check_holders(facts, opened, assumed)
        check_not_former(request.agents, assumed.former_share_key_ids)
        refusal = self._refusal(change, request)
        # Last: a head can raise the alarm, and nobody's counts here without a quorum's word for what it proves.
        if refusal is None and prove(change.opening_proof).leaf != change.opening_leaf:
            raise TrustChangeError("The proof is not for the log entry that opened the ceremony.")
        return _Change(_changed(assumed, change, opened, facts, request), opened, request, refusal)

    @property
    def _requesters(self) -> AgentTrust:
        """Who may have asked: the quorum's word counts here, and whoever asked may have left since."""
        return replace(self.agent_trust, revoked=NOBODY_REVOKED)

    def _refusal(self, change: CeremonyProof, request: CeremonyRequest) -> KeyarkError | None:
        """Return why a change has no word that counts now; None where it has a quorum's."""
        try:
            verify_request(change.request, self._requesters, at=self._now())
            self._check_quorum(change, request)
        except KeyarkError as refusal:
            return refusal
        return None

    def _check_opening(self, opened: AuditEvent, request: CeremonyRequest) -> None:
        if request.type not in (_CHANGE, _ROTATE) or bool(opened.storage_key_id) != (request.type == _ROTATE):
            raise TrustChangeError("The ceremony changes neither storage keys nor agents.")
        if (opened.type, opened.ceremony_id, opened.ceremony_digest) != (
            EventType.EVENT_TYPE_CEREMONY_OPENED,
            request.ceremony_id,
            request.digest,
        ):
            raise TrustChangeError("The log entry that was sent is not the one that opened the ceremony.")

    def _pass_over(self, change: CeremonyProof, request: CeremonyRequest) -> None:
        """Take the id of the newest change that was accepted before changes named the ones before them."""
        if not self._record.newest_change and request.digest == self._record.accepted[-1]:
            record = ArchiveTrustRecord.FromString(self._record.SerializeToString())
            record.newest_change = change_id(change.opening_leaf)
            self._take(record)

    def _now(self) -> int:
        return self.clock.now_us() // 1_000_000

    def _check_quorum(self, change: CeremonyProof, request: CeremonyRequest) -> None:
        """Count distinct agents who are believed now, are not revoked, and approved this very opening."""
        if len(change.approvals) > MAX_AGENTS:
            raise TrustChangeError(f"A change has at most {MAX_AGENTS} approvals, one of each agent.")
        opening = Opening(digest=request.digest, leaf_hash=leaf_hash(change.opening_leaf))
        decisions = []
        for signed in _of_agents(self._record.agents, change.approvals):
            with contextlib.suppress(IdentityRevokedError):
                decisions.append(verify_decision(signed, opening, self.agent_trust, at=self._now()))
        approved = {str(decision.agent) for decision in decisions if decision.approves}
        if not self.configured.self_approval:
            approved.discard(str(request.requester))
        if len(approved & set(self._record.agents)) < self._record.quorum:
            raise TrustChangeError(
                f"Fewer than {self._record.quorum} of the agents that this service trusts (and that are not "
                "revoked) approved the change. If the agents changed before, send that change first."
            )

    async def _write(self, change: _Change, passed: Sequence[ArchiveTrustRecord]) -> None:
        """Believe a change, and with it those before it that were ``passed``, for want of approvers in force."""
        record, opened, request, _ = change
        event = AuditEvent(
            version=EVENT_VERSION,
            type=EventType.EVENT_TYPE_ARCHIVE_TRUST_CHANGED,
            time_us=self.clock.now_us(),
            storage_key_id=opened.storage_key_id,
            ceremony_id=request.ceremony_id,
            ceremony_digest=request.digest,
        )
        details = AuditDetails(caller=str(request.requester), message=_describe(record, self._record))
        leaf, before = new_event(event, details), self._record

        def write(txn: WriteTransaction) -> None:
            for kept in (before, *passed):
                _keep(txn, kept)
            txn.put(TABLE, _KEY, record.SerializeToString())
            self.log.append(txn, leaf)

        await self.store.update(write)
        self._take(record)


def _facts(change: CeremonyProof, opened: AuditEvent, assumed: ArchiveTrustRecord) -> OpeningFacts:
    """Return what a change's leaf binds; raises unless it leads on from the newest change that is assumed."""
    if facts_digest(change.opening_facts) != opened.opening_facts_sha256:
        raise TrustChangeError("The facts of the change that were sent do not match its log entry.")
    facts = parse_facts(change.opening_facts)
    if facts.newest_change != assumed.newest_change:
        raise TrustChangeError(
            "The change does not follow the newest one that this service has accepted; examine the "
            "archive's log."
        )
    return facts


def _check_holders(facts: OpeningFacts, opened: AuditEvent, assumed: ArchiveTrustRecord) -> None:
    """Raise unless the leaf says that the agents of now, and no others, hold the new storage key.

    Their share keys count too, once a change of agents said which these are.
    """
    new = facts.new_storage_key
    holders = {share.agent for share in new.shares}
    share_keys = {(share.agent, share.share_key_id) for share in new.shares}
    known = set(zip(assumed.agents, assumed.share_key_ids, strict=True)) if assumed.share_key_ids else None
    if (
        new.storage_key_id != opened.storage_key_id
        or holders != set(assumed.agents)
        or (known is not None and share_keys != known)
        or new.quorum != assumed.quorum
    ):
        raise TrustChangeError(
            "The new storage key is split among agents that this service does not trust; examine the "
            "archive's log."
        )


def _of_agents(agents: Collection[str], approvals: Iterable[SignedStatement]) -> list[SignedStatement]:
    """Return the approvals that name one of these agents, one of each: verifying takes time, and no others count."""
    found: dict[str, SignedStatement] = {}
    for signed in approvals:
        with contextlib.suppress(DecodeError):
            found.setdefault(DecisionStatement.FromString(signed.statement).agent, signed)
    return [signed for agent, signed in found.items() if agent in agents]


def _changed(
    assumed: ArchiveTrustRecord,
    change: CeremonyProof,
    opened: AuditEvent,
    facts: OpeningFacts,
    request: CeremonyRequest,
) -> ArchiveTrustRecord:
    """Return what is believed after a change."""
    record = ArchiveTrustRecord()
    record.CopyFrom(assumed)
    record.accepted.append(request.digest)
    record.newest_change = change_id(change.opening_leaf)
    if request.type == _ROTATE:
        record.storage_key_ids.append(opened.storage_key_id)
        return record
    record.agents[:] = [agent.agent for agent in request.agents]
    record.share_key_ids[:] = [sha256(agent.public_key).digest() for agent in request.agents]
    record.quorum = request.message.quorum
    held = {share.share_key_id for key in facts.storage_keys for share in key.shares}
    former = {*assumed.former_share_key_ids, *assumed.share_key_ids, *held} - set(record.share_key_ids)
    record.former_share_key_ids[:] = sorted(former)
    return record


def _describe(record: ArchiveTrustRecord, before: ArchiveTrustRecord) -> str:
    """Say who is believed from now on, and which storage keys besides those of before."""
    told = f"{record.quorum} of {', '.join(record.agents)}"
    if (passed := len(record.accepted) - len(before.accepted) - 1) > 0:
        new = [key_id.hex() for key_id in record.storage_key_ids[len(before.storage_key_ids) :]]
        told += f"; with {passed} earlier changes whose own approvers are not in force any more"
        told += f" and storage keys {', '.join(new)}" if new else ""
    return told


def read_trust(txn: ReadTransaction, configured: ArchiveTrust, trust_domain: str) -> ArchiveTrustRecord:
    """Return what is believed: of the newest change that was accepted, or of the configuration."""
    if (row := txn.get(TABLE, _KEY)) is not None:
        return ArchiveTrustRecord.FromString(row)
    return ArchiveTrustRecord(
        agents=[f"spiffe://{trust_domain}/{agent}" for agent in configured.agents], quorum=configured.quorum
    )


def read_kept(txn: ReadTransaction, change: bytes) -> ArchiveTrustRecord | None:
    """Return what was believed after a change (its id; empty: before the first), if another followed on it here."""
    row = txn.get(TABLE, _KEPT + change)
    return None if row is None else ArchiveTrustRecord.FromString(row)


def kept_changes(txn: ReadTransaction) -> list[bytes]:
    """Return the ids of the changes that ``read_kept`` knows."""
    rows = txn.scan(TABLE, prefix=_KEPT, limit=_MAX_KEPT)
    return [key.removeprefix(_KEPT) for key, _ in rows]


def go_back(txn: WriteTransaction, present: ArchiveTrustRecord, former: ArchiveTrustRecord) -> None:
    """Believe what was believed after an earlier change, on the word of an operator; the present is kept too.

    Share keys that later changes took out stay former ones, but for those that come into force again. Which those are
    is not known of the agents of the configuration, so with these nothing is remembered.
    """
    _keep(txn, present)
    record = ArchiveTrustRecord()
    record.CopyFrom(former)
    if record.share_key_ids:
        taken_out = {*former.former_share_key_ids, *present.former_share_key_ids} - {*former.share_key_ids}
        record.former_share_key_ids[:] = sorted(taken_out)
    txn.put(TABLE, _KEY, record.SerializeToString())


def _keep(txn: WriteTransaction, record: ArchiveTrustRecord) -> None:
    txn.put(TABLE, _KEPT + record.newest_change, record.SerializeToString())


def open_storage_key_trust(
    service: ServiceSettings,
    archive: ArchiveTrust,
    *,
    revoked: RevokedIdentities,
    store: Store,
    log: Log,
    clock: Clock,
    turns: Turns,
) -> StorageKeyTrust:
    """Go on from what the store says was accepted, or from the configuration."""
    anchors = load_certificates(service.trust_anchor)
    return StorageKeyTrust(
        agent_trust=AgentTrust(trust_domain=service.trust_domain, anchors=anchors, revoked=revoked),
        configured=archive,
        store=store,
        log=log,
        clock=clock,
        turns=turns,
    )
