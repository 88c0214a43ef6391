"""The plain HTTP port in a stranger's hands: every abuse has its answer, costs a bounded share, and ends."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm_service.public.documents import Caching, HttpRequest, HttpResponse, cached, plain
from cm_service.public.http import MAX_BODY, MAX_HEAD, HttpLimits, HttpServer
from keyark.errors import ConfigurationError

NOW = 1_800_000_000
GET = b"GET /there HTTP/1.1\r\nHost: ca\r\n\r\n"
SLOW = HttpLimits(request_seconds=0.05, linger_seconds=0.05)


class Documents:
    """Answers with what it was asked; ``last`` is the last request."""

    def __init__(self) -> None:
        self.last: HttpRequest | None = None
        self.files: list[io.BytesIO] = []

    async def answer(self, request: HttpRequest) -> HttpResponse:
        self.last = request
        if request.target == "/bug":
            raise RuntimeError("a secret")
        if request.target == "/file":
            self.files.append(io.BytesIO(b"x" * 1_000_000))
            return HttpResponse(status=HTTPStatus.OK, file=self.files[-1], size=1_000_000)
        return HttpResponse(status=HTTPStatus.OK, body=request.body or b"hello", headers=(("X-Own", "1"),))


@asynccontextmanager
async def serving(
    answer: Callable[[HttpRequest], Awaitable[HttpResponse]], limits: HttpLimits | None = None
) -> AsyncIterator[HttpServer]:
    server = await HttpServer.start("127.0.0.1:0", answer=answer, now=lambda: NOW, limits=limits)
    try:
        yield server
    finally:
        await server.close()


async def exchange(server: HttpServer, sent: bytes, *, end: bool = False) -> bytes:
    """Send bytes, and their end if asked to, and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    if end:
        writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def test_one_request_per_connection_with_date_and_length() -> None:
    documents = Documents()
    async with serving(documents.answer) as server:
        answer = await exchange(server, GET + GET)
    head, body = answer.split(b"\r\n\r\n")
    assert body == b"hello"
    lines = head.decode().splitlines()
    assert lines[0] == "HTTP/1.1 200 OK"
    headers = dict(line.split(": ") for line in lines[1:])
    assert headers["Content-Length"] == "5"
    assert headers["Connection"] == "close"
    assert headers["X-Own"] == "1"
    assert parsedate_to_datetime(headers["Date"]).timestamp() == NOW


@pytest.mark.parametrize(
    ("sent", "target"),
    [
        ("http://ca.example.org/there?x=1", "/there?x=1"),
        ("HTTP://ca.example.org:8080/ocsp//MEo", "/ocsp//MEo"),
        ("http://ca.example.org", "/"),
        ("/there/http://x/y", "/there/http://x/y"),
    ],
)
async def test_a_target_in_absolute_form_is_taken(sent: str, target: str) -> None:
    documents = Documents()
    async with serving(documents.answer) as server:
        await exchange(server, f"GET {sent} HTTP/1.1\r\nHost: ca\r\n\r\n".encode())
    assert documents.last is not None
    assert documents.last.target == target


async def test_head_has_the_same_head_and_no_body() -> None:
    async with serving(Documents().answer) as server:
        whole = await exchange(server, GET)
        assert await exchange(server, b"HEAD" + GET[3:]) == whole.removesuffix(b"hello")


async def test_files_are_sent_whole_and_closed_also_for_head() -> None:
    documents = Documents()
    async with serving(documents.answer) as server:
        answer = await exchange(server, b"GET /file HTTP/1.1\r\nHost: ca\r\n\r\n")
        assert answer.endswith(b"\r\n\r\n" + b"x" * 1_000_000)
        head = await exchange(server, b"HEAD /file HTTP/1.1\r\nHost: ca\r\n\r\n")
        assert b"Content-Length: 1000000\r\n" in head
    assert [file.closed for file in documents.files] == [True, True]


async def test_bodies_come_in_pieces_and_after_100_continue() -> None:
    async with serving(Documents().answer) as server:
        chunked = b"POST /x HTTP/1.1\r\nHost: ca\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        assert (await exchange(server, chunked)).endswith(b"abcde")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /x HTTP/1.1\r\nHost: ca\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 100
        writer.write(b"abc")
        assert (await reader.read()).endswith(b"abc")
        writer.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n", 400),
        (b"GET /there HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /a b HTTP/1.1\r\nHost: ca\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: ca\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: ca\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"GET / HTTP/1.1\r\nHost : ca\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: ca\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: ca\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /" + b"a" * 2 * MAX_HEAD + b" HTTP/1.1\r\nHost: ca\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * MAX_HEAD, 431),
        (b"POST / HTTP/1.1\r\nHost: ca\r\nContent-Length: 999999\r\n\r\n" + bytes(MAX_BODY + 1), 413),
        (b"GET /bug HTTP/1.1\r\nHost: ca\r\n\r\n", 500),
    ],
)
async def test_what_is_not_right_is_refused_and_tells_nothing(sent: bytes, status: int) -> None:
    documents = Documents()
    async with serving(documents.answer) as server:
        answer = await exchange(server, sent)
        assert status_of(answer) == status
        assert b"secret" not in answer
        assert b"Cache-Control: no-store" in answer
        assert status_of(await exchange(server, GET)) == 200
    assert documents.last is not None
    assert documents.last.target == "/there"


@given(sent=st.binary(max_size=200))
def test_garbage_is_refused_and_the_next_client_is_served(sent: bytes) -> None:
    async def check() -> None:
        documents = Documents()
        async with serving(documents.answer) as server:
            answer = await exchange(server, sent + b"\r\n\r\n", end=True)
            assert not answer or status_of(answer) in (400, 501, 505)  # blank lines are no request
            assert answer or not sent.strip(b"\r\n")
            assert documents.last is None
            assert status_of(await exchange(server, GET)) == 200

    asyncio.run(check())


@pytest.mark.parametrize(
    "sent", [b"", b"GET /", GET[:-2], b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab"]
)
async def test_whoever_does_not_finish_a_request_is_cut_with_408(sent: bytes) -> None:
    async with serving(Documents().answer, SLOW) as server:
        assert status_of(await exchange(server, sent)) == 408


@pytest.mark.parametrize("sent", [b"", b"GET /", GET[:-2]])
async def test_whoever_leaves_in_the_middle_is_forgotten(sent: bytes) -> None:
    async with serving(Documents().answer, HttpLimits(connections=1)) as server:
        for _ in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(sent)
            writer.close()
            await writer.wait_closed()
        assert status_of(await exchange(server, GET)) == 200


async def test_whoever_does_not_read_is_cut_and_gives_its_place_back() -> None:
    limits = HttpLimits(connections=1, answer_seconds=0.5, slowest_reader=1 << 30, linger_seconds=0.05)
    closed = asyncio.Event()

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return b"x" * size

        def close(self) -> None:
            closed.set()

    async def answer(request: HttpRequest) -> HttpResponse:
        if request.target == "/there":
            return plain(HTTPStatus.NOT_FOUND)
        return HttpResponse(status=HTTPStatus.OK, file=Endless(), size=1 << 26)  # type: ignore[arg-type]

    async with serving(answer, limits) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(b"GET /endless HTTP/1.1\r\nHost: ca\r\n\r\n")
        assert status_of(await reader.readuntil(b"\r\n\r\n")) == 200
        writer.transport.pause_reading()
        assert status_of(await exchange(server, GET)) == 404
        assert closed.is_set()
        writer.transport.abort()


async def test_more_clients_than_connections_wait_for_their_turn() -> None:
    entered: asyncio.Queue[str] = asyncio.Queue()
    release = asyncio.Event()
    running = most = 0

    async def answer(request: HttpRequest) -> HttpResponse:
        nonlocal running, most
        running += 1
        most = max(most, running)
        entered.put_nowait(request.target)
        await release.wait()
        running -= 1
        return plain(HTTPStatus.OK)

    async with serving(answer, HttpLimits(connections=2)) as server:
        clients = [asyncio.create_task(exchange(server, GET)) for _ in range(5)]
        await entered.get()
        await entered.get()
        assert entered.empty()
        release.set()
        assert [status_of(answer) for answer in await asyncio.gather(*clients)] == [200] * 5
    assert most == 2


async def test_closing_lets_an_answer_end_and_takes_no_more() -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    async def answer(_: HttpRequest) -> HttpResponse:
        entered.set()
        await release.wait()
        return plain(HTTPStatus.OK)

    server = await HttpServer.start("127.0.0.1:0", answer=answer, now=lambda: NOW)
    port = server.port
    client = asyncio.create_task(exchange(server, GET))
    await entered.wait()
    closing = asyncio.create_task(server.close())
    release.set()
    assert status_of(await client) == 200
    await closing
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize("address", ["no-such-host.invalid:80", "127.0.0.1:0, no-such-host.invalid:80"])
async def test_an_address_that_cannot_be_listened_at_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="choose another address"):
        await HttpServer.start(address, answer=Documents().answer, now=lambda: NOW)


async def test_it_listens_at_every_address_and_leaves_none_open() -> None:
    server = await HttpServer.start("127.0.0.1:0, [::1]:0", answer=Documents().answer, now=lambda: NOW)
    places = [listener.getsockname()[:2] for listener in server._listeners]
    assert [place[0] for place in places] == ["127.0.0.1", "::1"]
    for host, port in places:
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(GET)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        writer.close()
    await server.close()
    for host, port in places:
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, port)


async def test_an_address_that_is_taken_is_refused() -> None:
    async with serving(Documents().answer) as server:
        with pytest.raises(ConfigurationError, match="choose another address"):
            await HttpServer.start(f"127.0.0.1:{server.port}", answer=Documents().answer, now=lambda: NOW)


CACHING = Caching(now=NOW, max_age=60, last_modified=NOW - 5, entity_tag='"7"')


def asked(**headers: str) -> Any:
    return HttpRequest(
        method="GET",
        target="/",
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=b"",
    )


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"if_none_match": '"7"'}, 304),
        ({"if_none_match": '"6", W/"7"'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"6"'}, 200),
        (
            {"if_none_match": '"6"', "if_modified_since": "Fri, 15 Jan 2027 08:00:00 GMT"},
            200,
        ),  # the tag decides
        ({"if_modified_since": "Fri, 15 Jan 2027 07:59:55 GMT"}, 304),
        ({"if_modified_since": "Fri, 15 Jan 2027 07:59:54 GMT"}, 200),
        ({"if_modified_since": "yesterday"}, 200),
        ({"if_modified_since": "Fri, 99 Jan 2027 07:59:54 GMT"}, 200),
        ({"if_modified_since": ""}, 200),
    ],
)
def test_conditions(headers: dict[str, str], status: int) -> None:
    file = io.BytesIO(b"body")
    response = HttpResponse(status=HTTPStatus.OK, file=file, size=4)
    answered = cached(asked(**headers), response, CACHING)
    assert answered.status == status
    assert file.closed == (status == 304)
    told = dict(answered.headers)
    assert told["ETag"] == '"7"'
    assert told["Cache-Control"] == "public, no-transform, max-age=60"
    assert told["Expires"] == "Fri, 15 Jan 2027 08:01:00 GMT"
    assert told["Last-Modified"] == "Fri, 15 Jan 2027 07:59:55 GMT"


@pytest.mark.parametrize(
    "since",
    [
        f"Mon, 01 Jan {10**30} 00:00:00 GMT",
        "Mon, 01 Jan 99999 00:00:00 GMT",
        f"Mon, {10**20} Jan 2030 00:00:00 GMT",
        f"Mon, 01 Jan 2030 00:00:00 +{10**20}",
        f"Mon, 01 Jan 2030 {10**20}:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Mon, 01 Jan 0001 00:00:00 +2359",
        ",",
        "\xff",
    ],
)
def test_a_date_that_cannot_be_read_is_no_condition(since: str) -> None:
    request = HttpRequest(method="GET", target="/", headers={"if-modified-since": since}, body=b"")
    caching = Caching(now=NOW, max_age=60, last_modified=NOW, entity_tag='"1"')
    cached(request, plain(HTTPStatus.OK), caching)


@pytest.mark.parametrize(
    ("version", "framing"),
    [
        (b"1.1", b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        (b"1.1", b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
        (b"1.1", b"Content-Length: 5\r\nContent-Length: 6\r\n"),
        (b"1.0", b"Transfer-Encoding: chunked\r\n"),
    ],
)
async def test_a_body_whose_end_is_in_doubt_is_refused(version: bytes, framing: bytes) -> None:
    documents = Documents()
    sent = b"POST /there HTTP/%b\r\nHost: ca\r\n%b\r\n5\r\nhello\r\n0\r\n\r\n" % (version, framing)
    async with serving(documents.answer) as server:
        assert status_of(await exchange(server, sent)) == 400
    assert documents.last is None
