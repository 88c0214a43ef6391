"""A connection that is dead and does not say so, as when a firewall forgot it, is replaced by a new one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from keyark.errors import KeyarkError, Kind
from keyark.rpc.calling.channels import BETWEEN_SERVICES, Channel, call, open_channel
from keyark.rpc.serving.server import OPTIONS
from keyark.v1 import audit_pb2
from tests.support.keys.pki import TRUST_DOMAIN
from tests.support.running.rpc import METHODS, Scripted, identity, serving, stub

REQUEST = audit_pb2.GetCheckpointRequest()
BETWEEN = dict(BETWEEN_SERVICES)


class Firewall:
    """Forwards TCP connections to a port, until it forgets those that there are: nothing passes, and nobody is told."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._passing: list[asyncio.Event] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self._target)
        forgotten = asyncio.Event()
        self._passing.append(forgotten)
        self._writers += [writer, onward_writer]
        for source, sink in ((reader, onward_writer), (onward_reader, writer)):
            self._tasks.append(asyncio.create_task(self._forward(source, sink, forgotten)))

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, forgotten: asyncio.Event
    ) -> None:
        with suppress(ConnectionError):
            while data := await source.read(1 << 16):
                if not forgotten.is_set():
                    sink.write(data)

    def forget(self) -> int:
        """Returns how many connections there were."""
        for forgotten in self._passing:
            forgotten.set()
        return len(self._passing)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        for writer in self._writers:
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def firewall_before(port: int) -> AsyncIterator[tuple[Firewall, int]]:
    firewall = Firewall(port)
    listener = await asyncio.start_server(firewall.connected, "127.0.0.1", 0)
    try:
        yield firewall, listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        await firewall.stop()


async def failures_until_success(channel: Channel) -> int:
    """Call until it succeeds; what fails says that the service is away, not that the time of the call ran out."""
    for failures in range(5):
        try:
            await call(stub(channel).GetCheckpoint, REQUEST, timeout=30)
        except KeyarkError as error:
            assert error.kind is Kind.UNAVAILABLE  # noqa: PT017 — of each
            await channel.channel_ready()
        else:
            return failures
    raise AssertionError("No call succeeds.")


@pytest.mark.parametrize("role", ["rm", "cm"])
async def test_a_connection_that_a_firewall_forgot_is_replaced(role: str) -> None:
    allow = {f"/keyark.v1.AuditService/{method}": {role} for method in METHODS}
    async with serving(Scripted(), allow=allow) as server, firewall_before(server.port) as (firewall, port):
        channel = open_channel(
            f"127.0.0.1:{port}", identity(role), server_role="drm", trust_domain=TRUST_DOMAIN
        )
        try:
            await call(stub(channel).GetCheckpoint, REQUEST, timeout=30)
            assert firewall.forget() == 1
            assert await failures_until_success(channel) >= 1
            assert firewall.forget() == 2
        finally:
            await channel.close()


def test_servers_permit_as_many_pings_as_services_send() -> None:
    """They would end the connection otherwise, as one of a client that wastes their time."""
    assert dict(OPTIONS)["grpc.http2.min_ping_interval_without_data_ms"] < BETWEEN["grpc.keepalive_time_ms"]


def test_a_dead_connection_between_services_is_replaced_within_five_seconds() -> None:
    assert BETWEEN["grpc.keepalive_time_ms"] + BETWEEN["grpc.keepalive_timeout_ms"] <= 5_000
    assert BETWEEN["grpc.http2.ping_timeout_ms"] <= 5_000, "a ping of gRPC's own holds ours up"
    assert BETWEEN["grpc.min_reconnect_backoff_ms"] + BETWEEN["grpc.max_reconnect_backoff_ms"] <= 5_000
    assert BETWEEN["grpc.keepalive_permit_without_calls"] == 1
