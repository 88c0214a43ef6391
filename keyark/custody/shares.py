"""The token's PIN, split m of n among the recovery agents (Shamir), with a commitment to every share.

The PIN is 256 random bits. The library splits 128 bits, so both halves are split with the same indices; a
share is its index and 32 bytes. A commitment tells a wrong share before it can spoil the quorum.
"""

from __future__ import annotations

import enum
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final

from keyark.contexts import context
from keyark.errors import InvalidInputError, KeyarkError, Kind

COMMITMENT_LABEL: Final = "keyark/v1/share-commitment"
PIN_SIZE: Final = 32
SHARE_SIZE: Final = 32
MAX_AGENTS: Final = 255

_HALVES: Final = (slice(0, 16), slice(16, 32))


class QuorumRule(enum.Enum):
    """Which quorums a deployment takes; all but the first need somebody to ask for them."""

    SEPARATE = "separate"
    """At least two agents, and one more than that exists, for nobody approves its own request."""
    SELF_APPROVAL = "self-approval"
    """At least two agents, all of them if need be."""
    SINGLE_AGENT = "single-agent"
    """One agent may recover alone."""


class QuorumError(InvalidInputError):
    """The quorum cannot be reached, or asks for no second person."""

    reason = "QUORUM"


class QuorumNotReachedError(KeyarkError):
    """Fewer agents than the quorum gave their shares."""

    reason = "QUORUM_NOT_REACHED"
    kind = Kind.PRECONDITION


class WrongShareError(KeyarkError):
    """A share is not the one that was given to its agent."""

    reason = "WRONG_SHARE"
    kind = Kind.INVALID


@dataclass(frozen=True)
class Share:
    """One agent's part of a PIN: index from 1 to 255, and 32 secret bytes that ``repr`` does not show.

    Raises WrongShareError for any other index or size.
    """

    index: int
    value: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.index <= MAX_AGENTS or len(self.value) != SHARE_SIZE:
            raise WrongShareError(
                f"A share has an index from 1 to {MAX_AGENTS} and {SHARE_SIZE} bytes; open it from its token."
            )


def check_quorum(agents: int, quorum: int, *, rule: QuorumRule) -> None:
    """Raise QuorumError unless a quorum of this many agents can bring a key back, as the rule wants it."""
    _check_possible(agents, quorum)
    if quorum == 1 and rule is not QuorumRule.SINGLE_AGENT:
        raise QuorumError(
            "A quorum of 1 lets one agent recover alone; if that is meant, use --allow-single-agent.",
            field="quorum",
        )
    if quorum == agents and rule is QuorumRule.SEPARATE:
        raise QuorumError(
            "A quorum of all agents could never recover a key, since requesters do not approve their own "
            "requests. Lower --quorum, name more agents, or use --allow-self-approval.",
            field="quorum",
        )


def _check_possible(agents: int, quorum: int) -> None:
    """The library takes a quorum larger than the number of agents, and makes shares that open nothing."""
    if not 1 <= quorum <= agents <= MAX_AGENTS:
        raise QuorumError(
            f"A quorum of {quorum} of {agents} is impossible; give 1 to the number of agents, which is at "
            f"most {MAX_AGENTS}.",
            field="quorum",
        )


def new_pin() -> bytes:
    """Make a PIN of 256 random bits, 32 bytes."""
    return os.urandom(PIN_SIZE)


def split_pin(pin: bytes, *, quorum: int, agents: int) -> list[Share]:
    """Split a PIN (32 bytes) so that any ``quorum`` of ``agents`` shares give it back, and fewer say nothing.

    Shares come in the order of their indices, from 1. Raises QuorumError where 1 ≤ quorum ≤ agents ≤ 255 does
    not hold, and InvalidInputError for a PIN of another size.
    """
    _check_possible(agents, quorum)
    if len(pin) != PIN_SIZE:
        raise InvalidInputError(f"A PIN has {PIN_SIZE} bytes; make one with new_pin.", field="pin")
    shamir = _shamir()
    halves = [shamir.split(quorum, agents, pin[half], ssss=False) for half in _HALVES]
    return [Share(index, first + second) for (index, first), (_, second) in zip(*halves, strict=True)]


def combine_shares(shares: Sequence[Share], *, quorum: int) -> bytes:
    """Return the PIN (32 bytes) that a quorum of shares gives; check their commitments before.

    Raises QuorumNotReachedError where distinct indices are too few, and WrongShareError for two shares that
    differ under one index.
    """
    distinct = {share.index: share.value for share in shares}
    if any(not hmac.compare_digest(distinct[share.index], share.value) for share in shares):
        raise WrongShareError("Two different shares have the same index; ask their agents for them again.")
    if quorum < 1 or len(distinct) < quorum:
        raise QuorumNotReachedError(f"Only {len(distinct)} of {quorum} shares have arrived; ask more agents.")
    chosen = list(distinct.items())[:quorum]
    shamir = _shamir()
    return b"".join(
        shamir.combine([(index, value[half]) for index, value in chosen], ssss=False) for half in _HALVES
    )


def _shamir() -> Any:
    """Only the DRM splits and combines; agents open their shares with the SDK, which installs without it."""
    from Crypto.Protocol.SecretSharing import Shamir  # noqa: PLC0415 — see above

    return Shamir


def commitment(share: Share, *, generation: int, pin_epoch: int) -> bytes:
    """Return the SHA-256 commitment to a share of this generation and epoch, 32 bytes."""
    numbers = (number.to_bytes(4, "big") for number in (generation, pin_epoch, share.index))
    return sha256(context(COMMITMENT_LABEL, *numbers, share.value)).digest()


def check_commitment(share: Share, expected: bytes, *, generation: int, pin_epoch: int, agent: str) -> None:
    """Raise WrongShareError, which names the agent, unless this is the share that was given out."""
    if not hmac.compare_digest(commitment(share, generation=generation, pin_epoch=pin_epoch), expected):
        raise WrongShareError(
            f"The share of {agent} does not belong to this token; ask another agent.",
            metadata={"agent": agent},
        )
