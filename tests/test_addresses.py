"""HOST:PORT as files and people write it: names, IPv4, IPv6 in brackets, several; and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.addresses import Address, join_addresses, parse_addresses
from keyark.config import Addresses, Config, Listen, load_config
from keyark.errors import ConfigurationError, InvalidInputError

PORTS = st.integers(1, 65_535)
HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.sampled_from(["a", "rm.example.org", "x_1-2"]),
)
ADDRESSES = st.lists(st.builds(Address, HOSTS, PORTS), min_size=1, max_size=8, unique=True)


class Section(Config):
    """What a file may say of addresses."""

    at: Addresses = "localhost:1"
    listen: Listen = "127.0.0.1:0"


def load(folder: Path, text: str) -> Section:
    path = folder / "some.toml"
    path.write_text(text)
    return load_config(path, Section)


@given(ADDRESSES)
def test_what_is_written_is_read_again(addresses: list[Address]) -> None:
    assert parse_addresses(join_addresses(addresses)) == tuple(addresses)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("[::1]:7710", "::1", 7710),
        ("[2001:DB8:0::0:1]:7710", "2001:db8::1", 7710),
        ("[fe80::1%eth0]:7710", "fe80::1%eth0", 7710),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("rm.example.org:65535", "rm.example.org", 65_535),
    ],
)
def test_a_host_loses_its_brackets(text: str, host: str, port: int) -> None:
    assert parse_addresses(text) == (Address(host, port),)


WRONG = [
    "", "rm", "rm:", ":7710", "rm:0", "rm:65536", "rm:-1", "rm:7710x", "rm:\u0667", "rm:077100", "::1:7710", "[::1]",
    "[::1:7710", "::1]:7710", "[rm]:7710", "[192.0.2.1]:1", "300.1.1.1:80", "1.2.3:80", "r m:7710", "r\u0430m:7710",
    "rm:7710,", "rm:7710,rm:7710", "http://rm:7710", "rm/x:7710", "a" * 254 + ":1",
    ",".join(f"rm:{port}" for port in range(1, 10)),
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_address_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        parse_addresses(text)
    with pytest.raises(ConfigurationError, match=r"some\.toml:1: at: "):
        load(tmp_path, f"at = {text!r}\n")


def test_a_file_may_have_an_array_or_commas(tmp_path: Path) -> None:
    for text in ('at = ["rm:1", "[::1]:2"]', 'at = "rm:1,[::1]:2"'):
        assert load(tmp_path, text).at == "rm:1, [::1]:2"
    for text in ("at = []", "at = [1]", 'at = ["rm:1", 2]', "at = 7710"):
        with pytest.raises(ConfigurationError):
            load(tmp_path, text)


def test_only_who_listens_may_leave_the_port_open(tmp_path: Path) -> None:
    assert load(tmp_path, 'listen = "[::1]:0"').listen == "[::1]:0"
    with pytest.raises(ConfigurationError, match=r"brackets"):
        load(tmp_path, 'listen = "::1:0"')
