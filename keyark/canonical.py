"""The one canonical encoding of a protobuf message, the only one whose bytes may be hashed, signed and kept.

It has known fields only, each once and in the order of their numbers, and leaves defaults out. So everybody who hashes
a message hashes the same bytes, and a field that this release does not know hides nothing.
"""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

_M = TypeVar("_M", bound=Message)


class NotCanonicalError(ValueError):
    """The bytes are too many, no message of this kind, or another encoding of it; the text goes on from a subject."""


def canonical(message: Message) -> bytes:
    """Return the canonical encoding of a message."""
    return message.SerializeToString(deterministic=True)


def decode(kind: type[_M], raw: bytes, *, max_size: int) -> _M:
    """Read a message that may come in another encoding; raises NotCanonicalError for its size, or for no message."""
    if len(raw) > max_size:
        raise NotCanonicalError(f"has {len(raw)} bytes; at most {max_size} are taken")
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise NotCanonicalError(f"is no {kind.DESCRIPTOR.name} message") from None


def check_canonical(message: Message, raw: bytes) -> None:
    """Raise NotCanonicalError unless ``raw``, which ``message`` was read from, is its canonical encoding."""
    message.DiscardUnknownFields()
    if canonical(message) != raw:
        raise NotCanonicalError(
            "is not in its canonical encoding: known fields only, each once and in order, defaults left out"
        )


def read_canonical(kind: type[_M], raw: bytes, *, max_size: int) -> _M:
    """Read a message in its canonical encoding of at most so many bytes; raises NotCanonicalError."""
    message = decode(kind, raw, max_size=max_size)
    check_canonical(message, raw)
    return message
