"""What registration officers do with requests that wait: look, assign, approve, reject, cancel.

    async with ApprovalClient.open("deployment", identity="officer/jo") as officer:
        async for waiting in officer.list():
            await officer.approve(waiting, Edits(validity_days=90))

An approval is signed here with the officer's own key, over the request that the officer looked at and what it edited.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from keyark.client.access.following import Opening
from keyark.client.access.home import Home
from keyark.client.access.passwords import PasswordSource, no_password
from keyark.client.access.renewal import FollowedIdentity
from keyark.client.access.sessions import Session
from keyark.client.administration.lists import list_enrollments
from keyark.client.trust.verification import UnexpectedAnswerError
from keyark.identity.revoked import NOBODY_REVOKED
from keyark.identity.spiffe import SpiffeId
from keyark.rpc.calling.channels import call
from keyark.rpc.calling.retries import DEFAULT_RETRIES, Retries
from keyark.statements.approvals import Approval, Edits, OfficerSigner, OfficerTrust
from keyark.statements.enrollment import parse_statement, reread_statement
from keyark.v1 import registration_pb2 as pb
from keyark.v1.registration_pb2_grpc import RegistrationAdminServiceStub

TIMEOUT: Final = 90.0
PENDING: Final = pb.EnrollmentState.ENROLLMENT_STATE_PENDING_APPROVAL
NO_EDITS: Final = Edits()


def verified_approval(home: Home, seen: pb.Enrollment, *, now: int) -> Approval | None:
    """Return an officer's approval that the RM shows, verified, or None where it shows none.

    ``now`` is in seconds UTC. An officer who was revoked since did approve. Raises what ``OfficerTrust.verify`` does.
    """
    if not seen.review.HasField("approval"):
        return None
    trust = OfficerTrust(
        trust_domain=home.config.trust_domain, anchors=[home.trust_anchor], revoked=NOBODY_REVOKED
    )
    return trust.verify(seen.review.approval, reread_statement(seen.statement), now=now)


def check_same_enrollment(seen: pb.Enrollment, enrollment_id: bytes) -> None:
    """Raise UnexpectedAnswerError unless the RM shows the request that was asked for, statement included."""
    ids = {seen.enrollment_id, reread_statement(seen.statement).enrollment_id}
    if ids != {enrollment_id}:
        raise UnexpectedAnswerError(
            "The RM showed a different request than the one you named; ask its operator."
        )


class ApprovalClient:
    """An officer's client for the RM of a home; use it as an async context manager."""

    def __init__(self, home: Home, opening: Opening) -> None:
        self._opening = opening
        self._bind(home, opening.open(home, "rm"))

    def _bind(self, home: Home, local: FollowedIdentity) -> None:
        self._local, identity = local, local.value
        self.session = Session(home=home, role="rm", channel=local.channel)
        self._stub = RegistrationAdminServiceStub(local.channel)
        self._signer = OfficerSigner(certificate=identity.leaf, private_key=identity.signing_key)
        self._trust_domain = identity.spiffe_id.trust_domain

    @classmethod
    def open(
        cls,
        home: Path | str | Home,
        *,
        identity: str,
        password: PasswordSource = no_password,
        retries: Retries = DEFAULT_RETRIES,
    ) -> Self:
        """Open a channel to the RM as one of the officers of ``home`` ("officer/jo").

        ``password`` is called if the officer's key is encrypted. ``retries`` repeats idempotent calls; a
        decision is never repeated. Raises ConfigurationError.
        """
        opened = home if isinstance(home, Home) else Home.load(home)
        return cls(opened, Opening.of(identity, password, retries))

    async def __aenter__(self) -> Self:
        """Begin; the home follows its deployment first."""
        self._bind(*await self._opening.follow(self.session.home, "rm", self._local))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.channel.close()

    async def list(self) -> AsyncIterator[pb.Enrollment]:
        """Yield the waiting requests; those that expire first come first."""
        async for enrollment in list_enrollments(self.session, PENDING):
            yield enrollment

    async def show(self, enrollment_id: bytes) -> pb.Enrollment:
        """Return any enrollment (id of 32 bytes).

        Raises NotFoundError, and UnexpectedAnswerError if the RM shows a different one.
        """
        request = pb.InspectEnrollmentRequest(enrollment_id=enrollment_id)
        seen = (await call(self._stub.InspectEnrollment, request, timeout=TIMEOUT)).enrollment
        check_same_enrollment(seen, enrollment_id)
        return seen

    async def approve(self, seen: pb.Enrollment, edits: Edits = NO_EDITS) -> pb.Enrollment:
        """Approve a request as it was seen, with edits; return it as ISSUED, or APPROVED if it could not be issued
        yet.

        Raises PolicyRejectedError, and errors with the reasons NOT_PENDING, REQUEST_CHANGED, ASSIGNED_ELSEWHERE
        and SEPARATION_OF_DUTIES.
        """
        statement = parse_statement(seen.statement)
        if statement.enrollment_id != seen.enrollment_id:
            raise UnexpectedAnswerError("The RM showed a different request under this id; ask its operator.")
        request = pb.ApproveEnrollmentRequest(
            enrollment_id=seen.enrollment_id,
            version=seen.review.version,
            approval=self._signer.approve(statement, edits, time=int(time.time())),
        )
        return (await call(self._stub.ApproveEnrollment, request, timeout=TIMEOUT)).enrollment

    async def reject(self, seen: pb.Enrollment, *, reason: str) -> pb.Enrollment:
        """Reject a request as it was seen; its client can read the reason. Raises as ``approve``."""
        request = pb.RejectEnrollmentRequest(
            enrollment_id=seen.enrollment_id, version=seen.review.version, reason=reason
        )
        return (await call(self._stub.RejectEnrollment, request, timeout=TIMEOUT)).enrollment

    async def cancel(self, seen: pb.Enrollment, *, reason: str) -> pb.Enrollment:
        """Cancel a request, as it was seen, that is no longer needed. Raises as ``approve``."""
        request = pb.CancelEnrollmentRequest(
            enrollment_id=seen.enrollment_id, version=seen.review.version, reason=reason
        )
        return (await call(self._stub.CancelEnrollment, request, timeout=TIMEOUT)).enrollment

    async def assign(self, seen: pb.Enrollment, *, assignee: str = "") -> pb.Enrollment:
        """Let only this officer decide ("officer/jo"), or any officer again. Raises as ``approve``, and
        InvalidInputError.
        """
        named = str(SpiffeId(self._trust_domain, assignee)) if assignee else ""
        request = pb.AssignEnrollmentRequest(
            enrollment_id=seen.enrollment_id, version=seen.review.version, assignee=named
        )
        return (await call(self._stub.AssignEnrollment, request, timeout=TIMEOUT)).enrollment
