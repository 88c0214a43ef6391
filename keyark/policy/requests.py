"""What policy judges, and the attributes of it that expressions name.

The table of attributes is what expressions are checked against, what they see, and what their reference is made from.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from keyark.clock import SECONDS_PER_DAY
from keyark.keys.key_types import KeyType
from keyark.policy.cel_library import cel
from keyark.policy.patterns import MATCHES, matches

ENROLLMENT_STAGES: Final = frozenset({"submit", "approve", "issue", "renew", "archive"})
APPROVE: Final = frozenset({"approve"})
ISSUE: Final = frozenset({"issue"})
RENEW: Final = frozenset({"renew"})
RECOVER: Final = frozenset({"recover"})
REVOKE: Final = frozenset({"revoke"})
KEYS: Final = ENROLLMENT_STAGES | RECOVER
EVERYWHERE: Final = KEYS | REVOKE


class Archival(enum.Enum):
    """Whether an encryption private key came along to be archived."""

    REQUESTED = "requested"
    ABSENT = "absent"


class Receipt(enum.Enum):
    """Whether an archival receipt was shown, and verified."""

    PRESENT = "present"
    ABSENT = "absent"


@dataclass(frozen=True, kw_only=True)
class PolicyRequest:
    """What rules look at; every attribute was validated. Key types have their names ("rsa-2048"), times seconds UTC."""

    caller: str
    profile: str
    common_name: str
    email: str
    signing_key_type: str
    encryption_key_type: str
    archival: Archival
    receipt: Receipt
    now: int | None = None
    not_before: int | None = None
    not_after: int | None = None
    issuer_key_type: str | None = None
    enrollments_within: Callable[[int], int] | None = field(default=None, repr=False, compare=False)
    """How many enrollments of the caller there were within so many clock hours, this one included."""
    renewed_not_after: int | None = None
    """When the pair expires that this one renews; at stage "renew" only."""
    approver: str = ""
    approved_days: int = 0
    name_holders: Callable[[], Collection[str]] | None = field(default=None, repr=False, compare=False)
    """The addresses under which others hold certificates in force for the common name, this enrollment apart."""

    @cached_property
    def context(self) -> cel.Context:
        """What expressions see of the request."""
        if self.renewed_not_after is not None:
            return _context("renew", self)
        if self.not_before is not None:
            return _context("issue", self)
        return _context("approve" if self.approver else "submit", self)


@dataclass(frozen=True, kw_only=True)
class RecoveryRequest:
    """What rules of the stage "recover" look at: one key that an agent asks for, and how often it asked."""

    requester: str
    profile: str
    caller: str
    common_name: str
    email: str
    encryption_key_type: str
    archived_days: float
    recoveries_in_a_day: int

    @cached_property
    def context(self) -> cel.Context:
        """What expressions see of the request."""
        return _context("recover", self)


@dataclass(frozen=True, kw_only=True)
class RevocationRequest:
    """What rules of the stage "revoke" look at: one certificate whose standing somebody wants to change.

    ``reason`` is that of RFC 5280 ("keyCompromise"), empty for a release; ``by_holder`` that it was asked for with the
    pair's signing key, and not by an officer.
    """

    requester: str
    profile: str
    common_name: str
    email: str
    change: str
    reason: str
    role: str
    by_holder: bool

    @cached_property
    def context(self) -> cel.Context:
        """What expressions see of the request."""
        return _context("revoke", self)


AnyRequest = PolicyRequest | RecoveryRequest | RevocationRequest


@dataclass(frozen=True)
class Attribute:
    """An attribute: its name, its type in CEL, the stages that have it, what it says, and where it comes from."""

    name: str
    cel_type: str
    stages: frozenset[str]
    text: str
    read: Callable[[Any], object]


def _path(identity: str) -> str:
    return identity.removeprefix("spiffe://").partition("/")[2]


def _domain(email: str) -> str:
    return email.rpartition("@")[2].lower()


def _algorithm(key_type: str) -> str:
    """Return "rsa", "ec", "ed25519", "x25519", "ml-dsa" or "ml-kem", and nothing where there is no key."""
    return KeyType(key_type).algorithm.value if key_type else ""


def _bits(key_type: str) -> int:
    """Return the size of RSA moduli and EC fields, and 0 for all other types."""
    return KeyType(key_type).facts.bits if key_type else 0


def _days(request: PolicyRequest) -> float:
    return ((request.not_after or 0) - (request.not_before or 0)) / SECONDS_PER_DAY


ATTRIBUTES: Final = tuple(
    Attribute(*row)
    for row in (
        ("caller", "string", KEYS, "who enrolls, such as client/enroller", lambda r: _path(r.caller)),
        (
            "requester", "string", RECOVER | REVOKE, "who asks for the recovery or revocation, such as agent/alice",
            lambda r: _path(r.requester),
        ),
        ("profile", "string", EVERYWHERE, "name of the profile", lambda r: r.profile),
        ("common_name", "string", EVERYWHERE, "the subject's common name", lambda r: r.common_name),
        ("email", "string", EVERYWHERE, "the subject's e-mail address, as submitted", lambda r: r.email),
        ("email_domain", "string", EVERYWHERE, "the part after the @, in lower case", lambda r: _domain(r.email)),
        (
            "signing_key_type", "string", ENROLLMENT_STAGES, "type and size of the signing key, such as ec-p256",
            lambda r: r.signing_key_type,
        ),
        (
            "signing_key_algorithm", "string", ENROLLMENT_STAGES, "rsa, ec, ed25519 or ml-dsa",
            lambda r: _algorithm(r.signing_key_type),
        ),
        (
            "signing_key_bits", "int", ENROLLMENT_STAGES, "size of an RSA or EC signing key, 0 for other types",
            lambda r: _bits(r.signing_key_type),
        ),
        (
            "encryption_key_type", "string", KEYS,
            "type and size of the encryption key, such as rsa-3072; empty for a signing certificate alone",
            lambda r: r.encryption_key_type,
        ),
        (
            "encryption_key_algorithm", "string", KEYS, "rsa, ec, x25519 or ml-kem",
            lambda r: _algorithm(r.encryption_key_type),
        ),
        (
            "encryption_key_bits", "int", KEYS, "size of an RSA or EC encryption key, 0 for other types",
            lambda r: _bits(r.encryption_key_type),
        ),
        (
            "archival_requested", "bool", ENROLLMENT_STAGES, "whether a private key was sent to be archived",
            lambda r: r.archival is Archival.REQUESTED,
        ),
        (
            "receipt_present", "bool", ISSUE | RENEW, "whether there is a verified archival receipt",
            lambda r: r.receipt is Receipt.PRESENT,
        ),
        (
            "approver", "string", APPROVE | ISSUE | RENEW,
            "the officer who approves or approved it, such as officer/officer; empty if none had to",
            lambda r: _path(r.approver),
        ),
        (
            "approved_days", "int", APPROVE, "how many days of validity the officer set; 0 for the profile's",
            lambda r: r.approved_days,
        ),
        ("now", "int", ISSUE | RENEW, "the time, seconds UTC", lambda r: r.now),
        ("not_before", "int", ISSUE | RENEW, "when the certificates become valid, seconds UTC", lambda r: r.not_before),
        ("not_after", "int", ISSUE | RENEW, "when they expire, seconds UTC", lambda r: r.not_after),
        ("validity_days", "double", ISSUE | RENEW, "how many days they are valid", _days),
        (
            "issuer_key_type", "string", ISSUE | RENEW, "type and size of the CA key that signs",
            lambda r: r.issuer_key_type,
        ),
        (
            "renewed_days_left", "double", RENEW, "how many more days the renewed certificates are valid",
            lambda r: ((r.renewed_not_after or 0) - (r.now or 0)) / SECONDS_PER_DAY,
        ),
        ("archived_days", "double", RECOVER, "how many days the key has been archived", lambda r: r.archived_days),
        (
            "recoveries_in_a_day", "int", RECOVER, "requests of this agent within 24 hours, this one included",
            lambda r: r.recoveries_in_a_day,
        ),
        ("change", "string", REVOKE, "revoke, hold or release", lambda r: r.change),
        ("reason", "string", REVOKE, "why, such as keyCompromise; empty for a release", lambda r: r.reason),
        ("role", "string", REVOKE, "signing or encryption: which certificate of the pair", lambda r: r.role),
        (
            "by_holder", "bool", REVOKE, "whether the holder of the pair's signing key asks, and not an officer",
            lambda r: r.by_holder,
        ),
    )
)  # fmt: skip


def attributes_of(stage: str) -> tuple[Attribute, ...]:
    """Return the attributes that requests of a stage have."""
    return tuple(attribute for attribute in ATTRIBUTES if stage in attribute.stages)


_OF_STAGE: Final = {stage: attributes_of(stage) for stage in EVERYWHERE}


def _context(stage: str, request: AnyRequest) -> cel.Context:
    return cel.Context(
        variables={a.name: a.read(request) for a in _OF_STAGE[stage]}, functions={MATCHES: matches}
    )


_SAMPLE: Final = PolicyRequest(
    caller="spiffe://example.org/client/enroller",
    profile="user",
    common_name="Alice Example",
    email="alice@example.org",
    signing_key_type="ec-p256",
    encryption_key_type="ec-p256",
    archival=Archival.REQUESTED,
    receipt=Receipt.PRESENT,
    now=1_800_000_000,
    not_before=1_800_000_000,
    not_after=1_800_000_000 + 365 * SECONDS_PER_DAY,
    issuer_key_type="ec-p256",
)
_RECOVERY_SAMPLE: Final = RecoveryRequest(
    requester="spiffe://example.org/agent/alice",
    profile="user",
    caller="spiffe://example.org/client/enroller",
    common_name="Alice Example",
    email="alice@example.org",
    encryption_key_type="ec-p256",
    archived_days=100.0,
    recoveries_in_a_day=1,
)
_REVOCATION_SAMPLE: Final = RevocationRequest(
    requester="spiffe://example.org/officer/officer",
    profile="user",
    common_name="Alice Example",
    email="alice@example.org",
    change="revoke",
    reason="keyCompromise",
    role="signing",
    by_holder=False,
)


def sample_of(stage: str) -> AnyRequest:
    """Return a request like most, to try expressions on when they are loaded."""
    if stage == "recover":
        return _RECOVERY_SAMPLE
    if stage == "revoke":
        return _REVOCATION_SAMPLE
    if stage == "issue":
        return _SAMPLE
    if stage == "renew":
        return replace(_SAMPLE, renewed_not_after=1_800_000_000 + 30 * SECONDS_PER_DAY)
    approver = "spiffe://example.org/officer/officer" if stage == "approve" else ""
    return replace(_SAMPLE, now=None, not_before=None, not_after=None, approver=approver)
