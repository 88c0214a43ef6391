"""`keyark enrollments show|approve|reject|cancel|assign`: the officers' queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, TypeVar

import click

from keyark.cli.listing import enrollments, hexadecimal, recoverability, session_of, when
from keyark.cli.options import (
    home_option,
    identity_option,
    identity_password_option,
    json_option,
    password_source,
)
from keyark.cli.output import PENDING, careful, print_json, say
from keyark.cli.shape import to_json
from keyark.client.access.home import Home
from keyark.client.administration.abbreviations import whole_enrollment_id
from keyark.client.administration.approvals import ApprovalClient, check_same_enrollment, verified_approval
from keyark.client.enrollment.client import TIMEOUT
from keyark.client.trust.verification import UnexpectedAnswerError
from keyark.errors.commands import UsageError
from keyark.rpc.calling.channels import call
from keyark.rpc.calling.retries import NO_RETRIES
from keyark.sizes import ENROLLMENT_ID_SIZE
from keyark.statements.approvals import MAX_VALIDITY_DAYS, Approval, Edits
from keyark.statements.enrollment import reread_statement
from keyark.v1 import registration_pb2 as pb
from keyark.v1.registration_pb2 import EnrollmentState
from keyark.v1.registration_pb2_grpc import RegistrationServiceStub
from keyark.x509.certificates import Validity, load_certificate
from keyark.x509.names import normalized_name

F = TypeVar("F", bound=Callable[..., Any])


def officer_options(function: F) -> F:
    """The options of every command that an officer gives to the RM."""
    for option in (json_option, identity_password_option, identity_option("officer/officer"), home_option):
        function = option(function)
    return function


reason_option = click.option(
    "--reason", required=True, help="The reason, in one line. The client that submitted it can read it."
)


@enrollments.command("show")
@click.argument("enrollment_id", metavar="ID")
@officer_options
def show(*, enrollment_id: str, **options: Any) -> None:
    """Show an enrollment. ID may be abbreviated. A client sees only its own."""
    if not options["identity"].startswith("client/"):
        _run(options, lambda officer: _look(officer, enrollment_id))
        return
    wanted = _id(enrollment_id)

    async def run() -> pb.Enrollment:
        async with session_of(options, "rm") as session:
            stub, request = (
                RegistrationServiceStub(session.channel),
                pb.GetEnrollmentRequest(request_id=wanted[:16]),
            )
            response: pb.GetEnrollmentResponse = await call(stub.GetEnrollment, request, timeout=TIMEOUT)
            check_same_enrollment(response.enrollment, wanted)
            return response.enrollment

    _print(asyncio.run(run()), options)


@enrollments.command("approve")
@click.argument("enrollment_id", metavar="ID")
@click.option("--name", default="", help="A common name that replaces the requested one.")
@click.option(
    "--statement",
    help="SHA-256 of the statement, as `show` printed it. Any other statement is refused, even if the "
    "RM now shows one.",
)
@click.option(
    "--days",
    type=click.IntRange(1, MAX_VALIDITY_DAYS),
    help="How many days the certificates are valid, instead of what the profile says.",
)
@officer_options
def approve(
    *, enrollment_id: str, name: str, statement: str | None, days: int | None, **options: Any
) -> None:
    """Approve an enrollment with a signed approval, and have it carried out at once.

    Exits with 4 if it is approved but CM or DRM cannot be reached now. The RM then carries it out later by
    itself.
    """
    _id(enrollment_id)  # an approval is signed, so it names what was looked at
    edits = Edits(common_name=normalized_name(name), validity_days=days or 0)
    expected = None if statement is None else hexadecimal(statement)

    async def act(officer: ApprovalClient, seen: pb.Enrollment) -> pb.Enrollment:
        if expected not in (None, sha256(seen.statement).digest()):
            raise UnexpectedAnswerError(
                "The RM now shows a different statement than the one you named; show the enrollment again."
            )
        return await officer.approve(seen, edits)

    done = _run(options, _acting(enrollment_id, act))
    if done.state != pb.ENROLLMENT_STATE_ISSUED:
        raise SystemExit(PENDING)


@enrollments.command("reject")
@click.argument("enrollment_id", metavar="ID")
@reason_option
@officer_options
def reject(*, enrollment_id: str, reason: str, **options: Any) -> None:
    """Reject an enrollment. Its wrapped private key is deleted."""
    _run(options, _acting(enrollment_id, lambda officer, seen: officer.reject(seen, reason=reason)))


@enrollments.command("cancel")
@click.argument("enrollment_id", metavar="ID")
@reason_option
@officer_options
def cancel(*, enrollment_id: str, reason: str, **options: Any) -> None:
    """Cancel an enrollment that is no longer needed. Its wrapped private key is deleted."""
    _run(options, _acting(enrollment_id, lambda officer, seen: officer.cancel(seen, reason=reason)))


@enrollments.command("assign")
@click.argument("enrollment_id", metavar="ID")
@click.option("--to", "assignee", help="The only officer who may decide from now on: officer/NAME.")
@click.option("--to-any", is_flag=True, help="Let any officer decide.")
@officer_options
def assign(*, enrollment_id: str, assignee: str | None, to_any: bool, **options: Any) -> None:
    """Choose which officer decides on an enrollment."""
    if bool(assignee) == to_any:
        raise UsageError("Say either --to officer/NAME or --to-any.")
    _run(options, _acting(enrollment_id, lambda officer, seen: officer.assign(seen, assignee=assignee or "")))


def _id(text: str) -> bytes:
    enrollment_id = hexadecimal(text)
    if len(enrollment_id) != ENROLLMENT_ID_SIZE or len(text) < 2 * ENROLLMENT_ID_SIZE:
        raise UsageError(
            f"{text!r} is not a whole enrollment id of 64 hexadecimal digits; `keyark enrollments list` "
            "shows them."
        )
    return enrollment_id


def _acting(
    enrollment_id: str, act: Callable[[ApprovalClient, pb.Enrollment], Awaitable[pb.Enrollment]]
) -> Callable[[ApprovalClient], Awaitable[pb.Enrollment]]:
    """Look at the request, then act on what was seen."""

    async def look_and_act(officer: ApprovalClient) -> pb.Enrollment:
        return await act(officer, await _look(officer, enrollment_id))

    return look_and_act


async def _look(officer: ApprovalClient, enrollment_id: str) -> pb.Enrollment:
    return await officer.show(await whole_enrollment_id(officer.session, enrollment_id))


def _run(
    options: dict[str, Any], work: Callable[[ApprovalClient], Awaitable[pb.Enrollment]]
) -> pb.Enrollment:
    async def run() -> pb.Enrollment:
        password = password_source(options["identity_password_file"])
        opened = ApprovalClient.open(
            options["home"], identity=options["identity"], password=password, retries=NO_RETRIES
        )
        async with opened as officer:
            return await work(officer)

    enrollment = asyncio.run(run())
    _print(enrollment, options)
    return enrollment


def _print(enrollment: pb.Enrollment, options: dict[str, Any]) -> None:
    """Print a request: its statement, which an approval signs; an approval, verified; then what only the RM says."""
    if options["as_json"]:
        print_json(to_json(enrollment))
        return
    statement = reread_statement(enrollment.statement)
    types = (statement.signing_key_type, statement.encryption_key_type)
    keys = " and ".join(key_type.value for key_type in types if key_type is not None)
    say(f"request     {statement.enrollment_id.hex()}")
    say(f"name        {statement.common_name} <{statement.email}>{careful(statement.common_name)}")
    say(f"asked by    {statement.caller}")
    say(f"profile     {statement.profile}, keys {keys}")
    say(f"statement   {statement.sha256.hex()}")
    approval = verified_approval(Home.load(options["home"]), enrollment, now=int(time.time()))
    if approval is not None:
        _print_approval(approval)
    say("unproven    the RM says this without proof:")
    say(f"  state     {EnrollmentState.Name(enrollment.state).removeprefix('ENROLLMENT_STATE_')}")
    if enrollment.HasField("review"):
        _print_review(enrollment.review)
    if enrollment.HasField("certificates"):
        validity = Validity.of(load_certificate(enrollment.certificates.signing_certificate))
        say(f"  valid     {when(validity.not_before)} until {when(validity.not_after)}")
    if told := recoverability(enrollment):
        say(f"  key       {told}")


def _print_approval(approval: Approval) -> None:
    edits = approval.edits
    say(f"approved    {when(approval.time)} by {approval.officer}")
    if edits.common_name:
        say(f"edited      common name: {edits.common_name}{careful(edits.common_name)}")
    if edits.validity_days:
        say(f"edited      validity: {edits.validity_days} days")


def _print_review(review: pb.EnrollmentReview) -> None:
    for deferral in review.deferrals:
        say(f"  deferred  {deferral.rule}: {deferral.message}")
    say(f"  submitted {when(review.submitted_time_us / 1e6)}, until {when(review.expires_time_us / 1e6)}")
    if review.assignee:
        say(f"  assigned  {review.assignee}")
    if review.officer:
        say(f"  decided   {when(review.decided_time_us / 1e6)} by {review.officer}")
    if review.reason:
        say(f"  reason    {review.reason}")
