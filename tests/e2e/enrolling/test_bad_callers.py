"""P5, P8, P9 between two clients of one deployment, and between requests that race each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from keyark.errors import KeyarkError, NotFoundError, PolicyRejectedError
from keyark.keys.key_types import KeyType, generate
from keyark.rpc.calling.channels import call
from keyark.rpc.errors import error_from_status
from keyark.statements.enrollment import new_request_id, parse_statement
from keyark.v1 import registration_pb2 as pb
from tests.support.running.deployment import Deployment, copy_deployment, running
from tests.support.stories.attacks import add_person, grant, nothing_changes, refused, take_stock
from tests.support.stories.enrolling import Enroller, enrolling, pkcs8

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(deployment_template, tmp_path_factory) -> AsyncIterator[Deployment]:
    """A deployment with two clients that may enroll, and one that was granted nothing."""
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("callers") / "deployment")
    add_person(folder, "client/other")
    add_person(folder, "client/nobody")
    grant(folder, "client/other", "example.net")
    async with running(folder) as deployment:
        yield deployment


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def first(deployment: Deployment) -> AsyncIterator[Enroller]:
    async with enrolling(deployment.home()) as enroller:
        yield enroller


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other(deployment: Deployment) -> AsyncIterator[Enroller]:
    async with enrolling(deployment.home(), "client/other") as enroller:
        yield enroller


OTHERS = {"common_name": "Olga Other", "email": "olga@example.net"}


def key() -> Any:
    return generate(KeyType.EC_P256)


async def enrolled(enroller: Enroller, **request: Any) -> pb.Enrollment:
    outcome = (await enroller.send(enroller.request(**request)))[0]
    assert not isinstance(outcome, KeyarkError), outcome
    assert outcome.state == pb.ENROLLMENT_STATE_ISSUED
    return outcome


async def test_a_public_key_that_another_client_enrolled_is_refused_in_either_role(
    deployment: Deployment, first: Enroller, other: Enroller
) -> None:
    """Even with the private key at hand: one key, one owner."""
    signing, encryption = key(), key()
    await enrolled(first, signing_key=signing, encryption_key=encryption)
    for theirs, reason in (
        ({"signing_key": signing}, "PUBLIC_KEY_IN_USE"),
        ({"encryption_key": encryption}, "PUBLIC_KEY_IN_USE"),
        ({"encryption_key": signing}, "KEY_ROLE_CONFLICT"),
        ({"signing_key": encryption}, "KEY_ROLE_CONFLICT"),
    ):
        error = await refused(deployment.home(), other, other.request(fields=OTHERS, **theirs))
        assert error.reason == reason


async def test_a_captured_request_is_of_no_use_to_another_client(
    deployment: Deployment, first: Enroller, other: Enroller
) -> None:
    """Statement, signature and envelope as they were sent, before and after the owner had them enrolled."""
    captured = first.request()
    assert (await refused(deployment.home(), other, captured)).reason == "PERMISSION_DENIED"
    assert not isinstance((await first.send(captured))[0], KeyarkError)
    assert (await refused(deployment.home(), other, captured)).reason == "PERMISSION_DENIED"


async def test_a_call_is_signed_for_what_it_sends_and_nothing_else(
    deployment: Deployment, first: Enroller, other: Enroller
) -> None:
    """Another client's word, one of later, for fewer, for more, reordered: refused as a whole, and logged."""
    one, two = first.request(), first.request()
    theirs = other.call(one, two)
    later = first.signer.sign([one.statement, two.statement], time=int(time.time()) + 400).message
    sent = (
        (theirs, "CALL_MISMATCH"),
        (first.call(one), "CALL_MISMATCH"),
        (first.call(two, one), "CALL_MISMATCH"),
        (first.call(one, two, first.request()), "CALL_MISMATCH"),
        (later, "CALL_TIME"),
    )
    for signed, reason in sent:
        async with nothing_changes(deployment.home()):
            message = pb.SubmitEnrollmentsRequest(items=[one, two], call=signed)
            with pytest.raises(KeyarkError) as caught:
                await call(first.registration.SubmitEnrollments, message, timeout=30)
            assert caught.value.reason == reason
            assert (await take_stock(deployment.home())).refusals["rm"][-1] == (first.caller, reason)
    assert not any(isinstance(outcome, KeyarkError) for outcome in await first.send(one, two))


async def test_without_the_callers_signature_nothing_is_asked_for(
    deployment: Deployment, first: Enroller
) -> None:
    """Step 3 included: the profile demands the signature before it asks for the key."""
    for envelope in (None, b""):
        message = pb.SubmitEnrollmentsRequest(items=[first.request(envelope=envelope)])
        async with nothing_changes(deployment.home()):
            response = await call(first.registration.SubmitEnrollments, message, timeout=30)
        assert error_from_status(response.outcomes[0].error).reason == "CALLER_SIGNATURE_REQUIRED"
        last = (await take_stock(deployment.home())).refusals["rm"][-1]
        assert last == (first.caller, "CALLER_SIGNATURE_REQUIRED")


async def test_a_captured_envelope_is_of_no_use_to_another_client(
    deployment: Deployment, first: Enroller, other: Enroller
) -> None:
    """P5: the other client asks for a certificate of the same encryption key, in its own name."""
    encryption = key()
    captured = first.request(encryption_key=encryption)
    request = other.request(encryption_key=encryption, fields=OTHERS, envelope=captured.wrapped_private_key)
    assert (await refused(deployment.home(), other, request, also_by=["drm"])).reason == "ENVELOPE"
    assert not isinstance((await first.send(captured))[0], KeyarkError)


async def test_an_outcome_is_told_to_its_own_client_only(
    deployment: Deployment, first: Enroller, other: Enroller
) -> None:
    request = first.request()
    await first.send(request)
    asked = pb.GetEnrollmentRequest(request_id=parse_statement(request.statement).request_id)
    mine = await call(first.registration.GetEnrollment, asked, timeout=10)
    assert mine.enrollment.statement == request.statement
    with pytest.raises(NotFoundError):
        await call(other.registration.GetEnrollment, asked, timeout=10)


async def test_two_clients_may_use_the_same_request_id(first: Enroller, other: Enroller) -> None:
    """Nobody can block a request by taking its id first."""
    request_id = new_request_id()
    ids = {
        (await enrolled(client, fields={**fields, "request_id": request_id})).enrollment_id
        for client, fields in ((first, {}), (other, OTHERS))
    }
    assert len(ids) == 2


async def test_a_client_enrolls_addresses_of_its_own_domains_only(
    deployment: Deployment, first: Enroller, other: Enroller
) -> None:
    await enrolled(other, fields=OTHERS)
    for enroller, fields in ((first, OTHERS), (other, {})):
        error = await refused(deployment.home(), enroller, enroller.request(fields=fields))
        assert isinstance(error, PolicyRejectedError)
        assert [(v.subsystem, v.rule) for v in error.violations] == [("rm", "who-enrolls-whom")]


async def test_a_client_that_was_granted_nothing_enrolls_nobody(deployment: Deployment) -> None:
    async with enrolling(deployment.home(), "client/nobody") as nobody:
        error = await refused(deployment.home(), nobody, nobody.request())
    assert isinstance(error, PolicyRejectedError)


async def test_of_different_contents_under_one_id_at_once_one_is_enrolled(
    deployment: Deployment, first: Enroller
) -> None:
    before = await take_stock(deployment.home())
    request_id = new_request_id()
    requests = [
        first.request(fields={"request_id": request_id, "common_name": f"Alice {number}"})
        for number in range(8)
    ]
    outcomes = [outcome for batch in await asyncio.gather(*map(first.send, requests)) for outcome in batch]
    refusals = [outcome.reason for outcome in outcomes if isinstance(outcome, KeyarkError)]
    assert refusals == ["REQUEST_ID_REUSED"] * 7
    after = await take_stock(deployment.home())
    assert after.counts == tuple(a + b for a, b in zip(before.counts, (2, 1, 1), strict=True))


async def test_of_requests_for_one_key_at_once_one_is_enrolled(
    deployment: Deployment, first: Enroller, other: Enroller
) -> None:
    """P8 without a record to look at yet: in the same role, and in both roles, in one batch and in two calls."""
    for same_call in (True, False):
        shared = key()
        before = await take_stock(deployment.home())
        requests = [first.request(encryption_key=shared), first.request(signing_key=shared)]
        requests.append(first.request(encryption_key=shared))
        batches = [requests] if same_call else [[request] for request in requests]
        batches.append([other.request(encryption_key=shared, fields=OTHERS)])
        senders = [first] * (len(batches) - 1) + [other]
        answers = await asyncio.gather(
            *(sender.send(*batch) for sender, batch in zip(senders, batches, strict=True))
        )
        outcomes = [outcome for batch in answers for outcome in batch]
        refusals = [outcome.reason for outcome in outcomes if isinstance(outcome, KeyarkError)]
        assert len(refusals) == 3, outcomes
        assert set(refusals) <= {"PUBLIC_KEY_IN_USE", "KEY_ROLE_CONFLICT"}
        after = await take_stock(deployment.home())
        assert after.counts == tuple(a + b for a, b in zip(before.counts, (2, 1, 1), strict=True))


async def test_a_key_that_was_refused_can_still_be_enrolled_by_its_owner(
    deployment: Deployment, first: Enroller, other: Enroller
) -> None:
    """Who knows a public key only cannot take it from its owner: without the private one nothing is claimed."""
    encryption = key()
    request = other.request(encryption_key=encryption, private_key=pkcs8(key()), fields=OTHERS)
    assert (await refused(deployment.home(), other, request, also_by=["drm"])).reason == "KEY_MISMATCH"
    await enrolled(first, encryption_key=encryption)


async def test_a_request_without_its_key_stores_nothing(deployment: Deployment, first: Enroller) -> None:
    """Step 3: the answer asks for the key, and the id and the keys are still free."""
    async with nothing_changes(deployment.home()):
        outcome = (await first.send(first.request(envelope=b"")))[0]
    assert not isinstance(outcome, KeyarkError)
    assert outcome.state == pb.ENROLLMENT_STATE_AWAITING_PRIVATE_KEY
    assert not outcome.HasField("certificates")
