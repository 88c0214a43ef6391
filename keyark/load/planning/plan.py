"""What a load test is to do: arrivals, scenario, keys, duration. Client processes get it as JSON."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from keyark.keys.key_facts import Algorithm
from keyark.keys.key_types import KeyType
from keyark.load.planning.suites import EC

MAX_BATCH: Final = 256
"""Enrollments that the RM takes in one call."""
ENROLL: Final = "enroll"
STATUS: Final = "status"
CERTIFICATE: Final = "certificate"
OUTCOME: Final = "outcome"
RECOVER: Final = "recover"
SEEDS: Final = 8
"""Enrollments that a process makes first where it is to query some."""


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Delivery(enum.Enum):
    """When the wrapped private key is sent: with the request, or in a second call once it is asked for."""

    ALONG = "along"
    ASKED = "asked"


class Closed(_Frozen):
    """So many clients, each sending its next call when the last one was answered."""

    kind: Literal["closed"] = "closed"
    clients: Annotated[int, Field(ge=1, le=100_000)]


class Open(_Frozen):
    """Calls arrive at a rate (per second), whether earlier ones were answered or not."""

    kind: Literal["open"] = "open"
    rate: Annotated[float, Field(gt=0)]
    process: Literal["poisson", "constant"] = "poisson"


class Ramp(_Frozen):
    """Calls arrive at a rate that grows evenly over the whole run, at random (Poisson)."""

    kind: Literal["ramp"] = "ramp"
    start: Annotated[float, Field(gt=0)]
    end: Annotated[float, Field(gt=0)]


Arrival = Annotated[Closed | Open | Ramp, Field(discriminator="kind")]


class LoadPlan(_Frozen):
    """One run. ``mix`` weighs the kinds of calls; ``batch`` is enrollments per call; times are in seconds.

    What happens in the first ``warm_up`` seconds is done and checked but not measured. ``sample`` is the share of
    answers that the SDK's whole verification looks at; the rest is checked for chain, keys and receipt. No more than
    ``items`` enrollments are sent, for their keys are made beforehand; None estimates how many those may be. ``known``
    is a file to which a share of the enrollments is added and which queries choose from; without one they ask about
    the newest.
    """

    home: Path
    arrival: Arrival
    seconds: Annotated[float, Field(gt=0)]
    warm_up: Annotated[float, Field(ge=0)] = 2.0
    mix: dict[str, Annotated[float, Field(ge=0)]] = {ENROLL: 1.0}
    batch: Annotated[int, Field(ge=1, le=MAX_BATCH)] = 1
    delivery: Delivery = Delivery.ALONG
    profile: str = "user"
    signing: KeyType = EC.signing
    encryption: KeyType = EC.encryption
    sample: Annotated[float, Field(ge=0, le=1)] = 0.05
    processes: Annotated[int, Field(ge=1, le=256)] = 1
    items: Annotated[int, Field(ge=1)] | None = None
    client: str = "client/enroller"
    officer: str = "officer/officer"
    agents: tuple[str, ...] = ("alice", "bob", "carol")
    known: Path | None = None
    seed: int = 1

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if sum(self.mix.values()) <= 0:
            raise ValueError("the mix weighs nothing; give a kind of call a weight")
        if isinstance(self.arrival, Closed) and self.arrival.clients < self.processes:
            raise ValueError("there are fewer clients than processes; every process runs at least one")
        return self

    @property
    def queries(self) -> bool:
        """Whether there are calls that ask about earlier enrollments."""
        return any(weight for kind, weight in self.mix.items() if kind != ENROLL)

    @property
    def whole_seconds(self) -> float:
        """Warm-up and measurement."""
        return self.warm_up + self.seconds


MAX_PER_SECOND: Final = 4000
SLOW_PER_SECOND: Final = 1000
"""Enrollments that nothing on one machine surpasses, with elliptic curves and without: what keys are made for."""
SLOW: Final = frozenset((Algorithm.RSA, Algorithm.ML_DSA))


def needed_items(plan: LoadPlan) -> int:
    """Return how many enrollments keys are to be there for."""
    seeds = SEEDS * plan.processes if plan.queries else 0
    if not plan.mix.get(ENROLL):
        return seeds
    if plan.items is not None:
        return plan.items + seeds
    arrival = plan.arrival
    if isinstance(arrival, Closed):
        most = (
            SLOW_PER_SECOND if {plan.signing.algorithm, plan.encryption.algorithm} & SLOW else MAX_PER_SECOND
        )
        return int(plan.whole_seconds * most) + seeds
    rate = arrival.rate if isinstance(arrival, Open) else (arrival.start + arrival.end) / 2
    return int(rate * plan.whole_seconds * plan.batch * 1.2) + 50 * plan.batch * plan.processes + seeds
