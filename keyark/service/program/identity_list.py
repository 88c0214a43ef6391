"""The list of revoked identities that a running service takes from a file, and never takes back.

Every list that was taken is kept in the store, so that neither a restart nor an older file ends a revocation. Taking
one is an entry in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from keyark.clock import Clock
from keyark.errors import ConfigurationError
from keyark.files import is_there, read_file
from keyark.identity.revoked import MAX_SIZE, IdentityList, IdentityListError, RevokedIdentities
from keyark.service.tables import IDENTITY_LISTS
from keyark.store import ReadTransaction, Store, WriteTransaction
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.x509.serials import encode_serial

MAX_ISSUERS: Final = 64


class IdentityListMissingError(ConfigurationError):
    """The file with the list of revoked identities is gone, and one was in force."""

    reason = "IDENTITY_LIST_MISSING"


def newer_lists(path: Path, revoked: RevokedIdentities) -> Sequence[IdentityList]:
    """Return the lists in a file that are newer than those in force; none where there never was one.

    Raises IdentityListMissingError where a list was in force and the file is gone, IdentityListError where it holds
    none that is as new, and UnreadableFileError.
    """
    if not is_there(path):
        if revoked.is_empty:
            return []
        raise IdentityListMissingError(
            f"{path} is missing, but this service has used a list of revoked identities; copy the newest "
            "one from the authority."
        )
    return revoked.newer(read_file(path, max_size=MAX_SIZE))


def check_identity_list(txn: ReadTransaction, path: Path, revoked: RevokedIdentities) -> None:
    """Raise as ``newer_lists`` does, with what a stopped service's store says was in force; changes nothing there."""
    revoked.restore(der for _, der in txn.scan(IDENTITY_LISTS, limit=MAX_ISSUERS))
    newer_lists(path, revoked)


class IdentityListFile:
    """Keeps ``revoked`` as new as the file; the file may be missing until a first list was taken."""

    def __init__(
        self, path: Path, revoked: RevokedIdentities, *, store: Store, log: Log, clock: Clock
    ) -> None:
        self._path, self.revoked = path, revoked
        self._store, self._log, self._clock = store, log, clock
        self._seen: tuple[int, ...] | None = None
        self._unwritten: dict[bytes, IdentityList] = {}
        self._untold: set[int] = set()

    async def start(self) -> None:
        """Take the lists of the store, then that of the file.

        Raises IdentityListMissingError where a list was in force and the file is gone, IdentityListError where it holds
        none that is as new, and UnreadableFileError: the service must not start without knowing who is revoked.
        """
        rows = self._store.read(lambda txn: txn.scan(IDENTITY_LISTS, limit=MAX_ISSUERS))
        self.revoked.restore(der for _, der in rows)
        await self._take()
        self._seen = self._state()

    async def refresh(self) -> None:
        """Take the file if it changed since the last look; raises as ``start``, once for each change."""
        state = self._state()
        if state == self._seen:
            return
        try:
            await self._take()
        except (IdentityListError, ConfigurationError):
            self._seen = state  # it is told once, and the list that was taken stays in force
            raise
        self._seen = state

    async def reload(self) -> str:
        """Take the file, and return what to tell the operator."""
        await self._take()
        return f"{len(self.revoked.serials)} certificates of identities are revoked"

    async def _take(self) -> None:
        for one in newer_lists(self._path, self.revoked):
            self._untold |= self.revoked.take([one])
            self._unwritten[one.issuer] = one
        if self._unwritten:
            await self._write(list(self._unwritten.values()), sorted(self._untold))

    async def _write(self, lists: Sequence[IdentityList], serials: Sequence[int]) -> None:
        """Keep lists that are in force already; where that fails it is tried again."""
        event = AuditEvent(
            version=EVENT_VERSION,
            type=EventType.EVENT_TYPE_IDENTITIES_REVOKED,
            time_us=self._clock.now_us(),
            serials=[encode_serial(serial) for serial in serials],
        )
        numbers = ", ".join(str(one.number) for one in lists)
        leaf = new_event(event, AuditDetails(message=f"list of revoked identities number {numbers}"))

        def write(txn: WriteTransaction) -> None:
            for one in lists:
                txn.put(IDENTITY_LISTS, one.issuer, one.der)
            self._log.append(txn, leaf)

        await self._store.update(write)
        self._unwritten.clear()
        self._untold.clear()

    def _state(self) -> tuple[int, ...] | None:
        """What a change of the file changes, or None where there is none."""
        if not is_there(self._path):
            return None
        status = self._path.stat()
        return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size
