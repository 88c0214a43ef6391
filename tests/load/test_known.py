"""What queries ask about survives in a file, a share of it, and is chosen from all of it."""

from __future__ import annotations

import pytest

from keyark.load.driving.known import SHARE, Issued, KnownEnrollments


def some(count: int, *, after: int = 0) -> list[Issued]:
    return [
        Issued(i.to_bytes(16, "big"), bytes([i % 256]) * (i % 50 + 1)) for i in range(after, after + count)
    ]


def test_without_a_file_the_newest_are_asked_about():
    known = KnownEnrollments(None, seed=1)
    assert not known
    for issued in some(3):
        known.add(issued)
    assert {known.choose() for _ in range(200)} == set(some(3))


def test_a_share_is_kept_for_later_runs_old_and_new(tmp_path):
    path = tmp_path / "known"
    for seed in (1, 2):  # two processes, or two runs
        known = KnownEnrollments(path, seed=seed)
        for issued in some(20_000, after=seed * 20_000):
            known.add(issued)
    later = KnownEnrollments(path, seed=3)
    chosen = {later.choose() for _ in range(20_000)}
    assert chosen <= set(some(40_000, after=20_000))
    assert 0.7 * SHARE < len(chosen) / 40_000 < 1.3 * SHARE
    numbers = [int.from_bytes(issued.request_id, "big") for issued in chosen]
    assert min(numbers) < 22_000
    assert max(numbers) > 58_000


@pytest.mark.parametrize("rest", [bytes(10), bytes(16) + (9).to_bytes(4, "big") + b"abc"])
def test_an_entry_that_was_cut_off_is_left_out(tmp_path, rest):
    path = tmp_path / "known"
    path.write_bytes(bytes(16) + (3).to_bytes(4, "big") + b"abc" + rest)
    assert {KnownEnrollments(path, seed=1).choose() for _ in range(9)} == {Issued(bytes(16), b"abc")}
