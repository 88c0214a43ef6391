"""What is checked of every call around its handler, and how every failure leaves it.

In this order: TLS version, identity and expiry, allow-list, calls in flight, deadline, the message, the handler. aio
interceptors see no peer, so this one wraps the handlers, and the wrapper sees all of it. It reads and decodes messages
too, so unary methods are served as ones whose request streams: nobody who may not call a method has a message read or
parsed by it, nobody has more read than its share, and no error of gRPC's own tells what was in a message (P10).

Once its message is read, a call is handled to the end, with its share of the budgets, even where the caller hangs up or
its time is over: else a caller could choose the moment after a decision and before its entry in the log (P6).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakSet

import grpc
from google.protobuf.message import DecodeError

from keyark.errors import (
    DeadlineExceededError,
    InvalidInputError,
    KeyarkError,
    UnavailableError,
)
from keyark.errors.services import UnknownMethodError, UnreadMessageError
from keyark.identity.spiffe import SpiffeId
from keyark.rpc import deadlines
from keyark.rpc.errors import abort, internal_error
from keyark.rpc.identities import PeerReader
from keyark.rpc.serving.authorization import AllowList
from keyark.rpc.serving.budgets import Budgets
from keyark.rpc.serving.outliving import Outliving

if TYPE_CHECKING:  # generic in the stubs only
    Handler = grpc.RpcMethodHandler[Any, Any]

MAX_MESSAGE: Final = 4 << 20
"""Bytes of the largest message that a server takes."""
READ_SECONDS: Final = 20.0
"""How long a message may take to arrive."""
HANDLING_SECONDS: Final = 900.0
"""How long a call may be handled, whatever time its caller allows: longer than any enrollment takes."""
UNKNOWN_METHOD: Final = "unknown_method"
UNREAD_MESSAGE: Final = "unread_message"
"""Calls of methods that are not served; calls whose message never arrived, as gRPC refuses those that are too large."""

logger = logging.getLogger(__name__)

_caller: ContextVar[SpiffeId] = ContextVar("caller")

Context = grpc.aio.ServicerContext[Any, Any]
OnRejected = Callable[[SpiffeId, str, KeyarkError], Coroutine[Any, Any, None]]


def current_caller() -> SpiffeId:
    """Return who made the call that is being handled."""
    return _caller.get()


class Guard(grpc.aio.ServerInterceptor):
    """Wraps every handler with the checks; the streaming ones are those of health and reflection."""

    def __init__(
        self, *, peers: PeerReader, allow: AllowList, budgets: Budgets, on_rejected: OnRejected
    ) -> None:
        self._peers, self._allow = peers, allow
        self._budgets, self._on_rejected = budgets, on_rejected
        self.calls: Counter[str] = Counter()
        self.unserved: Counter[str] = Counter({UNKNOWN_METHOD: 0, UNREAD_MESSAGE: 0})
        self._streams: WeakSet[asyncio.Future[None]] = WeakSet()
        self._stopping = False
        self._outliving = Outliving()
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
        return self._wrapped[method]

    def _refuse_unknown(self, method: str) -> Handler:
        """Return a handler for a method that is not served; it is not kept, for anybody can make up names."""

        async def refuse(_: Any, context: Context) -> None:
            async with self._telling_errors(method, context), self._recording(method):
                self._check_peer(context)
            error = UnknownMethodError("The service does not have this method; it may be of another release.")
            await self._record(method, error)
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, error.message)

        return grpc.stream_stream_rpc_method_handler(refuse)

    def stop_streams(self) -> None:
        """End the streams, which would last as long as their callers like, and take no more."""
        self._stopping = True
        for stream in self._streams:
            stream.cancel()

    async def finish(self, seconds: float) -> None:
        """Let calls that are handled without their callers end within this time."""
        await self._outliving.finish(seconds)

    def _wrap(self, method: str, handler: Handler) -> Handler:
        if handler.unary_unary is None:
            return self._wrap_stream(method, handler)
        behaviour: Any = handler.unary_unary
        encode = handler.response_serializer

        async def handle(data: bytes, context: Context, share: ExitStack, seconds: float) -> object:
            deadlines.begin(seconds)
            with share:
                async with self._recording(method):
                    request = _decode(handler, data)
                    del data
                    return await _bounded(behaviour(request, context), HANDLING_SECONDS)

        async def respond(caller: SpiffeId, context: Context, share: ExitStack) -> object:
            async with self._recording(method):
                data = await self._read(caller, context)
                share.enter_context(self._budgets.message_bytes.taking(caller, len(data)))
                seconds = deadlines.handling_seconds(context.time_remaining())
            handling = handle(data, context, share.pop_all(), seconds)
            del data
            return await self._outliving.wait_for(handling)

        async def unary(_: Any, context: Context) -> bytes:
            self.calls[method] += 1
            async with self._telling_errors(method, context):
                with ExitStack() as share:
                    async with self._recording(method):
                        caller = self._check_caller(method, context)
                        share.enter_context(self._budgets.calls.taking(caller, 1))
                        seconds = deadlines.handling_seconds(context.time_remaining())
                    response = await _bounded(respond(caller, context, share), seconds)
                return encode(response)  # type: ignore[misc]  # every generated handler has one

        return grpc.stream_unary_rpc_method_handler(unary)

    async def _read(self, caller: SpiffeId, context: Context) -> bytes:
        """Read the message of a call, once the caller may have it read; raises UnreadMessageError."""
        async with self._budgets.readers.reading(caller):
            self._budgets.message_bytes.check_room(caller, MAX_MESSAGE)
            try:
                async with asyncio.timeout(READ_SECONDS):
                    data: Any = await context.read()
            except TimeoutError:
                self.unserved[UNREAD_MESSAGE] += 1
                raise DeadlineExceededError("The message did not arrive in time; try again.") from None
        if data is grpc.aio.EOF:
            self.unserved[UNREAD_MESSAGE] += 1
            raise UnreadMessageError(
                "No message arrived, or one larger than the service takes; send fewer items."
            )
        return cast("bytes", data)

    def _wrap_stream(self, method: str, handler: Handler) -> Handler:
        behaviour: Any = handler.stream_stream or handler.unary_stream

        async def stream(requests: Any, context: Context) -> None:
            async with self._telling_errors(method, context), self._recording(method):
                caller = self._check_caller(method, context)
                with self._budgets.streams.taking(caller, 1):
                    request = (
                        _decode(handler, await self._read(caller, context))
                        if handler.unary_stream
                        else requests
                    )
                    await self._until_stopping(behaviour, request, context)

        return grpc.stream_stream_rpc_method_handler(
            stream,
            request_deserializer=None if handler.unary_stream else handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _check_caller(self, method: str, context: Context) -> SpiffeId:
        caller = self._check_peer(context)
        self._allow.check(caller, method)
        return caller

    def _check_peer(self, context: Context) -> SpiffeId:
        """A certificate that is revoked or has ended still says whose refusal is recorded."""
        peer = self._peers.read(context.auth_context())
        _caller.set(peer.identity)
        self._peers.check(peer)
        return peer.identity

    async def _until_stopping(self, behaviour: Any, request: Any, context: Context) -> None:
        if self._stopping:
            raise UnavailableError("The service is stopping; try again later.")
        stream = asyncio.ensure_future(_produce(behaviour(request, context), context))
        self._streams.add(stream)
        try:
            await stream
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            raise UnavailableError("The service is stopping; try again later.") from None

    @asynccontextmanager
    async def _telling_errors(self, method: str, context: Context) -> AsyncIterator[None]:
        """End a call that failed: a typed error as its status, any other as an id and nothing else (P10)."""
        try:
            yield
        except KeyarkError as error:
            _forget_frames(error)
            await abort(context, error)
        except grpc.aio.AbortError:
            raise
        except (
            grpc.aio.InternalError
        ):  # from reading or writing: the call ended, and nobody is left to be told
            logger.info("%s: the call ended before it was answered", method)
            raise asyncio.CancelledError from None
        except Exception:
            await abort(context, _untyped(method))

    @asynccontextmanager
    async def _recording(self, method: str) -> AsyncIterator[None]:
        """Record a call that is refused; what is raised otherwise becomes a typed error, whoever still waits for it."""
        try:
            yield
        except KeyarkError as error:
            _forget_frames(error)
            await self._record(method, error)
            raise
        except grpc.aio.AbortError:
            raise
        except Exception:
            raise _untyped(method) from None

    async def _record(self, method: str, error: KeyarkError) -> None:
        """Have the refusal of an authenticated caller recorded; it stays one where that fails."""
        caller = _caller.get(None)
        if caller is None:
            return
        try:
            await self._outliving.wait_for(self._on_rejected(caller, method, error))
        except Exception:  # its text is for the operator, not for the caller
            logger.exception("a refusal of %s could not be recorded", method)


def _untyped(method: str) -> KeyarkError:
    """Log the failure that is being handled; return what its caller is told."""
    failure, error_id = internal_error()
    logger.exception("%s failed; error id %s", method, error_id)
    return failure


def _forget_frames(error: BaseException | None) -> None:
    """Let go of the frames that an error came through: a message in one would stay until the collector comes."""
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


def _decode(handler: Handler, data: bytes) -> object:
    try:
        return handler.request_deserializer(data)  # type: ignore[misc]  # every generated handler has one
    except DecodeError:
        raise InvalidInputError(
            "The request is not a message of this method; check that client and service are of the same "
            "release.",
            field="request",
        ) from None


async def _bounded(response: Awaitable[object], seconds: float) -> object:
    """Await the response for so long; a timeout of its own is its own."""
    try:
        async with asyncio.timeout(seconds) as time:
            return await response
    except TimeoutError:
        if not time.expired():
            raise
        raise DeadlineExceededError("The call took too long; try again with the same request id.") from None


async def _produce(responses: Any, context: Context) -> None:
    """Send what a streaming handler yields; one that writes for itself is awaited."""
    if inspect.isawaitable(responses):
        await responses
        return
    async for response in responses:
        await context.write(response)
