"""Refusals of single items in a batch: logged like those of whole calls, and answered as a status."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from google.rpc.status_pb2 import Status

from keyark.errors import KeyarkError, Kind
from keyark.pki.spiffe import SpiffeId
from keyark.rpc.errors import internal_error, to_status
from keyark.rpc.server import current_caller
from keyark.transparency.rejections import RejectionLog

_NO_REFUSALS: Final = (Kind.EXHAUSTED, Kind.UNAVAILABLE, Kind.DEADLINE, Kind.INTERNAL)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refusals:
    """Turns errors into statuses, with an entry in the log."""

    rejections: RejectionLog

    async def record(
        self, caller: SpiffeId, method: str, error: KeyarkError, *, on_behalf_of: str = ""
    ) -> None:
        """Log the refusal of a call; that the service cannot do it now is no refusal.

        Where the log cannot be written the refusal is counted, and stays one: nothing happened that needed the log.
        """
        if error.kind in _NO_REFUSALS:
            return
        try:
            await self.rejections.record(
                caller=str(caller), method=method, error=error, on_behalf_of=on_behalf_of
            )
        except KeyarkError as failure:
            logger.error("a refusal of %s could not be logged: %s", method, failure.reason)  # noqa: TRY400

    async def status(self, method: str, error: BaseException, *, on_behalf_of: str = "") -> Status:
        """Log the refusal of an item and return its status; what is not a typed error tells only its id.

        ``on_behalf_of`` is the SPIFFE ID of the client whose statement it was, where that is known.
        """
        if not isinstance(error, KeyarkError):
            typed, error_id = internal_error()
            logger.error("%s: an item failed; error id %s", method, error_id, exc_info=error)
            return to_status(typed)
        await self.record(current_caller(), method, error, on_behalf_of=on_behalf_of)
        return to_status(error)
