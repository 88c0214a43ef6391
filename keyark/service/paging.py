"""Page tokens: the key of the last row of a page, opaque to callers."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from keyark.errors import InvalidInputError
from keyark.v1.common_pb2 import PageRequest

DEFAULT_SIZE: Final = 50
LARGEST_SIZE: Final = 1000


@dataclass(frozen=True)
class Page:
    """How many rows, and after which key (None: from the first)."""

    limit: int
    after: bytes | None

    def next_token(self, rows: Sequence[tuple[bytes, object]]) -> str:
        """Return the token of the page after these rows; empty where they are the last."""
        if len(rows) < self.limit:
            return ""
        return token_after(rows[-1][0])


def token_after(key: bytes) -> str:
    """Return the token of the page after a key."""
    return base64.urlsafe_b64encode(key).decode()


def page_of(request: PageRequest) -> Page:
    """Read a page request; raises InvalidInputError for a token that this service did not give."""
    limit = min(request.page_size or DEFAULT_SIZE, LARGEST_SIZE)
    if not request.page_token:
        return Page(limit, None)
    try:
        return Page(limit, base64.b64decode(request.page_token, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise InvalidInputError(
            "The page token is not one of this service; start with an empty one.", field="page.page_token"
        ) from None
