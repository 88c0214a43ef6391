"""What is asked over plain HTTP and what is answered: public documents, with what caches need to know (RFC 9111)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from typing import BinaryIO, Final

TEXT: Final = "text/plain; charset=utf-8"

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """A whole request: ``target`` in origin form, ``headers`` by name in lower case, the last of each."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class HttpResponse:
    """An answer; its body is bytes, or ``size`` bytes of a file that the server closes."""

    status: HTTPStatus
    content_type: str = TEXT
    headers: Headers = ()
    body: bytes = field(default=b"", repr=False)
    file: BinaryIO | None = None
    size: int = 0

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return self.size if self.file is not None else len(self.body)


@dataclass(frozen=True, kw_only=True)
class Caching:
    """How long an answer is good, in seconds from ``now``, and which version it is; times in seconds UTC."""

    now: int
    max_age: int
    last_modified: int
    entity_tag: str

    def headers(self) -> Headers:
        """Return the header fields that tell it to caches, old and new."""
        return (
            ("Cache-Control", f"public, no-transform, max-age={self.max_age}"),
            ("Expires", http_date(self.now + self.max_age)),
            ("Last-Modified", http_date(self.last_modified)),
            ("ETag", self.entity_tag),
        )


def http_date(seconds: int) -> str:
    """Return an HTTP-date of RFC 9110 §5.6.7; seconds UTC."""
    return formatdate(seconds, usegmt=True)


def plain(status: HTTPStatus, *headers: tuple[str, str]) -> HttpResponse:
    """Return an answer that says no more than its status; no cache keeps it."""
    text = f"{status.value} {status.phrase}\n".encode()
    return HttpResponse(status=status, headers=(("Cache-Control", "no-store"), *headers), body=text)


def cached(request: HttpRequest, response: HttpResponse, caching: Caching) -> HttpResponse:
    """Return an answer with what caches need, or 304 where the client has this version (RFC 9110 §13.2.2)."""
    headers = (*response.headers, *caching.headers())
    if not _is_current(request.headers, caching):
        return replace(response, headers=headers)
    if response.file is not None:
        response.file.close()
    return HttpResponse(status=HTTPStatus.NOT_MODIFIED, content_type=response.content_type, headers=headers)


def _is_current(headers: Mapping[str, str], caching: Caching) -> bool:
    if "if-none-match" in headers:
        tags = [tag.strip().removeprefix("W/") for tag in headers["if-none-match"].split(",")]
        return caching.entity_tag in tags or tags == ["*"]
    try:
        since = parsedate_to_datetime(headers.get("if-modified-since", ""))
        return since.tzinfo is not None and caching.last_modified <= since.timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):  # a condition that cannot be read is not there
        return False
