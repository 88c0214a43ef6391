"""Who holds certificates under a common name: what the rule type UniqueSubjectName looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cm_service.certificates.index import Standing, name_prefix, standing
from cm_service.records import INDEX, read_pair, roles_of
from keyark.errors.enrollment import TooManyHoldersError
from keyark.sizes import ENROLLMENT_ID_SIZE
from keyark.statements.enrollment import Statement
from keyark.store import ReadTransaction

MAX_PAIRS: Final = 1000
"""Pairs under one name that a rule looks at."""


@dataclass(kw_only=True)
class NameHolders:
    """The addresses under which others than this enrollment hold its common name; ``now`` is in seconds UTC.

    ``was_asked`` says that a rule's verdict depends on them, so that it has to be asked again in the transaction that
    issues: two enrollments for one name may be under way at once.
    """

    read: Callable[[Callable[[ReadTransaction], set[str]]], set[str]] = field(repr=False)
    statement: Statement
    now: int
    renewed: bytes = b""
    """The enrollment whose pair gives way to this one's, if any."""
    was_asked: bool = False

    def __call__(self) -> set[str]:
        """Look them up."""
        self.was_asked = True
        return self.read(self.find)

    def find(self, txn: ReadTransaction) -> set[str]:
        """Return the addresses; raises TooManyHoldersError."""
        prefix = name_prefix(self.statement.common_name)
        rows = txn.scan(INDEX, prefix=prefix, limit=MAX_PAIRS + 1)
        if len(rows) > MAX_PAIRS:
            raise TooManyHoldersError(
                f"More than {MAX_PAIRS} pairs were issued under this common name; exclude it from the rule "
                "with `when`."
            )
        ids = (key[-ENROLLMENT_ID_SIZE:] for key, _ in rows)
        pairs = [
            read_pair(txn, found)
            for found in ids
            if found not in (self.statement.enrollment_id, self.renewed)
        ]
        return {
            pair.email
            for pair in pairs
            if pair is not None
            and pair.not_after >= self.now
            and any(standing(pair, role) is not Standing.REVOKED for role in roles_of(pair))
        }
