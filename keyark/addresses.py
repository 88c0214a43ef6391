"""Where services are: HOST:PORT, an IPv6 address in brackets (RFC 3986 §3.2.2), several ones after commas."""

from __future__ import annotations

import ipaddress
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from keyark.errors import InvalidInputError

MAX_ADDRESSES: Final = 8
MAX_PORT: Final = 65_535

_MAX_NAME: Final = 253
_NAME: Final = frozenset(string.ascii_letters + string.digits + "._-")


@dataclass(frozen=True)
class Address:
    """A host, which is a name or an IP address without brackets, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """HOST:PORT, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_addresses(text: str, *, first_port: int = 1) -> tuple[Address, ...]:
    """Return the addresses of a text such as "rm.example.org:7710, [2001:db8::1]:7710".

    Raises InvalidInputError for what is none, for one that is named twice, and for more than 8.
    """
    found = tuple(_parse(part.strip(), first_port) for part in text.split(","))
    if len(set(found)) != len(found):
        raise InvalidInputError(f"{text!r} names an address twice; name each once.", field="address")
    if len(found) > MAX_ADDRESSES:
        raise InvalidInputError(f"More than {MAX_ADDRESSES} addresses; name fewer.", field="address")
    return found


def join_addresses(addresses: Sequence[Address]) -> str:
    """Return addresses as files and people see them."""
    return ", ".join(str(address) for address in addresses)


def _parse(text: str, first_port: int) -> Address:
    host, _, digits = text.rpartition(":")
    port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= len(str(MAX_PORT)) else -1
    if not first_port <= port <= MAX_PORT or not (name := _host(host)):
        raise InvalidInputError(
            f"{text!r} is not HOST:PORT. Write for example rm.example.org:7710; write an IPv6 address in "
            "brackets: [2001:db8::1]:7710.",
            field="address",
        )
    return Address(name, port)


def _host(text: str) -> str:
    """Return a host without brackets; empty where it is none."""
    if text.startswith("[") and text.endswith("]"):
        return _ip_address(text[1:-1], ipaddress.IPv6Address)
    if text and set(text) <= frozenset(string.digits + "."):
        return _ip_address(text, ipaddress.IPv4Address)
    return text if 0 < len(text) <= _MAX_NAME and set(text) <= _NAME else ""


def _ip_address(text: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> str:
    try:
        return str(kind(text))
    except ValueError:
        return ""
