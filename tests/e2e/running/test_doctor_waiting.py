"""`keyark doctor`: what waits for a person is told before its time is over, and the command it names ends the wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyark.client import PendingApprovalError
from keyark.keys.private_keys import encode_private_key, load_private_key
from keyark.statements.approvals import Edits
from keyark.v1.registration_pb2 import EnrollmentState
from tests.e2e.running.test_doctor import DAYS, about, findings
from tests.support.running.deployment import Deployment, running
from tests.support.running.processes import run_printed
from tests.support.stories.queue import defer, officer_of
from tests.support.stories.recovering import REASON, agents, approve, lose_key, state

ALICE = {"common_name": "Alice Guest", "email": "alice@example.org"}


async def test_a_request_that_soon_expires_is_told_and_its_command_issues(deployment_folder: Path) -> None:
    async with running(defer(deployment_folder)) as deployment:
        async with deployment.client() as client:
            prepared = await client.prepare(**ALICE)
            with pytest.raises(PendingApprovalError):
                await client.submit(prepared)
        assert about(await findings(deployment, later=5 * DAYS), "waits for an officer") == []
        (found,) = about(await findings(deployment, later=6 * DAYS), "waits for an officer")
        assert found.text == "of alice@example.org waits for an officer and expires in 23 hours"
        assert found.subject == f"request {prepared.statement.enrollment_id.hex()}"
        await run_printed(found.command)
        async with officer_of(deployment) as officer:
            shown = await officer.show(prepared.statement.enrollment_id)
        assert shown.state == EnrollmentState.ENROLLMENT_STATE_ISSUED
        assert about(await findings(deployment, later=6 * DAYS), "request ") == []


async def test_an_approved_request_that_is_not_issued_is_told_with_its_reason(
    deployment_folder: Path,
) -> None:
    async with running(defer(deployment_folder)) as deployment:
        async with deployment.client() as client:
            prepared = await client.prepare(**ALICE)
            with pytest.raises(PendingApprovalError):
                await client.submit(prepared)
        await deployment.services["cm"].server.drain(0)
        async with officer_of(deployment) as officer:
            approved = await officer.approve(
                await officer.show(prepared.statement.enrollment_id),
                Edits(common_name="Alice O'Guest", validity_days=7),
            )
        assert approved.state == EnrollmentState.ENROLLMENT_STATE_APPROVED
        assert about(await findings(deployment), "was approved") == []
        (found,) = about(await findings(deployment, later=700), "was approved")
        assert found.text.startswith("of alice@example.org was approved")
        assert found.command.endswith(""" --name 'Alice O'"'"'Guest' --days 7""")
    async with running(deployment_folder) as deployment:
        await run_printed(found.command)
        assert about(await findings(deployment, later=700), "was approved") == []
        async with officer_of(deployment) as officer:
            shown = await officer.show(prepared.statement.enrollment_id)
        assert shown.state == EnrollmentState.ENROLLMENT_STATE_ISSUED


async def test_a_ceremony_that_soon_expires_is_told_and_an_approval_ends_it(deployment: Deployment) -> None:
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob") as (alice, bob):
        asked = await alice.request_keys([lost.key_id], reason=REASON)
        await approve(asked.ceremony_id, bob)
        assert about(await findings(deployment, later=17 * 3600), "ceremony ") == []
        (found,) = about(await findings(deployment, later=19 * 3600), "ceremony ")
        assert found.text == "no quorum of 2 has approved it, and it expires in 4 hours"
        assert found.subject == f"ceremony {asked.ceremony_id.hex()}"
        await run_printed(found.command.split("  #")[0] + " --as agent/carol --yes")
        assert about(await findings(deployment, later=19 * 3600), "ceremony ") == []
        (uncollected,) = about(await findings(deployment, later=4 * DAYS), "ceremony ")
        assert uncollected.text == "recovered keys have been waiting for their requester for 4 days"
        await alice.collect(asked.ceremony_id)
        await alice.acknowledge(asked.ceremony_id)
        assert state(await alice.review(asked.ceremony_id)) == "COMPLETED"
    assert about(await findings(deployment, later=4 * DAYS), "ceremony ") == []


async def test_an_approval_that_a_restart_lost_is_told_to_its_agent(deployment_folder: Path) -> None:
    async with running(deployment_folder) as deployment:
        lost = await lose_key(deployment)
        async with agents(deployment, "alice", "bob") as (alice, bob):
            asked = await alice.request_keys([lost.key_id], reason=REASON)
            await approve(asked.ceremony_id, bob)
    async with running(deployment_folder) as deployment:
        (found,) = about(await findings(deployment), "must approve again")
        assert found.command.endswith(" --as agent/bob")
        await run_printed(found.command + " --yes")
        assert about(await findings(deployment), "must approve again") == []


async def test_a_home_without_agents_is_looked_at_as_its_officer_and_auditor(deployment: Deployment) -> None:
    for key in deployment.folder.glob("identities/agent/*/key.pem"):
        key.unlink()
    assert await findings(deployment) == []


@pytest.mark.parametrize(("role", "left"), [("officer", "requests"), ("auditor", "services")])
async def test_a_home_without_a_role_is_told_so_once_with_what_is_left_out(
    deployment: Deployment, role: str, left: str
) -> None:
    for key in deployment.folder.glob(f"identities/{role}/*/key.pem"):
        key.unlink()
    (found,) = await findings(deployment)
    assert found.subject == "this home"
    assert f"no identity of the role {role}" in found.text
    assert left in found.text.partition("Left out: ")[2].rstrip(".").split(", ")


async def test_keys_that_nobody_unlocks_are_the_homes_fault_and_no_services(deployment: Deployment) -> None:
    (path,) = deployment.folder.glob("identities/auditor/*/key.pem")
    key = load_private_key(path)
    path.write_bytes(encode_private_key(key, password=b"correct horse battery staple"))
    (found,) = await findings(deployment)
    assert found.subject == "this home"
    assert str(path) in found.text
    assert found.command.endswith(" --identity-password-file FILE")
