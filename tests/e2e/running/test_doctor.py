"""`keyark doctor`: each finding is provoked for real, and its command makes it go away."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import click
import pytest

from cm_service import __main__ as cm_program
from keyark.cli.main import main
from keyark.client.access.passwords import no_password
from keyark.client.access.sessions import open_session
from keyark.client.administration.lists import get_refusal
from keyark.client.audit.doctor import examine
from keyark.client.audit.findings import Examination, Finding, Severity
from keyark.client.trust.receipts import list_entries
from keyark.clock import SECONDS_PER_DAY, ManualClock
from keyark.errors import InvalidInputError, KeyarkError, NotFoundError, PolicyRejectedError
from keyark.keys.key_types import KeyType, generate
from keyark.transparency.events import open_event
from keyark.v1.audit_pb2 import EventType
from keyark.v1.common_pb2 import CertificatePair
from rm_service import __main__ as rm_program
from tests.e2e.test_direct_attacks import HostileRm
from tests.support.running.deployment import Deployment, edit, running
from tests.support.running.processes import init_home, keyark, run_printed, up
from tests.support.stories.enrolling import enrolling
from tests.support.stories.restoring import restore
from tests.support.stories.rotation import certificate_file, forked_receipt, make

DAYS = SECONDS_PER_DAY


async def findings(deployment: Deployment, *, later: float = 0, within: int = 30 * DAYS) -> list[Finding]:
    """What the doctor finds, on a machine whose clock is ``later`` seconds ahead."""
    examination = Examination(
        home=deployment.home(), password=no_password, now=lambda: time.time() + later, within=within
    )
    return [finding async for finding in examine(examination)]


def about(found: list[Finding], words: str) -> list[Finding]:
    """Those whose text or subject has these words."""
    return [finding for finding in found if words in f"{finding.subject}: {finding.text}"]


async def test_a_deployment_that_works_is_healthy(deployment: Deployment) -> None:
    async with deployment.client() as client:
        await client.enroll(common_name="Alice Example", email="alice@example.org")
    assert await findings(deployment) == []


async def test_clocks_that_differ_are_told(deployment_folder: Path) -> None:
    clock = ManualClock(time.time_ns() // 1000)
    async with running(deployment_folder, clock) as deployment:
        assert about(await findings(deployment), "clock") == []
        clock.advance(120)
        found = about(await findings(deployment), "clock")
    assert [finding.subject for finding in found] == ["rm", "cm", "drm"]
    assert all("ahead of" in finding.text for finding in found)


async def test_a_service_that_is_away_is_told_and_the_others_are_looked_at(deployment_folder: Path) -> None:
    async with running(deployment_folder) as deployment:
        await deployment.services["drm"].server.drain(0)
        found = await findings(deployment)
    assert [finding.severity for finding in about(found, "drm: does not answer")] == [Severity.ERROR]
    assert about(found, "rm: ") == about(found, "drm: ")
    assert about(found, "archived keys: could not be examined")


async def test_what_ends_soon_is_told_with_what_renews_it(deployment: Deployment) -> None:
    async with deployment.client() as client:
        await client.enroll(common_name="Alice Example", email="alice@example.org")
    found = await findings(deployment, within=731 * DAYS)
    assert {finding.severity for finding in found} == {Severity.WARNING}
    renewed = {f.subject.removeprefix("identity of ") for f in about(found, "identity of ")}
    assert renewed >= {"rm", "cm", "drm", "officer/officer", "agent/alice", "client/enroller"}
    assert len(about(found, "users: certificates end soon, first that of alice@example.org")) == 1
    assert not about(found, "transport key")
    for later, action in ((21 * DAYS, "rotate"), (31 * DAYS, "renew")):
        (transport,) = about(await findings(deployment, later=later), "transport key")
        assert transport.command.startswith(f"keyark transport-key {action} --home")


async def test_who_renewed_is_not_told_to_renew(deployment_folder: Path, tmp_path: Path) -> None:
    config, old, home = deployment_folder / "cm" / "cm.toml", tmp_path / "old", deployment_folder
    edit(config, "validity_days = 730", "validity_days = 20")
    async with running(deployment_folder) as deployment:
        await run_printed(f"keyark enroll --home {home} --name Alice --email alice@example.org --out {old}")
        assert len(about(await findings(deployment), "users")) == 1
    edit(config, "validity_days = 20", "validity_days = 730")
    async with running(deployment_folder) as deployment:
        (found,) = about(await findings(deployment), "users")
        printed, renewal = found.command.split("  # and each owner: ")
        assert "alice@example.org" in await run_printed(printed)
        await run_printed(
            renewal.replace("OLD", str(old)).replace("NEW", str(tmp_path / "new")) + f" --home {home}"
        )
        assert about(await findings(deployment), "users") == []


async def test_printed_commands_are_commands(deployment: Deployment) -> None:
    """What ends some day is told of everything; each line could be given to a shell."""
    await run_printed(
        f"keyark enroll --home {deployment.folder} --name A --email a@example.org --out {deployment.folder}/a"
    )
    told = await findings(deployment, within=40 * 365 * DAYS)
    told += about(await findings(deployment, later=21 * DAYS), "transport key")
    printed = [shlex.split(finding.command, comments=True) for finding in told]
    for program, name, *words in printed:
        assert program == "keyark"
        command: Any = main.get_command(click.Context(main), name)
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        command.make_context(name, words)
    assert {" ".join(words[1:3]) for words in printed} >= {
        "identities renew",
        "authority renew",
        "ca request",
        "ca rollover",
        "transport-key rotate",
        "certificates expiring",
    }


async def test_a_key_that_was_never_certified_is_told_once_it_should_be(deployment_folder: Path) -> None:
    edit(deployment_folder / "cm" / "cm.toml", "max_days = 825", "max_days = 1")
    async with running(deployment_folder) as deployment:
        async with deployment.client() as client:
            with pytest.raises(PolicyRejectedError):
                await client.enroll(common_name="Alice Example", email="alice@example.org")
        assert about(await findings(deployment), "never certified") == []
        (found,) = about(await findings(deployment, later=700), "never certified")
        assert "alice@example.org" in found.text
        assert "refused it for good. Its owner must submit a new request" in found.text
        await run_printed(found.command)
        assert about(await findings(deployment, later=700), "never certified") == []


async def test_an_enrollment_that_stopped_halfway_is_completed_by_its_client(deployment_folder: Path) -> None:
    request = await archive_without_linking(deployment_folder)
    async with running(deployment_folder) as deployment, enrolling(deployment.home()) as enroller:
        (found,) = about(await findings(deployment, later=700), "never certified")
        assert found.text.endswith("its enrollment was not completed")
        assert found.command.startswith("keyark enroll --out")
        await enroller.send(request)
    async with running(deployment_folder) as deployment:
        assert about(await findings(deployment, later=700), "never certified") == []


async def test_officers_are_told_of_refusals_and_of_nothing_else(deployment_folder: Path) -> None:
    edit(deployment_folder / "cm" / "cm.toml", "max_days = 825", "max_days = 1")
    async with running(deployment_folder) as deployment:
        async with deployment.client() as client:
            prepared = await client.prepare(common_name="Alice Example", email="alice@example.org")
            with pytest.raises(PolicyRejectedError) as refused:
                await client.submit(prepared)
        async with open_session(deployment.home(), "cm", identity="officer/officer") as officer:
            refusal = await get_refusal(officer, prepared.statement.enrollment_id)
            assert refusal is not None
            assert refusal.message in refused.value.message
            assert list(refusal.rules) == [violation.rule for violation in refused.value.violations]
            assert await get_refusal(officer, bytes(32)) is None
            for wrong in (b"", bytes(31), bytes(33)):
                with pytest.raises(InvalidInputError):
                    await get_refusal(officer, wrong)


async def archive_without_linking(folder: Path) -> bytes:
    """Let Alice's key be archived and no more; returns her request."""
    async with running(folder) as deployment, enrolling(deployment.home()) as enroller:
        request = enroller.request()
        rm = HostileRm(deployment, enroller.call)
        await rm.archived(request)
        await rm.close()
    return request


async def test_an_archived_key_that_signs_too_is_told(deployment: Deployment) -> None:
    """P8 with a hostile RM and the key's owner: DRM and CM each hear of one half."""
    key, fields = generate(KeyType.EC_P256), {"encryption_spki": b"", "profile": "signing-only"}
    async with enrolling(deployment.home()) as enroller:
        rm = HostileRm(deployment, enroller.call)
        await rm.archived(enroller.request(encryption_key=key))
        signs = enroller.request(signing_key=key, fields=fields, envelope=b"")
        assert isinstance(await rm.issue(signs, b"", None), CertificatePair)
        await rm.close()
    (found,) = about(await findings(deployment, later=700), "also signs")
    assert found.severity is Severity.ERROR
    await run_printed(found.command)
    assert about(await findings(deployment, later=700), "also signs") == []


async def test_an_archive_from_a_backup_is_told_of_its_certificates_again(
    deployment_folder: Path, tmp_path: Path
) -> None:
    """The DRM forgot a link, and its log is older than the one that RM and CM know."""
    request = await archive_without_linking(deployment_folder)
    shutil.copytree(deployment_folder / "drm" / "store", tmp_path / "backup")
    async with running(deployment_folder) as deployment, enrolling(deployment.home()) as enroller:
        (enrollment,) = await enroller.send(request)
        await enroller.send(enroller.request())
    shutil.rmtree(deployment_folder / "drm" / "store")
    shutil.copytree(tmp_path / "backup", deployment_folder / "drm" / "store")
    async with running(deployment_folder) as deployment:
        found = await findings(deployment, later=700)
        (unlinked,) = about(found, "not linked")
        assert unlinked.command.endswith(
            f"relink {deployment_folder}/rm/rm.toml {enrollment.enrollment_id.hex()}"
        )
        assert len(about(found, "its key is not in the archive")) == 1
        relink = deployment.services["rm"].commands["relink"]
        for word, refusal in (
            ("xy", InvalidInputError),
            ("00" * 31, InvalidInputError),
            ("00" * 32, NotFoundError),
        ):
            with pytest.raises(refusal):
                await relink([enrollment.enrollment_id.hex(), word])
        assert await relink([enrollment.enrollment_id.hex()]) == [
            "1 certificates will be sent to the DRM again"
        ]
        await deployment.services["rm"].server.drain(0)
    async with running(deployment_folder) as deployment:
        assert about(await findings(deployment, later=700), "not linked") == []


async def test_a_certificate_whose_profile_archives_nothing_misses_nothing(deployment_folder: Path) -> None:
    config = deployment_folder / "cm" / "cm.toml"
    edit(config, 'archival = "required"', 'archival = "forbidden"')
    edit(config, 'profiles = ["user", "pq"]', 'profiles = ["pq"]')
    async with running(deployment_folder) as deployment:
        async with deployment.client() as client:
            await client.enroll(common_name="Alice Example", email="alice@example.org")
        assert await findings(deployment) == []


async def test_what_is_missing_is_found_between_what_is_not(deployment_folder: Path, tmp_path: Path) -> None:
    store, backup = deployment_folder / "drm" / "store", tmp_path / "backup"
    async with running(deployment_folder) as deployment, deployment.client() as client:
        prepared = [
            await client.prepare(common_name=f"Person {n}", email=f"p{n}@example.org") for n in range(5)
        ]
        for there in (0, 2, 4):
            await client.submit(prepared[there])
    shutil.copytree(store, backup)
    async with running(deployment_folder) as deployment, deployment.client() as client:
        for lost in (1, 3):
            await client.submit(prepared[lost])
    shutil.rmtree(store)
    shutil.copytree(backup, store)
    async with running(deployment_folder) as deployment:
        found = about(await findings(deployment), "its key is not in the archive")
        assert [finding.text.split()[1] for finding in found] == ["p1@example.org", "p3@example.org"]
        for finding in found:
            await run_printed(finding.command)
        assert about(await findings(deployment), "its key is not in the archive") == []


def clear(program: object, *words: object) -> int:
    return program.PROGRAM.main(["clear-alarm", *map(str, words)])  # type: ignore[attr-defined]


async def raise_alarm(folder: Path) -> None:
    """Show the CM a head that the DRM's key signed and that contradicts what it accepted."""
    async with running(folder) as deployment, enrolling(deployment.home()) as enroller:
        (outcome,) = await enroller.send(enroller.request())
        assert not isinstance(outcome, KeyarkError), outcome
        rm = HostileRm(deployment, enroller.call)
        forged = forked_receipt(folder, outcome.receipt)
        assert (await rm.issue(enroller.request(), forged, None)).reason == "LOG_INCONSISTENT"
        await rm.close()


async def test_an_alarm_is_told_and_an_operator_clears_it_once_the_evidence_is_confirmed(
    deployment_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = deployment_folder / "cm" / "cm.toml"
    await raise_alarm(deployment_folder)
    async with running(deployment_folder) as deployment:
        (found,) = about(await findings(deployment), "contradicts itself")
        assert (found.severity, found.subject) == (Severity.ERROR, "cm")
        assert found.text.count("example.org/drm") == 3  # the alarm, and the heads that it signed
        printed = shlex.split(found.command, comments=True)
        assert printed == ["keyark-cm", "clear-alarm", str(config)]
    for confirmed in ((), ("--evidence", "00" * 32)):
        assert await asyncio.to_thread(clear, cm_program, config, *confirmed) == 1
        shown = capsys.readouterr()
        assert shown.out.count("— example.org/drm") == 2
        assert "Nothing was changed" in shown.err
    (evidence,) = re.findall("SHA-256 of the evidence: ([0-9a-f]{64})", shown.out)
    await run_elsewhere(cm_program, config, "--evidence", evidence)
    assert "cleared: The log example.org/drm contradicts itself" in capsys.readouterr().out
    async with running(deployment_folder) as deployment:
        assert about(await findings(deployment), "contradicts itself") == []
        async with deployment.client() as client:
            await client.enroll(common_name="Alice Example", email="alice@example.org")


async def run_elsewhere(program: object, *words: object) -> None:
    """Run a program's command in a thread, for it has an event loop of its own."""
    assert await asyncio.to_thread(clear, program, *words) == 0


async def test_there_is_nothing_to_clear_where_there_is_no_alarm(
    deployment_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(deployment_folder):
        pass
    for program, role in ((rm_program, "rm"), (cm_program, "cm")):
        config = deployment_folder / role / f"{role}.toml"
        assert await asyncio.to_thread(clear, program, config) == 1
        assert "There is no alarm" in capsys.readouterr().err


async def test_after_a_restore_the_head_that_an_operator_confirms_is_the_one_that_counts(
    deployment_folder: Path, tmp_path: Path
) -> None:
    async with running(deployment_folder) as deployment, enrolling(deployment.home()) as enroller:
        await enroller.send(enroller.request())
    shutil.copytree(deployment_folder / "drm" / "store", tmp_path / "backup")
    async with running(deployment_folder) as deployment, enrolling(deployment.home()) as enroller:
        await enroller.send(enroller.request())
    shutil.rmtree(deployment_folder / "drm" / "store")
    shutil.copytree(tmp_path / "backup", deployment_folder / "drm" / "store")
    async with running(deployment_folder) as deployment, enrolling(deployment.home()) as enroller:
        assert isinstance((await enroller.send(enroller.request()))[0], KeyarkError)
        found = about(await findings(deployment), "the DRM's log is not the one")
    assert [(finding.severity, finding.subject) for finding in found] == [
        (Severity.ERROR, r) for r in ("rm", "cm")
    ]
    assert all("clear-alarm" not in shlex.split(finding.command, comments=True) for finding in found)
    (check,) = {finding.command for finding in found if finding.subject == "rm"}
    assert shlex.split(check, comments=True)[:2] == ["keyark-drm", "check"]
    head = await restore(deployment_folder, tmp_path / "backup")
    async with running(deployment_folder) as deployment, enrolling(deployment.home()) as enroller:
        assert not isinstance((await enroller.send(enroller.request()))[0], KeyarkError)
        assert about(await findings(deployment), "the DRM's log is not the one") == []
        for finding in found:
            async with open_session(
                deployment.home(), finding.subject, identity="auditor/auditor"
            ) as session:
                opened = [open_event(entry.event) async for entry in list_entries(session)]
            (cleared,) = [o.details for o in opened if o.event.type == EventType.EVENT_TYPE_ALARM_CLEARED]
            assert cleared is not None
            assert head in cleared.message


async def test_what_is_no_head_or_another_logs_lets_nothing_go_on(
    deployment_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, none = deployment_folder / "cm" / "cm.toml", ("--newest-change", "none")
    await raise_alarm(deployment_folder)
    for head in ("", "7", f"0:{'00' * 32}", f"7:{'00' * 31}", f"-7:{'00' * 32}", f"7:{'00' * 32}:"):
        words = (f"--restored={head}", "--transport-key", certificate_file(deployment_folder, 1), *none)
        assert await asyncio.to_thread(clear, cm_program, config, *words) == 1
        assert "is not a SIZE:ROOT" in capsys.readouterr().err
    async with running(deployment_folder) as deployment:
        assert len(about(await findings(deployment), "contradicts itself")) == 1
        new = await make(deployment)
    words = ("--restored", f"3:{'00' * 32}", "--transport-key", new["certificate"], *none)
    assert await asyncio.to_thread(clear, cm_program, config, *words) == 1
    (evidence,) = re.findall("--evidence ([0-9a-f]{64})", capsys.readouterr().err)
    await run_elsewhere(cm_program, config, *words, "--evidence", evidence)
    async with running(deployment_folder) as deployment, enrolling(deployment.home()) as enroller:
        (found,) = about(await findings(deployment), "the DRM's log is not the one whose 3 leaves it knows")
        assert found.subject == "cm"
        assert isinstance((await enroller.send(enroller.request()))[0], KeyarkError)


@pytest.mark.parametrize("role", ["rm", "cm", "drm"])
async def test_a_log_that_lost_what_this_home_saw_is_told(
    deployment_folder: Path, tmp_path: Path, role: str
) -> None:
    async with running(deployment_folder):
        pass
    store, note = deployment_folder / role / "store", deployment_folder / "checkpoints" / f"{role}.note"
    shutil.copytree(store, tmp_path / "backup")
    async with running(deployment_folder) as deployment, enrolling(deployment.home()) as enroller:
        await enroller.send(enroller.request())
        assert about(await findings(deployment), "does not continue") == []
        seen = note.read_bytes()
    shutil.rmtree(store)
    shutil.copytree(tmp_path / "backup", store)
    async with running(deployment_folder) as deployment:
        for _ in range(2):  # it is not forgotten by telling it
            (found,) = about(await findings(deployment), "does not continue the one")
            assert (found.severity, found.subject) == (Severity.ERROR, role)
            assert note.read_bytes() == seen
        _, old, new = shlex.split(found.command, comments=True)
        Path(old).rename(new)
        assert about(await findings(deployment), "does not continue") == []
        assert Path(new).read_bytes() == seen
        note.write_bytes(seen.replace(f"/{role}".encode(), b"/other"))
        assert len(about(await findings(deployment), "does not continue")) == 1


def test_the_command_tells_people_and_scripts(tmp_path: Path) -> None:
    folder = tmp_path / "deployment"
    init_home(folder)
    with up(folder):
        assert "healthy" in keyark("doctor", "--home", folder).stdout
        assert keyark("doctor", "--home", folder, "--json").stdout.strip() == "[]"
    told = keyark("doctor", "--home", folder, "--json", code=1)
    assert {finding["subject"] for finding in json.loads(told.stdout)} >= {"rm", "cm", "drm"}
    assert "error  rm  does not answer" in keyark("doctor", "--home", folder, code=1).stdout
    assert "is not a time" in keyark("doctor", "--home", folder, "--within", "soon", code=2).stderr
