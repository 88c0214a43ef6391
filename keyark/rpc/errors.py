"""The one place where typed errors become google.rpc.Status and come back as the same typed errors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from datetime import timedelta
from typing import Final, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status

import keyark.errors.enrollment  # so that the reasons of all services are known
import keyark.errors.recovery
import keyark.errors.services  # noqa: F401 — as above
from keyark.errors import (
    DeadlineExceededError,
    InvalidInputError,
    KeyarkError,
    Kind,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    PolicyRejectedError,
    UnauthenticatedError,
    UnavailableError,
    Violation,
    error_class,
)
from keyark.rpc.reach import NoConnectionError, Reach

__all__ = ["NoConnectionError"]

DOMAIN: Final = "keyark"
STATUS_KEY: Final = "grpc-status-details-bin"
FINAL: Final = "is_final"
"""The key in ErrorInfo's metadata that stands, with "true", beside errors which time does not heal."""

LONGEST_TEXT: Final = 4000
MAX_STATUS: Final = 4096
"""Bytes of a rich status: gRPC takes 8 KiB of trailers, where it grows by a third; a batch's answer holds 256."""

SUMMARY: Final = 120
"""Characters of the plain message beside the rich status; each may become 12 bytes on the way."""

LONGEST_RETRY_SECONDS: Final = 60.0
"""More than this no service makes a caller wait, whatever it says."""

_CODES: Final = {
    Kind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Kind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Kind.DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Kind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Kind.CONFLICT: grpc.StatusCode.ALREADY_EXISTS,
    Kind.PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
    Kind.EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Kind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Kind.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Kind.INTERNAL: grpc.StatusCode.INTERNAL,
}
_KINDS: Final = {code.value[0]: kind for kind, code in _CODES.items()}


class RemoteError(KeyarkError):
    """An error of the other side of a class that is not known here; ``reason`` is the other side's."""

    reason = "REMOTE"

    def __init__(self, message: str, *, kind: Kind, reason: str, metadata: dict[str, str]) -> None:
        super().__init__(message, metadata=metadata)
        self.kind = kind  # type: ignore[misc]  # of the instance: the other side says what sort it is
        self.reason = reason or type(self).reason  # type: ignore[misc]  # likewise


class MessageTooLargeError(KeyarkError):
    """The message is larger than the other side takes."""

    reason = "MESSAGE_TOO_LARGE"
    kind = Kind.EXHAUSTED


class InternalError(KeyarkError):
    """The other side failed; its log has the details under ``error_id``."""

    reason = "INTERNAL_ERROR"


def code_of(kind: Kind) -> grpc.StatusCode:
    """Return the gRPC code that stands for a kind of error."""
    return _CODES[kind]


def status_code(error: KeyarkError) -> grpc.StatusCode:
    """Return the gRPC code that stands for an error's kind."""
    return code_of(error.kind)


def error_to_status(error: KeyarkError) -> Status:
    """Return the rich status of an error: ErrorInfo, and what its type adds; at most MAX_STATUS bytes.

    gRPC would replace trailers that are too large by RESOURCE_EXHAUSTED, which says that trying again helps. Where it
    does not fit texts are cut, and at last all details but the reason go.
    """
    for longest in (LONGEST_TEXT, 240, 60):
        status = _status(error, longest=longest)
        if status.ByteSize() <= MAX_STATUS:
            return status
    status = Status(code=status_code(error).value[0], message=_cut(error.message, 240))
    _add(status, ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=_finality(error)))
    return status


def _finality(error: KeyarkError) -> dict[str, str]:
    return {FINAL: "true"} if error.is_final else {}


def _status(error: KeyarkError, *, longest: int) -> Status:
    """Return the status with texts of at most so many characters."""
    message = _cut(error.message, longest)
    metadata = {_cut(name, longest): _cut(value, longest) for name, value in error.metadata.items()}
    status = Status(code=status_code(error).value[0], message=message)
    _add(status, ErrorInfo(reason=error.reason, domain=DOMAIN, metadata={**metadata, **_finality(error)}))
    if isinstance(error, PolicyRejectedError):
        violations = [
            PreconditionFailure.Violation(
                type=_cut(v.rule, longest), subject=v.subsystem, description=_cut(v.message, longest)
            )
            for v in error.violations
        ]
        _add(status, PreconditionFailure(violations=violations))
    if isinstance(error, InvalidInputError) and error.field:
        violation = BadRequest.FieldViolation(field=_cut(error.field, longest), description=message)
        _add(status, BadRequest(field_violations=[violation]))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(timedelta(seconds=error.retry_after))
        _add(status, RetryInfo(retry_delay=delay))
    return status


def _cut(text: str, longest: int) -> str:
    """Return a text as protobuf takes it, with at most so many characters."""
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return text.encode(errors="replace").decode()


def _add(status: Status, detail: Message) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)


def error_from_status(status: Status) -> KeyarkError:
    """Return the typed error of a rich status; an unknown reason becomes RemoteError.

    It is final where its class or the other side says so. A detail that is malformed counts as absent: the other side
    need not be honest.
    """
    info, violations, field, retry = ErrorInfo(), PreconditionFailure(), BadRequest(), RetryInfo()
    for detail in status.details:
        for message in (info, violations, field, retry):
            if detail.Is(message.DESCRIPTOR):
                _unpack(detail, message)
    metadata = dict(info.metadata)
    is_final = metadata.pop(FINAL, "") == "true"
    error = _rebuilt(status, info, metadata, violations=violations, field=field)
    if is_final:
        error.is_final = True  # type: ignore[misc]  # of the instance, as the other side says
    if retry.HasField("retry_delay"):
        delay = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        error.retry_after = min(max(delay, 0.0), LONGEST_RETRY_SECONDS)
    return error


def _rebuilt(
    status: Status,
    info: ErrorInfo,
    metadata: dict[str, str],
    *,
    violations: PreconditionFailure,
    field: BadRequest,
) -> KeyarkError:
    """Return an error of the class that the details name, with what its type adds."""
    kind = _KINDS.get(status.code, Kind.INTERNAL)
    found = error_class(info.reason) if info.domain == DOMAIN else None
    if found is None or issubclass(found, RemoteError):
        return RemoteError(status.message, kind=kind, reason=info.reason, metadata=metadata)
    if issubclass(found, PolicyRejectedError):
        listed = [
            Violation(rule=v.type, subsystem=v.subject, message=v.description) for v in violations.violations
        ]
        return found(status.message, violations=listed, metadata=metadata)
    if issubclass(found, InvalidInputError):
        named = field.field_violations[0].field if field.field_violations else ""
        return found(status.message, field=named, metadata=metadata)
    return found(status.message, metadata=metadata)


def _unpack(detail: AnyMessage, message: Message) -> None:
    try:
        detail.Unpack(message)
    except DecodeError:
        message.Clear()


def error_from_call(error: grpc.aio.AioRpcError, reach: Reach | None = None) -> KeyarkError:
    """Return the typed error of a failed call; with a ``reach``, what TLS or gRPC refuse names cause and service."""
    for key, value in _pairs(error.trailing_metadata()):
        if key == STATUS_KEY:
            try:
                return error_from_status(
                    Status.FromString(value if isinstance(value, bytes) else value.encode())
                )
            except DecodeError:
                break
    code, details = error.code(), error.details() or ""
    if reach is not None and code is grpc.StatusCode.UNAVAILABLE:
        return reach.no_connection(details)
    if reach is not None and code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return reach.timed_out()
    return _from_code(code, details)


def _pairs(metadata: object) -> Iterable[tuple[str, str | bytes]]:
    return metadata or ()  # type: ignore[return-value]  # grpc.aio.Metadata iterates as pairs


_CORE_ERRORS: Final[dict[grpc.StatusCode, tuple[type[KeyarkError], str]]] = {
    grpc.StatusCode.UNAVAILABLE: (
        NoConnectionError,
        "No connection. Either nothing listens at that address, or one side refused the other's "
        "certificate (missing, expired, from another CA, or of another service). Check addresses and "
        "certificates.",
    ),
    grpc.StatusCode.DEADLINE_EXCEEDED: (
        DeadlineExceededError,
        "The call took too long. Try again; if the request has an id, keep it.",
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (OverloadedError, "The service is at its limit; try again later."),
    grpc.StatusCode.UNIMPLEMENTED: (
        NotFoundError,
        "The service does not have this method. Check its address, and that client and service are "
        "of the same release.",
    ),
    grpc.StatusCode.UNAUTHENTICATED: (UnauthenticatedError, "The service does not know the caller."),
    grpc.StatusCode.PERMISSION_DENIED: (
        PermissionDeniedError,
        "The service does not permit this to the caller.",
    ),
    grpc.StatusCode.CANCELLED: (UnavailableError, "The call was cancelled; try again."),
}


def _from_code(code: grpc.StatusCode, details: str) -> KeyarkError:
    """The error of a call that reached no handler: TLS or gRPC core refused it."""
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return MessageTooLargeError(
            "The message is larger than the service takes; send fewer or smaller items."
        )
    unexplained = (InternalError, "The service failed without saying how; read its log.")
    found, message = _CORE_ERRORS.get(code, unexplained)
    return found(message)


def internal_error() -> tuple[InternalError, str]:
    """Return an error that says nothing but an id, and the id to log the cause under (P10)."""
    error_id = os.urandom(8).hex()
    message = f"The service failed; its log has the cause under error id {error_id}."
    return InternalError(message, metadata={"error_id": error_id}), error_id


async def abort(context: grpc.aio.ServicerContext, error: KeyarkError) -> NoReturn:  # type: ignore[type-arg]
    """End a call with an error's rich status; a call that has ended already is cancelled.

    Its caller gave up or its deadline passed, so nobody is left to be told. gRPC would log a traceback for it.
    """
    status = error_to_status(error)
    metadata = ((STATUS_KEY, status.SerializeToString()),)
    try:
        await context.abort(status_code(error), _cut(error.message, SUMMARY), metadata)
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
    raise AssertionError
