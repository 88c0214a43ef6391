"""P7: a service takes a new list of revoked identities as it runs, keeps it for good, and never starts without it."""

from __future__ import annotations

import pytest

from keyark.clock import ManualClock
from keyark.errors import ConfigurationError
from keyark.errors.services import StoreFullError
from keyark.identity.revoked import IdentityListError, IdentityRevokedError, OlderIdentityListError
from keyark.service.program.identity_list import IdentityListFile, IdentityListMissingError
from keyark.service.tables import IDENTITY_LISTS
from keyark.transparency.events import open_event
from keyark.v1.audit_pb2 import EventType
from keyark.x509.certificates import load_pem_certificates
from keyark.x509.serials import encode_serial
from tests.support.running.rpc import identity, identity_list, revoked_identities
from tests.support.stories.transparency import memory_store, new_log

ALICE = load_pem_certificates(identity("client/alice").certificate)[0]
BOB = load_pem_certificates(identity("client/bob").certificate)[0]
FIRST = identity_list(ALICE.serial_number)
SECOND = identity_list(ALICE.serial_number, BOB.serial_number, number=2)
LATEST = identity_list(ALICE.serial_number, BOB.serial_number, number=3)


class Service:
    """A store and a log that outlive several starts."""

    def __init__(self, path):
        self.path, self.clock = path, ManualClock()
        self.log = new_log(clock=self.clock)
        self.store = memory_store(self.log, tables=[IDENTITY_LISTS])

    async def start(self):
        await self.log.open(self.store)
        self.file = await self.restart()
        return self

    async def restart(self):
        file = IdentityListFile(
            self.path, revoked_identities(), store=self.store, log=self.log, clock=self.clock
        )
        await file.start()
        self.file = file
        return file

    def put(self, data):
        """Put a list in place of the present one in one step, as all keyark commands do."""
        temporary = self.path.with_suffix(".new")
        temporary.write_bytes(data)
        temporary.replace(self.path)

    def refused(self):
        return {certificate for certificate in (ALICE, BOB) if self._is_refused(certificate)}

    def _is_refused(self, certificate):
        try:
            self.file.revoked.check(certificate)
        except IdentityRevokedError:
            return True
        return False

    async def entries(self):
        rows = [open_event(row.event) for row in await self.log.entries(after=0, limit=100)]
        return [row for row in rows if row.event.type == EventType.EVENT_TYPE_IDENTITIES_REVOKED]


@pytest.fixture
async def service(tmp_path):
    return await Service(tmp_path / "revoked-identities.crl").start()


async def test_without_a_list_nobody_is_revoked(service):
    await service.file.refresh()
    assert service.refused() == set()
    assert await service.entries() == []


async def test_a_new_list_is_taken_while_the_service_runs_and_stands_in_the_log(service):
    service.put(FIRST)
    await service.file.refresh()
    assert service.refused() == {ALICE}
    service.put(SECOND)
    assert await service.file.reload() == "2 certificates of identities are revoked"
    assert service.refused() == {ALICE, BOB}
    assert [list(entry.event.serials) for entry in await service.entries()] == [
        [encode_serial(ALICE.serial_number)],
        [encode_serial(BOB.serial_number)],
    ]
    assert "number 2" in (await service.entries())[1].details.message


async def test_a_list_that_was_taken_is_in_force_after_a_restart(service):
    service.put(FIRST)
    await service.file.refresh()
    await service.restart()
    assert service.refused() == {ALICE}
    assert len(await service.entries()) == 1


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"garbage", IdentityListError), (FIRST, OlderIdentityListError), (None, IdentityListMissingError)],
    ids=["broken", "older", "gone"],
)
async def test_a_list_that_is_broken_older_or_gone_changes_nothing_and_the_service_does_not_start(
    service, data, error
):
    service.put(SECOND)
    await service.file.refresh()
    if data is None:
        service.path.unlink()
    else:
        service.put(data)
    with pytest.raises(error):
        await service.file.refresh()
    await service.file.refresh()  # it is told once
    with pytest.raises(error):
        await service.file.reload()
    assert service.refused() == {ALICE, BOB}
    with pytest.raises(error):
        await service.restart()
    service.put(LATEST)
    await service.file.refresh()
    await service.restart()
    assert service.refused() == {ALICE, BOB}


async def test_a_broken_first_list_stops_the_start_too(service):
    service.put(b"garbage")
    with pytest.raises(IdentityListError):
        await service.restart()


async def test_a_path_that_is_no_file_is_refused(service):
    service.path.mkdir()
    with pytest.raises(ConfigurationError):
        await service.file.refresh()


async def test_a_list_is_in_force_at_once_and_written_down_as_soon_as_that_is_possible(service):
    service.put(FIRST)
    service.store.fails = True
    with pytest.raises(StoreFullError):
        await service.file.refresh()
    assert service.refused() == {ALICE}
    service.store.fails = False
    await service.file.refresh()
    assert len(await service.entries()) == 1
    await service.restart()
    service.path.unlink()
    with pytest.raises(IdentityListMissingError):
        await service.restart()
