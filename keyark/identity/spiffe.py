"""SPIFFE IDs, the identities of everyone who takes part: ``spiffe://<trust-domain>/<path>``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from keyark.errors import InvalidInputError

SERVICE_ROLES: Final = ("rm", "cm", "drm")
"""Each before those that it calls, as they are stopped."""
START_ORDER: Final = SERVICE_ROLES[::-1]
PERSON_ROLES: Final = ("client", "officer", "agent", "auditor")
TRANSPORT_ROLE: Final = "drm/transport"
MAX_TRUST_DOMAIN_CHARACTERS: Final = 249  # leaves room for "drm." in the DNS name of a service

_SCHEME: Final = "spiffe://"
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_TRUST_DOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_NAMELESS: Final = (*SERVICE_ROLES, TRANSPORT_ROLE)


@dataclass(frozen=True)
class SpiffeId:
    """An identity of a trust domain; only the roles of keyark exist.

    ``path`` is "rm", "cm", "drm", "drm/transport" (which names the transport key and no caller), or a
    person's role and name, for example "client/alice". Raises InvalidInputError for anything else.
    """

    trust_domain: str
    path: str

    def __post_init__(self) -> None:
        _check_trust_domain(self.trust_domain, "spiffe_id")
        _check_path(self.path, "spiffe_id")

    @classmethod
    def parse(cls, text: str, *, field: str = "spiffe_id") -> SpiffeId:
        """Read ``spiffe://<trust-domain>/<path>``; raises InvalidInputError with the field."""
        return _parse(text, field)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}/{self.path}"

    @property
    def role(self) -> str:
        """One of rm, cm, drm, drm/transport, client, officer, agent, auditor."""
        return self.path if self.path in _NAMELESS else self.path.partition("/")[0]

    @property
    def name(self) -> str:
        """The person's name, or "" for services and the transport key."""
        return "" if self.path in _NAMELESS else self.path.partition("/")[2]

    @property
    def dns_name(self) -> str:
        """The one DNS name of a service, ``<role>.<trust-domain>``; "" for everyone else."""
        return f"{self.path}.{self.trust_domain}" if self.path in SERVICE_ROLES else ""


def check_trust_domain(value: str, *, field: str = "trust_domain") -> None:
    """Check a trust domain: a lower-case DNS name of at most 249 characters; raises InvalidInputError."""
    _check_trust_domain(value, field)


def _check_trust_domain(value: str, field: str) -> None:
    if len(value) > MAX_TRUST_DOMAIN_CHARACTERS or not _TRUST_DOMAIN.fullmatch(value):
        raise InvalidInputError(
            "The trust domain is not a lower-case DNS name; give one like example.org.", field=field
        )


def _check_path(path: str, field: str) -> None:
    role, _, name = path.partition("/")
    if path in _NAMELESS or (role in PERSON_ROLES and _NAME.fullmatch(name)):
        return
    raise InvalidInputError(
        f"The SPIFFE ID has no role of keyark. It ends in {', '.join(SERVICE_ROLES)}, or in one of "
        f"{', '.join(PERSON_ROLES)} followed by a name of up to 64 characters a-z, 0-9, '.', '_' and "
        "'-'.",
        field=field,
    )


@lru_cache(maxsize=1024)
def _parse(text: str, field: str) -> SpiffeId:
    """The few callers of a deployment come back with every request."""
    if not text.startswith(_SCHEME):
        raise InvalidInputError("A SPIFFE ID starts with spiffe://.", field=field)
    trust_domain, _, path = text.removeprefix(_SCHEME).partition("/")
    _check_trust_domain(trust_domain, field)
    _check_path(path, field)
    return SpiffeId(trust_domain, path)
