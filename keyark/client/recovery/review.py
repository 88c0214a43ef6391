"""What an agent has to see of a ceremony before it decides, verified: nothing of it rests on the archive's word.

The request is the requester's own signed words, the leaf that opened it is in the log under a signed checkpoint, and
every key's owner is the one of its archival receipt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from keyark.client.access.home import Home
from keyark.client.administration.lists import check_owner
from keyark.client.recovery.decisions import Decisions, check_own_entry, verified_decisions
from keyark.client.trust.receipts import archive_verifier
from keyark.client.trust.verification import UnexpectedAnswerError
from keyark.client.trust.witnesses import FOLLOWERS, Unconfirmed, Witnesses
from keyark.errors import KeyarkError, Kind
from keyark.errors.recovery import CeremonyClosedError
from keyark.identity.spiffe import SpiffeId
from keyark.records.v1.drm_pb2 import SealedShare, SealSuite, SoftwareToken
from keyark.statements.ceremonies import (
    AgentTrust,
    CeremonyRequest,
    Opening,
    ceremony_digest,
    verify_request,
)
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.opening_facts import facts_digest, parse_facts, storage_key_facts
from keyark.transparency.receipts import ArchivalReceipt, ProvenEntry
from keyark.v1.audit_pb2 import EventType
from keyark.v1.ceremony_pb2 import CeremonyType, Decision, OpeningFacts, SignedStatement, StorageKeyFacts
from keyark.v1.recovery_pb2 import Ceremony, CeremonyKey, CeremonyState, StorageKey

_VERSION: Final = 1
RECOVER: Final = CeremonyType.CEREMONY_TYPE_RECOVER_KEYS
ROTATE: Final = CeremonyType.CEREMONY_TYPE_ROTATE_STORAGE_KEY
_CHANGE: Final = CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS
_ENDED: Final = (
    CeremonyState.CEREMONY_STATE_COMPLETED,
    CeremonyState.CEREMONY_STATE_REJECTED,
    CeremonyState.CEREMONY_STATE_CANCELED,
    CeremonyState.CEREMONY_STATE_EXPIRED,
    CeremonyState.CEREMONY_STATE_FAILED,
)
_ENDS: Final = (
    EventType.EVENT_TYPE_RECOVERY_CLOSED,
    EventType.EVENT_TYPE_CEREMONY_CLOSED,
    EventType.EVENT_TYPE_KEYS_DELIVERED,
)


class CeremonyMismatchError(KeyarkError):
    """What the archive shows of a ceremony does not fit together; do not approve it."""

    reason = "CEREMONY_MISMATCH"
    kind = Kind.PRECONDITION


class ChangePendingError(KeyarkError):
    """A change that this agent approved was neither carried out nor ended, as far as the archive shows."""

    reason = "CHANGE_PENDING"
    kind = Kind.PRECONDITION


@dataclass(frozen=True, kw_only=True)
class ReviewedCeremony:
    """A ceremony that was verified.

    ``owners`` are the receipts of the keys that it brings back, in their order; ``moves`` prove, for those that were
    sealed anew since, the storage key that they lie under now. ``facts`` are what the leaf that opened it binds,
    ``decisions`` the agents' own signed words, ``closed`` the entry that says how it ended. State, failure and progress
    in ``view`` are the archive's word. ``unconfirmed`` tells which of RM and CM did not confirm that all of it is in
    the log that they follow, and why.
    """

    view: Ceremony
    request: CeremonyRequest
    opening: Opening
    opened: ProvenEntry
    facts: OpeningFacts
    decisions: Decisions
    owners: Sequence[ArchivalReceipt]
    moves: Sequence[ProvenEntry | None]
    closed: ProvenEntry | None
    unconfirmed: Unconfirmed = field(default_factory=lambda: dict.fromkeys(FOLLOWERS, "It was not asked."))

    @property
    def sealed_under(self) -> list[bytes]:
        """The storage key of each key, according to the log."""
        pairs = zip(self.owners, self.moves, strict=True)
        return [(moved or owner).event.storage_key_id for owner, moved in pairs]

    @property
    def entries(self) -> list[ProvenEntry]:
        """Every log entry on which this result depends."""
        others = (entry for entry in (*self.moves, self.closed) if entry is not None)
        return [self.opened, *self.owners, *others, *self.decisions.entries.values()]

    @property
    def ceremony_id(self) -> bytes:
        """16 bytes."""
        return self.request.ceremony_id

    @property
    def state(self) -> CeremonyState.ValueType:
        """Where it stands."""
        return self.view.state

    def left_out(self, agent: SpiffeId) -> bool:
        """Whether the archive says that this change was carried out, and this agent is no longer an agent."""
        message, carried_out = self.request.message, self.state == CeremonyState.CEREMONY_STATE_COMPLETED
        agents = [key.agent for key in message.agents]
        return carried_out and message.type == _CHANGE and str(agent) not in agents

    def is_over(self, *, now: int) -> bool:
        """Whether it is over, at ``now`` (seconds UTC).

        Either its end is proven in the log that RM and CM follow, or it has expired and the archive says that
        it ended.
        """
        if self.closed is not None and not self.unconfirmed:
            return True
        return self.state in _ENDED and now >= self.opened.event.expires_time_us // 1_000_000


class CeremonyReview:
    """Verifies what the archive shows of ceremonies, against what a home pins."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.trust = AgentTrust(
            trust_domain=home.config.trust_domain, anchors=[home.trust_anchor], revoked=home.revoked
        )
        self.verifier = archive_verifier(home)

    def review(self, view: Ceremony) -> ReviewedCeremony:
        """Verify a ceremony as GetCeremony returns it.

        Raises CeremonyMismatchError, the errors of ``verify_request`` and those of ``ReceiptVerifier``.
        """
        opened = self.verifier.verify_entry(view.opening_proof)
        request = verify_request(view.request, self.trust, at=opened.event.time_us // 1_000_000)
        self._check_opening(view, request, opened)
        owners = [self.verifier.verify(key.receipt) for key in view.keys]
        if [owner.event.encryption_spki_sha256 for owner in owners] != list(request.message.key_ids):
            raise mismatch("shows receipts of keys that were not requested")
        moves = [self._move(key, owner) for key, owner in zip(view.keys, owners, strict=True)]
        for agent in request.agents:
            agent.verify(self._home.trust_anchor, at=opened.event.time_us // 1_000_000)
        opening = Opening(digest=request.digest, leaf_hash=leaf_hash(opened.leaf))
        facts = _facts(view, request, opened)
        return ReviewedCeremony(
            view=view,
            request=request,
            opening=opening,
            opened=opened,
            facts=facts,
            decisions=self._decisions(view, opening, facts, opened).proven(self._entries(view)),
            owners=owners,
            moves=moves,
            closed=self.ending(view.closing_proof, request.digest) if view.state in _ENDED else None,
        )

    def _entries(self, view: Ceremony) -> list[ProvenEntry]:
        """Return the entries that came with the decisions, as many as there are of these."""
        proofs = zip(view.decisions, view.decision_proofs, strict=False)
        return [self.verifier.verify_entry(proof) for _, proof in proofs if proof]

    def own_decision(
        self, proof: bytes, opening: Opening, *, agent: SpiffeId, decision: Decision.ValueType
    ) -> ProvenEntry:
        """Return the proven entry of what an agent decided; raises as ``check_own_entry`` and ``ReceiptVerifier``."""
        entry = self.verifier.verify_entry(proof)
        check_own_entry(entry, opening, self.trust, agent=agent, decision=decision)
        return entry

    def ending(self, proof: bytes, digest: bytes) -> ProvenEntry | None:
        """Return the entry that says that the ceremony of this digest is over; None where a proof is of something else.

        Raises the errors of ``ReceiptVerifier``.
        """
        entry = self.verifier.verify_entry(proof) if proof else None
        if entry is None or entry.event.type not in _ENDS or entry.event.ceremony_digest != digest:
            return None
        return entry

    def verify_closing(self, proof: bytes, ceremony_id: bytes, digest: bytes) -> ProvenEntry:
        """Return the entry that says that a change (id, request digest) ended without being carried out.

        Raises ChangePendingError where there is none, and the errors of ``ReceiptVerifier``.
        """
        closed = self.ending(proof, digest)
        if closed is not None and closed.event.type == EventType.EVENT_TYPE_CEREMONY_CLOSED:
            return closed
        raise ChangePendingError(
            f"You approved the change {ceremony_id.hex()}, and the archive proves neither that it was "
            "carried out nor that it ended. Wait until the other agents have approved it or its "
            "requester has canceled it. If they say that it was carried out, the archive hides it: "
            "approve nothing, and examine its log."
        )

    def _decisions(
        self, view: Ceremony, opening: Opening, facts: OpeningFacts, opened: ProvenEntry
    ) -> Decisions:
        try:
            return verified_decisions(
                view.decisions, opening, facts, self.trust, opened_us=opened.event.time_us
            )
        except KeyarkError as error:
            raise mismatch(f"shows a decision that no agent signed ({error.reason})") from None

    def _move(self, key: CeremonyKey, owner: ArchivalReceipt) -> ProvenEntry | None:
        """Return the entry that says where a key was sealed anew, if it was."""
        if not key.resealing_proof:
            return None
        moved = self.verifier.verify_entry(key.resealing_proof)
        ids = [(e.encryption_spki_sha256, e.enrollment_id) for e in (moved.event, owner.event)]
        if moved.event.type != EventType.EVENT_TYPE_KEY_RESEALED or ids[0] != ids[1]:
            raise mismatch("shows that a different key was sealed again")
        if moved.index <= owner.index or not moved.event.storage_key_id:
            raise mismatch("does not show under which storage key the key was sealed again")
        return moved

    def _check_opening(self, view: Ceremony, request: CeremonyRequest, opened: ProvenEntry) -> None:
        """Hold request, one-time key and new storage key against the leaf that all of them are bound to."""
        event, recovers = opened.event, request.type == RECOVER
        expected = EventType.EVENT_TYPE_RECOVERY_OPENED if recovers else EventType.EVENT_TYPE_CEREMONY_OPENED
        if event.type != expected or (event.ceremony_id, event.ceremony_digest) != (
            view.ceremony_id,
            request.digest,
        ):
            raise mismatch("does not match the log entry that opened it")
        told = opened.details
        if (told.caller, told.message) != (str(request.requester), request.message.reason):
            raise mismatch("has another requester or reason in the log that auditors see")
        key, recipient = view.share_recipient_key, event.share_recipient_sha256
        if key and sha256(key).digest() != recipient:
            raise mismatch("asks for shares sealed to a key that is not in the log")


def check_requested(opened: ReviewedCeremony, signed: SignedStatement, owner: str) -> None:
    """Raise UnexpectedAnswerError unless this was asked for, OwnerMismatchError where the keys are another person's."""
    if opened.request.digest != ceremony_digest(signed.statement):
        raise different_ceremony()
    if owner:
        check_owner(opened.owners, owner)


def different_ceremony() -> UnexpectedAnswerError:
    """Return the error for a ceremony of another id or another request."""
    return UnexpectedAnswerError("The archive showed a different ceremony than the one you named.")


async def confirmed(ceremony: ReviewedCeremony, witnesses: Witnesses) -> ReviewedCeremony:
    """Ask RM and CM whether the log entries of a ceremony are in the log that they follow.

    Raises as ``Witnesses.confirm_where_possible``.
    """
    heads = [entry.head for entry in ceremony.entries]
    return replace(ceremony, unconfirmed=await witnesses.confirm_where_possible(heads))


def _facts(view: Ceremony, request: CeremonyRequest, opened: ProvenEntry) -> OpeningFacts:
    """Return the facts that the leaf binds, once all that is shown of storage keys is what they say."""
    if facts_digest(view.opening_facts) != opened.event.opening_facts_sha256:
        raise mismatch("lacks the facts that its log entry binds, or shows different ones")
    facts = parse_facts(view.opening_facts)
    rotates = request.type == ROTATE
    if facts.HasField("new_storage_key") != rotates or (rotates and facts.storage_keys):
        raise mismatch("opens or makes storage keys that its type does not allow")
    if facts.new_storage_key.storage_key_id != opened.event.storage_key_id:
        raise mismatch("makes a storage key that is not in its log entry")
    if view.HasField("new_storage_key") and _shown(view.new_storage_key) != facts.new_storage_key:
        raise mismatch("shows a new storage key that is not in its log entry")
    if view.storage_keys and [_shown(key) for key in view.storage_keys] != list(facts.storage_keys):
        raise mismatch("shows storage keys that are not in its log entry")
    return facts


def _shown(key: StorageKey) -> StorageKeyFacts:
    if [share.index for share in key.shares] != list(range(1, len(key.shares) + 1)):
        raise mismatch("shows shares that are not numbered in order")
    return storage_key_facts(token_of(key))


def check_complete(ceremony: ReviewedCeremony) -> None:
    """Raise CeremonyMismatchError unless all is there that an approval needs, CeremonyClosedError where it is over."""
    view, facts = ceremony.view, ceremony.facts
    if view.state != CeremonyState.CEREMONY_STATE_OPEN:
        state = CeremonyState.Name(view.state).removeprefix("CEREMONY_STATE_")
        raise CeremonyClosedError(f"The ceremony is {state}, so it can no longer be approved.")
    if len(view.storage_keys) != len(facts.storage_keys) or not view.share_recipient_key:
        raise mismatch("lacks a storage key that its log entry says it opens, or the key to seal shares to")
    if view.HasField("new_storage_key") != facts.HasField("new_storage_key"):
        raise mismatch("lacks the new storage key that its log entry says it makes")


def token_of(storage_key: StorageKey) -> SoftwareToken:
    """Return the part of a token that an agent opens its own share with; there is no sealed key in it."""
    return SoftwareToken(
        version=_VERSION,
        generation=storage_key.generation,
        pin_epoch=storage_key.pin_epoch,
        public_key=storage_key.public_key,
        quorum=storage_key.quorum,
        shares=[
            SealedShare(
                index=share.index,
                agent=share.holder.agent,
                share_public_key=share.holder.share_public_key,
                share_key_signature=share.holder.signature,
                agent_certificate=share.holder.certificate,
                suite=SealSuite.SEAL_SUITE_HPKE_MLKEM768_X25519_SHA256_AES256GCM,
                ciphertext=share.ciphertext,
                commitment=share.commitment,
            )
            for share in storage_key.shares
        ],
    )


def mismatch(how: str) -> CeremonyMismatchError:
    """Return the error for a ceremony that must not be approved: "The ceremony <how>"."""
    return CeremonyMismatchError(f"The ceremony {how}. Do not approve it, and examine the archive's log.")
