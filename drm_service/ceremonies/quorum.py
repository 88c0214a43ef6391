"""Who acts as an agent, and who decides on a ceremony: those who hold shares, and how many of them it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drm_service.ceremonies.records import agents_who_decided, decision_indices, decisions_of, request_of
from drm_service.keys.storage_keys import read_tokens, storage_key_id
from keyark.custody.shares import QuorumRule
from keyark.errors.recovery import AlreadyDecidedError, NoShareError, OwnRequestError
from keyark.identity.spiffe import SpiffeId
from keyark.records.v1.drm_pb2 import CeremonyRecord, SoftwareToken
from keyark.statements.ceremonies import AgentDecision, AgentTrust
from keyark.store import ReadTransaction
from keyark.v1.ceremony_pb2 import Decision, SignedStatement


def present_agents(txn: ReadTransaction) -> frozenset[str]:
    """Return the agents (SPIFFE IDs) who hold shares of the newest storage key: they alone act as agents."""
    return frozenset(share.agent for share in read_tokens(txn)[-1].shares)


def check_present(txn: ReadTransaction, agent: SpiffeId) -> None:
    """Raise NoShareError unless the agent holds a share now; a certificate alone makes nobody an agent."""
    if str(agent) not in present_agents(txn):
        raise NoShareError(
            f"{agent} has no share of the storage key, so it may not act as an agent; ask an agent who "
            "has one."
        )


@dataclass(frozen=True, kw_only=True)
class CeremonyQuorum:
    """The agents who may decide on one ceremony, and the storage keys whose shares they release."""

    holders: frozenset[str]
    quorum: int
    tokens: Sequence[SoftwareToken]
    requester: str
    self_approval: bool

    @classmethod
    def of(cls, txn: ReadTransaction, record: CeremonyRecord, rule: QuorumRule) -> CeremonyQuorum:
        """Read who decides now; a ceremony that opens no token is decided by the agents of the newest one."""
        tokens = read_tokens(txn)
        opened = [token for token in tokens if storage_key_id(token) in record.storage_key_ids]
        deciding = opened or tokens[-1:]
        holders = frozenset.intersection(
            *(frozenset(share.agent for share in token.shares) for token in deciding)
        )
        return cls(
            holders=holders,
            quorum=max(token.quorum for token in deciding),
            tokens=opened,
            requester=str(request_of(record).requester),
            self_approval=rule is not QuorumRule.SEPARATE,
        )

    def check_may_decide(self, agent: SpiffeId, decision: Decision.ValueType) -> None:
        """Raise NoShareError and OwnRequestError unless the agent may decide so."""
        if str(agent) == self.requester and not self.self_approval:
            raise OwnRequestError(
                "You asked for this ceremony, so other agents decide on it. To end it, cancel it."
                if decision == Decision.DECISION_REJECT
                else "You asked for this ceremony, so you may not approve it; ask another agent."
            )
        if str(agent) not in self.holders:
            raise NoShareError(f"{agent} has no share of this storage key; ask an agent who has one.")

    def is_reached(self, approvals: Sequence[str]) -> bool:
        """Whether these agents are enough."""
        return len(self.holders & set(approvals)) >= self.quorum

    def has_no_quorum_left(self, record: CeremonyRecord) -> bool:
        """Whether so many agents rejected that no quorum is left."""
        left = self.holders - set(agents_who_decided(Decision.DECISION_REJECT, record))
        if not self.self_approval:
            left -= {self.requester}
        return len(left) < self.quorum


def earlier_decision_index(record: CeremonyRecord, decision: AgentDecision) -> int | None:
    """Return where the leaf stands if the agent decided the same before (0: not known), or None.

    Raises AlreadyDecidedError where it decided otherwise.
    """
    for earlier, index in zip(decisions_of(record), decision_indices(record), strict=True):
        if earlier.agent == str(decision.agent):
            if earlier.decision != decision.message.decision:
                raise AlreadyDecidedError(
                    f"{decision.agent} has already decided otherwise, and that decision stands."
                )
            return index
    return None


def is_requester_revoked(record: CeremonyRecord, trust: AgentTrust) -> bool:
    """Whether the agent that asked for the ceremony was revoked since."""
    return trust.is_revoked(SignedStatement.FromString(record.request))


def revoked_approvers(record: CeremonyRecord, trust: AgentTrust) -> list[str]:
    """Return the agents (SPIFFE IDs) that decided and were revoked since: their shares count no more."""
    pairs = zip(record.decisions, decisions_of(record), strict=True)
    return [decision.agent for raw, decision in pairs if trust.is_revoked(SignedStatement.FromString(raw))]
