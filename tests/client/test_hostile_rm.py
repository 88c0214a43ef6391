"""P5: the client trusts the RM with nothing. A hostile one with the RM's own identity is found out."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from keyark.client import EnrollmentClient, KeyDelivery
from keyark.errors import KeyarkError
from keyark.identity.certificates import issue_identity, request_identity
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType, generate_signing
from keyark.v1 import registration_pb2
from keyark.v1.registration_pb2_grpc import add_RegistrationServiceServicer_to_server
from keyark.x509.authority import ca_name, create_internal_ca
from keyark.x509.certificates import Validity, encode_certificate, load_certificates
from tests.support.running.deployment import Deployment, copy_deployment, running
from tests.support.stories.relays import Alter, channel, relaying, service_identity

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVICE = registration_pb2.DESCRIPTOR.services_by_name["RegistrationService"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployment(deployment_template, tmp_path_factory) -> AsyncIterator[Deployment]:
    folder = copy_deployment(deployment_template, tmp_path_factory.mktemp("hostile") / "deployment")
    async with running(folder) as deployment:
        yield deployment


@asynccontextmanager
async def hostile_rm(deployment: Deployment, alter: Alter) -> AsyncIterator[EnrollmentClient]:
    """A client of the deployment whose RM is in other hands; it forwards as the client, for it may."""
    home = deployment.home()
    upstream = channel(home.config.rm, home.identity("client/enroller", lambda _: None), "rm")
    async with upstream:
        relay = relaying(
            identity=service_identity(deployment.folder, "rm"),
            upstream=upstream,
            services=[(SERVICE, add_RegistrationServiceServicer_to_server)],
            alter=alter,
        )
        async with relay as server:
            path = deployment.folder / "keyark.toml"
            text = path.read_text()
            path.write_text(
                re.sub(r'^rm = ".*"$', f'rm = "127.0.0.1:{server.port}"', text, flags=re.MULTILINE)
            )
            try:
                async with EnrollmentClient.open(deployment.folder) as client:
                    yield client
            finally:
                path.write_text(text)


def transport_of_another_ca() -> tuple[bytes, bytes]:
    """A transport certificate that is right in all but who signed it, and its issuer."""
    validity = Validity.starting(int(time.time()), lifetime_seconds=86_400)
    authority = create_internal_ca(
        generate_signing(KeyType.EC_P256),
        subject=ca_name("keyark internal CA of example.org"),
        validity=validity,
    )
    key, identity = generate_signing(KeyType.EC_P256), SpiffeId("example.org", "drm/transport")
    certificate = issue_identity(
        authority, request_identity(key, identity), identity=identity, validity=validity
    )
    return encode_certificate(certificate), encode_certificate(authority.certificate)


async def test_a_transport_key_of_the_rms_own_is_not_wrapped_to(deployment: Deployment) -> None:
    certificate, issuer = transport_of_another_ca()
    sent = []

    def alter(method: str, request: Any, response: Any) -> Any:
        if method == "GetEnrollmentForm":
            response.form.transport_certificate.certificate = certificate
            response.form.transport_certificate.chain[:] = [issuer]
        else:
            sent.append(request)
        return response

    async with hostile_rm(deployment, alter) as client:
        with pytest.raises(KeyarkError) as caught:
            await client.enroll(common_name="Alice Example", email="alice@example.org")
    assert caught.value.reason == "CERTIFICATE_CHAIN"
    assert sent == []


async def test_the_rms_own_certificate_is_no_transport_certificate(deployment: Deployment) -> None:
    own = encode_certificate(load_certificates(deployment.folder / "rm" / "identity.pem")[0])

    def alter(method: str, request: Any, response: Any) -> Any:
        if method == "GetEnrollmentForm":
            response.form.transport_certificate.certificate = own
        return response

    async with hostile_rm(deployment, alter) as client:
        with pytest.raises(KeyarkError) as caught:
            await client.enroll(common_name="Alice Example", email="alice@example.org")
    assert caught.value.reason == "TRANSPORT_CERTIFICATE"


async def test_a_transport_key_slipped_in_when_the_key_is_asked_for_is_refused(
    deployment: Deployment,
) -> None:
    certificate, issuer = transport_of_another_ca()
    sent = []

    def alter(method: str, request: Any, response: Any) -> Any:
        if method == "SubmitEnrollments":
            sent.append([bool(item.wrapped_private_key) for item in request.items])
            asked = response.outcomes[0].enrollment.transport_certificate
            asked.certificate = certificate
            asked.chain[:] = [issuer]
        return response

    async with hostile_rm(deployment, alter) as client:
        prepared = await client.prepare(common_name="Alice Example", email="alice@example.org")
        with pytest.raises(KeyarkError) as caught:
            await client.submit(prepared, delivery=KeyDelivery.WHEN_ASKED)
    assert caught.value.reason == "CERTIFICATE_CHAIN"
    assert sent == [[False]]


@pytest.mark.parametrize("part", ["receipt", "certificates", "signing_certificate", "state", "nothing"])
async def test_what_belongs_to_another_enrollment_is_not_handed_out(
    deployment: Deployment, part: str
) -> None:
    async with EnrollmentClient.open(deployment.folder) as honest:
        prepared = await honest.prepare(common_name="Bob Example", email="bob@example.org")
        bob = (await honest.send([prepared], await honest._transport_certificates([prepared])))[0]

    def alter(method: str, request: Any, response: Any) -> Any:
        if method == "SubmitEnrollments":
            answer = response.outcomes[0].enrollment
            if part == "receipt":
                answer.receipt = bob.receipt
            elif part == "certificates":
                answer.certificates.CopyFrom(bob.certificates)
            elif part == "signing_certificate":
                answer.certificates.signing_certificate = bob.certificates.signing_certificate
            elif part == "state":
                answer.ClearField("certificates")
            else:
                del response.outcomes[:]
        return response

    async with hostile_rm(deployment, alter) as client:
        with pytest.raises(KeyarkError) as caught:
            await client.enroll(common_name="Alice Example", email="alice@example.org")
    assert (
        caught.value.reason
        == {
            "receipt": "RECEIPT_MISMATCH",
            "certificates": "CERTIFICATE_MISMATCH",
            "signing_certificate": "CERTIFICATE_MISMATCH",
            "state": "UNEXPECTED_ANSWER",
            "nothing": "UNAVAILABLE",
        }[part]
    )


async def test_an_archival_that_is_kept_quiet_is_noticed(deployment: Deployment) -> None:
    """Where the profile requires archival, an outcome without a receipt is no outcome."""

    def alter(method: str, request: Any, response: Any) -> Any:
        if method == "SubmitEnrollments":
            response.outcomes[0].enrollment.receipt = b""
        return response

    async with hostile_rm(deployment, alter) as client:
        with pytest.raises(KeyarkError) as caught:
            await client.enroll(common_name="Alice Example", email="alice@example.org")
    assert caught.value.reason == "UNEXPECTED_ANSWER"
