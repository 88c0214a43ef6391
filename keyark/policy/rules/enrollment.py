"""The rule types that administrators configure; each is a section with ``type``, ``name``, ``stage`` and parameters."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from keyark.clock import SECONDS_PER_DAY
from keyark.config import Config
from keyark.errors import KeyarkError
from keyark.keys.key_types import ENCRYPTION_KEY_TYPES, SIGNING_KEY_TYPES, KeyType, parse_key_type
from keyark.policy.engine import ACCEPT, Defer, Outcome, Reject
from keyark.policy.expressions import Condition, ExpressionError
from keyark.policy.patterns import check_pattern, matches_whole
from keyark.policy.people import check_identity
from keyark.policy.requests import (
    ENROLLMENT_STAGES,
    EVERYWHERE,
    ISSUE,
    RECOVER,
    AnyRequest,
    Archival,
    PolicyRequest,
    Receipt,
    RecoveryRequest,
)

STAGES: Final = {
    "submit": "rm",
    "approve": "rm",
    "issue": "cm",
    "renew": "cm",
    "revoke": "cm",
    "archive": "drm",
    "recover": "drm",
}

Stage = Literal["submit", "approve", "issue", "renew", "revoke", "archive", "recover"]
Domain = Annotated[str, Field(pattern=r"^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?$")]


class RuleSettings(Config):
    """What every rule has: a name, a stage, the profiles that it is for (none named: all), and a condition."""

    stages: ClassVar[frozenset[str]] = ENROLLMENT_STAGES

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    stage: Stage
    profiles: list[str] = []
    when: str = ""

    @field_validator("stage")
    @classmethod
    def _stage_fits(cls, stage: str) -> str:
        if stage not in cls.stages:
            raise ValueError(
                f"this rule type does not run at stage {stage!r}; use {', '.join(sorted(cls.stages))}"
            )
        return stage

    @field_validator("when")
    @classmethod
    def _is_condition(cls, source: str, info: ValidationInfo) -> str:
        return check_condition(source, info) if source else source

    @cached_property
    def limit(self) -> Condition | None:
        """``when``, compiled; a plain attribute, for a private one of pydantic takes a microsecond to read."""
        return Condition.compile(self.when, self.stage) if self.when else None

    def applies(self, request: AnyRequest) -> bool:
        """Whether the request's profile is one of the rule's, and its condition holds."""
        if self.profiles and request.profile not in self.profiles:
            return False
        return self.limit is None or self.limit.holds(request.context)

    @abstractmethod
    def evaluate(self, request: Any, /) -> Outcome:
        """Judge a request of the rule's stage; what it raises rejects."""


def check_condition(source: str, info: ValidationInfo) -> str:
    """Return a condition that compiles for the rule's stage, for validators."""
    if stage := info.data.get("stage"):  # otherwise the stage is what is wrong
        try:
            Condition.compile(source, stage)
        except ExpressionError as error:
            raise ValueError(error.message) from None
    return source


class Expression(RuleSettings):
    """Rejects requests for which a condition in CEL is false, with a message that you write."""

    stages: ClassVar[frozenset[str]] = EVERYWHERE

    type: Literal["Expression"]
    condition: str
    message: Annotated[str, Field(min_length=1, max_length=500)]
    _condition: Condition = PrivateAttr()

    @field_validator("condition")
    @classmethod
    def _condition_compiles(cls, source: str, info: ValidationInfo) -> str:
        return check_condition(source, info)

    def model_post_init(self, context: Any, /) -> None:
        """Compile the condition for good; it was checked before."""
        self._condition = Condition.compile(self.condition, self.stage)

    def evaluate(self, request: AnyRequest) -> Outcome:
        """Reject where the condition is false."""
        return ACCEPT if self._condition.holds(request.context) else Reject(self.message)


class KeyTypes(RuleSettings):
    """Permits the listed types and sizes of keys; a role without a list permits all of its types."""

    type: Literal["KeyTypes"]
    signing: list[str] = [t.value for t in SIGNING_KEY_TYPES]
    encryption: list[str] = [t.value for t in ENCRYPTION_KEY_TYPES]

    @field_validator("signing")
    @classmethod
    def _signing_types(cls, names: list[str]) -> list[str]:
        return [_key_type(name, SIGNING_KEY_TYPES) for name in names]

    @field_validator("encryption")
    @classmethod
    def _encryption_types(cls, names: list[str]) -> list[str]:
        return [_key_type(name, ENCRYPTION_KEY_TYPES) for name in names]

    def evaluate(self, request: PolicyRequest) -> Outcome:
        """Reject a key whose type is not listed."""
        if request.signing_key_type not in self.signing:
            return Reject(
                f"{request.signing_key_type} signing keys are not permitted; use {', '.join(self.signing)}"
            )
        if request.encryption_key_type and request.encryption_key_type not in self.encryption:
            permitted = ", ".join(self.encryption)
            return Reject(f"{request.encryption_key_type} encryption keys are not permitted; use {permitted}")
        return ACCEPT


class SubjectConstraints(RuleSettings):
    """Limits common names by a regular expression (RE2, for the whole name), and addresses by domain."""

    type: Literal["SubjectConstraints"]
    common_name_pattern: Annotated[str, AfterValidator(check_pattern)] = ""
    email_domains: list[Domain] = []

    def evaluate(self, request: PolicyRequest) -> Outcome:
        """Reject a name or an address that does not fit."""
        if self.common_name_pattern and not matches_whole(request.common_name, self.common_name_pattern):
            return Reject("the common name does not have the form that is configured")
        if self.email_domains and not any(in_domain(request.email, domain) for domain in self.email_domains):
            return Reject(f"the e-mail address is in none of the domains {', '.join(self.email_domains)}")
        return ACCEPT


class ValidityRule(RuleSettings):
    """Limits the lifetime of certificates, in days."""

    stages: ClassVar[frozenset[str]] = ISSUE

    type: Literal["Validity"]
    min_days: Annotated[int, Field(ge=0)] = 0
    max_days: Annotated[int, Field(ge=1)]

    def evaluate(self, request: PolicyRequest) -> Outcome:
        """Reject a validity outside the bounds; one that is not known is outside."""
        if request.not_before is None or request.not_after is None:
            return Reject("the validity is not known")
        days = (request.not_after - request.not_before) / SECONDS_PER_DAY
        if not self.min_days <= days <= self.max_days:
            return Reject(f"a validity of {days:.1f} days is not within {self.min_days} to {self.max_days}")
        return ACCEPT


class ArchivalRule(RuleSettings):
    """Requires, permits or forbids that a private key is archived; `ArchivalRequired` is the same with `required`."""

    stages: ClassVar[frozenset[str]] = ENROLLMENT_STAGES

    type: Literal["Archival", "ArchivalRequired"]
    archival: Literal["required", "permitted", "forbidden"] = "required"

    @model_validator(mode="after")
    def _fits(self) -> ArchivalRule:
        if self.type == "ArchivalRequired" and self.archival != "required":
            raise ValueError('this type knows "required" only; use the type Archival')
        if self.stage == "submit" and self.archival == "required":
            raise ValueError(
                "at the stage 'submit' the key may still be on its way, since the RM asks for it; require it "
                "at 'issue'"
            )
        return self

    def evaluate(self, request: PolicyRequest) -> Outcome:
        """Reject a request with or without a key that is to be archived, as was configured."""
        if self.archival == "required" and request.archival is not Archival.REQUESTED:
            return Reject("the encryption private key has to be archived")
        if self.archival == "forbidden" and request.archival is not Archival.ABSENT:
            return Reject("the encryption private key must not be archived; enroll without a wrapped key")
        return ACCEPT


class ReceiptRule(RuleSettings):
    """Demands a verified archival receipt; `ReceiptRequired` is the same."""

    stages: ClassVar[frozenset[str]] = ISSUE

    type: Literal["Receipt", "ReceiptRequired"]

    def evaluate(self, request: PolicyRequest) -> Outcome:
        """Reject a request without a receipt."""
        if request.receipt is not Receipt.PRESENT:
            return Reject("an archival receipt has to be shown")
        return ACCEPT


class ManualApproval(RuleSettings):
    """Defers requests to a registration officer; `when` selects which."""

    stages: ClassVar[frozenset[str]] = frozenset({"submit"})

    type: Literal["ManualApproval"]
    message: Annotated[str, Field(min_length=1, max_length=500)] = "a registration officer has to approve it"

    def evaluate(self, _: PolicyRequest) -> Outcome:
        """Defer whatever the rule applies to."""
        return Defer(self.message)


Pattern = Annotated[str, Field(min_length=1), AfterValidator(check_pattern)]
"""A regular expression in RE2's syntax."""


class CallerGrant(Config):
    """Whom one caller may enroll: addresses by domain ("*.example.org" for those below it) or one by one, and names.

    ``common_names`` are regular expressions for whole names. A grant without them is refused at start: a caller who
    may choose any name can have a certificate in another's.
    """

    caller: str
    domains: list[Domain] = []
    addresses: list[str] = []
    common_names: list[Pattern] = []

    @field_validator("caller")
    @classmethod
    def _is_client(cls, caller: str) -> str:
        return check_identity(caller, role="client")

    @model_validator(mode="after")
    def _grants_names(self) -> CallerGrant:
        if not self.common_names:
            raise ValueError(
                f"{self.caller} is granted no common names; add common_names, such as "
                "['Alice Example'], or ['.+'] for a registration office that may enroll people of any name"
            )
        return self

    def covers_name(self, common_name: str) -> bool:
        """Whether the caller may enroll somebody of this name."""
        return any(matches_whole(common_name, pattern) for pattern in self.common_names)

    def covers_address(self, email: str) -> bool:
        """Whether the caller may enroll this address."""
        return email.lower() in (a.lower() for a in self.addresses) or any(
            in_domain(email, d) for d in self.domains
        )


class CallerSubjects(RuleSettings):
    """Binds addresses and names to callers: one grant must cover both, and a caller without one enrolls nobody."""

    stages: ClassVar[frozenset[str]] = frozenset({"submit", "issue", "archive"})

    type: Literal["CallerSubjects"]
    callers: list[CallerGrant]

    def evaluate(self, request: PolicyRequest) -> Outcome:
        """Reject an address or a name that the caller was not granted."""
        path = request.caller.removeprefix("spiffe://").partition("/")[2]
        grants = [
            grant for grant in self.callers if grant.caller == path and grant.covers_address(request.email)
        ]
        way_out = f"an administrator grants it in rule {self.name}"
        if not grants:
            return Reject(f"{path} may not enroll this e-mail address; {way_out}")
        if not any(grant.covers_name(request.common_name) for grant in grants):
            return Reject(f"{path} may not enroll this common name under this e-mail address; {way_out}")
        return ACCEPT


class Quota(RuleSettings):
    """Limits how many enrollments a caller completes within one clock hour, and within 24."""

    stages: ClassVar[frozenset[str]] = frozenset({"submit"})

    type: Literal["Quota"]
    per_hour: Annotated[int, Field(ge=1)] | None = None
    per_day: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> Quota:
        if self.per_hour is None and self.per_day is None:
            raise ValueError("say per_hour, per_day, or both")
        return self

    def evaluate(self, request: PolicyRequest) -> Outcome:
        """Reject one more than the caller may have; those under way count too. A count that is not known rejects."""
        if request.enrollments_within is None:
            return Reject("how many enrollments the caller had is not known")
        for limit, hours, words in ((self.per_hour, 1, "an hour"), (self.per_day, 24, "a day")):
            if limit is not None and request.enrollments_within(hours) > limit:
                return Reject(f"the caller may enroll {limit} within {words}; go on later")
        return ACCEPT


class UniqueSubjectName(RuleSettings):
    """Allows a common name for one address only, while certificates under it are in force; the two of a pair count
    as one.
    """

    stages: ClassVar[frozenset[str]] = ISSUE

    type: Literal["UniqueSubjectName"]
    same_address: Literal["permitted", "rejected"] = "permitted"

    def evaluate(self, request: PolicyRequest) -> Outcome:
        """Reject a name that is taken; whether the same address may have a second pair is configured."""
        if request.name_holders is None:
            return Reject("who holds certificates under this common name is not known")
        holders = {address.lower() for address in request.name_holders()}
        if holders - {request.email.lower()}:
            return Reject(
                "another address holds certificates under this common name; choose one that tells them apart"
            )
        if holders and self.same_address == "rejected":
            return Reject("this address holds certificates under this common name; renew or revoke them")
        return ACCEPT


class Recovery(RuleSettings):
    """Limits recoveries: which agents may ask, how often a day, and how long the key must or may have been
    archived.
    """

    stages: ClassVar[frozenset[str]] = RECOVER

    type: Literal["Recovery"]
    requesters: list[str] = []
    per_day: Annotated[int, Field(ge=1)] | None = None
    min_archived_days: Annotated[float, Field(ge=0)] = 0
    max_archived_days: Annotated[float, Field(gt=0)] | None = None

    @field_validator("requesters")
    @classmethod
    def _are_agents(cls, requesters: list[str]) -> list[str]:
        return [check_identity(requester, role="agent") for requester in requesters]

    def evaluate(self, request: RecoveryRequest) -> Outcome:
        """Reject who may not ask, who asks too often, and keys that are too young or too old."""
        requester = request.requester.removeprefix("spiffe://").partition("/")[2]
        if self.requesters and requester not in self.requesters:
            return Reject(f"{requester} may not ask for recoveries; let {', '.join(self.requesters)} ask")
        if self.per_day is not None and request.recoveries_in_a_day > self.per_day:
            return Reject(f"{requester} asked {self.per_day} times within a day; ask again later")
        if request.archived_days < self.min_archived_days:
            return Reject(f"the key was archived less than {self.min_archived_days:g} days ago")
        if self.max_archived_days is not None and request.archived_days > self.max_archived_days:
            return Reject(f"the key was archived more than {self.max_archived_days:g} days ago")
        return ACCEPT


def in_domain(email: str, domain: str) -> bool:
    """Whether an address is in a domain, by its whole name; "*.example.org" means those below example.org."""
    host, wanted = email.rpartition("@")[2].lower(), domain.lower()
    if wanted.startswith("*."):
        return host.endswith(wanted[1:]) and len(host) > len(wanted) - 1
    return host == wanted


def _key_type(name: str, permitted: tuple[KeyType, ...]) -> str:
    try:
        return parse_key_type(name, permitted=permitted).value
    except KeyarkError as error:
        raise ValueError(error.message) from None
