"""P6, P7, P10: checks come before anything is parsed, refusals are recorded, and no failure tells more than it may."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import grpc
import pytest
from grpc.experimental import session_cache
from grpc_health.v1 import health_pb2, health_pb2_grpc

from keyark.errors import (
    DeadlineExceededError,
    InvalidInputError,
    KeyarkError,
    OverloadedError,
    PermissionDeniedError,
    UnavailableError,
)
from keyark.errors.services import StoreFullError
from keyark.identity.revoked import IdentityRevokedError
from keyark.meters import Meters
from keyark.rpc.calling.channels import Channel, call
from keyark.rpc.errors import InternalError, error_from_call
from keyark.rpc.identities import PeerReader
from keyark.rpc.serving import guard
from keyark.v1 import audit_pb2
from tests.support.keys.pki import TRUST_DOMAIN
from tests.support.running.rpc import (
    Scripted,
    budgets,
    channel_to,
    identity,
    identity_list,
    revoked_identities,
    serial_of,
    serving,
    stub,
)

REQUEST = audit_pb2.GetCheckpointRequest()
METHOD = "/keyark.v1.AuditService/ListEntries"
METHOD_ASKED = "/keyark.v1.AuditService/GetCheckpoint"
WATCH = "/grpc.health.v1.Health/Watch"
MALFORMED = b"\xff\xff\xff"


async def send_malformed(channel) -> bytes:
    return await call(channel.unary_unary(METHOD), MALFORMED, timeout=10)


async def test_a_malformed_message_is_typed_and_recorded() -> None:
    servicer = Scripted()
    async with serving(servicer) as server, channel_to(server, identity("auditor/a")) as channel:
        with pytest.raises(InvalidInputError) as caught:
            await send_malformed(channel)
    assert caught.value.field == "request"
    assert servicer.rejected == [("spiffe://example.org/auditor/a", METHOD, "INVALID_INPUT")]


async def test_who_may_not_call_has_no_message_parsed() -> None:
    async with serving(Scripted()) as server, channel_to(server, identity("client/a")) as channel:
        with pytest.raises(PermissionDeniedError):
            await send_malformed(channel)


@pytest.mark.parametrize("failure", [ValueError("the secret PIN is 1234"), StoreFullError("/path/1234")])
async def test_a_refusal_that_cannot_be_recorded_stays_one_and_leaks_nothing(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def record(*_: object) -> None:
        raise failure

    async with (
        serving(Scripted(), on_rejected=record) as server,
        channel_to(server, identity("client/a")) as channel,
    ):
        with pytest.raises(PermissionDeniedError) as caught:
            await call(stub(channel).GetCheckpoint, REQUEST, timeout=10)
    assert "1234" not in caught.value.message
    assert "could not be recorded" in caplog.text


@pytest.mark.parametrize(
    "failure", [TimeoutError("1234"), ConnectionError("1234"), ExceptionGroup("1234", [KeyError()])]
)
async def test_a_handlers_own_failure_is_internal_whatever_its_type(failure: Exception) -> None:
    async with serving(Scripted(failure)) as server, channel_to(server, identity("auditor/a")) as channel:
        with pytest.raises(InternalError) as caught:
            await call(stub(channel).GetCheckpoint, REQUEST, timeout=10)
    assert "1234" not in caught.value.message


async def test_who_may_not_call_is_told_so_even_when_the_service_is_full() -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    async def answer() -> bytes:
        entered.set()
        await gate.wait()
        return b""

    servicer = Scripted(answer)
    async with (
        serving(servicer, budgets=budgets(calls=1)) as server,
        channel_to(server, identity("auditor/a")) as permitted,
        channel_to(server, identity("client/a")) as denied,
    ):
        first = asyncio.ensure_future(call(stub(permitted).GetCheckpoint, REQUEST, timeout=10))
        await entered.wait()
        with pytest.raises(OverloadedError):
            await call(stub(permitted).GetCheckpoint, REQUEST, timeout=10)
        with pytest.raises(PermissionDeniedError):
            await call(stub(denied).GetCheckpoint, REQUEST, timeout=10)
        gate.set()
        await first
    assert [reason for _, _, reason in servicer.rejected] == ["OVERLOADED", "PERMISSION_DENIED"]


async def test_health_can_be_watched_until_the_service_stops() -> None:
    async with serving(Scripted()) as server, channel_to(server, identity("client/a")) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        await server.drain(600)  # does not last until the watcher tires
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await watch.read() is not grpc.aio.EOF:
                pass
    assert isinstance(error_from_call(caught.value), UnavailableError)


async def test_a_stream_whose_message_arrives_while_the_service_stops_does_not_hold_it_up() -> None:
    servicer = Scripted()
    async with (
        serving(servicer, budgets=budgets(streams=4)) as server,
        channel_to(server, identity("client/a")) as first,
        channel_to(server, identity("client/b")) as second,
    ):
        watch = health_pb2_grpc.HealthStub(first).Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        late = second.stream_stream("/grpc.health.v1.Health/Watch")()
        await late.wait_for_connection()
        assert await has_no_room_for_a_stream(second)  # the late one has it, so the service handles it
        draining = asyncio.ensure_future(server.drain(600))
        with pytest.raises(grpc.aio.AioRpcError):
            while await watch.read() is not grpc.aio.EOF:
                pass
        await late.write(b"")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await late.read()
        await draining
    assert "is stopping" in str(caught.value.details())
    assert ("spiffe://example.org/client/b", WATCH, "UNAVAILABLE") in servicer.rejected


async def has_no_room_for_a_stream(channel: Channel) -> bool:
    """Say whether a caller's share of streams is used up; one more is opened, and ended, where there is room."""
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    try:
        await watch.read()
    except grpc.aio.AioRpcError as error:
        return isinstance(error_from_call(error), OverloadedError)
    watch.cancel()
    return False


async def test_a_stream_that_its_caller_ends_is_no_refusal_and_the_service_is_not_stopping() -> None:
    servicer = Scripted()
    async with (
        serving(servicer, budgets=budgets(streams=1)) as server,
        channel_to(server, identity("client/a")) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        while await has_no_room_for_a_stream(channel):  # until the service knows that it was ended
            pass
        assert {reason for _, _, reason in servicer.rejected} <= {"OVERLOADED"}


async def test_a_handler_that_never_ends_is_ended_and_its_caller_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "HANDLING_SECONDS", 0.01)
    servicer = Scripted(asyncio.Event().wait)
    async with serving(servicer) as server, channel_to(server, identity("auditor/a")) as channel:
        with pytest.raises(DeadlineExceededError, match="with the same request id"):
            await call(stub(channel).GetCheckpoint, REQUEST, timeout=60)
    assert servicer.rejected == [("spiffe://example.org/auditor/a", METHOD_ASKED, "DEADLINE_EXCEEDED")]


async def test_streams_are_bounded() -> None:
    async with (
        serving(Scripted(), budgets=budgets(streams=1)) as server,
        channel_to(server, identity("client/a")) as channel,
    ):
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await watching.read()
        another = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await another.read()
        assert isinstance(error_from_call(caught.value), OverloadedError)
        watching.cancel()


@pytest.mark.parametrize("timeout", [0.5, 30])
async def test_a_caller_that_hangs_up_ends_no_handler_and_hides_no_refusal(timeout: float) -> None:
    """P6: it may hang up after the decision and before the entry; its share is taken until the entry is there (P7)."""
    gate, entered, recorded = asyncio.Event(), asyncio.Event(), asyncio.Event()
    entry = asyncio.Event()

    async def answer() -> KeyarkError:
        entered.set()
        await gate.wait()
        return PermissionDeniedError("decided after the caller was gone")

    async def record(caller: object, method: str, error: KeyarkError) -> None:
        if isinstance(error, PermissionDeniedError):
            recorded.set()
            await entry.wait()
            servicer.rejected.append((str(caller), method, error.reason))

    servicer, shares = Scripted(answer), budgets(calls=4)
    async with serving(servicer, budgets=shares, on_rejected=record) as server:
        async with channel_to(server, identity("auditor/a")) as channel:
            running = asyncio.ensure_future(call(stub(channel).GetCheckpoint, REQUEST, timeout=timeout))
            await entered.wait()
            if timeout > 1:
                running.cancel()
            with pytest.raises((asyncio.CancelledError, DeadlineExceededError)):
                await running
            with pytest.raises(OverloadedError):
                await call(stub(channel).GetCheckpoint, REQUEST, timeout=10)
        gate.set()
        await recorded.wait()
        entry.set()
    assert servicer.rejected == [("spiffe://example.org/auditor/a", METHOD_ASKED, "PERMISSION_DENIED")]


async def test_a_channel_that_is_closed_under_a_call_is_a_typed_error() -> None:
    entered = asyncio.Event()

    async def answer() -> bytes:
        entered.set()
        return await asyncio.Event().wait()

    async with serving(Scripted(answer)) as server, channel_to(server, identity("auditor/a")) as channel:
        running = asyncio.ensure_future(call(stub(channel).GetCheckpoint, REQUEST, timeout=30))
        await entered.wait()
        await channel.close()
        with pytest.raises(KeyarkError):
            await running


async def test_who_cancels_a_call_has_cancelled_it() -> None:
    entered = asyncio.Event()

    async def answer() -> bytes:
        entered.set()
        return await asyncio.Event().wait()

    async with serving(Scripted(answer)) as server, channel_to(server, identity("auditor/a")) as channel:
        running = asyncio.ensure_future(call(stub(channel).GetCheckpoint, REQUEST, timeout=30))
        await entered.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_revoked_identity_is_refused_over_its_open_connection_and_the_refusal_is_recorded() -> None:
    servicer, alice, bob = Scripted(), identity("auditor/alice"), identity("auditor/bob")
    revoked = revoked_identities()
    async with (
        serving(servicer, peers=PeerReader(lambda: int(time.time()), revoked)) as server,
        channel_to(server, alice) as stolen,
        channel_to(server, bob) as channel,
    ):
        await call(stub(stolen).GetCheckpoint, REQUEST, timeout=10)
        revoked.take(revoked.newer(identity_list(serial_of(alice))))
        with pytest.raises(IdentityRevokedError):
            await call(stub(stolen).GetCheckpoint, REQUEST, timeout=10)
        watch = health_pb2_grpc.HealthStub(stolen).Watch(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await watch.read()
        assert isinstance(error_from_call(caught.value), IdentityRevokedError)
        await call(stub(channel).GetCheckpoint, REQUEST, timeout=10)
    assert servicer.rejected == [
        ("spiffe://example.org/auditor/alice", "/keyark.v1.AuditService/GetCheckpoint", "IDENTITY_REVOKED"),
        ("spiffe://example.org/auditor/alice", "/grpc.health.v1.Health/Watch", "IDENTITY_REVOKED"),
    ]


async def test_a_caller_that_offers_its_tls_session_again_is_checked_like_any_other() -> None:
    alice, revoked = identity("auditor/alice"), revoked_identities()
    async with serving(Scripted(), peers=PeerReader(lambda: int(time.time()), revoked)) as server:
        options = (
            ("grpc.ssl_target_name_override", f"drm.{TRUST_DOMAIN}"),
            ("grpc.ssl_session_cache", session_cache.ssl_session_cache_lru(4)),
            ("grpc.use_local_subchannel_pool", 1),
        )
        credentials = grpc.ssl_channel_credentials(alice.trust_anchor, alice.private_key, alice.certificate)
        address = f"127.0.0.1:{server.port}"
        async with grpc.aio.secure_channel(address, credentials, options=options) as first:
            await call(stub(first).GetCheckpoint, REQUEST, timeout=10)
        revoked.take(revoked.newer(identity_list(serial_of(alice))))
        async with grpc.aio.secure_channel(address, credentials, options=options) as second:
            with pytest.raises(IdentityRevokedError):
                await call(stub(second).GetCheckpoint, REQUEST, timeout=10)


async def test_a_revoked_identity_does_not_learn_which_methods_there_are() -> None:
    servicer, alice = Scripted(), identity("auditor/alice")
    peers = PeerReader(lambda: int(time.time()), revoked_identities(alice))
    async with serving(servicer, peers=peers) as server, channel_to(server, alice) as channel:
        with pytest.raises(IdentityRevokedError):
            await call(channel.unary_unary("/keyark.v1.AuditService/No"), b"", timeout=10)
    assert [reason for _, _, reason in servicer.rejected] == ["IDENTITY_REVOKED"]


async def test_what_a_handler_answers_by_itself_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Scripted()) as server, channel_to(server, identity("client/a")) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="no"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "error id" not in caplog.text


async def test_a_refusal_keeps_no_frame_in_which_a_message_was() -> None:
    """P10: neither its own frames nor those of what it came from."""
    refusal = StoreFullError("The disk is full.")

    async def answer() -> bytes:
        try:
            raise ValueError
        except ValueError:
            raise refusal  # noqa: B904  # what it came from is the point

    async with serving(Scripted(answer)) as server, channel_to(server, identity("auditor/a")) as channel:
        with pytest.raises(StoreFullError):
            await call(stub(channel).GetCheckpoint, REQUEST, timeout=10)
    assert isinstance(refusal.__context__, ValueError)
    assert (refusal.__traceback__, refusal.__context__.__traceback__) == (None, None)


async def test_every_call_of_a_method_is_counted_also_one_that_is_refused() -> None:
    meters = Meters(Path())
    async with (
        serving(Scripted(), meters=meters) as server,
        channel_to(server, identity("auditor/a")) as permitted,
        channel_to(server, identity("client/a")) as denied,
    ):
        await call(stub(permitted).GetCheckpoint, REQUEST, timeout=10)
        with pytest.raises(PermissionDeniedError):
            await call(stub(denied).GetCheckpoint, REQUEST, timeout=10)
        assert meters.read()["calls"] == {"/keyark.v1.AuditService/GetCheckpoint": 2}
