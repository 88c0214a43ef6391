"""Refusals of single items in a batch: logged like those of whole calls, and answered as a status."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from google.rpc.status_pb2 import Status

from keyark.errors import KeyarkError
from keyark.identity.spiffe import SpiffeId
from keyark.rpc.errors import error_to_status, internal_error
from keyark.rpc.serving.server import current_caller
from keyark.transparency.rejections import Rejection, RejectionLog, Sender

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusals:
    """Turns errors into statuses, with an entry in the log."""

    rejections: RejectionLog

    async def record(self, caller: SpiffeId, method: str, error: KeyarkError) -> None:
        """Log the refusal of a call; that the service cannot do it now is no refusal.

        Where the log cannot be written the refusal is counted, and stays one: nothing happened that needed the log.
        """
        await self._record(caller, method, [Rejection(error=error)])

    async def statuses(
        self, method: str, errors: Sequence[BaseException | None], *, senders: Sequence[Sender] = ()
    ) -> list[Status]:
        """Log the refusals among the items of a batch, together, and return a status for each: an empty one for None.

        ``senders`` says of each item whose statement it was. What is not a typed error tells only its id.
        """
        known = senders or [Sender()] * len(errors)
        rejections = [
            Rejection(error=error, sender=sender)
            for error, sender in zip(errors, known, strict=True)
            if isinstance(error, KeyarkError)
        ]
        await self._record(current_caller(), method, rejections)
        return [_status(method, error) for error in errors]

    async def _record(self, caller: SpiffeId, method: str, rejections: Sequence[Rejection]) -> None:
        refused = [each for each in rejections if each.error.kind.is_refusal]
        if not refused:
            return
        try:
            await self.rejections.record(caller=str(caller), method=method, rejections=refused)
        except KeyarkError as failure:
            logger.error("a refusal of %s could not be logged: %s", method, failure.reason)  # noqa: TRY400


def _status(method: str, error: BaseException | None) -> Status:
    if error is None:
        return Status()
    if isinstance(error, KeyarkError):
        return error_to_status(error)
    typed, error_id = internal_error()
    logger.error("%s: an item failed; error id %s", method, error_id, exc_info=error)
    return error_to_status(typed)
