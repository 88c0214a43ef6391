"""AuditService, as every subsystem serves it for its own log."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Protocol

from grpc.aio import ServicerContext

from keyark.clock import Clock
from keyark.errors import InvalidInputError, NotFoundError
from keyark.identity.spiffe import SpiffeId
from keyark.rpc.serving.guard import current_caller
from keyark.transparency.archival import ArchiveEvidence
from keyark.transparency.heads import AcceptedHeads
from keyark.transparency.log import Log
from keyark.transparency.receipts import format_proof
from keyark.v1 import audit_pb2 as pb
from keyark.v1.audit_pb2_grpc import AuditServiceServicer

Context = ServicerContext[Any, Any]
DEFAULT_PAGE = 100
LARGEST_PAGE = 1000

Discloses = Callable[[SpiffeId], Collection[int]]
"""Says the entries of which types (EventType) a reader sees with their details; policy answers it."""


class Witness(Protocol):
    """What accepts and cosigns heads of the DRM's log."""

    @property
    def heads(self) -> AcceptedHeads:
        """What was accepted."""

    async def accept_head_from(self, caller: SpiffeId, note: bytes, evidence: ArchiveEvidence) -> None:
        """Accept a signed head that leads on, if the caller may bring one; raises where it does not."""

    @property
    def newest_change(self) -> bytes:
        """The id of the newest change of agents or storage keys that is believed; empty before the first."""

    @property
    def transport_key_id(self) -> bytes:
        """The id (32 bytes) of the newest transport key that is known; empty before the first."""

    async def cosign(self) -> bytes:
        """Return the newest accepted head, cosigned; empty before the first."""


class AuditServicer(AuditServiceServicer):
    """Reads one log."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        witness: Witness | None,
        *,
        waits_for: Callable[[], str],
        discloses: Discloses,
    ) -> None:
        """Take the log to read, and what follows the DRM's log in this subsystem.

        ``waits_for`` tells why the subsystem stands still, ``discloses`` whose details a caller sees.
        """
        self._log, self._clock, self._witness = log, clock, witness
        self._waits_for, self._discloses = waits_for, discloses
        self._follows = witness.heads if witness is not None else None

    async def GetCheckpoint(
        self, request: pb.GetCheckpointRequest, context: Context
    ) -> pb.GetCheckpointResponse:
        """The newest committed tree head, signed; the clock; what was accepted of the DRM's log, and an alarm."""
        head = await self._log.checkpoint()
        response = pb.GetCheckpointResponse(
            checkpoint=head.note,
            public_key=self._log.public_key_der,
            time_us=self._clock.now_us(),
            waits_for=self._waits_for(),
        )
        if self._follows is not None:
            response.alarm = self._follows.alarm.message
            if response.alarm:
                response.contradiction.CopyFrom(self._follows.alarm.contradiction)
            response.followed_size, response.followed_root = self._follows.size, self._follows.root
        return response

    async def GetConsistencyProof(
        self, request: pb.GetConsistencyProofRequest, context: Context
    ) -> pb.GetConsistencyProofResponse:
        """A proof that one tree is a prefix of another."""
        link = self._log.link_sizes(request.first_size, request.second_size or self._log.size)
        return pb.GetConsistencyProofResponse(link=link)

    async def GetInclusionProof(
        self, request: pb.GetInclusionProofRequest, context: Context
    ) -> pb.GetInclusionProofResponse:
        """A tlog-proof file for one leaf, with its details where the caller may see them."""
        head = await self._log.checkpoint()
        event = self._log.entry(request.index)
        withheld = _withhold(event, self._discloses(current_caller()))
        proof = self._log.inclusion_proof(request.index, head)
        file = format_proof(
            extra=event.SerializeToString(), index=request.index, proof=proof, checkpoint=head.note
        )
        return pb.GetInclusionProofResponse(proof=file, details_withheld=withheld)

    async def CosignCheckpoint(
        self, request: pb.CosignCheckpointRequest, context: Context
    ) -> pb.CosignCheckpointResponse:
        """The newest accepted head of the DRM's log, cosigned, once one that came along was accepted."""
        if self._witness is None:
            raise NotFoundError(
                "The DRM cosigns no checkpoints, since it follows no other log; ask the RM or the CM."
            )
        if request.checkpoint or request.trust_changes:
            caller = current_caller()
            evidence = ArchiveEvidence(
                brought_by=str(caller),
                links=[request.link],
                transport_certificates=request.transport_certificates,
                transport_key_changes=request.transport_key_changes,
                trust_changes=request.trust_changes,
            )
            await self._witness.accept_head_from(caller, request.checkpoint, evidence)
        checkpoint = await self._witness.cosign()
        return pb.CosignCheckpointResponse(
            checkpoint=checkpoint,
            newest_change=self._witness.newest_change,
            followed_size=self._witness.heads.size,
            followed_root=self._witness.heads.root,
            transport_key_id=self._witness.transport_key_id,
        )

    async def ListEntries(self, request: pb.ListEntriesRequest, context: Context) -> pb.ListEntriesResponse:
        """The leaves in the order of the log, with the details that the caller may see.

        A page token is the index of the first leaf.
        """
        token = request.page.page_token
        if token and not (token.isascii() and token.isdigit() and len(token) < 20):
            raise InvalidInputError(
                "The page token does not come from this service.", field="page.page_token"
            )
        first, limit = int(token or 0), min(request.page.page_size or DEFAULT_PAGE, LARGEST_PAGE)
        entries = await self._log.entries(after=first - 1, limit=limit)
        shown = self._discloses(current_caller())
        for entry in entries:
            entry.details_withheld = _withhold(entry.event, shown)
        following = first + len(entries)
        more = len(entries) == limit and following < self._log.size
        return pb.ListEntriesResponse(entries=entries, next_page_token=str(following) if more else "")


def _withhold(event: pb.LoggedEvent, shown: Collection[int]) -> bool:
    """Take salt and details out of an entry of a type that is not shown; says whether there were any."""
    if not event.salt or pb.AuditEvent.FromString(event.leaf).type in shown:
        return False
    event.ClearField("salt")  # with it, anybody could try who is meant
    event.ClearField("details")
    return True
