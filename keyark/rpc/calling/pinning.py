"""Calling no service whose identity was revoked.

gRPC verifies a server's certificate and asks nobody about it. So once identities are revoked, a channel trusts one
certificate alone instead of the internal CA: the one that the service presented when it was asked, after that was
verified and found not to be revoked. Whoever relays that answer gains nothing, for a handshake then succeeds only with
the private key of the certificate that was verified.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from cryptography import x509

from keyark.addresses import parse_addresses
from keyark.errors import KeyarkError, Kind
from keyark.identity.revoked import IdentityRevokedError, RevokedIdentities
from keyark.rpc.errors import NoConnectionError
from keyark.rpc.identities import LocalIdentity
from keyark.rpc.reach import Reach
from keyark.x509.certificates import encode_pem_certificates, load_certificate

PROBE_SECONDS: Final = 5.0

Probe = Callable[[str, str, bytes], Awaitable[x509.Certificate]]
"""Asks an address for the certificate of a name below trust anchors (PEM)."""


class ServiceRevokedError(KeyarkError):
    """Who answers at a service's address has an identity that was revoked, so nothing was sent there."""

    reason = "SERVICE_REVOKED"
    kind = Kind.UNAVAILABLE


async def presented_certificate(address: str, name: str, anchors: bytes) -> x509.Certificate:
    """Return the certificate that a service presents for a DNS name, verified; raises NoConnectionError."""
    (place,) = parse_addresses(address)
    context = ssl.create_default_context(cadata=anchors.decode())
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(
                place.host, place.port, ssl=context, server_hostname=name
            )
    except (OSError, TimeoutError):  # ssl's errors are OSErrors
        raise NoConnectionError(
            f"{address} did not answer as {name}; check that the service runs: `keyark doctor`."
        ) from None
    try:
        presented: ssl.SSLObject = writer.get_extra_info("ssl_object")
        return load_certificate(presented.getpeercert(binary_form=True) or b"")
    finally:
        writer.close()


class ServerPin:
    """Which certificate a channel to one service trusts: any of the internal CA before identities are revoked."""

    def __init__(
        self,
        addresses: str,
        name: str,
        revoked: RevokedIdentities,
        *,
        probe: Probe = presented_certificate,
    ) -> None:
        self._all = [str(address) for address in parse_addresses(addresses)]
        self._place, self._name, self._revoked, self._probe = 0, name, revoked, probe
        self._pinned: x509.Certificate | None = None
        self._turn = asyncio.Lock()

    @property
    def address(self) -> str:
        """Where the service is called now, HOST:PORT."""
        return self._all[self._place]

    @property
    def others(self) -> int:
        """How many further addresses the service has."""
        return len(self._all) - 1

    def turn(self) -> None:
        """Go over to the next address; what answers there has a certificate of its own."""
        self._place = (self._place + 1) % len(self._all)
        self._pinned = None

    @property
    def is_needed(self) -> bool:
        """Whether anything is revoked that a service could present."""
        return bool(self._revoked.serials)

    def reach(self, identity: Callable[[], LocalIdentity]) -> Reach:
        """Return the way to the service, for errors to name."""
        return Reach(
            name=self._name, address=" or ".join(self._all), identity=identity, now=lambda: int(time.time())
        )

    def trusting(self, identity: LocalIdentity) -> LocalIdentity:
        """Return an identity to open the channel with, which trusts what is pinned."""
        if self._pinned is None:
            return identity
        return replace(identity, trust_anchor=encode_pem_certificates([self._pinned]))

    async def look(self, identity: LocalIdentity, *, failed: Callable[[], bool]) -> bool:
        """Pin what the service presents, where nothing is, or not what it presents now; returns whether that changed.

        ``failed`` tells whether the channel finds no connection with what is pinned. Raises ServiceRevokedError and
        NoConnectionError; then nothing is to be sent.
        """
        async with self._turn:
            if self._is_good() and not failed():
                return False
            presented = await self._probe(self.address, self._name, identity.trust_anchor)
            try:
                self._revoked.check(presented)
            except IdentityRevokedError:
                raise ServiceRevokedError(
                    f"The service at {self.address} has a revoked identity of {self._name}, so nothing was "
                    "sent to it. Give the service a new identity with `keyark identities renew`."
                ) from None
            changed, self._pinned = presented != self._pinned, presented
            return changed

    def _is_good(self) -> bool:
        return self._pinned is not None and self._pinned.serial_number not in self._revoked.serials
