"""Allow-lists: which roles may call which method; unknown is denied (P7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.descriptor import ServiceDescriptor

from keyark.errors import ConfigurationError, PermissionDeniedError
from keyark.identity.spiffe import PERSON_ROLES, SERVICE_ROLES, SpiffeId

Admission = Callable[[SpiffeId], None]
"""Raises PermissionDeniedError where a caller of an allowed role may not call all the same."""


def admit_all(_: SpiffeId) -> None:
    """Admit every caller of an allowed role."""


ANYONE: Final = frozenset((*SERVICE_ROLES, *PERSON_ROLES))


@dataclass(frozen=True)
class AllowList:
    """The roles of each method, by its full name ("/keyark.v1.AuditService/GetCheckpoint").

    ``admission`` is what some methods ask beyond the role, on every call and before the message is read.
    """

    trust_domain: str
    roles: Mapping[str, frozenset[str]]
    admission: Mapping[str, Admission] = field(default_factory=dict)

    @classmethod
    def complete(
        cls,
        trust_domain: str,
        rows: Mapping[str, Iterable[str]],
        services: Iterable[ServiceDescriptor],
        *,
        admission: Mapping[str, Admission],
    ) -> AllowList:
        """Make the list for the services that are served.

        Raises ConfigurationError where a method has no row, a row has no method, or a role is unknown.
        """
        methods = {
            f"/{service.full_name}/{method.name}" for service in services for method in service.methods
        }
        if missing := methods - set(rows):
            raise ConfigurationError(
                f"No allow-list row for {', '.join(sorted(missing))}; nobody could be checked."
            )
        if surplus := set(rows) - methods:
            raise ConfigurationError(f"Allow-list rows for unknown methods: {', '.join(sorted(surplus))}.")
        roles = {method: frozenset(allowed) for method, allowed in rows.items()}
        if unknown := frozenset().union(*roles.values()) - ANYONE:
            raise ConfigurationError(f"Allow-list rows for unknown roles: {', '.join(sorted(unknown))}.")
        return cls(trust_domain, roles, admission)

    def check(self, caller: SpiffeId, method: str) -> None:
        """Raise PermissionDeniedError, or what the method's admission raises, unless the caller may call it."""
        if caller.trust_domain != self.trust_domain or caller.role not in self.roles.get(method, frozenset()):
            raise PermissionDeniedError(
                f"{caller} may not call {method.rsplit('/', 1)[-1]}; use another identity."
            )
        if method in self.admission:
            self.admission[method](caller)
