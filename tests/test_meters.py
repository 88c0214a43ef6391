"""What services count can be read at any time, and only numbers are in it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from keyark.meters import FILE, Meters
from keyark.store import StoreStats


def read(folder: Path):
    return json.loads((folder / FILE).read_text())


def test_a_file_has_the_numbers_of_the_moment_at_which_it_is_written(tmp_path):
    meters, stats, calls = Meters(tmp_path), StoreStats(), Counter()
    meters.add("store", stats)
    meters.add("calls", calls)
    meters.write()
    stats.committed(updates=5, seconds=0.25)
    calls["/a/B"] += 2
    before = read(tmp_path)
    meters.write()
    after = read(tmp_path)
    assert before["store"]["commits"] == 0
    assert before["calls"] == {}
    assert after["store"] == {"commits": 1, "updates": 5, "commit_seconds": 0.25, "last_commit_seconds": 0.25}
    assert after["calls"] == {"/a/B": 2}
    assert after["sequence"] == before["sequence"] + 1


def test_the_file_is_the_owners_alone_and_leaves_no_other(tmp_path):
    meters = Meters(tmp_path)
    meters.write()
    meters.write()
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    meters.remove()
    assert not list(tmp_path.iterdir())
    meters.remove()


def test_a_file_that_somebody_put_there_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "meters.new").symlink_to(victim)
    (folder / FILE).symlink_to(victim)
    Meters(folder).write()
    assert victim.read_text() == "untouched"
    assert read(folder)["sequence"] == 1


def test_a_folder_that_cannot_be_written_costs_the_measurement_only(
    tmp_path, caplog: pytest.LogCaptureFixture
):
    Meters(tmp_path / "absent").write()
    assert "meters cannot be written" in caplog.text
