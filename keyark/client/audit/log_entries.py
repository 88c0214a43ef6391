"""What an entry of a log says: who did what to whom, for people and as JSON, and which entries are looked for.

Nothing here is key material: of signed statements that an entry holds, only what they decide or ask for is told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from google.protobuf.message import DecodeError, Message

from keyark.transparency.events import EventError, OpenedEvent
from keyark.transparency.merkle import leaf_hash
from keyark.v1.approval_pb2 import ApprovalStatement
from keyark.v1.audit_pb2 import AuditDetails, EventType
from keyark.v1.ceremony_pb2 import (
    CeremonyStatement,
    CeremonyType,
    Decision,
    DecisionStatement,
    SignedStatement,
)

_M = TypeVar("_M", bound=Message)

PROVEN: Final = "proven"
UNPROVEN: Final = "unproven"
SHOWN: Final = "shown"
ERASED: Final = "erased"
WITHHELD: Final = "withheld"
SCHEMA: Final = 1
_PREFIX: Final = "EVENT_TYPE_"
EVENT_TYPES: Final = tuple(name.removeprefix(_PREFIX) for name, number in EventType.items() if number)
_HASHES: Final = (
    "enrollment_id",
    "statement_sha256",
    "signing_spki_sha256",
    "encryption_spki_sha256",
    "storage_key_id",
    "transport_key_id",
    "ceremony_id",
    "ceremony_digest",
    "receipt_leaf_hash",
    "share_recipient_sha256",
    "decision_sha256",
    "policy_sha256",
    "opening_facts_sha256",
    "details_sha256",
)
_TEXTS: Final = (
    "caller",
    "on_behalf_of",
    "claimed_client",
    "common_name",
    "email",
    "profile",
    "reason",
    "message",
    "method",
    "match_proof",
)


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The tree in which an entry was found, and why it is not proven that everybody sees this tree, if it is not.

    ``unproven`` is empty if the head is signed, continues what this home saw before, and, for the DRM's log, is
    confirmed by RM and CM.
    """

    tree_size: int
    root: bytes
    unproven: str = ""

    @property
    def state(self) -> str:
        """``proven`` or ``unproven``."""
        return UNPROVEN if self.unproven else PROVEN


@dataclass(frozen=True, kw_only=True)
class ReadEntry:
    """An entry that was found under the head of its log: ``log`` is "rm", "cm" or "drm"."""

    log: str
    index: int
    leaf: bytes
    opened: OpenedEvent
    proof: Proof
    details_state: str

    def check(self) -> None:
        """Raise EventError if a signed statement in the details does not parse."""
        _ = self.decision, self.ceremony

    @property
    def time_us(self) -> int:
        """Microseconds since 1970-01-01T00:00:00Z, by the clock of the log's subsystem."""
        return self.opened.event.time_us

    @property
    def type(self) -> str:
        """The type's name ("KEY_ARCHIVED"), or its number if a later release made the entry."""
        number = self.opened.event.type
        known = number in EventType.values()
        return EventType.Name(number).removeprefix(_PREFIX) if known else str(int(number))

    @property
    def details(self) -> AuditDetails:
        """What it says about people; empty if that was erased or is withheld."""
        return self.opened.details or AuditDetails()

    @property
    def decision(self) -> DecisionStatement | ApprovalStatement | None:
        """The decision of an agent or officer that led to the entry, if any."""
        if not self.details.decision:
            return None
        if self.type.startswith(("RECOVERY_", "CEREMONY_")):
            return _stated(DecisionStatement, self.details.decision)
        return _stated(ApprovalStatement, self.details.decision)

    @property
    def ceremony(self) -> CeremonyStatement | None:
        """The request, if the entry opens a ceremony."""
        request = self.details.ceremony_request
        return _stated(CeremonyStatement, request) if request else None

    @property
    def actors(self) -> tuple[str, ...]:
        """The SPIFFE IDs of everybody who acted or on whose behalf somebody acted, each once, the caller first."""
        told = self.details
        named = [told.caller, told.on_behalf_of, told.claimed_client, _decider(self.decision)]
        if self.ceremony is not None:
            named.append(self.ceremony.requester)
        return tuple(dict.fromkeys(name for name in named if name))

    def facts(self) -> dict[str, Any]:
        """Return everything for scripts: all fields are always present, and empty if the entry has no value.

        Ids and hashes are hexadecimal, times RFC 3339 in UTC.
        """
        event = self.opened.event
        return {
            "schema": SCHEMA,
            "log": self.log,
            "index": self.index,
            "time": rfc3339(event.time_us),
            "type": self.type,
            "proof": {
                "state": self.proof.state,
                "reason": self.proof.unproven,
                "tree_size": self.proof.tree_size,
                "root": self.proof.root.hex(),
            },
            "leaf_hash": leaf_hash(self.leaf).hex(),
            **{name: getattr(event, name).hex() for name in _HASHES},
            "serials": [serial.hex() for serial in event.serials],
            "certificate_sha256": [digest.hex() for digest in event.certificate_sha256],
            "expires_time": rfc3339(event.expires_time_us) if event.expires_time_us else "",
            "details_state": self.details_state,
            "details": self._told(),
        }

    def _told(self) -> dict[str, Any]:
        told = self.details
        since = told.invalidity_time
        return {
            **{name: getattr(told, name) for name in _TEXTS},
            "count": told.count,
            "invalidity_time": rfc3339(since * 1_000_000) if since else "",
            "asked_by_holder": bool(told.revocation_statement),
            "decision": _decision_facts(self.decision),
            "ceremony": _ceremony_facts(self.ceremony),
        }


def rfc3339(time_us: int) -> str:
    """Return a time (microseconds) as RFC 3339 in UTC; one that no calendar has as the number it is."""
    try:
        moment = datetime.fromtimestamp(time_us // 1_000_000, UTC)
    except (OverflowError, OSError, ValueError):
        return str(time_us)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_us % 1_000_000:06d}Z"


def _stated(kind: type[_M], signed: bytes) -> _M:
    """Return what a serialized SignedStatement says; raises EventError."""
    try:
        return kind.FromString(SignedStatement.FromString(signed).statement)
    except DecodeError:
        raise EventError("The signed statement in the details of a log entry does not parse.") from None


def _decider(decision: DecisionStatement | ApprovalStatement | None) -> str:
    if decision is None:
        return ""
    return decision.agent if isinstance(decision, DecisionStatement) else decision.officer


def _decision_facts(decision: DecisionStatement | ApprovalStatement | None) -> dict[str, Any]:
    facts = {"by": _decider(decision), "decision": "", "reason": "", "common_name": "", "validity_days": 0}
    if isinstance(decision, DecisionStatement):
        facts["decision"] = _name(Decision, decision.decision, "DECISION_")
        facts["reason"] = decision.reason
    elif decision is not None:
        facts |= {"decision": "APPROVE", "common_name": decision.common_name}
        facts["validity_days"] = decision.validity_days
    return facts


def _ceremony_facts(ceremony: CeremonyStatement | None) -> dict[str, Any]:
    asked = ceremony or CeremonyStatement()
    return {
        "type": _name(CeremonyType, asked.type, "CEREMONY_TYPE_") if ceremony else "",
        "requester": asked.requester,
        "reason": asked.reason,
        "key_ids": [key_id.hex() for key_id in asked.key_ids],
        "agents": [key.agent for key in asked.agents],
        "quorum": asked.quorum,
    }


def _name(kind: Any, number: int, prefix: str) -> str:
    return kind.Name(number).removeprefix(prefix) if number in kind.values() else str(number)


@dataclass(frozen=True, kw_only=True)
class EntryFilter:
    """Which entries are looked for: those that fit everything that is named here.

    ``caller``, ``officer`` and ``agent`` are paths of identities ("officer/olga"), ``certificate`` is a serial number
    or the SHA-256 of a certificate. Times are microseconds, ``since`` included and ``until`` not. ``person`` is a
    common name or an address, compared whole and without regard to case.
    """

    types: Collection[str] = ()
    person: str = ""
    caller: str = ""
    officer: str = ""
    agent: str = ""
    certificate: bytes = b""
    since: int | None = None
    until: int | None = None

    @property
    def needs_details(self) -> bool:
        """Whether entries without details can be missed."""
        return bool(self.person or self.caller or self.officer or self.agent)

    def fits(self, entry: ReadEntry) -> bool:
        """Whether an entry is looked for, the person apart."""
        if self.types and entry.type not in self.types:
            return False
        if (self.since is not None and entry.time_us < self.since) or (
            self.until is not None and entry.time_us >= self.until
        ):
            return False
        paths = {actor.removeprefix("spiffe://").partition("/")[2] for actor in entry.actors}
        if not {wanted for wanted in (self.caller, self.officer, self.agent) if wanted} <= paths:
            return False
        event = entry.opened.event
        return not self.certificate or self.certificate in (*event.serials, *event.certificate_sha256)


@dataclass(kw_only=True)
class PersonTrail:
    """Finds the entries about a person: those that name the person, and later ones with the same ids.

    Only some entries name the person whose key or certificate they are about. So their ids are remembered: a
    recovery names key ids, and a certified key names an enrollment.
    """

    person: str
    _ids: set[bytes] = field(default_factory=set)

    def is_about(self, entry: ReadEntry) -> bool:
        """Whether an entry is about the person; call it for every entry, in order."""
        ids = set(_ids_of(entry))
        named = self.person.casefold() in (
            entry.details.common_name.casefold(),
            entry.details.email.casefold(),
        )
        if not named and self._ids.isdisjoint(ids):
            return False
        self._ids |= ids if named else {entry.opened.event.ceremony_id} - {b""}
        return True


def _ids_of(entry: ReadEntry) -> Iterator[bytes]:
    """Yield the ids by which entries are about the same person's keys, certificates or recovery."""
    event, ceremony = entry.opened.event, entry.ceremony
    if event.type != EventType.EVENT_TYPE_SERIALS_RESERVED:  # which is about a whole batch
        yield from event.serials
    yield from (
        value for value in (event.enrollment_id, event.encryption_spki_sha256, event.ceremony_id) if value
    )
    if ceremony is not None:
        yield from ceremony.key_ids
