"""The CSV file of users to enroll, checked to its end before anything starts.

name,email[,profile,signing_key,encryption_key]
"""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

from keyark.client.enrollment.single import EnrollmentOrder
from keyark.errors import InvalidInputError
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES, KeyType, parse_key_type
from keyark.text.characters import counted
from keyark.x509.names import check_email, check_name, normalized_name

COLUMNS: Final = ("name", "email", "profile", "signing_key", "encryption_key")
NEEDED: Final = COLUMNS[:2]
MAX_LIST: Final = 64 << 20
"""Bytes."""
MAX_TOLD: Final = 50
"""Rows that an error names; a file of another kind is wrong in every one."""

_EXPECTED: Final = (
    f"The columns are {', '.join(NEEDED)} and optionally {', '.join(COLUMNS[2:])}, separated by commas."
)
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_WORKBOOK: Final = b"PK\x03\x04"
"""What .xlsx and .ods files begin with, which are ZIP archives."""


class UserListError(InvalidInputError):
    """A CSV file of users is wrong; its message has a line for each row, with what to change."""

    reason = "USER_LIST"


def read_users(path: Path, *, profile: str) -> list[EnrollmentOrder]:
    """Read a CSV file with a header line, in UTF-8, or in UTF-16 with its mark; columns may be in any order.

    Semicolons separate if the header has no comma, and Excel's line ``sep=;`` is understood. A mailbox, in any
    case, may be in one row only. Raises UserListError with all faults, by file and line.
    """
    try:
        data = _contents(path)
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        _refuse(f"{path} cannot be read: {why}.")
    if len(data) > MAX_LIST:
        _refuse(f"{path} is larger than {MAX_LIST >> 20} MiB; give the list in several files.")
    if data.startswith(_WORKBOOK):
        _refuse(f"{path} is a workbook, not a CSV file; save it as CSV UTF-8 (comma delimited).")
    try:
        text = data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError:
        _refuse(f"{path} is not text in UTF-8; save it as CSV UTF-8.")
    return _read(_Lines(path, text), profile)


def _contents(path: Path) -> bytes:
    """Read a file, or what another program writes into a pipe (`--csv <(program)`), and one byte more than is taken.

    A pipe that nobody writes to is empty; opened otherwise, it would keep the command waiting for ever.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        os.set_blocking(file.fileno(), True)
        return file.read(MAX_LIST + 1)


def _refuse(message: str) -> NoReturn:
    raise UserListError(message, field="csv")


class _Lines:
    """The rows of a CSV file, each with its place: file and line."""

    def __init__(self, path: Path, text: str) -> None:
        first, _, rest = text.partition("\n")
        told = first.strip().lower()
        self._skipped = int(told.startswith("sep=") and len(told) <= len("sep=;"))
        separator = (
            told.removeprefix("sep=") or "\t" if self._skipped else ";" if _has_semicolons(first) else ","
        )
        self._path, self._text = path, rest if self._skipped else text
        self._reader = csv.reader(io.StringIO(self._text, newline=""), delimiter=separator, strict=True)
        self.place = self._place(1)

    def _place(self, line: int) -> str:
        return f"{self._path}:{line + self._skipped}"

    def __iter__(self) -> Iterator[list[str]]:
        while True:
            before = self._reader.line_num
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                _refuse(
                    f"{self._place(before + 1)}: the row that begins here is not CSV ({error}); look for an "
                    "unclosed quotation mark."
                )
            self.place = self._place(self._reader.line_num)
            yield cells


def _has_semicolons(line: str) -> bool:
    return ";" in line and "," not in line


def _read(lines: _Lines, profile: str) -> list[EnrollmentOrder]:
    rows = iter(lines)
    header = [name.strip().lower() for name in next(rows, [])]
    if wrong := _wrong_with(header):
        _refuse(f"{lines.place}: the header {wrong}. {_EXPECTED}")
    taken = _Rows(header, profile)
    for cells in rows:
        taken.take(cells, place=lines.place)
    if taken.wrong:
        more = len(taken.wrong) - MAX_TOLD
        told = taken.wrong[:MAX_TOLD] + ([f"and {counted(more, 'more row')}"] if more > 0 else [])
        _refuse("Nothing was enrolled, because the list has faults:\n" + "\n".join(told))
    if not taken.orders:
        _refuse(f"{lines.place}: the list has only a header; write a row for each person.")
    return list(taken.orders.values())


def _wrong_with(header: list[str]) -> str:
    """Return what is wrong with a header, "" for nothing."""
    if not any(header):
        return "is missing, because the first line is empty"
    if any("@" in name for name in header):
        return "is missing, because the first line is a person"
    if unknown := [name for name in header if name not in COLUMNS]:
        return f"has the unknown column {unknown[0]!r}"
    if twice := [name for name in header if header.count(name) > 1]:
        return f"has {twice[0]!r} more than once"
    lacking = [name for name in NEEDED if name not in header]
    return f"lacks {lacking[0]!r}" if lacking else ""


class _Rows:
    """The orders of the rows so far, by mailbox, and what is wrong with the others."""

    def __init__(self, header: list[str], profile: str) -> None:
        self._header, self._profile = header, profile
        self.orders: dict[str, EnrollmentOrder] = {}
        self._places: dict[str, str] = {}
        self.wrong: list[str] = []

    def take(self, cells: list[str], *, place: str) -> None:
        """Read one row; one without any text is none, as spreadsheets write below the last."""
        if not any(cell.strip() for cell in cells):
            return
        if len(cells) != len(self._header):
            quotes = (
                "; put a value that contains a separator in quotation marks"
                if len(cells) > len(self._header)
                else ""
            )
            self.wrong.append(
                f"{place}: the row has {counted(len(cells), 'column')}, but the header has "
                f"{len(self._header)}{quotes}."
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
            self.wrong.append(f"{place}: {order.email} is already in {self._places[mailbox]}.")
            return
        self.orders[mailbox], self._places[mailbox] = order, place


def _order(row: dict[str, str], profile: str) -> EnrollmentOrder:
    for needed in NEEDED:
        if not row[needed]:
            raise InvalidInputError(f"The {needed} is missing; write one.", field=needed)
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
