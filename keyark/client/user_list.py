"""The CSV file of users to enroll, checked to its end before anything starts.

name,email[,profile,signing_key,encryption_key]
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from keyark.client.single import EnrollmentOrder
from keyark.errors import InvalidInputError
from keyark.pki.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES, KeyType, parse_key_type
from keyark.pki.names import check_email, check_name, normalized_name

COLUMNS: Final = ("name", "email", "profile", "signing_key", "encryption_key")
MAX_TOLD: Final = 50
"""Rows that an error names; a file of another kind is wrong in every one."""


class UserListError(InvalidInputError):
    """A CSV file of users is wrong; its message has a line for each row, with what to change."""

    reason = "USER_LIST"


def read_users(path: Path, *, profile: str) -> list[EnrollmentOrder]:
    """Read a CSV file (UTF-8) with a header line; columns may stand in any order.

    Raises UserListError with all that is wrong, by file and line: a mailbox may stand in one row only, whatever the
    case of its letters.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _read(path, csv.reader(file, strict=True), profile)
    except (OSError, ValueError, csv.Error) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserListError(f"{path} cannot be read as CSV in UTF-8: {why}.", field="csv") from None


def _read(path: Path, lines: Iterator[list[str]], profile: str) -> list[EnrollmentOrder]:
    header = [name.strip() for name in next(lines, [])]
    if not {"name", "email"} <= set(header) <= set(COLUMNS) or len(set(header)) != len(header):
        raise UserListError(
            f"{path}:1: the header names each of {', '.join(COLUMNS)} at most once, and the first two are needed.",
            field="csv",
        )
    rows = _Rows(header, profile)
    for cells in lines:
        rows.take(cells, place=f"{path}:{lines.line_num}")  # type: ignore[attr-defined]  # a csv.reader
    if rows.wrong:
        more = len(rows.wrong) - MAX_TOLD
        told = rows.wrong[:MAX_TOLD] + ([f"and {more} more rows"] if more > 0 else [])
        raise UserListError("Nothing was enrolled, for the list is wrong:\n" + "\n".join(told), field="csv")
    return list(rows.orders.values())


class _Rows:
    """The orders of the rows so far, by mailbox, and what is wrong with the others."""

    def __init__(self, header: list[str], profile: str) -> None:
        self._header, self._profile = header, profile
        self.orders: dict[str, EnrollmentOrder] = {}
        self._places: dict[str, str] = {}
        self.wrong: list[str] = []

    def take(self, cells: list[str], *, place: str) -> None:
        """Read one row; an empty line is none."""
        if not cells:
            return
        if len(cells) != len(self._header):
            self.wrong.append(
                f"{place}: the row has {len(cells)} columns and the header {len(self._header)}."
            )
            return
        row = {name: cell.strip() for name, cell in zip(self._header, cells, strict=True)}
        try:
            order = _order(row, self._profile)
        except InvalidInputError as error:
            self.wrong.append(f"{place}: {error.message}")
            return
        mailbox = order.email.lower()
        if mailbox in self.orders:
            self.wrong.append(f"{place}: {order.email} stands in {self._places[mailbox]} already.")
            return
        self.orders[mailbox], self._places[mailbox] = order, place


def _order(row: dict[str, str], profile: str) -> EnrollmentOrder:
    name = normalized_name(row["name"])
    check_name(name, field="name")
    check_email(row["email"], field="email")
    return EnrollmentOrder(
        common_name=name,
        email=row["email"],
        profile=row.get("profile") or profile,
        signing_key_type=_key_type(row.get("signing_key"), SIGNING_KEY_TYPES),
        encryption_key_type=_key_type(row.get("encryption_key"), ENCRYPTION_KEY_TYPES),
    )


def _key_type(name: str | None, permitted: tuple[KeyType, ...]) -> KeyType | None:
    return parse_key_type(name, permitted=permitted) if name else None
