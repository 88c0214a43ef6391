"""P7: every method of every service, called as every role: permitted where the list says so, denied elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from google.protobuf.message_factory import GetMessageClass

import cm_service.servicer
import drm_service.servicer
import rm_service.servicer
from keyark.errors import KeyarkError, PermissionDeniedError
from keyark.rpc.calling.channels import Channel, call, open_channel
from keyark.rpc.errors import NoConnectionError
from keyark.rpc.identities import LocalIdentity
from keyark.service.program.assembly import AUDIT, AUDIT_METHODS, COSIGN
from keyark.v1 import archive_pb2, audit_pb2, certificates_pb2, recovery_pb2, registration_pb2
from keyark.v1.registration_pb2_grpc import RegistrationServiceStub
from tests.support.running.deployment import Deployment, copy_deployment, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROLES = ("rm", "cm", "drm", "client/enroller", "officer/officer", "agent/alice", "auditor/auditor")
AUDITORS = {"rm": {"auditor"}, "cm": {"auditor"}, "drm": {"auditor", "rm", "cm"}}
LISTS = {
    "rm": rm_service.servicer.ALLOWED,
    "cm": cm_service.servicer.ALLOWED,
    "drm": drm_service.servicer.ALLOWED,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(deployment_template, tmp_path_factory) -> AsyncIterator[Deployment]:
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("access") / "deployment")
    async with running(folder) as deployment:
        yield deployment


def identity(deployment: Deployment, name: str) -> LocalIdentity:
    """A person's identity, or a service's own."""
    folder = deployment.folder
    if "/" in name:
        return deployment.home().identity(name, lambda _: None)
    return LocalIdentity.load(
        key=folder / name / "identity-key.pem",
        certificate=folder / name / "identity.pem",
        trust_anchor=folder / "trust-anchor.pem",
    )


def methods(role: str):
    """Every method that a subsystem serves, with the roles that may call it."""
    rows = {
        **LISTS[role],
        **{f"{AUDIT}/{method}": AUDITORS[role] for method in AUDIT_METHODS},
        COSIGN: {"auditor", "agent", "client", "officer", "rm"},
    }
    if role == "drm":
        rows[f"{AUDIT}/GetConsistencyProof"] = {"auditor", "rm", "cm", "agent"}
    services = {
        service.full_name: service
        for file in (archive_pb2, audit_pb2, certificates_pb2, recovery_pb2, registration_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
    }
    for name, allowed in rows.items():
        service, method = name[1:].split("/")
        yield name, services[service].methods_by_name[method], allowed


@pytest.mark.parametrize("role", ["rm", "cm", "drm"])
async def test_every_method_is_for_those_on_its_list_and_nobody_else(
    deployment: Deployment, role: str
) -> None:
    address = getattr(deployment.home().config, role)
    for caller in ROLES:
        channel = open_channel(
            address, identity(deployment, caller), server_role=role, trust_domain="example.org"
        )
        async with channel:
            for name, method, allowed in methods(role):
                denied = await is_denied(channel, name, method)
                assert denied is (caller.split("/")[0] not in allowed), (caller, name)


async def is_denied(channel: Channel, name: str, method) -> bool:
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    multicallable = channel.unary_unary(
        name, request_serializer=request.SerializeToString, response_deserializer=response.FromString
    )
    try:
        await call(multicallable, request(), timeout=20)
    except PermissionDeniedError:
        return True
    except KeyarkError:  # an empty request may be wrong in other ways
        return False
    return False


async def test_a_service_that_answers_in_anothers_place_is_not_believed(
    deployment: Deployment,
) -> None:
    address = deployment.home().config.cm
    channel = open_channel(
        address, identity(deployment, "client/enroller"), server_role="rm", trust_domain="example.org"
    )
    async with channel:
        stub = RegistrationServiceStub(channel)
        with pytest.raises(NoConnectionError):
            await call(stub.GetEnrollmentForm, registration_pb2.GetEnrollmentFormRequest(), timeout=3)
