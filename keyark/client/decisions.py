"""Who decided on a ceremony, in the agents' own signed words: none of it rests on the archive's.

The archive can withhold a decision. It can neither make one up, nor count one twice, nor one for another ceremony.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.message import DecodeError

from keyark.crypto.ceremonies import (
    AgentDecision,
    AgentTrust,
    DecisionMismatchError,
    Opening,
    verify_decision,
)
from keyark.pki.revoked_identities import IdentityRevokedError
from keyark.v1.ceremony_pb2 import Decision, DecisionStatement, OpeningFacts, SignedStatement, StorageKeyFacts

CLOCK_US: Final = 180 * 1_000_000
"""How far the clocks of agents and archive may be apart, microseconds."""


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """The decisions that verify, as they came, and how many words of agents that were revoked since do not count."""

    made: Sequence[AgentDecision]
    revoked: int

    @property
    def approved(self) -> list[str]:
        """Who approved this opening of the ceremony: SPIFFE IDs."""
        return [str(decision.agent) for decision in self.made if decision.approves]

    @property
    def rejected(self) -> list[str]:
        """Who rejected the ceremony: SPIFFE IDs."""
        return [str(decision.agent) for decision in self.made if not decision.approves]


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
            raise DecisionMismatchError(f"{decision.agent} holds no share of what the ceremony opens.")
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
        raise DecisionMismatchError("The bytes are no decision.") from None
    if message.decision == Decision.DECISION_REJECT:
        return replace(opening, leaf_hash=message.opening_leaf_hash)
    return opening
