"""Log entries: a leaf that holds ids and hashes only, and beside it, salted, what concerns a person.

The leaf binds the details by SHA-256(salt ‖ details). Erase salt and details, and the leaf says nothing about
anybody any more while the tree stays whole.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from keyark.errors import KeyarkError, Kind
from keyark.sizes import HASH_SIZE, UUID_SIZE
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, LoggedEvent

EVENT_VERSION: Final = 1
SALT_SIZE: Final = 16

_M = TypeVar("_M", bound=Message)

_HASHES: Final = (
    "enrollment_id",
    "statement_sha256",
    "signing_spki_sha256",
    "encryption_spki_sha256",
    "storage_key_id",
    "transport_key_id",
    "ceremony_digest",
    "receipt_leaf_hash",
    "share_recipient_sha256",
    "decision_sha256",
    "policy_sha256",
    "opening_facts_sha256",
)


class EventError(KeyarkError):
    """The bytes are no log entry of this version, or its details are not those that the leaf binds."""

    reason = "AUDIT_EVENT_INVALID"
    kind = Kind.INVALID


@dataclass(frozen=True)
class OpenedEvent:
    """A log entry that was read and checked; ``details`` is None where they were erased."""

    event: AuditEvent
    details: AuditDetails | None


def new_event(event: AuditEvent, details: AuditDetails, *, salt: bytes | None = None) -> LoggedEvent:
    """Make the log entry of an event; sets ``details_sha256`` of the event that is passed.

    ``salt`` is 16 bytes, fresh random ones where it is None. Raises EventError where the event has another
    version than 1, no type, or an id that is not 32 bytes.
    """
    salt = os.urandom(SALT_SIZE) if salt is None else salt
    if len(salt) != SALT_SIZE:
        raise EventError(f"The salt of a log entry is {SALT_SIZE} bytes.")
    told = details.SerializeToString(deterministic=True)
    event.details_sha256 = details_hash(salt, told)
    _check_event(event)
    return LoggedEvent(leaf=event.SerializeToString(deterministic=True), salt=salt, details=told)


def open_event(logged: LoggedEvent) -> OpenedEvent:
    """Read a log entry and check its details against the leaf.

    Raises EventError where leaf or details do not parse, hold fields that this version does not know, or do
    not belong together; whether the leaf is in a log is for an inclusion proof to say.
    """
    event = parse_leaf(logged.leaf)
    if not logged.salt and not logged.details:
        return OpenedEvent(event, None)
    check_details(event, logged.salt, logged.details)
    return OpenedEvent(event, _parse(AuditDetails, logged.details))


def parse_leaf(leaf: bytes) -> AuditEvent:
    """Read the bytes of a leaf; raises EventError for another version, unknown fields, or malformed ids."""
    event = _parse(AuditEvent, leaf)
    _check_event(event)
    return event


def parse_logged_event(data: bytes) -> LoggedEvent:
    """Read a serialized LoggedEvent; raises EventError where it does not parse or would encode otherwise."""
    logged = _parse(LoggedEvent, data)
    if logged.SerializeToString(deterministic=True) != data:
        raise EventError("The log entry is not in its canonical encoding.")
    return logged


def check_details(event: AuditEvent, salt: bytes, details: bytes) -> None:
    """Raise EventError unless the leaf binds this salt (16 bytes) and these serialized details."""
    if len(salt) != SALT_SIZE or details_hash(salt, details) != event.details_sha256:
        raise EventError("The details are not those that the log entry binds.")


def details_hash(salt: bytes, details: bytes) -> bytes:
    """Return SHA-256(salt ‖ details), what a leaf binds; the salt's fixed size keeps the two apart."""
    return sha256(salt + details).digest()


def _parse(kind: type[_M], data: bytes) -> _M:
    try:
        message = kind.FromString(data)
    except DecodeError:
        raise EventError("The log entry does not parse.") from None
    if len(UnknownFieldSet(message)):
        raise EventError("The log entry has fields that are not known here; upgrade keyark to read it.")
    return message


def _check_event(event: AuditEvent) -> None:
    if event.version != EVENT_VERSION or not event.type:
        raise EventError(
            f"The log entry has no type or another version than {EVENT_VERSION}; upgrade keyark to read it."
        )
    if len(event.details_sha256) != HASH_SIZE:
        raise EventError("The log entry does not bind its details.")
    for name in _HASHES:
        if len(getattr(event, name)) not in (0, HASH_SIZE):
            raise EventError(f"The log entry's {name} is not {HASH_SIZE} bytes.")
    if len(event.ceremony_id) not in (0, UUID_SIZE):
        raise EventError(f"The log entry's ceremony_id is not {UUID_SIZE} bytes.")
