"""What waits for a person: requests for an officer, ceremonies for agents, recovered keys for who asked for them."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Iterator
from typing import Final

from keyark.client.administration.approvals import verified_approval
from keyark.client.administration.lists import list_ceremonies, list_enrollments
from keyark.client.audit.findings import UNDER_WAY, Examination, Finding, error, warning
from keyark.clock import SECONDS_PER_DAY
from keyark.errors import KeyarkError
from keyark.identity.certificates import identity_of
from keyark.identity.spiffe import SpiffeId
from keyark.statements.enrollment import reread_statement
from keyark.v1 import recovery_pb2, registration_pb2
from keyark.x509.certificates import load_certificate

UNCOLLECTED: Final = 3 * SECONDS_PER_DAY
SHORT: Final = 4
"""What has less than this part of its time left is told."""

PENDING: Final = registration_pb2.EnrollmentState.ENROLLMENT_STATE_PENDING_APPROVAL
APPROVED: Final = registration_pb2.EnrollmentState.ENROLLMENT_STATE_APPROVED
OPEN: Final = recovery_pb2.CeremonyState.CEREMONY_STATE_OPEN
READY: Final = recovery_pb2.CeremonyState.CEREMONY_STATE_READY


async def enrollments_move_on(examination: Examination) -> AsyncIterator[Finding]:
    """Which requests soon expire without an officer's word, and which were approved and are not issued."""
    async with examination.session("rm", "officer") as session:
        async for pending in list_enrollments(session, PENDING):
            review = pending.review
            if not _is_short(examination, review.submitted_time_us, review.expires_time_us):
                break  # the first to expire comes first
            hours = _hours_left(examination, review.expires_time_us)
            text = f"of {_owner(pending)} waits for an officer and expires in {hours} hours"
            yield warning(_request(pending), text, _approve(examination, pending))
        async for approved in list_enrollments(session, APPROVED):
            if examination.now() - approved.review.decided_time_us / 1_000_000 > UNDER_WAY:
                text = f"of {_owner(approved)} was approved but not issued; another attempt shows why"
                yield error(_request(approved), text, _approve(examination, approved))


def _request(enrollment: registration_pb2.Enrollment) -> str:
    return f"request {enrollment.enrollment_id.hex()}"


def _owner(enrollment: registration_pb2.Enrollment) -> str:
    return reread_statement(enrollment.statement).email


def _approve(examination: Examination, enrollment: registration_pb2.Enrollment) -> str:
    """Name the approval; one that the same officer repeats with the same edits has the RM try again at once."""
    command = f"keyark enrollments approve {enrollment.enrollment_id.hex()} --home {examination.home.folder}"
    if enrollment.state != APPROVED:
        return f"{command} --as {examination.person('officer')}"
    try:
        approval = verified_approval(examination.home, enrollment, now=int(examination.now()))
    except KeyarkError:
        approval = None
    if approval is None:  # whoever repeats what the RM only says would sign the RM's words
        return command.replace(" approve ", " show ")
    officer, edits = approval.officer, approval.edits
    name = f" --name {shlex.quote(edits.common_name)}" if edits.common_name else ""
    days = f" --days {edits.validity_days}" if edits.validity_days else ""
    return f"{command} --as {officer.role}/{officer.name}{name}{days}"


async def ceremonies_move_on(examination: Examination) -> AsyncIterator[Finding]:
    """Which ceremonies soon expire or lost approvals, and which recovered keys wait for their requester for days."""
    async with examination.session("drm", "auditor") as session:
        async for ceremony in list_ceremonies(session, OPEN):
            for finding in _open_ceremony(examination, ceremony):
                yield finding
        async for ceremony in list_ceremonies(session, READY):
            age = examination.now() - ceremony.opened_time_us / 1_000_000
            if age > UNCOLLECTED:
                text = (
                    f"recovered keys have been waiting for their requester for {age / SECONDS_PER_DAY:.0f} "
                    "days"
                )
                yield warning(
                    _ceremony(ceremony),
                    text,
                    f"{_recover(examination, ceremony, 'collect')}  # as the requester",
                )


def _open_ceremony(examination: Examination, ceremony: recovery_pb2.Ceremony) -> Iterator[Finding]:
    approve = _recover(examination, ceremony, "approve")
    decided = {identity_of(load_certificate(decision.certificate)) for decision in ceremony.decisions}
    for agent in sorted(set(map(SpiffeId.parse, ceremony.approvals_to_repeat)) - decided, key=str):
        person = f"{agent.role}/{agent.name}"
        text = f"the DRM was restarted, so {person} must approve again"
        yield warning(_ceremony(ceremony), text, f"{approve} --as {person}")
    if _is_short(examination, ceremony.opened_time_us, ceremony.expires_time_us):
        hours = _hours_left(examination, ceremony.expires_time_us)
        text = f"no quorum of {ceremony.quorum} has approved it, and it expires in {hours} hours"
        yield warning(_ceremony(ceremony), text, f"{approve}  # as an agent who has not approved yet")


def _ceremony(ceremony: recovery_pb2.Ceremony) -> str:
    return f"ceremony {ceremony.ceremony_id.hex()}"


def _recover(examination: Examination, ceremony: recovery_pb2.Ceremony, command: str) -> str:
    return f"keyark recover {command} {ceremony.ceremony_id.hex()} --home {examination.home.folder}"


def _is_short(examination: Examination, begin_us: int, end_us: int) -> bool:
    return end_us - examination.now() * 1_000_000 < (end_us - begin_us) / SHORT


def _hours_left(examination: Examination, end_us: int) -> int:
    return max(0, int(end_us / 1_000_000 - examination.now()) // 3600)
