"""Who decided on a ceremony, in the agents' own signed words: none of it rests on the archive's.

The archive can withhold a decision. It can neither make one up, nor count one twice, nor one for another ceremony. And
each one has a leaf in the log: an agent's client demands its own, and readers are told which are not shown to have one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final, TypeVar

from google.protobuf.message import DecodeError

from keyark.errors import KeyarkError, Kind
from keyark.identity.revoked import IdentityRevokedError
from keyark.identity.spiffe import SpiffeId
from keyark.statements.ceremonies import (
    AgentDecision,
    AgentTrust,
    DecisionMismatchError,
    Opening,
    verify_decision,
)
from keyark.transparency.receipts import ProvenEntry
from keyark.v1.audit_pb2 import EventType
from keyark.v1.ceremony_pb2 import Decision, DecisionStatement, OpeningFacts, SignedStatement, StorageKeyFacts

CLOCK_US: Final = 180 * 1_000_000
"""How far the clocks of agents and archive may be apart, microseconds."""


_APPROVED: Final = (EventType.EVENT_TYPE_RECOVERY_APPROVED, EventType.EVENT_TYPE_CEREMONY_APPROVED)
_REJECTED: Final = (EventType.EVENT_TYPE_RECOVERY_REJECTED, EventType.EVENT_TYPE_CEREMONY_REJECTED)
_T = TypeVar("_T")
_WORDS: Final = {
    Decision.DECISION_APPROVE: ("approval", "Your share has left this machine."),
    Decision.DECISION_REJECT: ("rejection", "It may not count."),
}


class DecisionNotLoggedError(KeyarkError):
    """The archive took an agent's decision, and does not prove that it is in the log that everybody sees."""

    reason = "DECISION_NOT_LOGGED"
    kind = Kind.PRECONDITION


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """The decisions that verify, as they came, and how many words of agents that were revoked since do not count.

    ``entries`` are the leaves of those that the archive proved to be in the log, by agent (SPIFFE ID).
    """

    made: Sequence[AgentDecision]
    revoked: int
    entries: Mapping[str, ProvenEntry] = field(default_factory=dict)

    @property
    def approved(self) -> list[str]:
        """Who approved this opening of the ceremony: SPIFFE IDs."""
        return [str(decision.agent) for decision in self.made if decision.approves]

    @property
    def rejected(self) -> list[str]:
        """Who rejected the ceremony: SPIFFE IDs."""
        return [str(decision.agent) for decision in self.made if not decision.approves]

    @property
    def unlogged(self) -> list[str]:
        """Who decided without an entry in the log that the archive shows: SPIFFE IDs."""
        return [str(decision.agent) for decision in self.made if str(decision.agent) not in self.entries]

    def proven(self, entries: Sequence[ProvenEntry]) -> Decisions:
        """Return these with those of some proven entries that are theirs."""
        by_statement = {entry.event.decision_sha256: entry for entry in entries}
        found = {}
        for decision in self.made:
            entry = by_statement.get(_statement_sha256(decision))
            if entry is not None and _is_entry_of(entry, decision):
                found[str(decision.agent)] = entry
        return replace(self, entries=found)


def check_own_entry(
    entry: ProvenEntry, opening: Opening, trust: AgentTrust, *, agent: SpiffeId, decision: Decision.ValueType
) -> None:
    """Raise DecisionMismatchError unless a proven entry says that ``agent`` decided so on this ceremony.

    An approval has to be for this opening. The entry holds the agent's signed words, those of an earlier call where it
    decided the same before; raises what ``verify_decision`` does where they are not its own.
    """
    try:
        signed = SignedStatement.FromString(entry.details.decision)
    except DecodeError:
        raise DecisionMismatchError("The log entry has no decision.") from None
    made = verify_decision(signed, _bound_to(signed, opening), trust)
    if (made.agent, made.message.decision) != (agent, decision) or not _is_entry_of(entry, made):
        raise DecisionMismatchError("The log entry belongs to another decision.")


def _is_entry_of(entry: ProvenEntry, decision: AgentDecision) -> bool:
    event = entry.event
    return (
        event.type in (_APPROVED if decision.approves else _REJECTED)
        and event.ceremony_digest == decision.message.ceremony_digest
        and event.decision_sha256 == _statement_sha256(decision)
    )


def _statement_sha256(decision: AgentDecision) -> bytes:
    """Return the hash of what was signed: its canonical encoding, the only one that verifies."""
    return sha256(decision.message.SerializeToString(deterministic=True)).digest()


def not_logged(
    ceremony_id: bytes, decision: Decision.ValueType, error: KeyarkError
) -> DecisionNotLoggedError:
    """Return what an agent is told whose decision the archive took without showing it in the log."""
    what, left = _WORDS[decision]
    return DecisionNotLoggedError(
        f"The archive received your {what} of the ceremony {ceremony_id.hex()}, but does not prove "
        f"that it is in the log that everybody sees: {error.message} {left} Keep a copy of this home, "
        "tell the other agents and an auditor now, and approve nothing until they know why."
    )


def not_canceled(ceremony_id: bytes) -> DecisionNotLoggedError:
    """Return what a requester is told whose ceremony the archive does not show to have ended."""
    return DecisionNotLoggedError(
        f"The archive does not prove that the ceremony {ceremony_id.hex()} is canceled: its log has "
        "no entry of its end. Ask the other agents not to approve it, and have an auditor examine "
        "the archive's log."
    )


async def answer_to(sent: Awaitable[_T], ceremony_id: bytes) -> _T:
    """Return the answer to a call that brought a decision; an error says what to look at where it may have arrived."""
    try:
        return await sent
    except KeyarkError as error:
        if error.kind in (Kind.UNAVAILABLE, Kind.DEADLINE):
            error.message += (
                f" Your decision may have arrived: `keyark recover show {ceremony_id.hex()}` shows whether it "
                "is in the log. If it is not, decide again."
            )
            error.args = (error.message,)
        raise


def verified_decisions(
    shown: Sequence[SignedStatement],
    opening: Opening,
    facts: OpeningFacts,
    trust: AgentTrust,
    *,
    opened_us: int,
) -> Decisions:
    """Verify what the archive shows as decisions: approvals of this opening by holders of shares, and rejections.

    A rejection stands through later openings, so it is for this ceremony and any opening of it. An approval is no
    older than the opening (``opened_us``, microseconds UTC), or an expired key could date it back. Raises
    DecisionMismatchError for one that is neither, or an agent's second, and what ``verify_decision`` does.
    """
    holders, made, revoked = _holders(facts), list[AgentDecision](), 0
    for signed in shown:
        try:
            decision = verify_decision(signed, _bound_to(signed, opening), trust)
        except IdentityRevokedError:
            revoked += 1
            continue
        if decision.approves and decision.message.time_us < opened_us - CLOCK_US:
            raise DecisionMismatchError(
                f"{decision.agent} is shown to approve before the ceremony was opened."
            )
        if decision.approves and str(decision.agent) not in holders:
            raise DecisionMismatchError(
                f"{decision.agent} has no share of the storage keys that the ceremony opens."
            )
        if any(decision.agent == earlier.agent for earlier in made):
            raise DecisionMismatchError(f"{decision.agent} is shown to decide twice.")
        made.append(decision)
    return Decisions(made=made, revoked=revoked)


def quorum_of(facts: OpeningFacts) -> int:
    """Return how many approvals a ceremony takes, as the leaf that opened it binds."""
    return max((key.quorum for key in _keys(facts)), default=0)


def _holders(facts: OpeningFacts) -> frozenset[str]:
    """Return who holds a share of every storage key that the ceremony opens, or of the one that it makes."""
    sets = [frozenset(share.agent for share in key.shares) for key in _keys(facts)]
    return frozenset.intersection(*sets) if sets else frozenset()


def _keys(facts: OpeningFacts) -> list[StorageKeyFacts]:
    return list(facts.storage_keys) or [facts.new_storage_key]


def _bound_to(signed: SignedStatement, opening: Opening) -> Opening:
    try:
        message = DecisionStatement.FromString(signed.statement)
    except DecodeError:
        raise DecisionMismatchError("The bytes are not a decision.") from None
    if message.decision == Decision.DECISION_REJECT:
        return replace(opening, leaf_hash=message.opening_leaf_hash)
    return opening
