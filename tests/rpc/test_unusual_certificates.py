"""P7: over real mutual TLS, a certificate of our own CA that does not name exactly one identity of ours is nobody."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from keyark.errors import PermissionDeniedError, UnauthenticatedError
from keyark.rpc.calling.channels import call
from keyark.rpc.errors import NoConnectionError, error_from_call
from keyark.v1 import audit_pb2
from tests.support.running.rpc import Scripted, channel_to, identity, serving, stub
from tests.support.running.tls import unusual_identity

REQUEST = audit_pb2.GetCheckpointRequest()
AUDITOR = "spiffe://example.org/auditor/auditor"


@pytest.mark.parametrize(
    "names",
    [
        {"uris": [AUDITOR, "spiffe://example.org/auditor/other"]},
        {"uris": [AUDITOR, AUDITOR]},
        {"uris": [AUDITOR, "https://example.org/"]},
        {"uris": ["https://example.org/auditor/auditor"]},
        {"uris": ["spiffe://example.org/janitor/auditor"]},
        {"uris": ["spiffe://example.org/auditor"]},
        {"dns": ["auditor.example.org"]},
        {},
    ],
)
async def test_who_is_not_exactly_one_identity_is_nobody(names) -> None:
    servicer = Scripted()
    async with serving(servicer) as server, channel_to(server, unusual_identity(**names)) as channel:
        with pytest.raises(UnauthenticatedError):
            await call(stub(channel).GetCheckpoint, REQUEST, timeout=10)
    assert servicer.rejected == []  # nobody authenticated was refused


async def test_an_identity_of_another_trust_domain_is_denied_and_the_denial_recorded() -> None:
    stranger = "spiffe://example.com/auditor/auditor"
    servicer = Scripted()
    async with serving(servicer) as server, channel_to(server, unusual_identity(uris=[stranger])) as channel:
        with pytest.raises(PermissionDeniedError):
            await call(stub(channel).GetCheckpoint, REQUEST, timeout=10)
    assert [(caller, reason) for caller, _, reason in servicer.rejected] == [(stranger, "PERMISSION_DENIED")]


@pytest.mark.parametrize("dns", [["cm.example.org"], ["drm.example.com"], ["127.0.0.1"], []])
async def test_a_server_without_the_name_of_the_service_is_not_spoken_to(dns) -> None:
    impostor = unusual_identity(uris=["spiffe://example.org/drm"], dns=dns)
    async with (
        serving(Scripted(), present=lambda: impostor) as server,
        channel_to(server, identity("auditor/auditor")) as channel,
    ):
        with pytest.raises(NoConnectionError):
            await call(stub(channel).GetCheckpoint, REQUEST, timeout=3)


async def test_streams_are_checked_too() -> None:
    stranger = unusual_identity(uris=["spiffe://example.com/auditor/auditor"])
    servicer = Scripted()
    async with serving(servicer) as server, channel_to(server, stranger) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()).read()
    assert isinstance(error_from_call(caught.value), PermissionDeniedError)
    assert [method for _, method, _ in servicer.rejected] == ["/grpc.health.v1.Health/Watch"]
