"""P7: who may call what, held against a table of its own; and callers whose certificates are not quite right."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from cryptography.x509.oid import ExtendedKeyUsageOID
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc

from keyark.client import EnrollmentClient
from keyark.errors import KeyarkError, PermissionDeniedError, UnauthenticatedError
from keyark.keys.private_keys import load_private_key
from keyark.rpc.calling.channels import Channel, call, open_channel
from keyark.rpc.errors import NoConnectionError, error_from_call
from keyark.rpc.identities import LocalIdentity
from keyark.v1 import archive_pb2, audit_pb2, certificates_pb2, recovery_pb2, registration_pb2
from keyark.v1.certificates_pb2_grpc import CertificateStatusServiceStub
from keyark.x509.certificates import load_certificates
from tests.support.running.deployment import Deployment, copy_deployment, running
from tests.support.stories.attacks import (
    TRUST_DOMAIN,
    another_ca,
    forge_identity,
    local_identity,
    refusals_of,
)
from tests.support.stories.relays import service_identity

pytestmark = pytest.mark.asyncio(loop_scope="module")

EVERYONE = {"rm", "cm", "drm", "client", "officer", "agent", "auditor"}
CALLERS = ("rm", "cm", "drm", "client/enroller", "officer/officer", "agent/alice", "auditor/auditor")

# DESIGN, section 4, in its own words; on purpose not read from the services.
WHO: dict[str, dict[str, set[str]]] = {
    "rm": {
        "RegistrationService": {"client"},
        "RegistrationAdminService": {"officer"},
        "AuditService": {"auditor"},
    },
    "cm": {
        "CertificateService": {"rm"},
        "CertificateStatusService": EVERYONE,
        "CertificateAdminService": {"officer"},
        "AuditService": {"auditor"},
    },
    "drm": {
        "KeyArchiveService": {"rm"},
        "KeyRecoveryService": {"agent"},
        "AuditService": {"auditor", "rm", "cm"},
        "TransportKeyService": {"rm", "cm", "agent", "auditor"},
    },
}
# Methods whose callers are others than those of their service.
METHODS: dict[str, set[str]] = {
    "ListKeys": {"agent", "auditor"},
    "GetKey": {"agent", "auditor"},
    "ListStorageKeys": {"agent", "auditor"},
    "ListArchiveChanges": {"agent", "auditor"},
    "ListCeremonies": {"agent", "auditor"},
    "GetCeremony": {"agent", "auditor"},
    "CosignCheckpoint": {"auditor", "agent", "client", "officer", "rm"},
}
DRM_LOG: dict[str, set[str]] = {"GetConsistencyProof": {"auditor", "rm", "cm", "agent"}}


def allowed(role: str, method: Any) -> set[str]:
    """Who may call a method: as its own row says, or its whole service."""
    if role == "drm" and method.name in DRM_LOG:
        return DRM_LOG[method.name]
    return METHODS.get(method.name, WHO[role][method.containing_service.name])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(deployment_template, tmp_path_factory) -> AsyncIterator[Deployment]:
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("access") / "deployment")
    async with running(folder) as deployment:
        yield deployment


def identity(deployment: Deployment, name: str) -> LocalIdentity:
    if "/" in name:
        return deployment.home().identity(name, lambda _: None)
    return service_identity(deployment.folder, name)


def channel(deployment: Deployment, role: str, who: LocalIdentity, *, expecting: str = "") -> Channel:
    """A channel to a subsystem, expecting it or another one there."""
    address = getattr(deployment.home().config, role)
    return open_channel(address, who, server_role=expecting or role, trust_domain=TRUST_DOMAIN)


def methods() -> Iterator[tuple[str, Any]]:
    """Every method of every service in the contract, with the service's name."""
    for file in (archive_pb2, audit_pb2, certificates_pb2, recovery_pb2, registration_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield service.name, method


async def answer(channel: Channel, method: Any) -> grpc.StatusCode | str:
    """Call a method with an empty request: the reason of a typed error, or the code."""
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    multicallable = channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    try:
        await multicallable(request(), timeout=20)
    except grpc.aio.AioRpcError as error:
        unserved = error.code() is grpc.StatusCode.UNIMPLEMENTED
        return error.code() if unserved else error_from_call(error).reason
    return grpc.StatusCode.OK


@pytest.mark.parametrize("role", ["rm", "cm", "drm"])
async def test_every_method_of_the_contract_called_as_every_role(deployment: Deployment, role: str) -> None:
    """Permitted as the design says, denied and logged elsewhere, and unknown where another subsystem serves it."""
    before = await refusals_of(deployment.home(), role)
    denials = []
    for caller in CALLERS:
        async with channel(deployment, role, identity(deployment, caller)) as opened:
            for service, method in methods():
                found = await answer(opened, method)
                if service not in WHO[role]:
                    assert found is grpc.StatusCode.UNIMPLEMENTED, (caller, method.full_name)
                elif caller.partition("/")[0] not in allowed(role, method):
                    assert found == "PERMISSION_DENIED", (caller, method.full_name)
                    denials.append((f"spiffe://{TRUST_DOMAIN}/{caller}", "PERMISSION_DENIED"))
                else:
                    assert found not in ("PERMISSION_DENIED", "UNAUTHENTICATED"), (caller, method.full_name)
                    assert found is not grpc.StatusCode.UNIMPLEMENTED, (caller, method.full_name)
    logged = (await refusals_of(deployment.home(), role))[len(before) :]
    assert [entry for entry in logged if entry[1] == "PERMISSION_DENIED"] == denials


CLIENT = f"spiffe://{TRUST_DOMAIN}/client/enroller"
STATUS = certificates_pb2.GetCertificateStatusRequest(serial=b"\x01")


async def ask(deployment: Deployment, who: LocalIdentity) -> KeyarkError:
    """Ask for what anyone with an identity may ask; returns what came instead of an answer."""
    async with channel(deployment, "cm", who) as opened:
        with pytest.raises(KeyarkError) as caught:
            await call(CertificateStatusServiceStub(opened).GetCertificateStatus, STATUS, timeout=3)
    return caught.value


async def test_a_good_identity_made_by_hand_is_answered(deployment: Deployment) -> None:
    """What the cases below differ from."""
    who = forge_identity(deployment.folder, uris=[CLIENT])
    assert (await ask(deployment, who)).reason == "NOT_FOUND"


@pytest.mark.parametrize(
    "uris",
    [
        [],
        [CLIENT, f"spiffe://{TRUST_DOMAIN}/rm"],
        [CLIENT, CLIENT],
        [CLIENT, "https://example.org/"],
        ["https://example.org/client/enroller"],
        [f"spiffe://{TRUST_DOMAIN}/admin/root"],
        [f"spiffe://{TRUST_DOMAIN}/client"],
        [f"spiffe://{TRUST_DOMAIN}/rm/enroller"],
        [f"spiffe://{TRUST_DOMAIN}/"],
        ["spiffe://EXAMPLE.org/client/enroller"],
    ],
)
async def test_a_certificate_that_names_no_single_identity_is_nobodys(
    deployment: Deployment, uris: list[str]
) -> None:
    """Signed by the right CA, and still nobody: nothing is logged in a name that nobody proved."""
    before = await refusals_of(deployment.home(), "cm")
    error = await ask(deployment, forge_identity(deployment.folder, uris=uris))
    assert isinstance(error, UnauthenticatedError | NoConnectionError), error
    assert await refusals_of(deployment.home(), "cm") == before


async def test_an_identity_of_another_trust_domain_is_denied(deployment: Deployment) -> None:
    who = forge_identity(deployment.folder, uris=["spiffe://example.com/client/enroller"])
    assert isinstance(await ask(deployment, who), PermissionDeniedError)


async def test_the_transport_key_is_no_caller(deployment: Deployment) -> None:
    """Its certificate has no TLS purpose; with one it would still have no role that may call."""
    drm = deployment.folder / "drm"
    own = local_identity(
        deployment.folder,
        load_private_key(drm / "transport-keys" / "1" / "key.pem"),
        load_certificates(drm / "transport-keys" / "1" / "transport.pem"),
    )
    assert isinstance(await ask(deployment, own), NoConnectionError)
    forged = forge_identity(deployment.folder, uris=[f"spiffe://{TRUST_DOMAIN}/drm/transport"])
    assert isinstance(await ask(deployment, forged), PermissionDeniedError)


@pytest.mark.parametrize(
    "options",
    [{"starting": -2 * 86_400}, {"starting": 2 * 86_400}, {"purposes": [ExtendedKeyUsageOID.SERVER_AUTH]}],
    ids=["expired", "not yet valid", "for servers only"],
)
async def test_a_certificate_that_is_not_for_this_now_gets_no_connection(
    deployment: Deployment, options: dict[str, Any]
) -> None:
    who = forge_identity(deployment.folder, uris=[CLIENT], **options)
    assert isinstance(await ask(deployment, who), NoConnectionError)


async def test_a_certificate_of_another_ca_of_the_same_name_gets_no_connection(
    deployment: Deployment,
) -> None:
    who = forge_identity(deployment.folder, uris=[CLIENT], authority=another_ca(deployment.folder))
    assert isinstance(await ask(deployment, who), NoConnectionError)


async def test_a_person_cannot_issue_identities(deployment: Deployment) -> None:
    """A chain through a person's certificate, which is no CA's."""
    person = deployment.folder / "identities" / "client" / "enroller"
    issuer = load_certificates(person / "cert.pem")[0]
    key = load_private_key(person / "key.pem")
    below = forge_identity(
        deployment.folder, uris=[f"spiffe://{TRUST_DOMAIN}/rm"], authority=_Signer(issuer, key)
    )
    chained = LocalIdentity(
        spiffe_id=below.spiffe_id,
        private_key=below.private_key,
        certificate=below.certificate + (person / "cert.pem").read_bytes(),
        trust_anchor=below.trust_anchor,
    )
    for who in (below, chained):
        assert isinstance(await ask(deployment, who), NoConnectionError)


class _Signer:
    """What forge_identity needs of an authority; the real one refuses a certificate that is no CA's."""

    def __init__(self, certificate: Any, private_key: Any) -> None:
        self.certificate, self.private_key = certificate, private_key


@pytest.mark.parametrize("role", ["rm", "cm", "drm"])
async def test_without_a_certificate_not_even_health_answers(deployment: Deployment, role: str) -> None:
    credentials = grpc.ssl_channel_credentials((deployment.folder / "trust-anchor.pem").read_bytes())
    options = (("grpc.ssl_target_name_override", f"{role}.{TRUST_DOMAIN}"),)
    address = getattr(deployment.home().config, role)
    async with grpc.aio.secure_channel(address, credentials, options=options) as opened:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health_pb2_grpc.HealthStub(opened).Check(health_pb2.HealthCheckRequest(), timeout=3)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("role", ["rm", "cm", "drm"])
async def test_plaintext_and_tls_1_2_get_no_answer(deployment: Deployment, tmp_path: Path, role: str) -> None:
    address = getattr(deployment.home().config, role)
    async with grpc.aio.insecure_channel(address) as opened:
        with pytest.raises(grpc.aio.AioRpcError):
            await health_pb2_grpc.HealthStub(opened).Check(health_pb2.HealthCheckRequest(), timeout=3)
    who = identity(deployment, "client/enroller")
    (tmp_path / "identity.pem").write_bytes(who.certificate + who.private_key)
    context = ssl.create_default_context(cadata=who.trust_anchor.decode())
    context.load_cert_chain(tmp_path / "identity.pem")
    context.set_alpn_protocols(["h2"])
    host, port = address.rsplit(":", 1)
    named = {"host": host, "port": int(port), "ssl": context, "server_hostname": f"{role}.{TRUST_DOMAIN}"}
    _, writer = await asyncio.open_connection(**named)
    assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
    writer.close()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection(**named)


@pytest.mark.parametrize(("there", "expected"), [("cm", "rm"), ("drm", "cm"), ("rm", "drm"), ("drm", "rm")])
async def test_a_subsystem_in_anothers_place_is_not_believed(
    deployment: Deployment, there: str, expected: str
) -> None:
    who = identity(deployment, "auditor/auditor")
    async with channel(deployment, there, who, expecting=expected) as opened:
        audit = next(method for service, method in methods() if service == "AuditService")
        assert await answer(opened, audit) == "NO_CONNECTION"


async def test_a_deployment_whose_rm_address_leads_to_the_cm_enrolls_nobody(deployment: Deployment) -> None:
    home = deployment.home()
    object.__setattr__(home, "config", home.config.model_copy(update={"rm": home.config.cm}))
    async with EnrollmentClient.open(home) as client:
        with pytest.raises(NoConnectionError):
            await client.enroll(common_name="Alice Example", email="alice@example.org")
