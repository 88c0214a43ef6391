"""The server that every subsystem runs: mutual TLS 1.3, its services behind the guard, health and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2

from keyark.addresses import Address, join_addresses, parse_addresses
from keyark.errors import ConfigurationError
from keyark.identity.spiffe import SpiffeId
from keyark.meters import Meters
from keyark.rpc.calling.renewal import server_credentials
from keyark.rpc.identities import LocalIdentity, PeerReader
from keyark.rpc.serving.authorization import ANYONE, Admission, AllowList, admit_all
from keyark.rpc.serving.budgets import Budgets
from keyark.rpc.serving.guard import MAX_MESSAGE, Guard, OnRejected, current_caller
from keyark.rpc.tls import tls_1_2_is_possible

__all__ = ["ServedService", "Server", "build_server", "current_caller"]

OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # two servers would silently share a port
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE * 4),
    ("grpc.max_concurrent_streams", 1024),  # of one connection
    (
        "grpc.http2.bdp_probe",
        0,
    ),  # else gRPC reads whole messages ahead, for calls that may not have them read yet
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # services ask each other every 2 seconds
    ("grpc.keepalive_time_ms", 60_000),  # a caller that vanished is found out, idle or not
    ("grpc.keepalive_permit_without_calls", 1),
)


@dataclass(frozen=True, kw_only=True)
class ServedService:
    """A gRPC service: descriptor, how it is added to a server, what serves it, whom of the allowed roles it admits."""

    descriptor: ServiceDescriptor
    add: Callable[[Any, grpc.aio.Server], None]
    servicer: object
    admission: Admission = admit_all

    @property
    def methods(self) -> list[str]:
        """The full names of its methods."""
        return [f"/{self.descriptor.full_name}/{method.name}" for method in self.descriptor.methods]


class Server:
    """A subsystem's gRPC server: start it, drain it."""

    def __init__(
        self,
        server: grpc.aio.Server,
        guard: Guard,
        health: HealthServicer,
        *,
        addresses: Sequence[Address],
        identity: SpiffeId,
        meters: Meters,
    ) -> None:
        self._server, self._guard, self._health = server, guard, health
        self.addresses = addresses
        self.identity = identity
        self.meters = meters

    @property
    def ready_line(self) -> str:
        """What the program prints once it takes calls."""
        return f"{self.identity.role} ready at {join_addresses(self.addresses)} as {self.identity}"

    @property
    def port(self) -> int:
        """The port at its first address."""
        return self.addresses[0].port

    async def start(self) -> None:
        """Take calls."""
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, seconds: float) -> None:
        """Take no more calls, and let those in flight end within this time."""
        await self._health.enter_graceful_shutdown()
        self._guard.stop_streams()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        await self._server.stop(seconds)
        await self._guard.finish(max(0.0, end - loop.time()))


def build_server(
    *,
    present: Callable[[], LocalIdentity],
    address: str,
    services: Sequence[ServedService],
    allow: Mapping[str, Sequence[str] | set[str]],
    peers: PeerReader,
    budgets: Budgets,
    on_rejected: OnRejected,
    meters: Meters,
) -> Server:
    """Make a server that listens at ``address`` ("127.0.0.1:0" for any port; several after commas).

    ``peers`` says who calls. ``present`` gives the identity that a handshake presents; renewed, it is still the same
    SPIFFE ID.

    Raises ConfigurationError where the allow-list is incomplete, the address cannot be had, or TLS 1.2 is possible.
    """
    if tls_1_2_is_possible():
        raise ConfigurationError(
            "gRPC was imported before `keyark.rpc.tls.rule_out_tls_1_2` was called, so it could agree on TLS 1.2; "
            "start the service with its own command."
        )
    health, identity = HealthServicer(), present()
    descriptors = [service.descriptor for service in services]
    standard: list[Any] = [
        health_pb2.DESCRIPTOR.services_by_name["Health"],
        reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
    ]
    rows = {**allow, **{f"/{s.full_name}/{m.name}": ANYONE for s in standard for m in s.methods}}
    admission = {method: service.admission for service in services for method in service.methods}
    allow_list = AllowList.complete(
        identity.spiffe_id.trust_domain, rows, [*descriptors, *standard], admission=admission
    )
    guard = Guard(peers=peers, allow=allow_list, budgets=budgets, on_rejected=on_rejected)
    meters.add("calls", guard.calls)
    meters.add("unserved_calls", guard.unserved)
    server = grpc.aio.server(interceptors=[guard], options=OPTIONS)
    for service in services:
        service.add(service.servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection([s.full_name for s in (*descriptors, *standard)], server)
    credentials = server_credentials(present)
    listening = [_listen(server, place, credentials) for place in parse_addresses(address, first_port=0)]
    return Server(server, guard, health, addresses=listening, identity=identity.spiffe_id, meters=meters)


def _listen(server: grpc.aio.Server, address: Address, credentials: grpc.ServerCredentials) -> Address:
    """Return the address with the port that it got."""
    try:
        return replace(address, port=server.add_secure_port(str(address), credentials))
    except RuntimeError:
        raise ConfigurationError(
            f"Cannot listen at {address}; check whether another program uses it."
        ) from None
