"""Each cause of a call that finds no service is its own sentence, with the service and its address."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from keyark.errors import KeyarkError, PermissionDeniedError
from keyark.identity.revoked import RevokedIdentities
from keyark.keys.key_types import KeyType
from keyark.rpc.calling.channels import call, open_channel
from keyark.rpc.calling.pinning import ServerPin
from keyark.rpc.calling.renewal import RenewableChannel
from keyark.rpc.identities import LocalIdentity
from keyark.rpc.reach import NoConnectionError
from keyark.v1.audit_pb2 import GetCheckpointRequest
from keyark.x509.authority import ca_name, create_internal_ca
from keyark.x509.certificates import Validity
from tests.support.keys.crypto import private_key
from tests.support.running.deployment import running_beside
from tests.support.running.rpc import Scripted, identity, revoked_identities, serving, stub

DAY = 86_400
NOW = int(time.time())
PAST = Validity.starting(NOW - 20 * DAY, lifetime_seconds=DAY)
FUTURE = Validity.starting(NOW + 20 * DAY, lifetime_seconds=DAY)
AUDITOR = "auditor/eve"


@asynccontextmanager
async def channel_to(
    addresses: str, who: LocalIdentity, *, revoked: RevokedIdentities
) -> AsyncIterator[RenewableChannel]:
    pin = ServerPin(addresses, "drm.example.org", revoked)
    channel = RenewableChannel(
        lambda: who,
        lambda identity: open_channel(pin.address, identity, server_role="drm", trust_domain="example.org"),
        pin=pin,
    )
    try:
        yield channel
    finally:
        await channel.close()


@pytest.mark.parametrize("revoked", [revoked_identities(), revoked_identities(identity("drm", number=905))])
async def test_a_call_goes_to_the_first_address_that_answers_and_on_when_it_stops(
    revoked: RevokedIdentities,
) -> None:
    request = GetCheckpointRequest()
    one, other = identity("drm", number=906), identity("drm", number=907)
    async with (
        serving(Scripted(b"second"), address="[::1]:0", present=lambda: other) as second,
        serving(Scripted(b"first"), present=lambda: one) as first,
    ):
        addresses = f"127.0.0.1:1, 127.0.0.1:{first.port}, nobody.invalid:7710, [::1]:{second.port}"
        async with channel_to(addresses, identity(AUDITOR), revoked=revoked) as channel:
            for _ in range(2):
                answer = await call(stub(channel).GetCheckpoint, request, timeout=10)  # type: ignore[arg-type]
                assert answer.checkpoint == b"first"
            await first.drain(0)
            for _ in range(2):
                answer = await call(stub(channel).GetCheckpoint, request, timeout=10)  # type: ignore[arg-type]
                assert answer.checkpoint == b"second"


async def test_where_no_address_answers_all_are_named() -> None:
    error = await refusal("127.0.0.1:1, [::1]:1", identity(AUDITOR))
    assert error.message.startswith("The DRM at 127.0.0.1:1 or [::1]:1 refused the connection")


async def test_a_refusal_is_not_asked_for_again_elsewhere() -> None:
    here, elsewhere = Scripted(), Scripted()
    async with serving(here) as first, serving(elsewhere) as second:
        addresses = f"127.0.0.1:{first.port}, 127.0.0.1:{second.port}"
        async with channel_to(addresses, identity("client/alice"), revoked=revoked_identities()) as channel:
            with pytest.raises(PermissionDeniedError):
                await call(stub(channel).GetCheckpoint, GetCheckpointRequest(), timeout=10)  # type: ignore[arg-type]
    assert (len(here.rejected), len(elsewhere.rejected)) == (1, 0)


async def refusal(address: str, who: LocalIdentity, role: str = "drm") -> KeyarkError:
    """What a call to a service is refused with."""
    pin = ServerPin(address, f"{role}.example.org", revoked_identities())
    channel = RenewableChannel(
        lambda: who,
        lambda identity: open_channel(pin.address, identity, server_role=role, trust_domain="example.org"),
        pin=pin,
    )
    try:
        with pytest.raises(KeyarkError) as caught:
            await call(stub(channel).GetCheckpoint, GetCheckpointRequest(), timeout=5)  # type: ignore[arg-type]
    finally:
        await channel.close()
    assert address.replace(", ", " or ") in caught.value.message
    assert role.upper() in caught.value.message
    return caught.value


async def test_a_service_that_does_not_run() -> None:
    error = await refusal("127.0.0.1:1", identity(AUDITOR), "rm")
    assert error.message.startswith("The RM at 127.0.0.1:1 refused the connection")
    assert error.reason == "NO_CONNECTION"


async def test_a_host_that_is_not_known() -> None:
    error = await refusal("nobody.invalid:7710", identity(AUDITOR))
    assert "does not resolve" in error.message


@pytest.mark.parametrize(
    ("validity", "reason", "words"),
    [(PAST, "IDENTITY_ENDED", "ended on"), (FUTURE, "IDENTITY_NOT_YET_VALID", "not valid before")],
)
async def test_an_identity_of_ones_own_that_is_not_in_force(
    validity: Validity, reason: str, words: str
) -> None:
    async with serving(Scripted()) as server:
        error = await refusal(f"127.0.0.1:{server.port}", identity(AUDITOR, validity=validity))
    assert error.reason == reason
    assert words in error.message
    assert "spiffe://example.org/auditor/eve" in error.message
    assert ("expired" in error.message, "ended" in error.message) == (False, reason == "IDENTITY_ENDED")


@pytest.mark.parametrize(("validity", "words"), [(PAST, "has expired"), (FUTURE, "is not yet valid")])
async def test_a_service_whose_certificate_is_not_in_force(validity: Validity, words: str) -> None:
    theirs = identity("drm", number=904, validity=validity)
    async with serving(Scripted(), present=lambda: theirs) as server:
        error = await refusal(f"127.0.0.1:{server.port}", identity(AUDITOR))
    assert error.reason == "SERVICE_CERTIFICATE"
    assert words in error.message
    assert "clock" in error.message


async def test_another_service_at_the_address() -> None:
    async with serving(Scripted()) as server:
        error = await refusal(f"127.0.0.1:{server.port}", identity(AUDITOR), "cm")
    assert (error.reason, "Another service" in error.message) == ("SERVICE_CERTIFICATE", True), error.message


async def test_a_caller_of_another_ca() -> None:
    other = create_internal_ca(
        private_key(KeyType.EC_P256, 950),
        subject=ca_name("another CA"),
        validity=Validity.starting(NOW - 10 * DAY, lifetime_seconds=60 * DAY),
    )
    async with serving(Scripted()) as server:
        error = await refusal(f"127.0.0.1:{server.port}", identity(AUDITOR, authority=other))
    assert isinstance(error, NoConnectionError)
    assert "internal CA" in error.message or "does not accept the certificate" in error.message


async def test_the_archive_that_is_down_behind_the_rm(deployment_folder: Path) -> None:
    """A client is told that it is the DRM, and where, though it never calls it."""
    async with running_beside(deployment_folder, 1) as deployment, deployment.client() as client:
        with pytest.raises(KeyarkError) as caught:
            await client.form("user")
    assert caught.value.message.startswith("The DRM at 127.0.0.1:1 refused the connection")
