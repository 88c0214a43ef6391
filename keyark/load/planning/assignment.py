"""What a client process is told: the plan, its number, and its share of the keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from keyark.load.planning.keys import KeyRange
from keyark.load.planning.plan import LoadPlan


class Assignment(BaseModel):
    """What one process is to do: the plan, its number, and its share of the keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan: LoadPlan
    index: int
    signing: tuple[Path, int, int]
    encryption: tuple[Path, int, int]

    def keys(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield pairs of private keys, DER: to sign with, and to encrypt with."""
        return zip(KeyRange(*self.signing).read(), KeyRange(*self.encryption).read(), strict=True)
