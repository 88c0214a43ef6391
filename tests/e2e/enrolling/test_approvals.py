"""Requests that policy defers wait for an officer: decided once, by who may; nothing is left of what is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import NameOID

from keyark.client import EnrollmentClient, KeyDelivery, PendingApprovalError
from keyark.client.enrollment.pending import (
    EnrollmentCanceledError,
    EnrollmentExpiredError,
    EnrollmentRejectedError,
)
from keyark.clock import ManualClock, SystemClock
from keyark.errors import InvalidInputError, KeyarkError, NotFoundError, PolicyRejectedError
from keyark.rpc.calling.channels import call
from keyark.statements.approvals import Edits
from keyark.v1 import registration_pb2 as pb
from keyark.x509.certificates import Validity, load_certificates
from tests.support.running.deployment import Deployment, edit, running
from tests.support.running.processes import init_home, keyark, up
from tests.support.stories.attacks import add_person, grant, refusals_of
from tests.support.stories.enrolling import holdings
from tests.support.stories.queue import OFFICER, defer, left_in_store, officer_of, queue_events

DAY_US = 86_400_000_000
ALICE = {"common_name": "Alice Guest", "email": "alice@example.org"}


@pytest.fixture
def folder(deployment_folder: Path) -> Path:
    return defer(deployment_folder)


async def deferred(client: EnrollmentClient, **who: str) -> tuple[Any, bytes]:
    """Prepare and submit a request that has to wait; returns it and its enrollment id."""
    prepared = await client.prepare(**{**ALICE, **who})
    with pytest.raises(PendingApprovalError, match="approved by hand") as pending:
        await client.submit(prepared)
    enrollment_id = prepared.statement.enrollment_id
    assert pending.value.metadata["enrollment_id"] == enrollment_id.hex()
    return prepared, enrollment_id


async def counts(deployment: Deployment) -> tuple[int, int]:
    held = await holdings(deployment.home())
    return held.certificates, held.keys


async def reason_of(awaitable: Any) -> str:
    with pytest.raises(KeyarkError) as caught:
        await awaitable
    return caught.value.reason


async def test_a_deferred_request_is_issued_once_an_officer_approves_and_only_then(folder: Path) -> None:
    async with running(folder) as deployment, deployment.client() as client, officer_of(deployment) as jo:
        prepared, wanted = await deferred(client)
        await deferred(client, common_name="Bob Guest", email="bob@example.org")
        assert await counts(deployment) == (0, 0)
        assert (await client.enroll(common_name="Staff One", email="s@example.org")).approval is None
        waiting = [enrollment async for enrollment in jo.list()]
        assert [item.statement == prepared.statement.raw for item in waiting] == [True, False]
        assert waiting[0].review.version == 1
        done = await jo.approve(waiting[0])
        assert done.state == pb.ENROLLMENT_STATE_ISSUED
        assert done.review.officer == OFFICER
        first = await client.submit(prepared)
        again = await client.submit(prepared)
        assert first.signing_certificate == again.signing_certificate
        assert (await client.outcome(prepared)).signing_certificate == first.signing_certificate
        assert first.receipt is not None
        assert first.approval.officer.path == "officer/officer"
        assert first.approval.edits == Edits()
        assert (await counts(deployment)) == (4, 2)
        assert [item.enrollment_id async for item in jo.list()] == [waiting[1].enrollment_id]
        events = [entry for entry in await queue_events(deployment) if entry[1].enrollment_id == wanted]
        assert [name for name, *_ in events] == [
            "ENROLLMENT_DEFERRED", "ENROLLMENT_APPROVED", "ENROLLMENT_COMPLETED",
        ]  # fmt: skip
        assert "by-hand: guests are approved by hand" in events[0][2].message
        assert events[1][2].caller == OFFICER
        assert events[1][1].decision_sha256 == events[2][1].decision_sha256 != b""
    assert await left_in_store(folder) == {"approval_queue": 1, "wrapped_keys": 1}


async def test_without_a_key_it_is_asked_for_before_the_request_waits(folder: Path) -> None:
    async with running(folder) as deployment, deployment.client() as client, officer_of(deployment) as jo:
        prepared = await client.prepare(**ALICE)
        (asked,) = await client.send([prepared], {})
        assert asked.state == pb.ENROLLMENT_STATE_AWAITING_PRIVATE_KEY
        assert [e async for e in jo.list()] == []
        with pytest.raises(PendingApprovalError):
            await client.submit(prepared, delivery=KeyDelivery.WHEN_ASKED)
        (waiting,) = [e async for e in jo.list()]
        await jo.approve(waiting)
        assert (await client.submit(prepared, delivery=KeyDelivery.WHEN_ASKED)).receipt is not None


async def test_an_officer_edits_name_and_validity_and_the_person_is_told(folder: Path) -> None:
    async with running(folder) as deployment, deployment.client() as client, officer_of(deployment) as jo:
        prepared, wanted = await deferred(client)
        done = await jo.approve(
            await jo.show(wanted), Edits(common_name="Alice Guest (ACME)", validity_days=30)
        )
        assert done.state == pb.ENROLLMENT_STATE_ISSUED
        enrolled = await client.submit(prepared)
        assert enrolled.approval.edits == Edits(common_name="Alice Guest (ACME)", validity_days=30)
        for certificate in (enrolled.signing_certificate, enrolled.encryption_certificate):
            (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            assert name.value == "Alice Guest (ACME)"
            validity = Validity.of(certificate)
            assert 29.9 < (validity.not_after - validity.not_before) / 86_400 < 30.1
        assert enrolled.statement.common_name == "Alice Guest"
        prepared, wanted = await deferred(client, common_name="Carol Guest", email="carol@example.org")
        await jo.approve(await jo.show(wanted), Edits(validity_days=800))  # longer than the profile's
        validity = Validity.of((await client.submit(prepared)).signing_certificate)
        assert (validity.not_after - validity.not_before) / 86_400 > 799


@pytest.mark.parametrize(
    ("act", "error"),
    [("reject", EnrollmentRejectedError), ("cancel", EnrollmentCanceledError)],
)
async def test_what_an_officer_ends_leaves_no_key_and_no_certificate(
    folder: Path, act: str, error: Any
) -> None:
    async with running(folder) as deployment, deployment.client() as client, officer_of(deployment) as jo:
        prepared, wanted = await deferred(client)
        seen = await jo.show(wanted)
        ended = await getattr(jo, act)(seen, reason="not our guest")
        assert ended.review.reason == "not our guest"
        with pytest.raises(error, match="not our guest"):
            await client.submit(prepared)
        assert await reason_of(jo.approve(seen)) == "NOT_PENDING"
        assert await reason_of(jo.reject(await jo.show(wanted), reason="once more")) == "NOT_PENDING"
        assert await counts(deployment) == (0, 0)
        names = [name for name, *_ in await queue_events(deployment)]
        assert names == ["ENROLLMENT_DEFERRED", f"ENROLLMENT_{act.upper()}ED"]
    assert await left_in_store(folder) == {"approval_queue": 0, "wrapped_keys": 0}


async def test_requests_expire_and_their_keys_with_them(folder: Path) -> None:
    clock = ManualClock(SystemClock().now_us())
    async with (
        running(folder, clock) as deployment,
        deployment.client() as client,
        officer_of(deployment) as jo,
    ):
        prepared, wanted = await deferred(client)
        seen = await jo.show(wanted)
        assert seen.review.expires_time_us - seen.review.submitted_time_us == 7 * DAY_US
        clock.advance(7 * 86_400)
        assert await reason_of(jo.approve(seen)) in ("NOT_PENDING", "APPROVAL_MISMATCH")
        assert (await jo.show(wanted)).state == pb.ENROLLMENT_STATE_EXPIRED
        with pytest.raises(EnrollmentExpiredError, match="no officer decided"):
            await client.submit(prepared)
        assert await counts(deployment) == (0, 0)
        assert [name for name, *_ in await queue_events(deployment)] == [
            "ENROLLMENT_DEFERRED",
            "ENROLLMENT_EXPIRED",
        ]
    assert await left_in_store(folder) == {"approval_queue": 0, "wrapped_keys": 0}


async def test_of_two_officers_at_once_one_wins(folder: Path) -> None:
    add_person(folder, "officer/kim")
    async with (
        running(folder) as deployment,
        deployment.client() as client,
        officer_of(deployment) as jo,
        officer_of(deployment, "officer/kim") as kim,
    ):
        prepared, wanted = await deferred(client)
        seen = await jo.show(wanted)
        outcomes = await asyncio.gather(
            jo.approve(seen), kim.reject(seen, reason="no"), return_exceptions=True
        )
        lost = [outcome for outcome in outcomes if isinstance(outcome, KeyarkError)]
        assert [error.reason in ("NOT_PENDING", "REQUEST_CHANGED") for error in lost] == [True]
        won = await jo.show(wanted)
        if won.state == pb.ENROLLMENT_STATE_ISSUED:
            assert (await client.submit(prepared)).receipt is not None
        else:
            assert await counts(deployment) == (0, 0)
        prepared, wanted = await deferred(client, email="two@example.org")
        seen = await jo.show(wanted)
        both = await asyncio.gather(jo.approve(seen), kim.approve(seen), return_exceptions=True)
        assert sorted(getattr(o, "reason", "won") for o in both) == ["NOT_PENDING", "won"]
        issued = await jo.show(wanted)
        repeated = {OFFICER: jo}.get(issued.review.officer, kim)
        assert (await repeated.approve(issued)).certificates == issued.certificates


async def test_an_assigned_request_is_its_assignees(folder: Path) -> None:
    add_person(folder, "officer/kim")
    async with (
        running(folder) as deployment,
        deployment.client() as client,
        officer_of(deployment) as jo,
        officer_of(deployment, "officer/kim") as kim,
    ):
        _, wanted = await deferred(client)
        stale = await jo.show(wanted)
        assigned = await jo.assign(stale, assignee="officer/kim")
        assert assigned.review.version == 2
        assert await reason_of(jo.reject(stale, reason="no")) == "REQUEST_CHANGED"
        for act in (
            jo.approve(assigned),
            jo.reject(assigned, reason="no"),
            jo.cancel(assigned, reason="no"),
        ):
            assert await reason_of(act) == "ASSIGNED_ELSEWHERE"
        for nobody in ("client/enroller", "agent/alice", "auditor/auditor"):
            with pytest.raises(InvalidInputError):
                await jo.assign(assigned, assignee=nobody)
        assert (await kim.approve(assigned)).state == pb.ENROLLMENT_STATE_ISSUED
        _, wanted = await deferred(client, email="b@example.org")
        mine = await jo.assign(await jo.show(wanted), assignee="officer/kim")
        anyones = await jo.assign(mine)
        assert (await jo.approve(anyones)).state == pb.ENROLLMENT_STATE_ISSUED


async def test_who_submits_or_brings_keys_back_does_not_decide(folder: Path) -> None:
    for path in ("officer/enroller", "officer/alice"):
        add_person(folder, path)
    async with running(folder) as deployment, deployment.client() as client, officer_of(deployment) as jo:
        prepared, wanted = await deferred(client)
        seen = await jo.show(wanted)
        for name in ("officer/enroller", "officer/alice"):
            async with officer_of(deployment, name) as both:
                for act in (
                    both.approve(seen), both.reject(seen, reason="no"), both.cancel(seen, reason="no"),
                    both.assign(seen, assignee="officer/officer"),
                ):  # fmt: skip
                    assert await reason_of(act) == "SEPARATION_OF_DUTIES"
            assert await reason_of(jo.assign(seen, assignee=name)) == "SEPARATION_OF_DUTIES"
        assert await counts(deployment) == (0, 0)
    edit(folder / "rm" / "rm.toml", "separation_of_duties = true", "separation_of_duties = false")
    async with running(folder) as deployment, deployment.client() as client:
        async with officer_of(deployment, "officer/enroller") as both:
            await both.approve(await both.show(wanted))
        assert (await client.submit(prepared)).receipt is not None


async def test_requests_outlive_a_restart_with_their_keys(folder: Path) -> None:
    async with running(folder) as deployment, deployment.client() as client:
        prepared, wanted = await deferred(client)
    assert await left_in_store(folder) == {"approval_queue": 1, "wrapped_keys": 1}
    async with running(folder) as deployment, officer_of(deployment) as jo:
        assert (await jo.approve(await jo.show(wanted))).state == pb.ENROLLMENT_STATE_ISSUED
        async with deployment.client() as client:
            assert (await client.submit(prepared)).receipt is not None
    assert await left_in_store(folder) == {"approval_queue": 0, "wrapped_keys": 0}


NARROW = """
[[policy.rule]]
name = "guests-90-days"
type = "Expression"
stage = "approve"
condition = 'approved_days > 0 && approved_days <= 90 && approver == "officer/officer"'
message = "guests get 90 days at most"

[[policy.rule]]
name = "no-machines"
type = "Expression"
stage = "submit"
condition = '!common_name.startsWith("Machine")'
message = "machines are enrolled elsewhere"
"""


async def test_what_an_officer_edits_is_judged_again(folder: Path) -> None:
    defer_more = folder / "rm" / "rm.toml"
    defer_more.write_text(defer_more.read_text() + NARROW)
    async with running(folder) as deployment, deployment.client() as client, officer_of(deployment) as jo:
        prepared, wanted = await deferred(client)
        seen = await jo.show(wanted)
        for edits, rules in (
            (Edits(), ["guests-90-days"]),
            (Edits(validity_days=91), ["guests-90-days"]),
            (Edits(validity_days=90, common_name="Machine 5"), ["no-machines"]),
        ):
            with pytest.raises(PolicyRejectedError) as refused:
                await jo.approve(seen, edits)
            assert [v.rule for v in refused.value.violations] == rules
        with pytest.raises(InvalidInputError):
            await jo.approve(seen, Edits(common_name="Machine\x00"))
        assert (await jo.show(wanted)) == seen
        assert await counts(deployment) == (0, 0)
        await jo.approve(seen, Edits(validity_days=90))
        assert (await client.submit(prepared)).approval.edits.validity_days == 90


async def test_what_the_cm_refuses_of_an_approved_request_ends_it(folder: Path) -> None:
    async with running(folder) as deployment, deployment.client() as client, officer_of(deployment) as jo:
        prepared, wanted = await deferred(client)
        with pytest.raises(PolicyRejectedError) as refused:
            await jo.approve(await jo.show(wanted), Edits(validity_days=3000))
        assert {v.subsystem for v in refused.value.violations} == {"cm"}
        assert (await jo.show(wanted)).state == pb.ENROLLMENT_STATE_REJECTED
        with pytest.raises(EnrollmentRejectedError, match="Policy of the CM"):
            await client.submit(prepared)
        assert (await holdings(deployment.home())).certificates == 0
    assert await left_in_store(folder) == {"approval_queue": 0, "wrapped_keys": 0}


async def test_a_key_that_does_not_open_ends_an_approved_request(folder: Path) -> None:
    async with running(folder) as deployment, deployment.client() as client, officer_of(deployment) as jo:
        prepared = await client.prepare(**ALICE)
        request = pb.EnrollmentRequest(
            statement=prepared.statement.raw,
            signature=prepared.signature,
            wrapped_private_key=b"no envelope",
        )
        message = pb.SubmitEnrollmentsRequest(items=[request], call=client._signed([request.statement]))
        answer = await client._registration.SubmitEnrollments(message, timeout=30)
        assert answer.outcomes[0].enrollment.state == pb.ENROLLMENT_STATE_PENDING_APPROVAL
        assert await reason_of(jo.approve(await jo.show(prepared.statement.enrollment_id))) == "ENVELOPE"
        with pytest.raises(EnrollmentRejectedError):
            await client.submit(prepared)
        assert await counts(deployment) == (0, 0)


async def test_a_full_queue_takes_no_more(folder: Path) -> None:
    edit(folder / "rm" / "rm.toml", "max_waiting = 10000", "max_waiting = 1")
    async with running(folder) as deployment, deployment.client() as client, officer_of(deployment) as jo:
        _, wanted = await deferred(client)
        prepared = await client.prepare(common_name="Bob Guest", email="bob@example.org")
        assert await reason_of(client.submit(prepared)) == "OVERLOADED"
        await jo.reject(await jo.show(wanted), reason="room")
        with pytest.raises(PendingApprovalError):
            await client.submit(prepared)


async def test_one_client_does_not_fill_the_queue_for_others(folder: Path) -> None:
    edit(folder / "rm" / "rm.toml", "max_waiting_per_caller = 1000", "max_waiting_per_caller = 2")
    add_person(folder, "client/other")
    grant(folder, "client/other", "example.org")
    async with (
        running(folder) as deployment,
        deployment.client() as client,
        deployment.client("client/other") as other,
        officer_of(deployment) as jo,
    ):
        waiting = [await deferred(client, email=f"{number}@example.org") for number in range(2)]
        prepared = await client.prepare(common_name="Bob Guest", email="bob@example.org")
        assert await reason_of(client.submit(prepared)) == "TOO_MANY_WAITING"
        await deferred(other)
        await jo.reject(await jo.show(waiting[0][1]), reason="room")
        with pytest.raises(PendingApprovalError):
            await client.submit(prepared)
        refusals = await refusals_of(deployment.home(), "rm")
        assert refusals == [("spiffe://example.org/client/enroller", "TOO_MANY_WAITING")]


async def test_quota_counts_a_deferred_request_once(folder: Path) -> None:
    path = folder / "rm" / "rm.toml"
    path.write_text(
        path.read_text() + '[[policy.rule]]\nname = "two"\ntype = "Quota"\nstage = "submit"\nper_day = 2\n'
    )
    async with running(folder) as deployment, deployment.client() as client, officer_of(deployment) as jo:
        prepared, wanted = await deferred(client)
        await jo.approve(await jo.show(wanted))
        await client.submit(prepared)
        prepared, wanted = await deferred(client, email="b@example.org")
        with pytest.raises(PolicyRejectedError):
            await client.enroll(common_name="Staff One", email="s@example.org")
        await jo.approve(await jo.show(wanted))
        assert (await client.submit(prepared)).receipt is not None


async def test_the_list_is_paged_and_filtered(folder: Path) -> None:
    async with running(folder) as deployment, deployment.client() as client, officer_of(deployment) as jo:
        ids = [(await deferred(client, email=f"g{i}@example.org"))[1] for i in range(5)]
        await client.enroll(common_name="Staff One", email="s@example.org")
        await jo.reject(await jo.show(ids[1]), reason="no")
        stub, found, token = jo._stub, [], ""
        while True:
            request = pb.ListEnrollmentsRequest(state=pb.ENROLLMENT_STATE_PENDING_APPROVAL)
            request.page.page_size, request.page.page_token = 2, token
            page = await stub.ListEnrollments(request, timeout=30)
            found += [e.enrollment_id for e in page.enrollments]
            if not (token := page.next_page_token):
                break
        assert found == [ids[0], *ids[2:]]
        with pytest.raises(NotFoundError):
            await jo.show(bytes(32))


async def test_an_approval_is_the_officers_own_and_for_this_request(folder: Path) -> None:
    add_person(folder, "officer/kim")
    async with (
        running(folder) as deployment,
        deployment.client() as client,
        officer_of(deployment) as jo,
        officer_of(deployment, "officer/kim") as kim,
    ):
        first, one = await deferred(client)
        _, two = await deferred(client, email="b@example.org")
        seen, other = await jo.show(one), await jo.show(two)
        good = jo._signer.approve(first.statement, Edits(), time=SystemClock().now_us() // 1_000_000)
        bad = type(good).FromString(good.SerializeToString())
        bad.signature = bytes(reversed(good.signature))

        async def send(who: Any, enrollment_id: bytes, approval: Any) -> str:
            request = pb.ApproveEnrollmentRequest(enrollment_id=enrollment_id, approval=approval)
            return await reason_of(call(who._stub.ApproveEnrollment, request, timeout=30))

        assert await send(kim, seen.enrollment_id, good) == "APPROVAL_MISMATCH"
        assert await send(jo, other.enrollment_id, good) == "APPROVAL_MISMATCH"
        assert await send(jo, seen.enrollment_id, bad) == "APPROVAL_SIGNATURE"
        assert await send(jo, seen.enrollment_id, None) == "INVALID_INPUT"
        assert await counts(deployment) == (0, 0)


def test_the_commands_decide_and_who_submitted_waits_for_it(tmp_path: Path) -> None:
    home = tmp_path / "deployment"
    init_home(home)
    defer(home)
    person = (
        "--home",
        home,
        "--name",
        "Alice Guest",
        "--email",
        "alice@example.org",
        "--out",
        tmp_path / "alice",
    )
    officer = ("--home", home, "--as", "officer/officer")
    with up(home):
        assert "PENDING_APPROVAL" in keyark("enroll", *person, code=4).stderr
        waiting = json.loads(keyark("enrollments", "list", "--state", "pending", *officer, "--json").stdout)
        wanted = waiting[0]["enrollment_id"]
        assert (
            "by-hand: guests are approved by hand" in keyark("enrollments", "show", wanted, *officer).stdout
        )
        own = keyark("enrollments", "show", wanted, "--home", home, "--as", "client/enroller").stdout
        assert "PENDING_APPROVAL" in own
        assert "--to" in keyark("enrollments", "assign", wanted, *officer, code=2).stderr
        keyark("enrollments", "assign", wanted, "--to", "officer/officer", *officer)
        approved = keyark(
            "enrollments", "approve", wanted, "--days", 30, "--name", "Alice G.", *officer
        ).stdout
        assert "edited      common name: Alice G." in approved
        assert "edited      validity: 30 days" in approved
        keyark("enroll", *person, "--wait", "--wait-seconds", 60)
        assert keyark("enrollments", "approve", wanted, *officer, code=1).stderr.count("NOT_PENDING") == 1
        other = (*person[:3], "Bob Guest", "--email", "bob@example.org", "--out", tmp_path / "bob")
        keyark("enroll", *other, code=4)
        waiting = json.loads(keyark("enrollments", "list", "--state", "pending", *officer, "--json").stdout)
        refused = waiting[0]["enrollment_id"]
        keyark("enrollments", "reject", refused, "--reason", "unknown here", *officer)
        assert "unknown here" in keyark("enroll", *other, code=3).stderr
        assert keyark("enrollments", "list", "--state", "rejected", *officer).stdout.count(refused) == 1
    certificate = load_certificates(tmp_path / "alice" / "signing.pem")[0]
    assert certificate.subject.rfc4514_string() == "CN=Alice G."
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lifetime.days == 30
