"""A hostile subsystem: it has the real one's identity, forwards every call to it, and alters what it likes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from keyark.client.access.home import Home
from keyark.identity.revoked import RevokedIdentities
from keyark.meters import Meters
from keyark.rpc.calling.channels import Channel, call, open_channel
from keyark.rpc.identities import LocalIdentity, PeerReader
from keyark.rpc.serving.server import ServedService, Server, build_server
from keyark.v1 import archive_pb2, audit_pb2, recovery_pb2
from keyark.v1.archive_pb2_grpc import add_TransportKeyServiceServicer_to_server
from keyark.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from keyark.v1.recovery_pb2_grpc import add_KeyRecoveryServiceServicer_to_server
from tests.support.running.deployment import Deployment
from tests.support.running.rpc import budgets

AUDIT: tuple[ServiceDescriptor, Any] = (
    audit_pb2.DESCRIPTOR.services_by_name["AuditService"],
    add_AuditServiceServicer_to_server,
)

Alter = Callable[[str, Any, Any], Any]
"""Given a method's name, the request and the real response, returns the response to give."""


class Relay:
    """Serves the methods of a service by calling the real one."""

    def __init__(self, channel: Channel, service: ServiceDescriptor, alter: Alter) -> None:
        for method in service.methods:
            setattr(self, method.name, self._forward(channel, service, method, alter))

    @staticmethod
    def _forward(channel: Channel, service: ServiceDescriptor, method: Any, alter: Alter) -> Any:
        real = channel.unary_unary(
            f"/{service.full_name}/{method.name}",
            request_serializer=GetMessageClass(method.input_type).SerializeToString,
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )

        async def handle(request: Any, context: Any) -> Any:
            return alter(method.name, request, await call(real, request, timeout=30))

        return handle


def service_identity(folder: Path, role: str) -> LocalIdentity:
    """A subsystem's own identity."""
    return LocalIdentity.load(
        key=folder / role / "identity-key.pem",
        certificate=folder / role / "identity.pem",
        trust_anchor=folder / "trust-anchor.pem",
    )


@asynccontextmanager
async def relaying(
    *,
    identity: LocalIdentity,
    upstream: Channel,
    services: list[tuple[ServiceDescriptor, Any]],
    alter: Alter,
) -> AsyncIterator[Server]:
    """Serve in a subsystem's place; ``services`` are descriptors with their add functions."""

    async def ignore(*_: Any) -> None:
        """Refusals of a hostile subsystem are its own business."""

    served = [
        ServedService(descriptor=descriptor, add=add, servicer=Relay(upstream, descriptor, alter))
        for descriptor, add in services
    ]
    everyone = {"rm", "cm", "drm", "client", "officer", "agent", "auditor"}
    server = build_server(
        present=lambda: identity,
        address="127.0.0.1:0",
        services=served,
        allow={f"/{d.full_name}/{m.name}": everyone for d, _ in services for m in d.methods},
        peers=PeerReader(lambda: int(time.time()), RevokedIdentities([])),
        budgets=budgets(),
        on_rejected=ignore,
        meters=Meters(Path()),
    )
    await server.start()
    try:
        yield server
    finally:
        await server.drain(1)


@asynccontextmanager
async def lying_archive(deployment: Deployment, agent: str, alter: Alter) -> AsyncIterator[Home]:
    """The DRM of a deployment altering what it answers to an agent; yields a home that leads there."""
    services: list[tuple[ServiceDescriptor, Any]] = [
        (
            recovery_pb2.DESCRIPTOR.services_by_name["KeyRecoveryService"],
            add_KeyRecoveryServiceServicer_to_server,
        ),
        (
            archive_pb2.DESCRIPTOR.services_by_name["TransportKeyService"],
            add_TransportKeyServiceServicer_to_server,
        ),
        AUDIT,
    ]
    async with _lying(deployment, "drm", f"agent/{agent}", services, alter) as home:
        yield home


@asynccontextmanager
async def lying_log(deployment: Deployment, role: str, alter: Alter) -> AsyncIterator[Home]:
    """RM or CM altering what it tells an auditor of its log; yields a home that leads there."""
    async with _lying(deployment, role, "auditor/auditor", [AUDIT], alter) as home:
        yield home


@asynccontextmanager
async def _lying(
    deployment: Deployment,
    role: str,
    person: str,
    services: list[tuple[ServiceDescriptor, Any]],
    alter: Alter,
) -> AsyncIterator[Home]:
    """A subsystem that alters what it answers to one person."""
    home = deployment.home()
    upstream = channel(getattr(home.config, role), home.identity(person, lambda _: None), role)
    identity = service_identity(deployment.folder, role)
    relay = relaying(identity=identity, upstream=upstream, services=services, alter=alter)
    async with upstream, relay as server:
        moved = home.config.model_copy(update={role: f"127.0.0.1:{server.port}"})
        object.__setattr__(home, "config", moved)
        yield home


def channel(address: str, identity: LocalIdentity, role: str) -> Channel:
    """A channel to a real subsystem."""
    return open_channel(address, identity, server_role=role, trust_domain="example.org")
