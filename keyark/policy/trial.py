"""What a policy would do with requests: past ones or made up, without doing anything."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from keyark.clock import SECONDS_PER_DAY
from keyark.config import Config, load_config
from keyark.errors import KeyarkError
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES, parse_key_type
from keyark.policy.engine import Decision, PolicyEngine
from keyark.policy.requests import Archival, PolicyRequest, Receipt
from keyark.x509.names import check_email, check_name

STAGES: Final = (("rm", "submit"), ("drm", "archive"), ("cm", "issue"))
HOURS: Final = 24
SECONDS_PER_HOUR: Final = 3600
Verdict = Literal["accepted", "deferred", "rejected"]


class TrialRequest(Config):
    """A made-up request: one [[request]] of a TOML file."""

    caller: str
    profile: str
    common_name: str
    email: str
    signing_key_type: str = "ec-p256"
    encryption_key_type: str = "ec-p256"
    archival: bool = True
    validity_days: Annotated[float, Field(gt=0)] = 365
    issuer_key_type: str = "ec-p256"
    enrollments_in_an_hour: Annotated[int, Field(ge=1)] = 1
    enrollments_in_a_day: Annotated[int, Field(ge=1)] = 1
    name_holders: list[str] = []

    @field_validator("caller")
    @classmethod
    def _is_client(cls, caller: str) -> str:
        _typed(lambda: SpiffeId("example.org", caller))
        return caller

    @field_validator("common_name")
    @classmethod
    def _is_name(cls, name: str) -> str:
        _typed(lambda: check_name(name))
        return name

    @field_validator("email")
    @classmethod
    def _is_email(cls, email: str) -> str:
        _typed(lambda: check_email(email))
        return email

    @field_validator("signing_key_type")
    @classmethod
    def _signs(cls, name: str) -> str:
        _typed(lambda: parse_key_type(name, permitted=SIGNING_KEY_TYPES))
        return name

    @field_validator("encryption_key_type")
    @classmethod
    def _encrypts(cls, name: str) -> str:
        if not name:  # a signing certificate alone
            return name
        _typed(lambda: parse_key_type(name, permitted=ENCRYPTION_KEY_TYPES))
        return name

    def to_policy(self, now: int) -> PolicyRequest:
        """Return what rules look at, for a request at ``now`` (seconds UTC) that came as far as the CM."""
        return PolicyRequest(
            caller=f"spiffe://example.org/{self.caller}",
            profile=self.profile,
            common_name=self.common_name,
            email=self.email,
            signing_key_type=self.signing_key_type,
            encryption_key_type=self.encryption_key_type,
            archival=Archival.REQUESTED if self.archival else Archival.ABSENT,
            receipt=Receipt.PRESENT if self.archival else Receipt.ABSENT,
            now=now,
            not_before=now,
            not_after=now + round(self.validity_days * SECONDS_PER_DAY),
            issuer_key_type=self.issuer_key_type,
            enrollments_within=self._enrollments_within,
            name_holders=lambda: self.name_holders,
        )

    def _enrollments_within(self, hours: int) -> int:
        in_an_hour = self.enrollments_in_an_hour
        return in_an_hour if hours == 1 else max(in_an_hour, self.enrollments_in_a_day)


def _typed(check: object) -> None:
    """Turn a typed error into the one that validators raise."""
    try:
        check()  # type: ignore[operator]
    except KeyarkError as error:
        raise ValueError(error.message) from None


class _Requests(Config):
    """A file of made-up requests."""

    request: Annotated[list[TrialRequest], Field(min_length=1)]


def load_requests(path: Path) -> list[TrialRequest]:
    """Load the [[request]] sections of a TOML file; raises ConfigurationError with file and line."""
    return load_config(path, _Requests).request


class PastEnrollments:
    """What rules that count or compare had to look at, as enrollments went by; revocations are not known here."""

    def __init__(self) -> None:
        self._by_hour: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._by_name: defaultdict[str, set[str]] = defaultdict(set)

    def count(self, caller: str, now: int) -> Callable[[int], int]:
        """Count one more of a caller at ``now`` (seconds UTC); returns what it had for ``enrollments_within``."""
        hour, counts = now // SECONDS_PER_HOUR, self._by_hour[caller]
        counts[hour] += 1
        latest = [counts[hour - back] for back in range(HOURS)]
        return lambda hours: sum(latest[:hours])

    def hold(self, common_name: str, email: str) -> Callable[[], Collection[str]]:
        """Add a holder of a name; returns what the enrollment had for ``name_holders``."""
        holders = self._by_name[common_name.casefold()]
        before = frozenset(holders)
        holders.add(email)
        return lambda: before


@dataclass(frozen=True)
class RuleOutcome:
    """What a rule that does not accept would do: "rejects" or "defers"."""

    subsystem: str
    stage: str
    rule: str
    outcome: str
    message: str


@dataclass(frozen=True)
class TrialResult:
    """What became of a request, and every rule that has something against it, at all stages."""

    request: PolicyRequest
    verdict: Verdict
    outcomes: tuple[RuleOutcome, ...]


def try_request(request: PolicyRequest, engines: Mapping[str, PolicyEngine]) -> TrialResult:
    """Run a request (as the CM would see it) through the stages of all three subsystems.

    Every stage is asked, although one that rejects would have been the last; the DRM's only where a key comes along.
    """
    outcomes = tuple(_outcomes(request, engines))
    kinds = {outcome.outcome for outcome in outcomes}
    verdict: Verdict = "rejected" if "rejects" in kinds else "deferred" if "defers" in kinds else "accepted"
    return TrialResult(request, verdict, outcomes)


def _outcomes(request: PolicyRequest, engines: Mapping[str, PolicyEngine]) -> Iterator[RuleOutcome]:
    early = replace(
        request, receipt=Receipt.ABSENT, now=None, not_before=None, not_after=None, issuer_key_type=None
    )
    for subsystem, stage in STAGES:
        if stage == "archive" and request.archival is Archival.ABSENT:
            continue
        decision: Decision = engines[subsystem].evaluate(stage, request if stage == "issue" else early)
        for outcome, violations in (("rejects", decision.rejections), ("defers", decision.deferrals)):
            for violation in violations:
                yield RuleOutcome(subsystem, stage, violation.rule, outcome, violation.message)
