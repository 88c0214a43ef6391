"""Enrolls many users from a CSV file, in batches, each user into a folder of its own."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from keyark.client.enrollment import EnrollmentClient, PreparedEnrollment
from keyark.client.folder import EnrollmentFolder, KeyFormat
from keyark.client.single import EnrollmentOrder, UserResult, check_same_order, issued, prepare_in
from keyark.errors import InvalidInputError, KeyarkError
from keyark.pki.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES, parse_key_type
from keyark.pki.names import check_email

BATCH: Final = 16
COLUMNS: Final = ("name", "email", "profile", "signing_key", "encryption_key")


def read_users(path: Path, *, profile: str) -> list[EnrollmentOrder]:
    """Read a CSV file (UTF-8) with a header line: name,email[,profile,signing_key,encryption_key].

    Raises InvalidInputError with file and line; an e-mail address may stand in one row only.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _read_rows(path, csv.DictReader(file), profile)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInputError(f"{path} cannot be read as CSV in UTF-8: {error}.", field="csv") from None


def _read_rows(path: Path, rows: csv.DictReader[str], profile: str) -> list[EnrollmentOrder]:
    header = rows.fieldnames or ()
    if not {"name", "email"} <= set(header) <= set(COLUMNS):
        raise InvalidInputError(
            f"{path}:1: the header names {', '.join(COLUMNS)}; the first two are needed.", field="csv"
        )
    orders: dict[str, EnrollmentOrder] = {}
    for row in rows:
        place = f"{path}:{rows.line_num}"
        if None in row or None in row.values():
            raise InvalidInputError(
                f"{place}: the row has another number of columns than the header.", field="csv"
            )
        try:
            order = _order(row, profile)
        except InvalidInputError as error:
            raise InvalidInputError(f"{place}: {error.message}", field=error.field) from None
        if order.email in orders:
            raise InvalidInputError(f"{place}: {order.email} stands in an earlier row.", field="csv")
        orders[order.email] = order
    return list(orders.values())


def _order(row: dict[str, str], profile: str) -> EnrollmentOrder:
    email = row["email"].strip()
    check_email(email, field="email")
    signing, encryption = row.get("signing_key", "").strip(), row.get("encryption_key", "").strip()
    return EnrollmentOrder(
        common_name=row["name"].strip(),
        email=email,
        profile=row.get("profile", "").strip() or profile,
        signing_key_type=parse_key_type(signing, permitted=SIGNING_KEY_TYPES) if signing else None,
        encryption_key_type=parse_key_type(encryption, permitted=ENCRYPTION_KEY_TYPES)
        if encryption
        else None,
    )


@dataclass(frozen=True, kw_only=True)
class BatchEnrollment:
    """Enrolls users below ``out``, a folder per e-mail address; running it again goes on."""

    client: EnrollmentClient
    out: Path
    key_format: KeyFormat = KeyFormat.PEM
    password: bytes | None = field(default=None, repr=False)

    async def run(self, orders: Sequence[EnrollmentOrder], advance: Callable[[], None]) -> list[UserResult]:
        """Enroll all, 16 to a call; ``advance`` is called per user. Errors stand in the results."""
        results: list[UserResult] = []
        for start in range(0, len(orders), BATCH):
            for result in await self._run_batch(orders[start : start + BATCH]):
                results.append(result)
                advance()
        return results

    async def _run_batch(self, orders: Sequence[EnrollmentOrder]) -> list[UserResult]:
        readied = [await self._ready(order) for order in orders]
        waiting = [item for item in readied if isinstance(item, PreparedEnrollment)]
        try:
            outcomes = iter(await self.client.submit_many(waiting) if waiting else ())
        except KeyarkError as error:  # the call as a whole failed: so did every item of it
            outcomes = iter([error] * len(waiting))
        results = []
        for order, item in zip(orders, readied, strict=True):
            if isinstance(item, UserResult):
                results.append(item)
                continue
            outcome = next(outcomes)
            if isinstance(outcome, KeyarkError):
                results.append(self._failed(order, outcome))
                continue
            folder = self._folder(order)
            await asyncio.to_thread(folder.finish, item, outcome)
            results.append(issued(folder, item.statement))
        return results

    async def _ready(self, order: EnrollmentOrder) -> PreparedEnrollment | UserResult:
        """Return the request to send, saved; or the result where there is nothing to send."""
        folder = self._folder(order)
        try:
            saved = folder.saved_statement()
            if saved is not None and folder.is_finished():
                check_same_order(saved, order, folder)
                return issued(folder, saved)
            return await prepare_in(self.client, folder, order)
        except KeyarkError as error:
            return self._failed(order, error)

    def _folder(self, order: EnrollmentOrder) -> EnrollmentFolder:
        name = quote(order.email, safe="@+")  # an e-mail address may hold a slash
        return EnrollmentFolder(path=self.out / name, key_format=self.key_format, password=self.password)

    def _failed(self, order: EnrollmentOrder, error: KeyarkError) -> UserResult:
        return UserResult(email=order.email, folder=self._folder(order).path, error=error)
