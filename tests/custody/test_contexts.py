"""Guards that a context names one list of parts and no other: nothing bound to one purpose opens for another."""

from hypothesis import given
from hypothesis import strategies as st

from keyark.contexts import context

PARTS = st.lists(st.binary(max_size=6), max_size=4)
LABELS = st.text(max_size=6)


def parse(encoded: bytes) -> list[bytes]:
    """The inverse, written apart from the code: that it exists is what makes contexts injective."""
    parts = []
    while encoded:
        end = 4 + int.from_bytes(encoded[:4], "big")
        assert len(encoded) >= end
        parts.append(encoded[4:end])
        encoded = encoded[end:]
    return parts


def test_the_encoding_is_frozen():
    assert context("ä", b"", b"xy") == bytes.fromhex("00000002c3a4 00000000 00000002 7879")


@given(LABELS, PARTS)
def test_label_and_parts_are_read_back(label, parts):
    assert parse(context(label, *parts)) == [label.encode(), *parts]


@given(LABELS, PARTS, LABELS, PARTS)
def test_two_lists_of_parts_never_give_the_same_bytes(label, parts, other_label, other_parts):
    same = (label, parts) == (other_label, other_parts)
    assert (context(label, *parts) == context(other_label, *other_parts)) is same


@given(st.text(min_size=1, max_size=6), st.binary(max_size=6), st.integers(0, 6))
def test_moving_bytes_between_parts_changes_the_context(label, data, cut):
    halves = data[:cut], data[cut:]
    assert context(label, *halves) != context(label, data)
    assert context(label, *halves) != context(label + "x", *halves)
