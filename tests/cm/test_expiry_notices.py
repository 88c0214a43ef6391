"""Expiry notices: each event once, whatever happens to the command, the clock, or the service in between."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from cm_service.certificates.expiry_notices import ExpiryNotices, ExpirySettings
from tests.support.keys.certificates import pair_record, write_pair
from tests.support.keys.pki import DAY, NOW
from tests.support.stories.office import Office

WRITE = """
import json, sys
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(json.load(sys.stdin)) + "\\n")
sys.exit(int(sys.argv[2]))
"""


class Watch:
    """Notices of an office, and what the command was told."""

    def __init__(self, office: Office, folder: Path, *, code: int = 0, **settings) -> None:
        self.told_to = folder / "told"
        command = [sys.executable, "-c", WRITE, str(self.told_to), str(code)]
        self.settings = ExpirySettings(**{"command": command, "days": [30, 7]} | settings)
        self.notices = ExpiryNotices(settings=self.settings, store=office.store, clock=office.clock)

    async def look(self) -> list[tuple[str, int]]:
        """Announce what is due; returns role and days of what the command was told this time."""
        self.told_to.unlink(missing_ok=True)
        await self.notices.announce_due()
        lines = self.told_to.read_text().splitlines() if self.told_to.exists() else []
        self.notice = json.loads(lines[0]) if lines else {}
        return sorted((json.loads(line)["role"], json.loads(line)["days"]) for line in lines)


BOTH = ["encryption", "signing"]


@pytest.fixture
async def office() -> Office:
    """One pair that is in force, for 100 days."""
    office = Office()
    office.pairs = [pair_record(5, not_after=NOW + 100 * DAY)]
    return await office.open()


async def test_each_limit_is_announced_once_for_each_certificate(office: Office, tmp_path: Path) -> None:
    watch = Watch(office, tmp_path)
    assert await watch.look() == []
    office.clock.advance(70 * DAY - 1)
    assert await watch.look() == []
    office.clock.advance(1)
    assert await watch.look() == [(role, 30) for role in BOTH]
    record = office.pairs[0]
    assert watch.notice["email"] == record.email
    assert watch.notice["common_name"] == record.common_name
    assert watch.notice["serial"] in (record.signing_serial.hex(), record.encryption_serial.hex())
    assert await watch.look() == []
    office.clock.advance(23 * DAY)
    assert await watch.look() == [(role, 7) for role in BOTH]
    assert await Watch(office, tmp_path).look() == []  # after a restart
    office.clock.advance(8 * DAY)
    assert await watch.look() == []


async def test_who_looks_late_announces_the_closest_limit_alone(office: Office, tmp_path: Path) -> None:
    office.clock.advance(95 * DAY)
    watch = Watch(office, tmp_path)
    assert await watch.look() == [(role, 7) for role in BOTH]
    assert await watch.look() == []


@pytest.mark.parametrize("settings", [{"code": 3}, {"command": ["/nonexistent/command"]}, {"seconds": 0.01}])
async def test_a_command_that_fails_is_logged_and_never_told_twice(
    office: Office, tmp_path: Path, settings, caplog: pytest.LogCaptureFixture
) -> None:
    office.clock.advance(80 * DAY)
    await Watch(office, tmp_path, **settings).look()
    assert caplog.text.count("the expiry notice of certificate") == 2
    assert office.pairs[0].email not in caplog.text
    assert await Watch(office, tmp_path).look() == []


async def test_a_mark_that_cannot_be_written_keeps_the_command_from_running(
    office: Office, tmp_path: Path
) -> None:
    office.clock.advance(80 * DAY)
    watch = Watch(office, tmp_path)
    update, office.store.update = office.store.update, refuse
    with pytest.raises(OSError, match="disk"):
        await watch.look()
    assert not watch.told_to.exists()
    office.store.update = update
    assert len(await watch.look()) == 2


async def refuse(_: object) -> None:
    raise OSError("the disk is full")


async def test_what_is_revoked_or_has_a_successor_is_not_announced(office: Office, tmp_path: Path) -> None:
    record = office.pairs[0]
    successor = pair_record(6, not_after=NOW + 400 * DAY)
    successor.email, successor.profile = record.email, record.profile
    office.clock.advance(80 * DAY)
    await office.revoke(record.signing_serial)
    watch = Watch(office, tmp_path, days=[30])
    assert await watch.look() == [("encryption", 30)]
    await office.store.update(lambda txn: write_pair(txn, 6, successor))
    assert await Watch(office, tmp_path, days=[25]).look() == []


async def test_a_certificate_of_another_profile_is_no_successor(office: Office, tmp_path: Path) -> None:
    other = pair_record(6, not_after=NOW + 400 * DAY)
    other.email, other.profile = office.pairs[0].email, "machine"
    await office.store.update(lambda txn: write_pair(txn, 6, other))
    office.clock.advance(80 * DAY)
    assert len(await Watch(office, tmp_path).look()) == 2


@pytest.mark.parametrize(
    "wrong", [{"command": []}, {"days": []}, {"days": [0]}, {"every_hours": 0}, {"shell": True}]
)
def test_settings_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(ValidationError):
        ExpirySettings(**{"command": ["true"]} | wrong)
