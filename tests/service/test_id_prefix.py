"""Abbreviated ids: the rows whose keys begin so, page by page, and what is no beginning of an id."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.errors import InvalidInputError
from keyark.service.id_prefix import IdPrefix
from keyark.store.memory import MemoryStore

TABLE = "rows"
IDS = st.sets(
    st.binary(min_size=3, max_size=6).map(lambda tail: b"\xab\xcd" + tail) | st.binary(min_size=4, max_size=8)
)


@given(IDS, st.sampled_from(["", "abcd", "abcd0", "abcd00", "abce", "0000"]), st.integers(1, 4))
async def test_pages_hold_every_row_that_begins_so_and_no_other(
    ids: set[bytes], digits: str, size: int
) -> None:
    store = MemoryStore(tables=(TABLE,), finisher=lambda txn, items: None)
    await store.update(lambda txn: [txn.put(TABLE, one, b"\1") for one in ids])
    found: list[bytes] = []
    while True:
        after = found[-1] if found else None
        rows = store.read(lambda txn, after=after: IdPrefix(digits).rows(txn, TABLE, after=after, limit=size))
        assert len(rows) <= size
        if not rows:
            break
        found += [key for key, _ in rows]
    assert found == sorted(one for one in ids if one.hex().startswith(digits))


@pytest.mark.parametrize(
    "digits", ["a", "abc", "ABCD", "abcg", "ab cd", "ab:cd", "0" * 65, "\u0661\u0661\u0661\u0661"]
)
def test_what_is_no_beginning_of_an_id_is_refused(digits: str) -> None:
    with pytest.raises(InvalidInputError):
        IdPrefix(digits)
