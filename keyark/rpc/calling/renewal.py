"""An identity that is renewed while its service runs: new handshakes present the new certificate, no call is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from keyark.errors import ConfigurationError
from keyark.rpc.calling.channels import Channel
from keyark.rpc.calling.pinning import ServerPin
from keyark.rpc.calling.retries import Retries, is_idempotent
from keyark.rpc.identities import LocalIdentity
from keyark.rpc.reach import NoConnectionError
from keyark.x509.certificates import Validity, load_pem_certificates

DRAIN_SECONDS: Final = 180.0
"""How long calls over a channel of the older certificate may still take."""

_NOT_SENT: Final = (
    "failed to connect",
    "dns resolution failed",
    "could not contact dns",
    "domain name not found",
)
"""What gRPC says of a call for which no connection came about."""


class CurrentIdentity:
    """The identity that a service has now, and how its files are read again; ``now`` is in seconds UTC."""

    def __init__(
        self, identity: LocalIdentity, *, read: Callable[[], LocalIdentity], now: Callable[[], int]
    ) -> None:
        self.value = identity
        self._read, self._now = read, now
        self._changed: list[Callable[[], None]] = []

    def on_change(self, action: Callable[[], None]) -> None:
        """Do this whenever another certificate was taken."""
        self._changed.append(action)

    async def refresh(self) -> None:
        """As ``take``."""
        self.take()

    def take(self) -> None:
        """Take the identity that is in the files now; where it is not good, the present one stays.

        Raises ConfigurationError for another identity's, an issuer that is no trust anchor, and a certificate that
        is not valid now, and the errors of keys and certificates that do not load.
        """
        read = self._read()
        if read == self.value:
            return
        _check_successor(read, self.value, self._now())
        self.value = read
        for action in self._changed:
            action()

    async def reload(self) -> str:
        """Refresh, and return what to tell the operator."""
        await self.refresh()
        certificate = load_pem_certificates(self.value.certificate)[0]
        return (
            f"the identity's certificate is valid until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        )


def _check_successor(read: LocalIdentity, present: LocalIdentity, now: int) -> None:
    if read.spiffe_id != present.spiffe_id:
        raise ConfigurationError(
            f"The identity's files belong to {read.spiffe_id} instead of {present.spiffe_id}; restore the "
            "right files."
        )
    certificate = load_pem_certificates(read.certificate)[0]
    if not any(_is_issued_by(certificate, anchor) for anchor in load_pem_certificates(read.trust_anchor)):
        raise ConfigurationError(
            "The identity's new certificate is not from the trust anchor; have the internal CA issue it."
        )
    validity = Validity.of(certificate)
    if not validity.not_before <= now <= validity.not_after:
        raise ConfigurationError("The identity's new certificate is not valid now; issue it again.")


def _is_issued_by(certificate: x509.Certificate, anchor: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(anchor)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def server_credentials(present: Callable[[], LocalIdentity]) -> grpc.ServerCredentials:
    """Return credentials for mutual TLS that present, at each handshake, the identity that there is then."""
    shown = present()

    def configuration() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(shown.private_key, shown.certificate)], root_certificates=shown.trust_anchor
        )

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        newest = present()
        if newest is shown:
            return None
        shown = newest
        return configuration()

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        fetch,  # type: ignore[arg-type]  # None is the answer for no change, which the stubs leave out
        require_client_authentication=True,
    )


def _was_not_sent(error: grpc.aio.AioRpcError | NoConnectionError) -> bool:
    """Whether a call found no connection at all, so that it may be made elsewhere, whatever it does."""
    if isinstance(error, NoConnectionError):
        return True
    said = (error.details() or "").lower()
    return error.code() is grpc.StatusCode.UNAVAILABLE and any(words in said for words in _NOT_SENT)


class RenewableChannel:
    """A channel that can be opened anew below the stubs that call over it; it has what unary stubs need.

    Where the service has several addresses, a call that finds no connection goes to the next one, and so do those after
    it.

    ``before_calls`` is done before each call, and may open it anew. ``identity`` is whose channel it is; ``pin`` keeps
    calls from a service whose identity was revoked. ``retries`` are those of idempotent methods, if any.
    """

    def __init__(
        self,
        identity: Callable[[], LocalIdentity],
        open_channel: Callable[[LocalIdentity], Channel],
        *,
        pin: ServerPin,
        before_calls: Callable[[], None] = lambda: None,
        retries: Retries | None = None,
    ) -> None:
        self._identity, self._open_channel = identity, open_channel
        self._retries = retries
        self._pin, self._before_calls = pin, before_calls
        self.reach = pin.reach(identity)
        self.channel = self._open()
        self._closing: set[asyncio.Task[None]] = set()

    def unary_unary(self, path: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Return a call that goes over the channel that there is when it is made."""
        over, method = self.channel, self.channel.unary_unary(path, *arguments, **options)

        def call_now(request: Any, **call_options: Any) -> Any:
            nonlocal over, method
            if over is not self.channel:
                over, method = self.channel, self.channel.unary_unary(path, *arguments, **options)
            return method(request, **call_options)

        async def call_checked(request: Any, **call_options: Any) -> Any:
            if await self._pin.look(self._identity(), failed=self._has_failed):
                self.renew()
            return await call_now(request, **call_options)

        async def call_somewhere(request: Any, **call_options: Any) -> Any:
            for _ in range(self._pin.others):
                try:
                    return await call_here(request, **call_options)
                except (grpc.aio.AioRpcError, NoConnectionError) as error:
                    if not _was_not_sent(error):
                        raise
                    self._pin.turn()
                    self.renew()
            return await call_here(request, **call_options)

        def call_here(request: Any, **call_options: Any) -> Any:
            return (call_checked if self._pin.is_needed else call_now)(request, **call_options)

        def call(request: Any, **call_options: Any) -> Any:
            self._before_calls()
            return (call_somewhere if self._pin.others else call_here)(request, **call_options)

        call.reach = self.reach  # type: ignore[attr-defined]  # ``keyark.rpc.calling.channels.call`` names it in errors
        call.retries = self._retries if is_idempotent(path) else None  # type: ignore[attr-defined]  # and repeats
        return call

    def _open(self) -> Channel:
        return self._open_channel(self._pin.trusting(self._identity()))

    def _has_failed(self) -> bool:
        return self.channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE

    def renew(self) -> None:
        """Open the channel anew; calls that are under way over the older one may end."""
        older, self.channel = self.channel, self._open()
        task = asyncio.create_task(older.close(DRAIN_SECONDS))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close it, and what still drains."""
        for task in self._closing:
            task.cancel()
        await asyncio.gather(self.channel.close(), *self._closing, return_exceptions=True)
