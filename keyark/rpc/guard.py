"""What is checked of every call around its handler, and how every failure leaves it.

In this order: TLS version, identity and expiry, allow-list, calls in flight, deadline, the message, the handler. aio
interceptors see no peer, so this one wraps the handlers, and the wrapper sees all of it. It decodes the messages too:
nobody who may not call a method has a message parsed by it, and no error of gRPC's own tells what was in one (P10).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message import DecodeError

from keyark.errors import (
    DeadlineExceededError,
    InvalidInputError,
    KeyarkError,
    NotFoundError,
    OverloadedError,
    UnavailableError,
)
from keyark.pki.spiffe import SpiffeId
from keyark.rpc import deadlines
from keyark.rpc.authorization import AllowList
from keyark.rpc.errors import abort, internal_error
from keyark.rpc.identities import PeerReader

if TYPE_CHECKING:  # generic in the stubs only
    Handler = grpc.RpcMethodHandler[Any, Any]

MAX_STREAMS: Final = 256
UNKNOWN_METHOD: Final = "unknown_method"
UNREAD_MESSAGE: Final = "unread_message"
"""Calls of methods that are not served; calls whose message never arrived, as gRPC refuses those that are too large."""

logger = logging.getLogger(__name__)

_caller: ContextVar[SpiffeId] = ContextVar("caller")

Context = grpc.aio.ServicerContext[Any, Any]
OnRejected = Callable[[SpiffeId, str, KeyarkError], Awaitable[None]]


def current_caller() -> SpiffeId:
    """Return who made the call that is being handled."""
    return _caller.get()


class UnknownMethodError(NotFoundError):
    """The service has no such method."""

    reason = "UNKNOWN_METHOD"


class Guard(grpc.aio.ServerInterceptor):
    """Wraps every handler with the checks; the streaming ones are those of health and reflection."""

    def __init__(
        self, *, peers: PeerReader, allow: AllowList, max_in_flight: int, on_rejected: OnRejected
    ) -> None:
        self._peers, self._allow = peers, allow
        self._max_in_flight, self._on_rejected = max_in_flight, on_rejected
        self.calls: Counter[str] = Counter()
        self.unserved: Counter[str] = Counter({UNKNOWN_METHOD: 0, UNREAD_MESSAGE: 0})
        self._in_flight = 0
        self._streams: set[asyncio.Future[None]] = set()
        self._stopping = False
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the wrapped handler of a method; it is made once."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                self.unserved[UNKNOWN_METHOD] += 1
                return self._refuse_unknown(method)
            self._wrapped[method] = self._wrap(method, handler)
        if not self._wrapped[method].request_streaming:
            self.unserved[UNREAD_MESSAGE] += 1  # until its message is here
        return self._wrapped[method]

    def _refuse_unknown(self, method: str) -> Handler:
        """Return a handler for a method that is not served; it is not kept, for anybody can make up names."""

        async def refuse(_: Any, context: Context) -> None:
            async with self._telling_errors(method, context):
                self._check_peer(context)
            error = UnknownMethodError("The service has no such method; its release may be another one.")
            await self._record(method, error)
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, error.message)

        return grpc.stream_stream_rpc_method_handler(refuse)

    def stop_streams(self) -> None:
        """End the streams, which would last as long as their callers like, and take no more."""
        self._stopping = True
        for stream in self._streams:
            stream.cancel()

    def _wrap(self, method: str, handler: Handler) -> Handler:
        if handler.unary_unary is None:
            return self._wrap_stream(method, handler)
        behaviour: Any = handler.unary_unary
        encode = handler.response_serializer

        async def unary(data: bytes, context: Context) -> bytes:
            self.calls[method] += 1
            self.unserved[UNREAD_MESSAGE] -= 1
            async with self._telling_errors(method, context):
                self._check_caller(method, context)
                with self._taking_a_place():
                    seconds = deadlines.handling_seconds(context.time_remaining())
                    request = _decode(handler, data)
                    response = await _bounded(behaviour(request, context), seconds)
                return encode(response)  # type: ignore[misc]  # every generated handler has one

        return grpc.unary_unary_rpc_method_handler(unary)

    def _wrap_stream(self, method: str, handler: Handler) -> Handler:
        behaviour: Any = handler.stream_stream or handler.unary_stream

        async def stream(request: Any, context: Context) -> None:
            if handler.unary_stream:
                self.unserved[UNREAD_MESSAGE] -= 1
            async with self._telling_errors(method, context):
                self._check_caller(method, context)
                if handler.unary_stream:
                    request = _decode(handler, request)
                await self._until_stopping(behaviour, request, context)

        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                stream, response_serializer=handler.response_serializer
            )
        return grpc.stream_stream_rpc_method_handler(
            stream,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _check_caller(self, method: str, context: Context) -> None:
        self._allow.check(self._check_peer(context), method)

    def _check_peer(self, context: Context) -> SpiffeId:
        """A certificate that is revoked or has ended still says whose refusal is recorded."""
        peer = self._peers.read(context.auth_context())
        _caller.set(peer.identity)
        self._peers.check(peer)
        return peer.identity

    @contextmanager
    def _taking_a_place(self) -> Iterator[None]:
        if self._in_flight >= self._max_in_flight:
            raise OverloadedError("The service has as many calls as it takes; try again shortly.")
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    async def _until_stopping(self, behaviour: Any, request: Any, context: Context) -> None:
        if self._stopping or len(self._streams) >= MAX_STREAMS:
            raise OverloadedError("The service takes no more streams now; try again shortly.")
        stream = asyncio.ensure_future(_produce(behaviour(request, context), context))
        self._streams.add(stream)
        try:
            await stream
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            raise UnavailableError("The service is stopping; try again later.") from None
        finally:
            self._streams.discard(stream)

    @asynccontextmanager
    async def _telling_errors(self, method: str, context: Context) -> AsyncIterator[None]:
        """End a call that failed: a typed error as its status, any other as an id and nothing else (P10)."""
        try:
            yield
        except KeyarkError as error:
            await self._record(method, error)
            await abort(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception:
            failure, error_id = internal_error()
            logger.exception("%s failed; error id %s", method, error_id)
            await abort(context, failure)

    async def _record(self, method: str, error: KeyarkError) -> None:
        """Have the refusal of an authenticated caller recorded; it stays one where that fails."""
        caller = _caller.get(None)
        if caller is None:
            return
        try:
            await self._on_rejected(caller, method, error)
        except Exception:  # its text is for the operator, not for the caller
            logger.exception("a refusal of %s could not be recorded", method)


def _decode(handler: Handler, data: bytes) -> object:
    try:
        return handler.request_deserializer(data)  # type: ignore[misc]  # every generated handler has one
    except DecodeError:
        raise InvalidInputError(
            "The request is no message of this method; check the release.", field="request"
        ) from None


async def _bounded(response: Awaitable[object], seconds: float) -> object:
    """Await the handler for so long; a timeout of its own is its own."""
    deadlines.begin(seconds)
    try:
        async with asyncio.timeout(seconds) as time:
            return await response
    except TimeoutError:
        if not time.expired():
            raise
        raise DeadlineExceededError("The call took too long; try again, with the same request id.") from None


async def _produce(responses: Any, context: Context) -> None:
    """Send what a streaming handler yields; one that writes for itself is awaited."""
    if inspect.isawaitable(responses):
        await responses
        return
    async for response in responses:
        await context.write(response)
