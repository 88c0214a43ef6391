"""A hostile RM enrolls nothing in a client's name: DRM and CM demand the client's own signed call (P5, P6).

The RM's identity is in other hands, which have all that passed through the RM: statements, envelopes, signed calls.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from keyark.clock import ManualClock
from keyark.contexts import context
from keyark.errors import KeyarkError
from keyark.keys.signatures import sign_message
from keyark.rpc.calling.channels import call
from keyark.rpc.errors import error_from_status
from keyark.statements.calls import LABEL, CallSigner
from keyark.v1 import archive_pb2, certificates_pb2
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.v1.statement_pb2 import CallStatement
from tests.e2e.test_direct_attacks import HostileRm
from tests.support.running.deployment import Deployment, copy_deployment, edit, running
from tests.support.stories.attacks import Holdings, forge_identity, take_stock
from tests.support.stories.enrolling import Enroller, enrolling
from tests.support.stories.relays import service_identity

pytestmark = pytest.mark.asyncio(loop_scope="module")

RM = "spiffe://example.org/rm"
CLIENT = "spiffe://example.org/client/enroller"
HOUR = 3600
CLOCK = ManualClock((int(time.time()) + 2 * HOUR) * 1_000_000)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(deployment_template, tmp_path_factory) -> AsyncIterator[Deployment]:
    """Hours after it was made; with a profile whose callers need not sign, as far as the CM is concerned."""
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("hostile") / "deployment")
    text = (folder / "cm" / "cm.toml").read_text()
    waived = '[profiles.waived]\nbase = "user"\ncaller_signature = "waived"\n\n[profiles.user]'
    (folder / "cm" / "cm.toml").write_text(text.replace("[profiles.user]", waived, 1))
    async with running(folder, CLOCK) as deployment:
        yield deployment


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def victim(deployment: Deployment) -> AsyncIterator[Enroller]:
    """Makes requests as the RM would: with keys of its own, in the client's name. What it signs, the client signed."""
    async with enrolling(deployment.home(), clock=CLOCK) as enroller:
        yield enroller


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rm(deployment: Deployment) -> AsyncIterator[HostileRm]:
    hostile = HostileRm(deployment)
    yield hostile
    await hostile.close()


def signer(deployment: Deployment, *uris: str, **forged: Any) -> CallSigner:
    """An identity that the internal CA signed."""
    identity = forge_identity(deployment.folder, uris=uris, **forged)
    return CallSigner(certificate=identity.leaf, private_key=identity.signing_key)


def signed(by: CallSigner, *requests: Any, at: int = 0, **fields: Any) -> SignedStatement:
    """A call by somebody, ``at`` seconds from now, that says what ``fields`` have instead."""
    signed = by.sign([request.statement for request in requests], time=CLOCK.now_us() // 1_000_000 + at)
    if not fields:
        return signed.message
    message = CallStatement.FromString(signed.statement)
    message.MergeFrom(CallStatement(**fields))
    raw = message.SerializeToString(deterministic=True)
    signature = sign_message(by.private_key, context(LABEL, raw))
    return SignedStatement(statement=raw, signature=signature, certificate=signed.certificate)


async def refused(deployment: Deployment, rm: HostileRm, request: Any, evidence: Any) -> set[str]:
    """Have both subsystems refuse; returns the reasons, each of which stands in the log of the one that gave it."""
    before = await take_stock(deployment.home())
    rm.captured = lambda _: evidence
    outcomes = {"drm": await rm.archive(request), "cm": await rm.issue(request, b"", None)}
    after = await take_stock(deployment.home())
    assert after.counts == before.counts
    for role, outcome in outcomes.items():
        assert isinstance(outcome, KeyarkError), (role, outcome)
        assert new_refusals(before, after, role) == [(RM, outcome.reason)]
    return {outcome.reason for outcome in outcomes.values()}


def new_refusals(before: Holdings, after: Holdings, role: str) -> list[tuple[str, str]]:
    return after.refusals[role][len(before.refusals[role]) :]


async def test_keys_of_its_own_in_a_clients_name_are_neither_archived_nor_certified(
    deployment, rm, victim
) -> None:
    """Statement, proof of possession and envelope are all in order: they are made with the RM's own keys."""
    assert await refused(deployment, rm, victim.request(), None) == {"CALLER_SIGNATURE_REQUIRED"}


async def test_no_signing_key_is_reserved_in_a_clients_name(deployment, rm, victim) -> None:
    """The archive's register of signing keys takes the RM's word for nothing either (P8)."""
    request = victim.request()
    before = await take_stock(deployment.home())
    for calls, reason in (
        ([], "CALLER_SIGNATURE_REQUIRED"),
        ([victim.call(victim.request())], "CALL_MISMATCH"),
    ):
        item = {"statement": request.statement, "signature": request.signature, "call": len(calls)}
        message = archive_pb2.ReserveSigningKeysRequest(items=[item], calls=calls)
        response = await call(rm.archive_service.ReserveSigningKeys, message, timeout=30)
        assert error_from_status(response.outcomes[0]).reason == reason
        after = await take_stock(deployment.home())
        assert new_refusals(before, after, "drm")[-1] == (RM, reason)


async def test_the_call_of_another_request_does_not_count(deployment, rm, victim) -> None:
    """Replayed: the client signed it, for what it enrolled a moment ago, and for many at once."""
    honest = [victim.request() for _ in range(3)]
    for sent in (honest[:1], honest):
        outcome = await refused(deployment, rm, victim.request(), victim.call(*sent))
        assert outcome == {"CALL_MISMATCH"}


async def test_the_call_of_another_client_does_not_count(deployment, rm, victim) -> None:
    """An accomplice with a client's identity signs for the request that the RM made in the victim's name."""
    request = victim.request()
    accomplice = signer(deployment, "spiffe://example.org/client/accomplice")
    assert await refused(deployment, rm, request, signed(accomplice, request)) == {"CALL_MISMATCH"}
    named = signed(accomplice, request, caller=CLIENT)
    assert await refused(deployment, rm, request, named) == {"CALL_SIGNATURE"}


@pytest.mark.parametrize(
    "who", ["rm", "cm", "officer/officer", "agent/alice", "auditor/auditor", "drm/transport"]
)
async def test_an_identity_of_another_role_signs_no_calls(deployment, rm, victim, who: str) -> None:
    request = victim.request()
    evidence = signed(signer(deployment, f"spiffe://example.org/{who}"), request)
    assert await refused(deployment, rm, request, evidence) == {"UNAUTHENTICATED"}


async def test_the_rms_own_key_signs_no_calls(deployment, rm, victim) -> None:
    request, own = victim.request(), service_identity(deployment.folder, "rm")
    by = CallSigner(certificate=own.leaf, private_key=own.signing_key)
    assert await refused(deployment, rm, request, signed(by, request)) == {"UNAUTHENTICATED"}
    by_victim = signed(by, request)
    by_victim.certificate = victim.call(request).certificate
    assert await refused(deployment, rm, request, by_victim) == {"CALL_SIGNATURE"}


async def test_an_identity_of_another_deployment_signs_no_calls(deployment, rm, victim) -> None:
    request = victim.request()
    evidence = signed(signer(deployment, "spiffe://example.com/client/enroller"), request)
    assert await refused(deployment, rm, request, evidence) <= {"UNAUTHENTICATED", "CALL_MISMATCH"}


async def test_a_certificate_that_ended_signs_nothing_later(deployment, rm, victim) -> None:
    """A key that leaked after its certificate ended: neither now nor in the past, beyond the time of one call."""
    request = victim.request()
    ended = signer(deployment, CLIENT, seconds=HOUR)
    assert await refused(deployment, rm, request, signed(ended, request)) == {"CERTIFICATE_EXPIRED"}
    backdated = signed(ended, request, at=-HOUR - 60)
    assert await refused(deployment, rm, request, backdated) == {"CALL_TIME"}


async def test_a_call_counts_for_minutes_and_never_ahead(deployment, rm, victim) -> None:
    request = victim.request()
    for at in (-1000, 1000):
        assert await refused(deployment, rm, request, signed(victim.signer, request, at=at)) == {"CALL_TIME"}


async def test_a_list_that_was_cut_or_reordered_is_not_what_was_signed(deployment, rm, victim) -> None:
    requests = [victim.request() for _ in range(3)]
    for change in (
        lambda hashes: hashes[:1],
        lambda hashes: hashes[::-1],
        lambda hashes: [*hashes, bytes(32)],
    ):
        evidence = victim.call(*requests)
        message = CallStatement.FromString(evidence.statement)
        message.statement_sha256[:] = change(list(message.statement_sha256))
        evidence.statement = message.SerializeToString(deterministic=True)
        assert await refused(deployment, rm, requests[0], evidence) == {"CALL_SIGNATURE"}


async def test_an_item_names_a_call_that_came_along(deployment, rm, victim) -> None:
    """Places out of range, and calls without end, are refused as a whole and logged."""
    request = victim.request()
    evidence = victim.call(request)
    before = await take_stock(deployment.home())
    for place, calls in ((2, [evidence]), (1, []), (1, [evidence] * 2)):
        item = {"statement": request.statement, "signature": request.signature, "call": place}
        for method, message in (
            (rm.archive_service.ArchiveKeys, archive_pb2.ArchiveKeysRequest(items=[item], calls=calls)),
            (
                rm.certificates.IssueCertificatePairs,
                certificates_pb2.IssueCertificatePairsRequest(items=[item], calls=calls),
            ),
        ):
            with pytest.raises(KeyarkError) as caught:
                await call(method, message, timeout=30)
            assert caught.value.reason == "INVALID_INPUT"
    after = await take_stock(deployment.home())
    assert after.counts == before.counts
    for role in ("cm", "drm"):
        assert new_refusals(before, after, role) == [(RM, "INVALID_INPUT")] * 3


async def test_one_call_covers_items_of_several_batches(deployment, rm, victim) -> None:
    """And items of one batch may be of several calls: what each of them names counts, whatever stands beside it."""
    together = [victim.request() for _ in range(2)]
    rm.captured = lambda _: victim.call(*together)
    for request in together:
        receipt, _ = await rm.archived(request)
        assert receipt
    alone = victim.request()
    items = [
        archive_pb2.ArchiveItem(
            statement=request.statement,
            signature=request.signature,
            wrapped_private_key=request.wrapped_private_key,
            call=place,
        )
        for request, place in (
            (alone, 2),
            (victim.request(), 2),
            (victim.request(), 1),
            (victim.request(), 0),
        )
    ]
    message = archive_pb2.ArchiveKeysRequest(items=items, calls=[victim.call(*together), victim.call(alone)])
    response = await call(rm.archive_service.ArchiveKeys, message, timeout=30)
    assert [outcome.HasField("receipt") for outcome in response.outcomes] == [True, False, False, False]


async def test_the_drm_waives_nothing_that_the_cm_alone_waives(deployment, rm, victim) -> None:
    """Each decides by its own configuration, and the RM by none."""
    request = victim.request(fields={"profile": "waived"})
    rm.captured = lambda _: None
    assert (await rm.archive(request)).reason == "CALLER_SIGNATURE_REQUIRED"
    assert (await rm.issue(request, b"", None)).reason == "RECEIPT_REQUIRED"
    wrong = signed(victim.signer, victim.request())
    assert await refused(deployment, rm, request, wrong) == {"CALL_MISMATCH"}


async def test_clients_that_cannot_sign_enroll_where_their_profile_waives_it(
    deployment_template, tmp_path
) -> None:
    folder = copy_deployment(deployment_template, tmp_path / "deployment")
    edit(folder / "cm" / "cm.toml", "[profiles.user]", '[profiles.user]\ncaller_signature = "waived"')
    edit(folder / "drm" / "drm.toml", "waived_profiles = []", 'waived_profiles = ["user"]')
    async with running(folder) as deployment, enrolling(deployment.home()) as enroller:
        enroller.call = lambda *_: None  # type: ignore[method-assign]
        assert not isinstance((await enroller.send(enroller.request()))[0], KeyarkError)
        (refusal,) = await enroller.send(enroller.request(fields={"profile": "pq"}))
        assert refusal.reason == "CALLER_SIGNATURE_REQUIRED"
