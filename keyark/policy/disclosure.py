"""The [[policy.details]] sections: which auditors see what the entries of a log tell of persons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from keyark.config import Config
from keyark.identity.spiffe import SpiffeId
from keyark.policy.people import check_identity
from keyark.v1.audit_pb2 import EventType

ALL: Final = "*"
ALL_AUDITORS: Final = "auditor/*"
_PREFIX: Final = "EVENT_TYPE_"
EVENTS: Final = {name.removeprefix(_PREFIX): value for name, value in EventType.items() if value}
"""The types of entries by the names that configuration gives them ("KEY_ARCHIVED")."""


def _auditor(path: str) -> str:
    return path if path == ALL_AUDITORS else check_identity(path, role="auditor")


def _event(name: str) -> str:
    if name != ALL and name not in EVENTS:
        raise ValueError(
            f"{name!r} is not a type of log entry; see EventType in audit.proto, or write {ALL!r}"
        )
    return name


class Disclosure(Config):
    """One grant: these auditors ("auditor/*": all) see the details of entries of these types ("*": all)."""

    auditors: Annotated[list[Annotated[str, AfterValidator(_auditor)]], Field(min_length=1)]
    events: Annotated[list[Annotated[str, AfterValidator(_event)]], Field(min_length=1)]

    def __str__(self) -> str:
        events = "all entries" if ALL in self.events else ", ".join(self.events)
        return f"{', '.join(self.auditors)} see the details of {events}"


def disclosed_to(reader: SpiffeId, grants: Sequence[Disclosure]) -> frozenset[int]:
    """Return the types (EventType) of the entries whose details a reader sees: none that no grant gives it.

    Only auditors can have a grant; services that read a log see its leaves alone.
    """
    if reader.role != "auditor":
        return frozenset()
    shown: set[int] = set()
    for grant in grants:
        if not {ALL_AUDITORS, reader.path}.isdisjoint(grant.auditors):
            shown.update(EVENTS.values() if ALL in grant.events else (EVENTS[name] for name in grant.events))
    return frozenset(shown)
