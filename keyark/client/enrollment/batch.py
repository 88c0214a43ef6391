"""Enrolls many users, in batches, each user into a folder of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote

from keyark.client.access.passwords import PasswordList
from keyark.client.enrollment.client import EnrollmentClient
from keyark.client.enrollment.folder import EnrollmentFolder, KeyFormat
from keyark.client.enrollment.prepared import PreparedEnrollment
from keyark.client.enrollment.single import EnrollmentOrder, UserResult, finished_in, issued, prepare_in
from keyark.client.enrollment.user_list import UserListError
from keyark.client.trust.verification import Enrolled
from keyark.errors import KeyarkError, NotFoundError
from keyark.files import check_own_folder
from keyark.folders import working_in
from keyark.text.characters import counted
from keyark.x509.pkcs12 import Pkcs12Form

BATCH: Final = 16
PAUSES: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0, 30.0, 30.0)
"""Seconds between tries while the RM or what is behind it is away: three minutes in all."""
PASSWORDS: Final = "passwords.csv"


@dataclass(frozen=True, kw_only=True)
class BatchEnrollment:
    """Enrolls users below ``out``, in a folder for each e-mail address; running it again goes on.

    Without ``password``, each PKCS#12 file gets a generated one, listed in ``out/passwords.csv`` (0600) for the
    operator.
    """

    client: EnrollmentClient
    out: Path
    key_format: KeyFormat = KeyFormat.PEM
    password: bytes | None = field(default=None, repr=False)
    pkcs12_form: Pkcs12Form = Pkcs12Form.MODERN
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def run(
        self, orders: Sequence[EnrollmentOrder], advance: Callable[[], None] = lambda: None
    ) -> list[UserResult]:
        """Enroll all users, and return their results in the same order; one user's failure does not affect the
        others.

        Raises FolderInUseError if another run works below ``out``, and ForeignOwnerError and
        LaxPermissionsError if others could replace its files.
        """
        results: list[UserResult] = []
        with working_in(self.out):
            check_own_folder(self.out)
            for start in range(0, len(orders), BATCH):
                for result in await self._run_batch(orders[start : start + BATCH]):
                    results.append(result)
                    advance()
        return results

    async def check_profiles(self, orders: Sequence[EnrollmentOrder]) -> None:
        """Raise UserListError if the RM does not have the profile of an order. If the RM does not answer, do
        nothing.
        """
        unknown = []
        for profile in dict.fromkeys(order.profile for order in orders):
            try:
                await self.client.form(profile)
            except NotFoundError as error:
                unknown.append(f"{error.message} It is in the entry of {_first_of(profile, orders)}.")
            except KeyarkError:
                return
        if unknown:
            raise UserListError(
                "Nothing was enrolled, because the list has faults:\n" + "\n".join(unknown), field="csv"
            )

    async def _run_batch(self, orders: Sequence[EnrollmentOrder]) -> list[UserResult]:
        with ExitStack() as locks:
            passwords = self._passwords(orders)
            readied = [await self._ready(order, passwords, locks) for order in orders]
            waiting = [item for item in readied if isinstance(item, PreparedEnrollment)]
            outcomes = iter(await self._submit(waiting))
            return [
                item
                if isinstance(item, UserResult)
                else await self._finish(order, item, next(outcomes), passwords)
                for order, item in zip(orders, readied, strict=True)
            ]

    async def _submit(self, waiting: Sequence[PreparedEnrollment]) -> list[Enrolled | KeyarkError]:
        """Submit requests; what failed because a service is away is sent again, as it is, for some minutes."""
        outcomes = await self._try(waiting)
        for seconds in PAUSES:
            away = [index for index, outcome in enumerate(outcomes) if _is_away(outcome)]
            if not away:
                break
            await self.pause(seconds)
            for index, outcome in zip(away, await self._try([waiting[i] for i in away]), strict=True):
                outcomes[index] = outcome
        return outcomes

    async def _try(self, waiting: Sequence[PreparedEnrollment]) -> list[Enrolled | KeyarkError]:
        if not waiting:
            return []
        try:
            return await self.client.submit_many(waiting)
        except KeyarkError as error:  # the call as a whole failed: so did every item of it
            return [error] * len(waiting)

    def _passwords(self, orders: Sequence[EnrollmentOrder]) -> Mapping[str, bytes]:
        """The password of each user, durable before it encrypts anything; none where one for all was given."""
        if self.key_format is not KeyFormat.P12 or self.password is not None:
            return {}
        return PasswordList(self.out / PASSWORDS).of([order.email for order in orders])

    async def _ready(
        self, order: EnrollmentOrder, passwords: Mapping[str, bytes], locks: ExitStack
    ) -> PreparedEnrollment | UserResult:
        """Return the request to send, saved; or the result where there is nothing to send."""
        folder = self._folder(order, passwords)
        try:
            locks.enter_context(working_in(folder.path))
            return finished_in(folder, order) or await prepare_in(self.client, folder, order)
        except KeyarkError as error:
            return self._failed(order, error)

    async def _finish(
        self,
        order: EnrollmentOrder,
        prepared: PreparedEnrollment,
        outcome: Enrolled | KeyarkError,
        passwords: Mapping[str, bytes],
    ) -> UserResult:
        if isinstance(outcome, KeyarkError):
            return self._failed(order, outcome)
        folder = self._folder(order, passwords)
        try:
            await asyncio.to_thread(folder.finish, prepared, outcome)
            return issued(folder, prepared.statement)
        except KeyarkError as error:
            return self._failed(order, error)

    def _folder(self, order: EnrollmentOrder, passwords: Mapping[str, bytes]) -> EnrollmentFolder:
        return EnrollmentFolder(
            path=self._path(order),
            key_format=self.key_format,
            password=passwords.get(order.email, self.password),
            pkcs12_form=self.pkcs12_form,
        )

    def _path(self, order: EnrollmentOrder) -> Path:
        return self.out / quote(order.email, safe="@+")  # an e-mail address may hold a slash

    def _failed(self, order: EnrollmentOrder, error: KeyarkError) -> UserResult:
        return UserResult(email=order.email, folder=self._path(order), error=error)


def _first_of(profile: str, orders: Sequence[EnrollmentOrder]) -> str:
    found = [order.email for order in orders if order.profile == profile]
    return found[0] + (f" and {counted(len(found) - 1, 'other row')}" if len(found) > 1 else "")


def _is_away(outcome: Enrolled | KeyarkError) -> bool:
    return isinstance(outcome, KeyarkError) and outcome.kind.is_transient


async def enroll_many(
    client: EnrollmentClient,
    orders: Sequence[EnrollmentOrder],
    *,
    out: Path,
    key_format: KeyFormat = KeyFormat.PEM,
    password: bytes | None = None,
    pkcs12_form: Pkcs12Form = Pkcs12Form.MODERN,
) -> list[UserResult]:
    """Enroll users into folders below ``out``, as ``BatchEnrollment`` does."""
    enrollment = BatchEnrollment(
        client=client, out=out, key_format=key_format, password=password, pkcs12_form=pkcs12_form
    )
    return await enrollment.run(orders)
