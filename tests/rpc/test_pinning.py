"""P5, P7: nothing is sent to a service whose identity was revoked, whoever stands between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from cryptography import x509

from keyark.identity.revoked import RevokedIdentities
from keyark.rpc.calling.channels import Channel, call, open_channel
from keyark.rpc.calling.pinning import Probe, ServerPin, ServiceRevokedError, presented_certificate
from keyark.rpc.calling.renewal import RenewableChannel
from keyark.rpc.errors import NoConnectionError
from keyark.rpc.identities import LocalIdentity
from keyark.v1 import audit_pb2
from keyark.x509.certificates import load_pem_certificates
from tests.support.keys.pki import TRUST_DOMAIN
from tests.support.running.rpc import (
    Scripted,
    identity,
    identity_list,
    revoked_identities,
    serial_of,
    serving,
    stub,
)

REQUEST = audit_pb2.GetCheckpointRequest()
CALLER = identity("auditor/alice")
EVE = identity("client/eve")
STOLEN, GOOD, RENEWED = (identity("drm", number=number) for number in (904, 908, 909))


class Presenting:
    """A server's identity, which a test changes."""

    def __init__(self, shown: LocalIdentity) -> None:
        self.shown = shown


@asynccontextmanager
async def calling(
    presenting: Presenting, revoked: RevokedIdentities, probe: Probe = presented_certificate
) -> AsyncIterator[tuple[RenewableChannel, Callable[[], Any]]]:
    """A channel to a server, and a call over it."""
    async with serving(Scripted(), present=lambda: presenting.shown) as server:
        address = f"127.0.0.1:{server.port}"
        channel = RenewableChannel(
            lambda: CALLER,
            lambda who: open_channel(address, who, server_role="drm", trust_domain=TRUST_DOMAIN),
            pin=ServerPin(address, f"drm.{TRUST_DOMAIN}", revoked, probe=probe),
        )
        method = stub(cast("Channel", channel)).GetCheckpoint
        try:
            yield channel, lambda: call(method, REQUEST, timeout=10)
        finally:
            await channel.close()


def revoke(revoked: RevokedIdentities, *who: LocalIdentity, number: int = 1) -> None:
    revoked.take(revoked.newer(identity_list(*map(serial_of, who), number=number)))


async def test_a_service_is_called_until_its_identity_is_revoked_over_an_open_channel_too() -> None:
    presenting, revoked = Presenting(STOLEN), revoked_identities()
    async with calling(presenting, revoked) as (_, get):
        await get()
        revoke(revoked, EVE)
        await get()
        revoke(revoked, EVE, STOLEN, number=2)
        with pytest.raises(ServiceRevokedError):
            await get()
        presenting.shown = GOOD
        await get()


async def test_who_relays_the_good_service_to_the_question_answers_no_call_with_a_stolen_identity() -> None:
    """The attacker shows the real certificate to who asks for it, and the stolen one to gRPC."""
    revoked = revoked_identities(STOLEN)

    async def relayed(*_: object) -> x509.Certificate:
        return load_pem_certificates(GOOD.certificate)[0]

    async with calling(Presenting(STOLEN), revoked, relayed) as (_, get):
        with pytest.raises(NoConnectionError):
            await get()


async def test_a_service_that_is_renewed_is_met_again() -> None:
    presenting = Presenting(GOOD)
    async with calling(presenting, revoked_identities(STOLEN)) as (channel, get):
        await get()
        presenting.shown = RENEWED
        await get()  # over the connection that is open
        channel.renew()
        with pytest.raises(NoConnectionError):
            await get()
        await get()


async def test_a_service_of_another_ca_or_name_is_not_pinned() -> None:
    revoked = revoked_identities(STOLEN)
    for presenting in (Presenting(identity("cm", number=910)), Presenting(GOOD)):
        async with serving(Scripted(), present=lambda shown=presenting.shown: shown) as server:
            address, anchors = f"127.0.0.1:{server.port}", CALLER.trust_anchor
            pin = ServerPin(address, f"drm.{TRUST_DOMAIN}", revoked)
            if presenting.shown is GOOD:
                assert await pin.look(CALLER, failed=lambda: False)
                assert pin.trusting(CALLER).trust_anchor == GOOD.certificate
                anchors = STOLEN.certificate
            with pytest.raises(NoConnectionError):
                await presented_certificate(address, f"drm.{TRUST_DOMAIN}", anchors)


async def test_a_service_that_is_away_is_told_so() -> None:
    pin = ServerPin("127.0.0.1:1", f"drm.{TRUST_DOMAIN}", revoked_identities(STOLEN))
    with pytest.raises(NoConnectionError):
        await pin.look(CALLER, failed=lambda: False)
    assert pin.trusting(CALLER) is CALLER
