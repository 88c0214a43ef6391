"""P7, P10: what is checked of every call, and what a caller never learns."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from keyark.errors import (
    ConfigurationError,
    DeadlineExceededError,
    InvalidInputError,
    KeyarkError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    PolicyRejectedError,
    UnauthenticatedError,
    Violation,
)
from keyark.keys.key_types import KeyType
from keyark.meters import Meters
from keyark.rpc.calling.channels import call
from keyark.rpc.errors import InternalError, MessageTooLargeError, NoConnectionError
from keyark.rpc.identities import PeerReader
from keyark.rpc.serving.server import current_caller
from keyark.v1 import audit_pb2
from keyark.x509.authority import ca_name, create_internal_ca
from keyark.x509.certificates import Validity
from tests.support.keys.pki import private_key
from tests.support.running.rpc import (
    METHODS,
    Scripted,
    budgets,
    channel_to,
    identity,
    revoked_identities,
    serving,
    stub,
)

REQUEST = audit_pb2.GetCheckpointRequest()
AUDITOR = "auditor/auditor"


async def get(server, who=None, *, timeout: float = 10, role: str = "drm") -> bytes:
    async with channel_to(server, who or identity(AUDITOR), role=role) as channel:
        return (await call(stub(channel).GetCheckpoint, REQUEST, timeout=timeout)).checkpoint


async def test_a_permitted_caller_is_answered_and_known_to_the_handler() -> None:
    async def answer() -> bytes:
        return str(current_caller()).encode()

    async with serving(Scripted(answer)) as server:
        assert await get(server) == b"spiffe://example.org/auditor/auditor"
        assert server.ready_line == f"drm ready at 127.0.0.1:{server.port} as spiffe://example.org/drm"


@pytest.mark.parametrize("path", ["client/a", "agent/a", "officer/a", "rm", "cm", "drm"])
async def test_another_role_is_denied_and_the_denial_recorded(path: str) -> None:
    servicer = Scripted()
    async with serving(servicer) as server:
        with pytest.raises(PermissionDeniedError):
            await get(server, identity(path))
    method = "/keyark.v1.AuditService/GetCheckpoint"
    assert servicer.rejected == [(f"spiffe://example.org/{path}", method, "PERMISSION_DENIED")]


async def test_a_certificate_of_another_ca_gets_no_connection() -> None:
    other = create_internal_ca(
        private_key(KeyType.EC_P256, 950), subject=ca_name("another CA"), validity=_now_validity()
    )
    async with serving(Scripted()) as server:
        with pytest.raises(NoConnectionError):
            await get(server, identity(AUDITOR, authority=other), timeout=3)


def _now_validity() -> Validity:
    return Validity.starting(int(time.time()), lifetime_seconds=10 * 86_400)


async def test_an_expired_certificate_gets_no_connection() -> None:
    past = Validity.starting(int(time.time()) - 20 * 86_400, lifetime_seconds=60)
    async with serving(Scripted()) as server:
        with pytest.raises(NoConnectionError):
            await get(server, identity(AUDITOR, validity=past), timeout=3)


async def test_a_certificate_that_expires_while_connected_is_refused_at_the_next_call() -> None:
    now = int(time.time())
    clock = [now]
    async with (
        serving(Scripted(), peers=PeerReader(lambda: clock[0], revoked_identities())) as server,
        channel_to(server, identity(AUDITOR)) as channel,
    ):
        await call(stub(channel).GetCheckpoint, REQUEST, timeout=10)
        clock[0] = now + 40 * 86_400
        with pytest.raises(UnauthenticatedError, match="expired"):
            await call(stub(channel).GetCheckpoint, REQUEST, timeout=10)


async def test_a_service_of_another_role_is_not_taken_for_the_one_that_is_called() -> None:
    async with serving(Scripted()) as server:
        with pytest.raises(NoConnectionError):
            await get(server, role="cm", timeout=3)


async def test_tls_1_2_finds_no_cipher(tmp_path: Path) -> None:
    who = identity(AUDITOR)
    (tmp_path / "identity.pem").write_bytes(who.certificate + who.private_key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(tmp_path / "identity.pem")
    async with serving(Scripted()) as server:
        context.set_alpn_protocols(["h2"])
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.close()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", server.port, ssl=context)


@pytest.mark.parametrize(("first", "starts"), [("keyark", True), ("grpc", False)])
def test_a_server_does_not_start_where_tls_1_2_is_not_ruled_out(first: str, starts: bool) -> None:
    script = f"""
import {first}
import asyncio
from keyark.errors import ConfigurationError
from tests.support.running.rpc import Scripted, serving

async def main():
    try:
        async with serving(Scripted()):
            print("started")
    except ConfigurationError as error:
        print(error.message)

asyncio.run(main())
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_SSL_CIPHER_SUITES"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    assert ("started" in done.stdout) is starts, done.stdout
    assert starts or "gRPC was imported before" in done.stdout


async def test_without_a_certificate_there_is_no_answer() -> None:
    async with serving(Scripted()) as server:
        who = identity(AUDITOR)
        credentials = grpc.ssl_channel_credentials(who.trust_anchor)
        options = [("grpc.ssl_target_name_override", "drm.example.org")]
        channel = grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials, options=options)
        async with channel:
            with pytest.raises(NoConnectionError):
                await call(stub(channel).GetCheckpoint, REQUEST, timeout=3)


async def test_an_untyped_error_tells_an_id_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Scripted(ValueError("the secret PIN is 1234"))) as server:
        with pytest.raises(InternalError) as caught:
            await get(server)
    assert "1234" not in caught.value.message
    assert caught.value.metadata["error_id"] in caplog.text


async def test_a_typed_error_arrives_typed_and_is_recorded() -> None:
    servicer = Scripted(NotFoundError("no such entry"))
    async with serving(servicer) as server:
        with pytest.raises(NotFoundError, match="no such entry"):
            await get(server)
    assert [reason for _, _, reason in servicer.rejected] == ["NOT_FOUND"]


async def test_more_calls_than_fit_are_told_to_try_again() -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    async def answer() -> bytes:
        entered.set()
        await gate.wait()
        return b""

    async with (
        serving(Scripted(answer), budgets=budgets(calls=1)) as server,
        channel_to(server, identity(AUDITOR)) as channel,
    ):
        first = asyncio.ensure_future(call(stub(channel).GetCheckpoint, REQUEST, timeout=10))
        await entered.wait()
        with pytest.raises(OverloadedError):
            await call(stub(channel).GetCheckpoint, REQUEST, timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(channel).GetCheckpoint(REQUEST, timeout=10)
        status = Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
        assert any(detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details)
        gate.set()
        await first


async def test_a_caller_waits_for_its_own_time_and_a_handler_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("keyark.rpc.serving.guard.HANDLING_SECONDS", 1.0)
    ended = asyncio.Event()

    async def answer() -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving(Scripted(answer)) as server:
        with pytest.raises(DeadlineExceededError):
            await get(server, timeout=0.3)
        await ended.wait()


async def test_a_message_that_is_too_large_is_typed() -> None:
    async with serving(Scripted()) as server, channel_to(server, identity(AUDITOR)) as channel:
        request = audit_pb2.ListEntriesRequest()
        request.page.page_token = "x" * (5 << 20)
        with pytest.raises(MessageTooLargeError):
            await call(stub(channel).ListEntries, request, timeout=10)


@pytest.mark.parametrize(
    ("allow", "says"),
    [
        ({f"/keyark.v1.AuditService/{m}": {"auditor"} for m in METHODS[1:]}, "GetCheckpoint"),
        ({f"/keyark.v1.AuditService/{m}": {"auditor"} for m in (*METHODS, "Erase")}, "Erase"),
        ({f"/keyark.v1.AuditService/{m}": {"auditor", "root"} for m in METHODS}, "root"),
    ],
)
async def test_an_allow_list_that_does_not_fit_stops_the_start(allow, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        async with serving(Scripted(), allow=allow):
            pass


async def test_two_servers_do_not_share_a_port() -> None:
    async with serving(Scripted()) as server:
        with pytest.raises(ConfigurationError, match="Cannot listen at"):
            async with serving(Scripted(), address=f"127.0.0.1:{server.port}"):
                pass


async def test_draining_lets_calls_in_flight_end() -> None:
    gate, entered = asyncio.Event(), asyncio.Event()

    async def answer() -> bytes:
        entered.set()
        await gate.wait()
        return b"late"

    async with serving(Scripted(answer)) as server, channel_to(server, identity(AUDITOR)) as channel:
        running = asyncio.ensure_future(call(stub(channel).GetCheckpoint, REQUEST, timeout=10))
        await entered.wait()
        draining = asyncio.create_task(server.drain(10))
        await asyncio.sleep(0)
        gate.set()
        assert (await running).checkpoint == b"late"
        await draining
        with pytest.raises(KeyarkError):
            await call(stub(channel).GetCheckpoint, REQUEST, timeout=1)


async def test_health_and_reflection_answer_any_identity_of_the_deployment() -> None:
    async with serving(Scripted()) as server, channel_to(server, identity("client/a")) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([request]), timeout=10
        )
        listed = [
            service.name
            async for response in reflection
            for service in response.list_services_response.service
        ]
    assert "keyark.v1.AuditService" in listed


async def test_nobody_listening_is_no_connection() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]

    with pytest.raises(NoConnectionError):
        await get(SimpleNamespace(port=port), timeout=3)


LONG = "é💥\n" * 50_000
OVERSIZED = [
    NotFoundError(LONG),
    NotFoundError("gone", metadata={"where": LONG}),
    NotFoundError("gone", metadata={f"{number}": "x" for number in range(5000)}),
    InvalidInputError("It is wrong.", field=LONG),
    InvalidInputError(LONG, field="name"),
    PolicyRejectedError(
        "Policy rejects it.",
        violations=[Violation(rule=f"rule{number}", subsystem="rm", message=LONG) for number in range(500)],
    ),
    PermissionDeniedError("\udcff is no text"),
]


@pytest.mark.parametrize("error", OVERSIZED, ids=range(len(OVERSIZED)))
async def test_an_error_too_large_for_trailers_is_cut_and_stays_what_it_is(error: KeyarkError) -> None:
    async with serving(Scripted(error)) as server:
        with pytest.raises(type(error)) as raised:
            await get(server)
    assert raised.value.message.startswith(error.message.encode(errors="replace").decode()[:50])


async def test_calls_of_unknown_methods_are_counted_and_those_of_known_callers_recorded() -> None:
    servicer, meters = Scripted(), Meters(Path())
    async with (
        serving(servicer, meters=meters) as server,
        channel_to(server, identity("client/a")) as channel,
    ):
        for kind in (channel.unary_unary, channel.unary_stream):
            for number in range(3):
                called = kind(f"/keyark.v1.AuditService/No{number}")(b"\xff")
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await (called if kind == channel.unary_unary else called.read())
                assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert meters.read()["unserved_calls"] == {"unknown_method": 6, "unread_message": 0}
        assert set(meters.read()["calls"]) == set()
    refusals = [
        ("spiffe://example.org/client/a", f"/keyark.v1.AuditService/No{n}", "UNKNOWN_METHOD")
        for n in range(3)
    ]
    assert servicer.rejected == refusals * 2


async def test_messages_that_are_too_large_are_counted() -> None:
    meters = Meters(Path())
    async with serving(Scripted(), meters=meters) as server, channel_to(server, identity(AUDITOR)) as channel:
        large = audit_pb2.GetCheckpointRequest.FromString(b"\x7a\x80\x80\x80\x04" + bytes(8 << 20))
        with pytest.raises(MessageTooLargeError):
            await call(stub(channel).GetCheckpoint, large, timeout=10)
        assert meters.read()["unserved_calls"] == {"unknown_method": 0, "unread_message": 1}
        await call(stub(channel).GetCheckpoint, REQUEST, timeout=10)
        assert meters.read()["unserved_calls"] == {"unknown_method": 0, "unread_message": 1}
