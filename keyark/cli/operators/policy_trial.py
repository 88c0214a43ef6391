"""What `keyark policy test` does: engines of the three files, and requests, given or past; it needs keyark[server]."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from keyark.cli.listing import session_of
from keyark.cli.output import print_json, say
from keyark.client.administration.lists import list_enrollments
from keyark.keys.key_types import key_type_of
from keyark.policy.config import build_engine, policy_section
from keyark.policy.engine import PolicyEngine
from keyark.policy.requests import Archival, PolicyRequest, Receipt
from keyark.policy.trial import PastEnrollments, TrialResult, load_requests, try_request
from keyark.service.checks.policy_requests import policy_request
from keyark.statements.enrollment import reread_statement
from keyark.v1.registration_pb2 import Enrollment, EnrollmentState
from keyark.x509.certificates import Validity, load_certificate

ROLES: Final = ("rm", "drm", "cm")
REJECTED: Final = 3
ISSUED: Final = EnrollmentState.ENROLLMENT_STATE_ISSUED


def try_policies(home: Path, options: dict[str, Any]) -> None:
    """Print what the policies would do with the requests; ends the process with 3 if any is rejected."""
    engines = {role: _engine(role, options[role] or home / role / f"{role}.toml") for role in ROLES}
    if options["request"] is not None:
        requests = [request.to_policy(int(time.time())) for request in load_requests(options["request"])]
    else:
        requests = asyncio.run(_past({**options, "home": home}))
    results = [try_request(request, engines) for request in requests]
    if options["as_json"]:
        print_json([_json(result) for result in results])
    else:
        for result in results:
            _print_result(result)
    if any(result.verdict == "rejected" for result in results):
        raise SystemExit(REJECTED)


def _engine(role: str, path: Path) -> PolicyEngine:
    return build_engine(role, policy_section(path))


async def _past(options: dict[str, Any]) -> list[PolicyRequest]:
    """Return the last enrollments as the CM saw them, oldest first; the list is paged through from its beginning."""
    async with session_of(options, "rm") as session:
        kept: deque[tuple[Enrollment, dict[str, Any]]] = deque(maxlen=options["last"])
        past = PastEnrollments()
        async for enrollment in list_enrollments(session, ISSUED):
            statement = reread_statement(enrollment.statement)
            within = past.count(str(statement.caller), enrollment.completed_time_us // 1_000_000)
            holders = past.hold(statement.common_name, statement.email)
            kept.append((enrollment, {"enrollments_within": within, "name_holders": holders}))
    return [replace(_as_issued(enrollment), **state) for enrollment, state in kept]


def _as_issued(enrollment: Enrollment) -> PolicyRequest:
    statement = reread_statement(enrollment.statement)
    validity = Validity.of(load_certificate(enrollment.certificates.signing_certificate))
    issuer = load_certificate(enrollment.certificates.chain[0])
    submitted = policy_request(
        statement,
        archival=Archival.REQUESTED if enrollment.receipt else Archival.ABSENT,
        receipt=Receipt.PRESENT if enrollment.receipt else Receipt.ABSENT,
    )
    return replace(
        submitted,
        now=enrollment.completed_time_us // 1_000_000,
        not_before=validity.not_before,
        not_after=validity.not_after,
        issuer_key_type=key_type_of(issuer.public_key()).value,
    )


def _print_result(result: TrialResult) -> None:
    request = result.request
    caller = request.caller.removeprefix("spiffe://").partition("/")[2]
    say(f"{result.verdict:9} {request.common_name} <{request.email}> by {caller} for {request.profile}")
    for outcome in result.outcomes:
        where = f"{outcome.subsystem} {outcome.stage}"
        say(f"          {where}: {outcome.rule} {outcome.outcome}: {outcome.message}")


def _json(result: TrialResult) -> dict[str, Any]:
    request = result.request
    return {
        "caller": request.caller,
        "profile": request.profile,
        "common_name": request.common_name,
        "email": request.email,
        "verdict": result.verdict,
        "outcomes": [vars(outcome) for outcome in result.outcomes],
    }
