"""Keys whose private half everybody has are found on the operator's list, whatever their type."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keyark.errors import ConfigurationError
from keyark.keys.key_types import KeyType
from keyark.keys.known_keys import NO_KNOWN_KEYS, KnownKeys
from keyark.keys.weak_keys import WeakKeyError
from tests.support.keys.known import known_list
from tests.support.keys.pki import spki


def list_file(folder: Path, data: bytes) -> Path:
    path = folder / "blocklist.dat"
    path.write_bytes(data)
    return path


def test_every_listed_key_is_found_and_no_other(tmp_path: Path) -> None:
    known = KnownKeys.load([list_file(tmp_path, known_list([spki(t) for t in KeyType]))])
    for key_type in KeyType:
        with pytest.raises(WeakKeyError) as caught:
            known.check(spki(key_type), field="signing_spki")
        assert caught.value.field == "signing_spki"
        known.check(spki(key_type, 1))


def test_without_a_list_no_key_is_known() -> None:
    for key_type in KeyType:
        NO_KNOWN_KEYS.check(spki(key_type))


GOOD = known_list([spki(KeyType.EC_P256, number) for number in range(3)])


@pytest.mark.parametrize(
    "data",
    [b"", GOOD[:-1], GOOD + b"x", GOOD[16:32] + GOOD[:16] + GOOD[32:], b"\x04\x22\x4d\x18" + GOOD],
    ids=["empty", "cut off", "too long", "not in order", "compressed"],
)
def test_what_is_no_list_is_refused_at_the_start(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ConfigurationError, match="list of known keys"):
        KnownKeys.load([list_file(tmp_path, data)])


def test_a_pipe_or_a_device_is_refused_at_once_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(ConfigurationError, match=r"list of known keys cannot be read.*not a file"):
            KnownKeys.load([path])


def test_a_list_that_is_missing_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        KnownKeys.load([tmp_path / "none.dat"])
