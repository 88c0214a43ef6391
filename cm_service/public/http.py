"""A plain HTTP/1.1 server for public documents, bounded in connections, sizes and time.

    server = await HttpServer.start("127.0.0.1:8080", answer=answer, now=clock_seconds)

Whoever connects is a stranger. A connection carries one request, so nobody holds one idle; when all are taken,
further ones wait in the kernel. The wire format is h11's, which refuses what is ambiguous.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import h11

from cm_service.public.documents import HttpRequest, HttpResponse, http_date, plain
from keyark.addresses import Address, parse_addresses
from keyark.errors import ConfigurationError

MAX_HEAD: Final = 16 << 10
MAX_BODY: Final = 16 << 10
"""Bytes of a request line with all header fields, and of a request's body."""

PIECE: Final = 4 << 10
"""Bytes that are read at once of a request, so that a head is never much longer than MAX_HEAD."""

CHUNK: Final = 1 << 18
BACKLOG: Final = 128
CLOSE_SECONDS: Final = 5.0
ACCEPT_AGAIN_SECONDS: Final = 0.5

Answer = Callable[[HttpRequest], Awaitable[HttpResponse]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """What strangers may take: connections at once, seconds for a request, bytes per second of reading an answer."""

    connections: int = 256
    request_seconds: float = 10.0
    answer_seconds: float = 30.0
    slowest_reader: int = 16 << 10
    linger_seconds: float = 2.0

    def seconds_for(self, response: HttpResponse) -> float:
        """Return how long a client may take to read an answer."""
        return self.answer_seconds + response.length / self.slowest_reader


class _RefusedError(Exception):
    """The request is answered with this and not read any further."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response.status.phrase)
        self.response = response


class HttpServer:
    """Takes requests until it is closed; make it with ``start``."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        *,
        answer: Answer,
        now: Callable[[], int],
        limits: HttpLimits,
    ) -> None:
        self._listeners, self._answer, self._now, self._limits = listeners, answer, now, limits
        self._free = asyncio.Semaphore(limits.connections)
        self._open: set[asyncio.Task[None]] = set()
        self._accepting = [asyncio.create_task(self._accept(listener)) for listener in listeners]

    @classmethod
    async def start(
        cls, address: str, *, answer: Answer, now: Callable[[], int], limits: HttpLimits | None = None
    ) -> HttpServer:
        """Listen at HOST:PORT (port 0 takes a free one), or at several; ``now`` tells seconds UTC.

        Raises ConfigurationError.
        """
        with ExitStack() as opened:
            listeners = []
            for place in parse_addresses(address, first_port=0):
                try:
                    listeners.append(opened.enter_context(await _listen(place)))
                except OSError as error:
                    raise ConfigurationError(
                        f"Cannot listen at http://{place}: {error}; choose another address."
                    ) from None
            server = cls(listeners, answer=answer, now=now, limits=limits or HttpLimits())
            opened.pop_all()
        return server

    @property
    def port(self) -> int:
        """The port at its first address."""
        return int(self._listeners[0].getsockname()[1])

    async def close(self) -> None:
        """Take no more connections, let open ones end for a moment, then cut them."""
        for accepting in self._accepting:
            accepting.cancel()
        await asyncio.wait(self._accepting)
        for listener in self._listeners:
            listener.close()
        if self._open:
            await asyncio.wait(self._open, timeout=CLOSE_SECONDS)
        left = list(self._open)
        for conversation in left:
            conversation.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._free.acquire()
            try:
                client, _ = await loop.sock_accept(listener)
            except OSError as error:  # no file descriptors, or gone before it was taken
                self._free.release()
                logger.warning("a connection was not taken: %s", error.strerror)
                await asyncio.sleep(ACCEPT_AGAIN_SECONDS)
                continue
            conversation = asyncio.create_task(self._converse(client))
            self._open.add(conversation)
            conversation.add_done_callback(self._ended)

    def _ended(self, conversation: asyncio.Task[None]) -> None:
        self._open.discard(conversation)
        self._free.release()
        if not conversation.cancelled() and (error := conversation.exception()) is not None:
            logger.error("a connection ended with %s", type(error).__name__)

    async def _converse(self, client: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=client)
        try:
            await _Conversation(reader, writer, self._limits).serve_request(self._answer, self._now)
        except (TimeoutError, ConnectionError, h11.LocalProtocolError):
            pass  # the client is gone, or too slow to be waited for
        finally:
            writer.transport.abort()


def _origin_form(target: str) -> str:
    """Return path and query of a request in absolute form, which proxies send and servers take (RFC 9112 §3.2.2)."""
    scheme, separator, rest = target.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        return "/" + rest.partition("/")[2]
    return target


async def _listen(address: Address) -> socket.socket:
    found = await asyncio.get_running_loop().getaddrinfo(address.host, None, type=socket.SOCK_STREAM)
    family, kind, protocol, _, place = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.settimeout(0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((place[0], address.port, *place[2:]))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


class _Conversation:
    """One connection: one request, one answer."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: HttpLimits
    ) -> None:
        self._reader, self._writer, self._limits = reader, writer, limits
        self._machine = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._method = b""
        writer.transport.set_write_buffer_limits(0)  # what was drained is in the kernel's hands

    async def serve_request(self, answer: Answer, now: Callable[[], int]) -> None:
        """Read the request and answer it; raises TimeoutError, ConnectionError and LocalProtocolError."""
        response = await self._respond(answer)
        if response is None:
            return
        try:
            async with asyncio.timeout(self._limits.seconds_for(response)):
                await self._send(response, now())
        finally:
            if response.file is not None:
                response.file.close()
        self._writer.write_eof()
        async with asyncio.timeout(self._limits.linger_seconds):
            # Closing while the client still sends would take the answer from it.
            while await self._reader.read(CHUNK):
                pass

    async def _respond(self, answer: Answer) -> HttpResponse | None:
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                request = await self._read_request()
        except TimeoutError:
            return plain(HTTPStatus.REQUEST_TIMEOUT)
        except h11.RemoteProtocolError as error:
            return plain(HTTPStatus(error.error_status_hint))
        except _RefusedError as refused:
            return refused.response
        if request is None:
            return None
        try:
            return await answer(request)
        except Exception as error:  # a stranger learns nothing of what went wrong
            logger.error("a request over HTTP failed with %s", type(error).__name__)  # noqa: TRY400
            return plain(HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _read_request(self) -> HttpRequest | None:
        """Read the request; None where the client leaves before it sent one."""
        head = await self._next_event()
        if not isinstance(head, h11.Request):
            return None
        self._method = head.method
        self._check_framing(head)
        body = bytearray()
        while isinstance(event := await self._next_event(), h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise _RefusedError(plain(HTTPStatus.REQUEST_ENTITY_TOO_LARGE))
        return HttpRequest(
            method=head.method.decode("ascii"),
            target=_origin_form(head.target.decode("ascii")),
            headers={name.decode("ascii"): value.decode("latin-1") for name, value in head.headers},
            body=bytes(body),
        )

    @staticmethod
    def _check_framing(head: h11.Request) -> None:
        """Refuse what servers before this one could read as two requests (RFC 9112 §6.1)."""
        names = {name for name, _ in head.headers}
        if b"transfer-encoding" in names and (b"content-length" in names or head.http_version != b"1.1"):
            raise _RefusedError(plain(HTTPStatus.BAD_REQUEST))

    async def _next_event(self) -> object:
        while (event := self._machine.next_event()) is h11.NEED_DATA:
            if self._machine.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=HTTPStatus.CONTINUE, headers=[])
                self._writer.write(self._machine.send(go_on) or b"")
            self._machine.receive_data(await self._reader.read(PIECE))
        return event

    async def _send(self, response: HttpResponse, now: int) -> None:
        headers = [
            ("Date", http_date(now)),
            ("Content-Type", response.content_type),
            *response.headers,
            ("Connection", "close"),
        ]
        if response.status != HTTPStatus.NOT_MODIFIED:
            headers.append(("Content-Length", str(response.length)))
        status = response.status
        await self._write(h11.Response(status_code=status, reason=status.phrase, headers=headers))
        if self._may_have_body(response):
            await self._write(h11.Data(data=response.body))
            while response.file is not None and (chunk := await asyncio.to_thread(response.file.read, CHUNK)):
                await self._write(h11.Data(data=chunk))
        await self._write(h11.EndOfMessage())

    def _may_have_body(self, response: HttpResponse) -> bool:
        return response.status != HTTPStatus.NOT_MODIFIED and self._method != b"HEAD"

    async def _write(self, event: h11.Event) -> None:
        self._writer.write(self._machine.send(event) or b"")
        await self._writer.drain()
