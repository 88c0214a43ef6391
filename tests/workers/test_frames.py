"""Frames between pool and workers: what is packed comes out, what is malformed is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.workers.frames import FrameError, pack, unpack


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_what_is_packed_comes_out(messages: list[bytes]) -> None:
    assert unpack(pack(messages)) == messages


@given(st.binary(max_size=60))
def test_other_bytes_are_refused_or_mean_what_they_say(body: bytes) -> None:
    try:
        messages = unpack(body)
    except FrameError:
        return
    assert pack(messages) == body


@pytest.mark.parametrize("body", [b"\x00", b"\x00\x00\x00", b"\x00\x00\x00\x05abc"])
def test_truncated_frames_are_refused(body: bytes) -> None:
    with pytest.raises(FrameError):
        unpack(body)
