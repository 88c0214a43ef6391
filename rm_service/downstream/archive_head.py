"""What RM and CM say of the DRM's log, for clients, who reach the RM only: one head that both accepted and cosigned."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

from keyark.errors import InvalidInputError, NotFoundError, UnavailableError
from keyark.errors.services import CheckpointGapError
from keyark.identity.spiffe import SpiffeId
from keyark.service.witness.witness import Witness
from keyark.transparency.archival import ArchiveEvidence
from keyark.transparency.checkpoint import parse_checkpoint
from keyark.v1.audit_pb2 import CheckpointLink, CosignCheckpointRequest, CosignCheckpointResponse
from keyark.v1.registration_pb2 import GetArchiveHeadResponse

ATTEMPTS: Final = 4
MAX_SIZES: Final = 16


@dataclass(kw_only=True)
class ArchiveHead:
    """Has a new head that the RM accepted cosigned by the CM too; each head once, whoever asks.

    Of each caller one question is answered at a time, and all that wait for a head share the next one. So no caller's
    questions keep another's waiting, and few of them are under way at the DRM (P7).
    """

    witness: Witness
    cosign_at_cm: Callable[[CosignCheckpointRequest], Awaitable[CosignCheckpointResponse]]
    link: Callable[[int, int], Awaitable[CheckpointLink]]
    """Asks the DRM to prove that the tree of the second size leads on from that of the first."""
    _cosigned: bytes = field(default=b"", init=False)
    _lanes: WeakValueDictionary[SpiffeId, asyncio.Lock] = field(
        default_factory=WeakValueDictionary, init=False, repr=False
    )
    _under_way: asyncio.Task[bytes] | None = field(default=None, init=False, repr=False)
    _next: asyncio.Task[bytes] | None = field(default=None, init=False, repr=False)

    async def witnessed(self, caller: SpiffeId, tree_sizes: Sequence[int]) -> GetArchiveHeadResponse:
        """Return the newest head with both cosignatures, and what leads to it from trees of these sizes.

        Raises InvalidInputError, NotFoundError before the first head, LogInconsistentError, and TreeSizeError for a
        tree that the DRM does not have.
        """
        if len(tree_sizes) > MAX_SIZES or 0 in tree_sizes:
            raise InvalidInputError(
                f"Ask about at most {MAX_SIZES} trees, none of them empty.", field="tree_sizes"
            )
        async with self._lanes.setdefault(caller, asyncio.Lock()):
            note = await self._shared()
            size = parse_checkpoint(note).size
            links = {seen: await self.link(*sorted((seen, size))) for seen in dict.fromkeys(tree_sizes)}
        return GetArchiveHeadResponse(checkpoint=note, links=[links[seen] for seen in tree_sizes])

    async def _shared(self) -> bytes:
        """Return a head that was asked for after this began; who waits for the same one gets the same answer."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._under_way))
        task = self._next
        await asyncio.wait([task])
        return task.result()

    async def _after(self, earlier: asyncio.Task[bytes] | None) -> bytes:
        if earlier is not None:
            await asyncio.wait([earlier])
        self._under_way, self._next = self._next, None
        return await self._newest()

    async def _newest(self) -> bytes:
        """Return a head that RM and CM both accepted, not older than the RM's newest one of now.

        Both go on meanwhile, as fast as requests come: so any such head will do, be it no longer the newest.
        """
        oldest = 0
        for _ in range(ATTEMPTS):
            own = await self.witness.cosign()  # durable from here on
            if not own:
                raise NotFoundError("The RM has not accepted any head of the DRM's log yet; enroll first.")
            head = parse_checkpoint(own)
            oldest = oldest or head.size
            if self._cosigned and parse_checkpoint(self._cosigned) == head:
                return self._cosigned
            answer = await self.cosign_at_cm(CosignCheckpointRequest())
            told = answer.checkpoint
            followed = parse_checkpoint(told).size if told else answer.followed_size
            if told and followed >= oldest and (cosigned := await self.witness.cosign_accepted(told)):
                self._cosigned = cosigned
                return cosigned
            if told and followed > head.size:
                await self._take_from_cm(told, head.size)
            else:
                await self._bring_cm(own, followed, head.size)
        raise UnavailableError("RM and CM did not agree on a head of the DRM's log in time; try again.")

    async def _take_from_cm(self, note: bytes, own_size: int) -> None:
        """Accept a head that agents brought to the CM, or that an earlier run of the RM did not keep."""
        head = parse_checkpoint(note)
        links = [await self.link(own_size, head.size)]
        issuer = SpiffeId(head.origin.partition("/")[0], "cm")
        try:
            await self.witness.take(note, ArchiveEvidence(brought_by=str(issuer), links=links))
        except CheckpointGapError:
            return  # the RM accepted another head meanwhile

    async def _bring_cm(self, note: bytes, first_size: int, second_size: int) -> None:
        link = await self.link(*sorted((first_size, second_size)))
        try:
            await self.cosign_at_cm(CosignCheckpointRequest(checkpoint=note, link=link))
        except CheckpointGapError:
            return  # it accepted another head meanwhile
