"""How messages of the services look as JSON: one shape for every command, which docs/cli.md describes."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message

from keyark.client.trust.verification import UnexpectedAnswerError

DOCUMENTS: Final = frozenset(
    {
        "certificate", "chain", "checkpoint", "ciphertext", "closing_proof", "commitments", "decision_proof",
        "decision_proofs", "decisions", "encryption_certificate", "opening_facts", "opening_proof", "public_key",
        "receipt", "request", "resealing_proof", "share_recipient_key", "signature", "signing_certificate", "statement",
    }
)  # fmt: skip
"""Fields with whole documents, in base64; bytes of all others name something, and are hexadecimal."""
SECONDS: Final = frozenset(
    {
        "expires_from", "expires_until", "invalidity_time", "next_update", "not_after", "not_before",
        "revocation_time", "revoked_at", "this_update",
    }
)  # fmt: skip
"""Fields with a time in seconds UTC; those in microseconds end with "_us"."""
_MICROSECONDS: Final = "_us"
_WIDE: Final = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_json(message: Message) -> dict[str, Any]:
    """Return a message as JSON with proto field names: ids in hexadecimal, times as RFC 3339, numbers as numbers.

    Raises UnexpectedAnswerError for one that has no JSON.
    """
    try:
        return _object(message)
    except (TypeError, ValueError, DecodeError, OverflowError):
        raise UnexpectedAnswerError(
            "The service's answer holds what cannot be shown as JSON; ask its operator."
        ) from None


def rfc3339(seconds: float) -> str:
    """Return a time (seconds UTC) as RFC 3339 has it: "2026-01-31T12:00:00Z"."""
    return _time(timedelta(seconds=seconds))


def with_times(facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts whose times (seconds UTC, in fields of SECONDS) are written as RFC 3339."""
    return {
        name: rfc3339(value) if name in SECONDS and value is not None else value
        for name, value in facts.items()
    }


def _object(message: Message) -> dict[str, Any]:
    if message.DESCRIPTOR.full_name.startswith("google."):
        known: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
        return known
    told: dict[str, Any] = {}
    for field, value in message.ListFields():
        name = field.name
        if name.endswith(_MICROSECONDS):
            told[name.removesuffix(_MICROSECONDS)] = _time(timedelta(microseconds=value))
        else:
            told[name] = [_value(field, one) for one in value] if field.is_repeated else _value(field, value)
    return told


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        return _object(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode() if field.name in DOCUMENTS else value.hex()
    if field.type == FieldDescriptor.TYPE_ENUM:
        known = field.enum_type.values_by_number.get(value) if field.enum_type is not None else None
        return value if known is None else known.name
    if field.cpp_type in _WIDE and field.name in SECONDS:
        return _time(timedelta(seconds=value))
    return value


def _time(since: timedelta) -> str:
    return (_EPOCH + since).isoformat().replace("+00:00", "Z")
