"""Page tokens: the key of the last row of a page, opaque to callers."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from google.protobuf.message import Message

from keyark.errors import InvalidInputError
from keyark.v1.common_pb2 import PageRequest

DEFAULT_SIZE: Final = 50
LARGEST_SIZE: Final = 1000

_QUERY: Final = 16


@dataclass(frozen=True)
class Page:
    """How many rows, and after which key (None: from the first)."""

    limit: int
    after: bytes | None
    query: bytes = b""

    def next_token(self, rows: Sequence[tuple[bytes, object]]) -> str:
        """Return the token of the page after these rows; empty where they are the last."""
        return self.token(b"" if len(rows) < self.limit else rows[-1][0])

    def token(self, position: bytes) -> str:
        """Return the token of the page after a position; empty where there is none."""
        return base64.urlsafe_b64encode(self.query + position).decode() if position else ""


def page_of(request: PageRequest, *, query: Message | None = None) -> Page:
    """Read a page request.

    Raises InvalidInputError for a token that was not given for this ``query``, and for a query whose text or bytes are
    given and empty: that would select everything.
    """
    if query is not None:
        _check_given(query)
    binding = b"" if query is None else _binding(query)
    limit = min(request.page_size or DEFAULT_SIZE, LARGEST_SIZE)
    if not request.page_token:
        return Page(limit, None, binding)
    try:
        token = base64.b64decode(request.page_token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        token = b""
    if len(token) <= len(binding) or not token.startswith(binding):
        raise InvalidInputError(
            "The page token belongs to another query; start with an empty one.", field="page.page_token"
        )
    return Page(limit, token[len(binding) :], binding)


def _binding(query: Message) -> bytes:
    """Return what a query's tokens begin with; queries of two lists differ although both are empty."""
    name, words = query.DESCRIPTOR.full_name.encode(), query.SerializeToString(deterministic=True)
    return sha256(name + b"\0" + words).digest()[:_QUERY]


def _check_given(query: Message) -> None:
    for field, value in query.ListFields():
        if isinstance(value, str | bytes) and not value.strip():
            raise InvalidInputError(
                f"The filter's {field.name} is empty, which would match everything; give it a value or leave "
                "it out.",
                field=f"filter.{field.name}",
            )
