"""Requests that wait for a registration officer, as whoever submitted them sees it: typed errors, and waiting.

    try:
        enrolled = await client.submit(prepared)
    except PendingApprovalError as pending:
        enrolled = await wait_for_decision(lambda: client.submit(prepared), seconds=3600)

The request and its keys stay with the person: the same request is submitted again, and gets its outcome once there is
one (P9).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from keyark.errors import KeyarkError, Kind
from keyark.v1.registration_pb2 import Enrollment, EnrollmentState

FIRST_PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 60.0
"""Seconds between two questions whether an officer has decided; each pause is half as long again as the one before."""


T = TypeVar("T")


class PendingApprovalError(KeyarkError):
    """A registration officer has to decide first; metadata ``enrollment_id`` (hexadecimal) names the request."""

    reason = "PENDING_APPROVAL"
    kind = Kind.PRECONDITION


class EnrollmentRejectedError(KeyarkError):
    """An officer rejected the request, or what an officer approved was refused afterwards."""

    reason = "ENROLLMENT_REJECTED"
    kind = Kind.PRECONDITION


class EnrollmentCanceledError(KeyarkError):
    """An officer canceled the request."""

    reason = "ENROLLMENT_CANCELED"
    kind = Kind.PRECONDITION


class EnrollmentExpiredError(KeyarkError):
    """No officer decided on the request in time."""

    reason = "ENROLLMENT_EXPIRED"
    kind = Kind.PRECONDITION


def without_certificates(answer: Enrollment) -> KeyarkError | None:
    """Return the error that stands for an enrollment that waits or is over; None where it is neither."""
    metadata = {"enrollment_id": answer.enrollment_id.hex()}
    state, review = answer.state, answer.review
    if state == EnrollmentState.ENROLLMENT_STATE_PENDING_APPROVAL:
        why = "; ".join(deferral.message for deferral in review.deferrals) or "policy asks for it"
        return PendingApprovalError(
            f"Request {answer.enrollment_id.hex()} waits for a registration officer ({why}); submit the "
            "same request again later.",
            metadata=metadata,
        )
    if state == EnrollmentState.ENROLLMENT_STATE_APPROVED:
        return PendingApprovalError(
            f"Request {answer.enrollment_id.hex()} is approved, and its certificates are being issued; "
            "submit the same request again.",
            metadata=metadata,
        )
    ended = _ENDED.get(state)
    if ended is None:
        return None
    kind, words = ended
    return kind(
        f"Request {answer.enrollment_id.hex()} {words}: {review.reason}; submit a new request.",
        metadata=metadata,
    )


_ENDED: Final[dict[EnrollmentState.ValueType, tuple[type[KeyarkError], str]]] = {
    EnrollmentState.ENROLLMENT_STATE_REJECTED: (EnrollmentRejectedError, "was rejected"),
    EnrollmentState.ENROLLMENT_STATE_CANCELED: (EnrollmentCanceledError, "was canceled"),
    EnrollmentState.ENROLLMENT_STATE_EXPIRED: (EnrollmentExpiredError, "expired"),
}


async def wait_for_decision(
    submit: Callable[[], Awaitable[T]],
    *,
    seconds: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Submit again and again until an officer decided, for so many seconds; pauses grow from 2 seconds to a minute.

    Raises what ``submit`` raises, its last PendingApprovalError where the time ran out. Once a request waits, that the
    RM is away for a while is waited for too.
    """
    deadline, pause, waits = clock() + seconds, FIRST_PAUSE, False
    while True:
        try:
            return await submit()
        except KeyarkError as error:
            waits = waits or isinstance(error, PendingApprovalError)
            left = deadline - clock()
            if (
                not waits
                or left <= 0
                or not (isinstance(error, PendingApprovalError) or error.kind.is_transient)
            ):
                raise
        await sleep(min(pause, left))
        pause = min(pause * 1.5, LONGEST_PAUSE)
