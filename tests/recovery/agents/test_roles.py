"""P7: only agents do anything of recovery, and people of other roles but auditors see nothing of it."""

from __future__ import annotations

import pytest

from drm_service.ceremonies.servicer import METHODS
from keyark.client import KeyarkError
from keyark.client.access.sessions import open_session
from keyark.rpc.calling.channels import call, open_channel
from keyark.rpc.identities import LocalIdentity
from keyark.v1 import recovery_pb2
from keyark.v1.archive_pb2 import ListTrustChangesRequest
from keyark.v1.archive_pb2_grpc import KeyArchiveServiceStub
from keyark.v1.recovery_pb2_grpc import KeyRecoveryServiceStub
from tests.support.running.deployment import Deployment


@pytest.mark.parametrize("identity", ["client/enroller", "officer/officer"])
async def test_people_of_other_roles_are_refused_every_method(deployment: Deployment, identity: str) -> None:
    async with open_session(deployment.home(), "drm", identity=identity) as session:
        await assert_refused(KeyRecoveryServiceStub(session.channel))


@pytest.mark.parametrize("role", ["rm", "cm", "drm"])
async def test_services_are_refused_every_method(deployment: Deployment, role: str) -> None:
    home, folder = deployment.home(), deployment.folder / role
    identity = LocalIdentity.load(
        key=folder / "identity-key.pem",
        certificate=folder / "identity.pem",
        trust_anchor=folder / "trust-anchor.pem",
    )
    channel = open_channel(
        home.config.drm, identity, server_role="drm", trust_domain=home.config.trust_domain
    )
    await assert_refused(KeyRecoveryServiceStub(channel))
    await channel.close()


async def test_what_the_rm_asks_of_changes_is_no_agents_business(deployment: Deployment) -> None:
    async with open_session(deployment.home(), "drm", identity="agent/alice") as session:
        with pytest.raises(KeyarkError) as refused:
            stub = KeyArchiveServiceStub(session.channel)
            await call(stub.ListTrustChanges, ListTrustChangesRequest(), timeout=30)
        assert refused.value.reason == "PERMISSION_DENIED"


async def assert_refused(stub: KeyRecoveryServiceStub) -> None:
    service = recovery_pb2.DESCRIPTOR.services_by_name["KeyRecoveryService"]
    assert {method.name for method in service.methods} == set(METHODS)
    for method in service.methods:
        request = getattr(recovery_pb2, method.input_type.name)()
        with pytest.raises(KeyarkError) as refused:
            await call(getattr(stub, method.name), request, timeout=30)
        assert refused.value.reason == "PERMISSION_DENIED", method.name
