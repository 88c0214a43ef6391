"""The server that every subsystem runs: what is checked of every call before and after its handler.

In this order: TLS version, identity and expiry, allow-list, calls in flight, deadline, the handler, errors. aio
interceptors see no peer, so they wrap the handlers, and the wrapper sees all of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2

import keyark
import keyark.rpc
from keyark.errors import (
    ConfigurationError,
    DeadlineExceededError,
    KeyarkError,
    OverloadedError,
    UnauthenticatedError,
)
from keyark.pki.spiffe import SpiffeId
from keyark.rpc.authorization import ANYONE, AllowList
from keyark.rpc.errors import abort, internal_error
from keyark.rpc.identities import LocalIdentity, PeerReader

MAX_MESSAGE: Final = 4 << 20
DEFAULT_SECONDS: Final = 30.0
MARGIN_SECONDS: Final = 0.05
_OPTIONS: Final = (
    ("grpc.so_reuseport", 0),  # two servers would silently share a port
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE * 4),
    ("grpc.max_concurrent_streams", 4096),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)

logger = logging.getLogger(__name__)

_caller: ContextVar[SpiffeId] = ContextVar("caller")

Context = grpc.aio.ServicerContext[Any, Any]
OnRejected = Callable[[SpiffeId, str, KeyarkError], Awaitable[None]]


def current_caller() -> SpiffeId:
    """Return who made the call that is being handled."""
    return _caller.get()


@dataclass(frozen=True, kw_only=True)
class ServedService:
    """A gRPC service: its descriptor, how it is added to a server, and what serves it."""

    descriptor: ServiceDescriptor
    add: Callable[[Any, grpc.aio.Server], None]
    servicer: object


class _Guard(grpc.aio.ServerInterceptor):
    """Wraps every unary handler with the checks, and every streaming one (health, reflection) likewise."""

    def __init__(
        self, *, peers: PeerReader, allow: AllowList, max_in_flight: int, on_rejected: OnRejected
    ) -> None:
        self._peers, self._allow = peers, allow
        self._max_in_flight, self._on_rejected = max_in_flight, on_rejected
        self._in_flight = 0
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the wrapped handler of a method; it is made once."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        coders: dict[str, Any] = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary is not None:
            behaviour = handler.unary_unary

            async def unary(request: object, context: Context) -> object:
                return await self._call(method, behaviour, request, context)

            return grpc.unary_unary_rpc_method_handler(unary, **coders)
        return self._wrap_stream(method, handler, coders)

    def _wrap_stream(
        self, method: str, handler: grpc.RpcMethodHandler[Any, Any], coders: dict[str, Any]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        behaviour: Any = handler.stream_stream or handler.unary_stream

        async def stream(request: Any, context: Context) -> Any:
            try:
                self._check_caller(method, context)
            except KeyarkError as error:
                await abort(context, error)
            async for response in behaviour(request, context):
                yield response

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.stream_stream
            else grpc.unary_stream_rpc_method_handler
        )
        return make(stream, **coders)

    def _check_caller(self, method: str, context: Context) -> SpiffeId:
        caller = self._peers.identity(context.auth_context())
        _caller.set(caller)
        self._allow.check(caller, method)
        return caller

    async def _call(
        self, method: str, behaviour: Callable[..., Awaitable[object]], request: object, context: Context
    ) -> object:
        if self._in_flight >= self._max_in_flight:
            await abort(
                context, OverloadedError("The service has as many calls as it takes; try again shortly.")
            )
        self._in_flight += 1
        try:
            self._check_caller(method, context)
            return await self._bounded(behaviour, request, context)
        except KeyarkError as error:
            await self._rejected(method, error)
            await abort(context, error)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception:
            failure, error_id = internal_error()
            logger.exception("%s failed; error id %s", method, error_id)
            await abort(context, failure)
        finally:
            self._in_flight -= 1

    async def _bounded(
        self, behaviour: Callable[..., Awaitable[object]], request: object, context: Context
    ) -> object:
        """Run the handler under the caller's deadline, or the default one; what cannot finish is refused."""
        remaining = context.time_remaining()
        seconds = (
            DEFAULT_SECONDS if remaining is None else min(remaining, DEFAULT_SECONDS * 4) - MARGIN_SECONDS
        )
        if seconds <= 0:
            raise DeadlineExceededError("Too little time was left to answer; allow more.")
        try:
            async with asyncio.timeout(seconds):
                return await behaviour(request, context)
        except TimeoutError:
            raise DeadlineExceededError(
                "The call took too long; try again, with the same request id."
            ) from None

    async def _rejected(self, method: str, error: KeyarkError) -> None:
        caller = _caller.get(None)
        if caller is not None and not isinstance(error, UnauthenticatedError):
            await self._on_rejected(caller, method, error)


class Server:
    """A subsystem's gRPC server: start it, drain it."""

    def __init__(
        self, server: grpc.aio.Server, health: HealthServicer, address: str, identity: SpiffeId
    ) -> None:
        self._server, self._health, self._address = server, health, address
        self.identity = identity
        self.port = 0

    @property
    def ready_line(self) -> str:
        """What the program prints once it takes calls."""
        host = self._address.rsplit(":", 1)[0]
        return f"{self.identity.role} ready at {host}:{self.port} as {self.identity}"

    async def start(self) -> None:
        """Take calls."""
        await self._server.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, seconds: float) -> None:
        """Take no more calls, and let those in flight end within this time."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(seconds)


def build_server(
    *,
    identity: LocalIdentity,
    address: str,
    services: Sequence[ServedService],
    allow: Mapping[str, Sequence[str] | set[str]],
    now: Callable[[], int],
    max_in_flight: int,
    on_rejected: OnRejected,
) -> Server:
    """Make a server that listens at ``address`` ("127.0.0.1:0" for any port); ``now`` is in seconds UTC.

    Raises ConfigurationError where the allow-list is incomplete, the address cannot be had, or TLS 1.2 is possible.
    """
    if keyark.TLS_1_2_IS_POSSIBLE:
        raise ConfigurationError(
            "gRPC was imported before keyark, so TLS 1.2 is not ruled out; import keyark first."
        )
    health = HealthServicer()
    descriptors = [service.descriptor for service in services]
    standard: list[Any] = [
        health_pb2.DESCRIPTOR.services_by_name["Health"],
        reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
    ]
    rows = {**allow, **{f"/{s.full_name}/{m.name}": ANYONE for s in standard for m in s.methods}}
    allow_list = AllowList.complete(identity.spiffe_id.trust_domain, rows, [*descriptors, *standard])
    guard = _Guard(
        peers=PeerReader(now), allow=allow_list, max_in_flight=max_in_flight, on_rejected=on_rejected
    )
    server = grpc.aio.server(interceptors=[guard], options=_OPTIONS)
    for service in services:
        service.add(service.servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection([s.full_name for s in (*descriptors, *standard)], server)
    credentials = grpc.ssl_server_credentials(
        [(identity.private_key, identity.certificate)], identity.trust_anchor, require_client_auth=True
    )
    built = Server(server, health, address, identity.spiffe_id)
    try:
        built.port = server.add_secure_port(address, credentials)
    except RuntimeError:
        raise ConfigurationError(f"{address} cannot be listened at; is another service there?") from None
    return built
