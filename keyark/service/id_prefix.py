"""Abbreviated ids: the hexadecimal digits that ids begin with, and the rows of a table whose keys begin so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from keyark.errors import InvalidInputError
from keyark.store import ReadTransaction

LEAST_DIGITS: Final = 4
"""As in git; fewer would select a good part of everything."""
MAX_DIGITS: Final = 64

_HEXADECIMAL: Final = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class IdPrefix:
    """The digits that an id begins with; an odd number of them ends in the middle of a byte, and none are in every id.

    Raises InvalidInputError for 1 to 3 digits, for more than 64, and for what is no digit in lower case.
    """

    digits: str

    def __post_init__(self) -> None:
        fits = LEAST_DIGITS <= len(self.digits) <= MAX_DIGITS and set(self.digits) <= _HEXADECIMAL
        if self.digits and not fits:
            raise InvalidInputError(
                f"An abbreviated id has {LEAST_DIGITS} to {MAX_DIGITS} hexadecimal digits in lower case.",
                field="id_prefix",
            )

    def begins(self, whole_id: bytes) -> bool:
        """Whether an id begins with the digits."""
        return whole_id.hex().startswith(self.digits)

    def rows(
        self, txn: ReadTransaction, table: str, *, after: bytes | None, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """Return up to ``limit`` rows after a key whose keys begin with the digits, in the order of their keys."""
        found: list[tuple[bytes, bytes]] = []
        whole_bytes = bytes.fromhex(self.digits[: len(self.digits) // 2 * 2])
        while len(found) < limit:
            rows = txn.scan(table, prefix=whole_bytes, after=after, limit=limit)
            found += [row for row in rows if self.begins(row[0])]
            if len(rows) < limit:
                break
            after = rows[-1][0]
        return found[:limit]
