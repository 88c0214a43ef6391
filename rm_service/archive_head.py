"""What RM and CM say of the DRM's log, for clients, who reach the RM only: one head that both accepted and cosigned."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from keyark.errors import InvalidInputError, NotFoundError, UnavailableError
from keyark.service.evidence import ArchiveEvidence
from keyark.service.witness import Witness
from keyark.transparency.checkpoint import Checkpoint, parse_checkpoint
from keyark.transparency.heads import CheckpointGapError
from keyark.v1.audit_pb2 import CheckpointLink, CosignCheckpointRequest, CosignCheckpointResponse
from keyark.v1.registration_pb2 import GetArchiveHeadResponse

ATTEMPTS: Final = 4
MAX_SIZES: Final = 16


@dataclass(kw_only=True)
class ArchiveHead:
    """Has the newest head that the RM accepted cosigned by the CM too; each head once, whoever asks."""

    witness: Witness
    cosign_at_cm: Callable[[CosignCheckpointRequest], Awaitable[CosignCheckpointResponse]]
    link: Callable[[int, int], Awaitable[CheckpointLink]]
    """Asks the DRM to prove that the tree of the second size leads on from that of the first."""
    _cosigned: bytes = field(default=b"", init=False)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    async def witnessed(self, tree_sizes: Sequence[int]) -> GetArchiveHeadResponse:
        """Return the newest head with both cosignatures, and what leads to it from trees of these sizes.

        Raises InvalidInputError, NotFoundError before the first head, LogInconsistentError, and TreeSizeError for a
        tree that the DRM does not have.
        """
        if len(tree_sizes) > MAX_SIZES or 0 in tree_sizes:
            raise InvalidInputError(f"Ask about up to {MAX_SIZES} trees, none empty.", field="tree_sizes")
        async with self._lock:
            note = await self._newest()
        size = parse_checkpoint(note).size
        return GetArchiveHeadResponse(
            checkpoint=note, links=[await self.link(*sorted((seen, size))) for seen in tree_sizes]
        )

    async def _newest(self) -> bytes:
        for _ in range(ATTEMPTS):
            own = await self.witness.cosign()  # durable from here on
            if not own:
                raise NotFoundError("The RM has not accepted any head of the DRM's log yet; enroll first.")
            head = parse_checkpoint(own)
            if self._cosigned and parse_checkpoint(self._cosigned) == head:
                return self._cosigned
            told = (await self.cosign_at_cm(CosignCheckpointRequest())).checkpoint
            accepted = parse_checkpoint(told) if told else Checkpoint(head.origin, 0, bytes(32))
            if accepted.size > head.size:  # agents brought the CM further
                links = [await self.link(head.size, accepted.size)]
                await self.witness.take(told, ArchiveEvidence(links=links))
            elif accepted != head:
                await self._bring_cm(own, accepted.size, head.size)
            else:
                self._cosigned = self.witness.sign(told)
                return self._cosigned
        raise UnavailableError("RM and CM did not come to the same head of the DRM's log; try again.")

    async def _bring_cm(self, note: bytes, first_size: int, second_size: int) -> None:
        link = await self.link(first_size, second_size)
        try:
            await self.cosign_at_cm(CosignCheckpointRequest(checkpoint=note, link=link))
        except CheckpointGapError:
            return  # it accepted another head meanwhile
