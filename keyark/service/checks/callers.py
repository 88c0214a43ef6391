"""Whose request it is, for services that clients never talk to: the client's own signed word, never the RM's.

A call counts for the statements that it names. Their request ids stand in them, so a call that is replayed brings about
nothing new. It counts for 15 minutes, longer than an enrollment takes. Where an officer approved the request it counts
for as long as requests may wait. The client's certificate has to be valid at the time that the client signed.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from keyark.clock import SECONDS_PER_DAY, Clock
from keyark.config import Config
from keyark.errors import InvalidInputError
from keyark.errors.enrollment import CallerSignatureRequiredError
from keyark.identity.revoked import RevokedIdentities
from keyark.service.checks.key_uses import KeyIds
from keyark.service.checks.requests import SentStatement
from keyark.service.settings import ServiceSettings
from keyark.statements.approvals import OfficerTrust
from keyark.statements.calls import CallTrust, SignedCall
from keyark.statements.enrollment import Statement
from keyark.statements.signed import CLOCK_SKEW_SECONDS
from keyark.v1 import common_pb2
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.x509.certificates import load_certificates

AT_ONCE_SECONDS: Final = 600 + CLOCK_SKEW_SECONDS
"""An enrollment takes 10 minutes at most ([enrollment] seconds of the RM), and the client's clock may be slow."""


class CallerSignature(enum.Enum):
    """Whether a profile demands that the caller's identity key signs each call."""

    REQUIRED = "required"
    WAIVED = "waived"

    @property
    def proto(self) -> common_pb2.CallerSignature.ValueType:
        """The number that stands for it in messages."""
        return common_pb2.CallerSignature.Value(f"CALLER_SIGNATURE_{self.name}")


class CallerSettings(Config):
    """[callers]: the RM's [approvals] expire_days: a request waits so long, and as long again once it is approved."""

    request_days: Annotated[int, Field(ge=1, le=30)] = 7

    @property
    def request_seconds(self) -> int:
        """How old a call may be whose request an officer approved."""
        return 2 * self.request_days * SECONDS_PER_DAY + CLOCK_SKEW_SECONDS


@dataclass(frozen=True, kw_only=True)
class CallerChecks:
    """Verifies that clients sent what the RM hands along."""

    calls: CallTrust
    officers: OfficerTrust
    settings: CallerSettings
    clock: Clock

    def check(
        self, statement: Statement, request: SentStatement, *, rule: CallerSignature
    ) -> tuple[KeyIds, ...]:
        """Return the keys that signed the caller's call and the officer's approval, where there are any.

        Raises unless the call names the statement and is its caller's own, or the profile's rule waives it:
        CallerSignatureRequiredError, and the errors of ``CallTrust.verify``, ``Call.check_names`` and
        ``OfficerTrust.verify``. Call it once the statement's own signature is verified: what is refused later is told
        of the client, where it signed the call.
        """
        if request.call is None:
            check_signed(statement, request.call, rule.proto)
            return ()
        now, age = self.clock.now_us() // 1_000_000, AT_ONCE_SECONDS
        officers: tuple[KeyIds, ...] = ()
        if request.approval is not None:
            officers = (self.officers.verify(request.approval, statement, now=now).signer_key_ids,)
            age = self.settings.request_seconds
        call = self.calls.verify(request.call, now=now, max_age_seconds=age)
        call.check_names(statement)
        request.sender.proven = str(statement.caller)
        return (call.signer_key_ids, *officers)


def check_signed(
    statement: Statement, call: SignedCall | None, rule: common_pb2.CallerSignature.ValueType
) -> None:
    """Raise CallerSignatureRequiredError where no signed call came along and the rule does not waive it."""
    if call is None and rule != common_pb2.CALLER_SIGNATURE_WAIVED:
        raise CallerSignatureRequiredError(
            f"Profile {statement.profile!r} demands that the caller's identity key signs each call; enroll with a "
            "client of this release."
        )


def named_calls(calls: Sequence[SignedStatement], places: Sequence[int]) -> list[SignedCall | None]:
    """Return the call of each item of a batch, which names it by its place, counted from 1; 0 stands for none.

    Raises InvalidInputError for more calls than items, and for a place where there is no call.
    """
    if len(calls) > len(places):
        raise InvalidInputError("There are more signed calls than items; send each call once.", field="calls")
    if any(place > len(calls) for place in places):
        raise InvalidInputError("An item names a signed call that was not sent.", field="call")
    taken = [None, *map(SignedCall.of, calls)]
    return [taken[place] for place in places]


def open_caller_checks(
    service: ServiceSettings, callers: CallerSettings, *, revoked: RevokedIdentities, clock: Clock
) -> CallerChecks:
    """Make the checks of a subsystem, which believes the internal CA of its [service]."""
    domain, anchors = service.trust_domain, load_certificates(service.trust_anchor)
    return CallerChecks(
        calls=CallTrust(trust_domain=domain, anchors=anchors, revoked=revoked),
        officers=OfficerTrust(
            trust_domain=domain, anchors=anchors, revoked=revoked, max_age_seconds=callers.request_seconds
        ),
        settings=callers,
        clock=clock,
    )
