"""Lists of the services, page by page: all of a list, or so many entries from a page token on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from keyark.client.trust.verification import UnexpectedAnswerError
from keyark.errors import InvalidInputError
from keyark.rpc.calling.channels import UnaryCall, call
from keyark.v1.common_pb2 import PageRequest

TIMEOUT: Final = 30.0
PAGE: Final = 500


@dataclass(kw_only=True)
class Paging:
    """Which part of a list to read: from a page token on (empty: the beginning), and at most this many entries
    (None: all).

    A pair of certificates is not split, so such a list may have one entry more. After the part was read,
    ``next_token`` says where the list continues; it is empty at the end. Raises InvalidInputError for a limit
    below 1.
    """

    token: str = ""
    limit: int | None = None
    next_token: str = field(default="", init=False)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise InvalidInputError(
                "The limit must be at least 1; leave it out to list everything.", field="limit"
            )


class _Page(Protocol):
    """A response of any list."""

    next_page_token: str


Request = TypeVar("Request")
Page = TypeVar("Page", bound=_Page)
Entry = TypeVar("Entry")


async def entries(
    method: UnaryCall[Request, Page],
    new_request: Callable[..., Request],
    of: Callable[[Page], Sequence[Entry]],
    paging: Paging | None,
    *,
    most_per_row: int = 1,
) -> AsyncIterator[Entry]:
    """Yield the entries ``of`` each page of a list that are wanted; ``new_request`` takes ``page``.

    The service counts rows in a page, and a row may hold ``most_per_row`` entries. Raises UnexpectedAnswerError for a
    page with more than was asked for, and InvalidInputError for a page token of another list.
    """
    wanted = Paging() if paging is None else paging
    token, left = wanted.token, wanted.limit
    while True:
        size = PAGE if left is None else min(PAGE, max(1, left // most_per_row))
        request = new_request(page=PageRequest(page_size=size, page_token=token))
        page = await call(method, request, timeout=TIMEOUT)
        found = of(page)
        if len(found) > size * most_per_row:
            raise UnexpectedAnswerError(
                f"The service sent {len(found)} entries, but at most {size * most_per_row} were requested; "
                "ask its operator."
            )
        wanted.next_token = token = page.next_page_token
        for entry in found:
            yield entry
        left = None if left is None else left - len(found)
        if not token or (left is not None and left <= 0):
            return
