"""Separation of duties: who submits does not decide, and who brings keys back does not decide who gets certificates.

A person has one identity for each of its roles, under the same name: client/jo submits and officer/jo decides. So names
are compared, whatever certificates they come with.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from keyark.errors import InvalidInputError
from keyark.errors.enrollment import SeparationOfDutiesError
from keyark.identity.spiffe import SpiffeId
from keyark.statements.approvals import OFFICER_ROLE


@dataclass(frozen=True, kw_only=True)
class Duties:
    """Who may decide; ``agents`` tells the SPIFFE IDs of the recovery agents as they are now."""

    trust_domain: str
    separated: bool
    agents: Callable[[], Collection[str]]

    def check(self, officer: SpiffeId, submitter: SpiffeId) -> None:
        """Raise SeparationOfDutiesError where this officer may not decide on what this caller submitted."""
        if not self.separated:
            return
        if officer.name == submitter.name:
            raise SeparationOfDutiesError(
                f"{submitter} submitted this request, so {officer} may not decide on it; let another officer "
                "decide."
            )
        if any(SpiffeId.parse(agent).name == officer.name for agent in self.agents()):
            raise SeparationOfDutiesError(
                f"{officer.name} is a recovery agent, so {officer} may not decide on requests; let another "
                "officer decide."
            )

    def assignee(self, named: str, submitter: SpiffeId) -> str:
        """Return the SPIFFE ID of an officer who may be given a request, empty for none; raises as ``check``.

        Raises InvalidInputError for who is no officer of the deployment.
        """
        if not named:
            return ""
        officer = SpiffeId.parse(named, field="assignee")
        if officer.role != OFFICER_ROLE or officer.trust_domain != self.trust_domain:
            raise InvalidInputError(
                "Requests are assigned to officers of this deployment only; name officer/NAME.",
                field="assignee",
            )
        self.check(officer, submitter)
        return str(officer)
