"""The typed errors of keyark: raised where the cause is known, sent over gRPC, and rebuilt on the other side.

Every error has a ``reason`` in UPPER_SNAKE_CASE on which scripts may rely, a ``kind`` that says what sort of
failure it is, and a message that says what happened and what to do. Callers see messages, so they contain no
secret.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from keyark.errors.remedies import MESSAGE_SAYS, REMEDIES


class Kind(enum.Enum):
    """The sort of failure that an error is; keyark.rpc maps each to a gRPC status code."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    DENIED = "denied"
    NOT_FOUND = "not found"
    CONFLICT = "conflict"
    PRECONDITION = "precondition"
    EXHAUSTED = "exhausted"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"
    INTERNAL = "internal"

    @property
    def leaves_outcome_unknown(self) -> bool:
        """Whether the request may or may not have been carried out."""
        return self in (Kind.UNAVAILABLE, Kind.DEADLINE)

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later, because the service was down, slow or overloaded."""
        return self.leaves_outcome_unknown or self is Kind.EXHAUSTED

    @property
    def is_refusal(self) -> bool:
        """Whether the service examined the request and refused it."""
        return not self.is_transient and self is not Kind.INTERNAL


class KeyarkError(Exception):
    """Base of all typed errors; ``metadata`` has only public facts.

    ``is_final`` means that waiting does not help: the same request would be refused again. A caller that can
    wait repeats other requests, after ``retry_after`` seconds if the error has it. ``remedy`` says what to do
    about any error with this reason; the message may be more specific.
    """

    reason: ClassVar[str] = "INTERNAL"
    kind: ClassVar[Kind] = Kind.INTERNAL
    is_final: ClassVar[bool] = False
    remedy: ClassVar[str] = REMEDIES["INTERNAL"]
    retry_after: float | None = None

    def __init__(self, message: str, *, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata or {})

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if "reason" in cls.__dict__:
            if cls.reason in _BY_REASON:
                raise TypeError(f"two error classes give the reason {cls.reason}")
            _BY_REASON[cls.reason] = cls
            inherited = MESSAGE_SAYS if cls.remedy == REMEDIES["INTERNAL"] else cls.remedy
            cls.remedy = REMEDIES.get(cls.reason, inherited)


_BY_REASON: dict[str, type[KeyarkError]] = {"INTERNAL": KeyarkError}


def error_class(reason: str) -> type[KeyarkError] | None:
    """Return the class that gives this reason, or None where it is not known here."""
    return _BY_REASON.get(reason)


class InvalidInputError(KeyarkError):
    """A field of the input is malformed or out of range; ``field`` names it."""

    reason = "INVALID_INPUT"
    kind = Kind.INVALID

    def __init__(self, message: str, *, field: str = "", metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message, metadata=metadata)
        self.field = field


class ConfigurationError(KeyarkError):
    """A configuration file, key file or folder cannot be used."""

    reason = "CONFIGURATION"
    kind = Kind.PRECONDITION


class UnauthenticatedError(KeyarkError):
    """The caller has no identity of this deployment."""

    reason = "UNAUTHENTICATED"
    kind = Kind.UNAUTHENTICATED


class PermissionDeniedError(KeyarkError):
    """The caller's identity may not do this."""

    reason = "PERMISSION_DENIED"
    kind = Kind.DENIED


class NotFoundError(KeyarkError):
    """The requested object does not exist, or not for this caller."""

    reason = "NOT_FOUND"
    kind = Kind.NOT_FOUND


class OverloadedError(KeyarkError):
    """A queue is full; trying again after ``retry_after`` seconds is safe."""

    reason = "OVERLOADED"
    kind = Kind.EXHAUSTED
    retry_after = 0.5


class UnavailableError(KeyarkError):
    """A service or a worker cannot be reached now; trying again is safe."""

    reason = "UNAVAILABLE"
    kind = Kind.UNAVAILABLE


class DeadlineExceededError(KeyarkError):
    """The time ran out; trying again with the same request id is safe."""

    reason = "DEADLINE_EXCEEDED"
    kind = Kind.DEADLINE


@dataclass(frozen=True, kw_only=True)
class Violation:
    """A policy rule that did not accept the request: its name, its service, and what to change."""

    rule: str
    subsystem: str
    message: str


class PolicyRejectedError(KeyarkError):
    """Policy rejects the request; ``violations`` lists every rule that does."""

    reason = "POLICY_REJECTED"
    kind = Kind.PRECONDITION
    is_final = True

    def __init__(
        self, message: str, *, violations: Sequence[Violation] = (), metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, metadata=metadata)
        self.violations = tuple(violations)
