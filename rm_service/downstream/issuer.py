"""The RM's way to the CM: pairs issued in batches, with the evidence that their keys are archived."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from keyark.errors import KeyarkError, Kind, UnavailableError
from keyark.errors.services import CheckpointGapError, UnknownStorageKeyError
from keyark.rpc.calling.channels import call
from keyark.rpc.calling.coalescing import Coalescer
from keyark.rpc.errors import error_from_status
from keyark.statements.enrollment import Statement
from keyark.transparency.archival import MAX_CHANGES
from keyark.transparency.checkpoint import CheckpointSignatureError
from keyark.transparency.transport_keys import KNOWN_KEY
from keyark.v1 import certificates_pb2
from keyark.v1.archive_pb2 import ListTransportKeyChangesResponse
from keyark.v1.audit_pb2 import (
    CheckpointLink,
    CosignCheckpointRequest,
    CosignCheckpointResponse,
    TransportKeyChange,
)
from keyark.v1.ceremony_pb2 import CeremonyProof
from keyark.v1.common_pb2 import CertificatePair, TransportCertificate
from rm_service.requests import WEIGHT, BatchCalls, EnrollmentRequest

if TYPE_CHECKING:
    from keyark.v1.certificates_pb2_grpc import CertificateServiceAsyncStub

logger = logging.getLogger(__name__)

BATCH_SECONDS: Final = 30.0
GAP_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class IssueItem:
    """A pair on its way to be issued."""

    request: EnrollmentRequest
    receipt: bytes


@dataclass(frozen=True)
class Followed:
    """What the CM said last that it follows: the DRM's tree, change of agents or storage keys, and transport key."""

    tree_size: int
    newest_change: bytes
    transport_key_id: bytes


class TransportKeySource(Protocol):
    """Where changes of the transport key come from."""

    async def __call__(self, *, known: bytes, tree_size: int) -> ListTransportKeyChangesResponse:
        """Return the changes after a known key (id: 32 bytes), for a reader that follows a tree of a size."""


@dataclass(frozen=True, kw_only=True)
class EvidenceSource:
    """Where the RM takes from what the CM lacks, so that it can follow the DRM."""

    links_from: Callable[[int], Awaitable[list[CheckpointLink]]]
    transport_certificate: Callable[[], Awaitable[TransportCertificate]]
    transport_keys: TransportKeySource
    transport_key_id: Callable[[], bytes]
    trust_changes: Callable[[bytes], Awaitable[Sequence[CeremonyProof]]]
    newest_change: Callable[[], bytes]


class IssuerClient:
    """Has pairs issued; knows what the CM follows of the DRM, so that each batch brings what it lacks."""

    def __init__(
        self,
        *,
        issuer: CertificateServiceAsyncStub,
        cosign: Callable[[CosignCheckpointRequest], Awaitable[CosignCheckpointResponse]],
        evidence: EvidenceSource,
        max_waiting: int,
    ) -> None:
        self._issuer, self._cosign = issuer, cosign
        self._evidence = evidence
        self._refused_change: bytes | None = None
        self._followed: Followed | None = None
        self.batches: Coalescer[IssueItem, CertificatePair] = Coalescer(
            self._send, weigh=_weigh, max_waiting=max_waiting, batch_seconds=BATCH_SECONDS
        )

    async def issue(
        self, statement: Statement, request: EnrollmentRequest, receipt: bytes
    ) -> CertificatePair:
        """Return both certificates of one request; it travels with whatever else is waiting."""
        return await self.batches.submit(IssueItem(request, receipt), caller=str(statement.caller))

    async def cosign_at_cm(self, request: CosignCheckpointRequest) -> CosignCheckpointResponse:
        """Have the CM accept a head of the DRM's log, and cosign the newest; it says what it follows then."""
        answer = await self._cosign(request)
        self._followed = _followed(answer)
        return answer

    async def _known_followed(self) -> Followed:
        """Return what the CM follows, as it said last; after the RM's own start it is asked."""
        if self._followed is None:
            self._followed = _followed(await self._cosign(CosignCheckpointRequest()))
        return self._followed

    async def _send(self, items: Sequence[IssueItem]) -> Sequence[CertificatePair | KeyarkError]:
        """Have a batch issued; items for which the CM lacks evidence go again with it.

        What it may lack: links of the DRM's log, the DRM's newest transport key, a storage key.
        """
        response = await self._issue_with_changes(items)
        outcomes = _outcomes(items, response)
        await self._close_gaps(items, outcomes)
        if strange := _positions(outcomes, CheckpointSignatureError):
            known = bytes.fromhex(_metadata(outcomes[strange[0]]).get(KNOWN_KEY, ""))
            await self._issue_again(items, outcomes, strange, known_transport_key=known)
        strange = _positions(outcomes, UnknownStorageKeyError)
        if strange and (changes := await self._evidence.trust_changes(response.newest_change)):
            await self._issue_again(items, outcomes, strange, trust_changes=changes[:MAX_CHANGES])
        return outcomes

    async def _issue_with_changes(
        self, items: Sequence[IssueItem]
    ) -> certificates_pb2.IssueCertificatePairsResponse:
        """Send a batch, with the changes of agents and storage keys that the CM does not know yet.

        The CM has to hear of them while those who approved are not revoked. One that it does not believe stops nothing.
        """
        newest, known = self._evidence.newest_change(), (await self._known_followed()).newest_change
        if newest in (known, self._refused_change):
            return await self._issue(items)
        try:
            changes = await self._evidence.trust_changes(known)
            return await self._issue(items, trust_changes=changes[:MAX_CHANGES])
        except KeyarkError as error:
            if error.kind is not Kind.PRECONDITION:
                raise
            logger.warning(
                "the CM refused a change of storage keys or agents: %s (%s)",
                error.message,
                error.reason,
            )
        self._refused_change = newest
        return await self._issue(items)

    async def _close_gaps(
        self, items: Sequence[IssueItem], outcomes: list[CertificatePair | KeyarkError]
    ) -> None:
        """Send items again whose receipts the links did not reach, now with links from the tree that the CM told.

        A CM that restarted may have lost trees that it had told of: it keeps those only that its rows rely on.
        """
        for _ in range(GAP_ATTEMPTS):
            if not (behind := _positions(outcomes, CheckpointGapError)):
                return
            await self._issue_again(items, outcomes, behind)
        for position in _positions(outcomes, CheckpointGapError):
            outcomes[position] = _cannot_follow()

    async def _issue_again(
        self,
        items: Sequence[IssueItem],
        outcomes: list[CertificatePair | KeyarkError],
        positions: Sequence[int],
        **evidence: Any,
    ) -> None:
        """Send some items of a batch again, with more evidence, and put their outcomes in place."""
        again = [items[position] for position in positions]
        results = _outcomes(again, await self._issue(again, **evidence))
        for position, result in zip(positions, results, strict=True):
            outcomes[position] = result

    async def _issue(
        self,
        items: Sequence[IssueItem],
        *,
        trust_changes: Sequence[CeremonyProof] = (),
        known_transport_key: bytes = b"",
    ) -> certificates_pb2.IssueCertificatePairsResponse:
        """Make the call; where the CM accepted another tree last than it said, with the links that it lacks."""
        gathered = BatchCalls.gather(item.request.call for item in items)
        followed = await self._known_followed()
        for _ in range(GAP_ATTEMPTS):
            certificate = await self._evidence.transport_certificate()
            changes = await self._key_changes(followed, known_transport_key)
            message = certificates_pb2.IssueCertificatePairsRequest(
                items=[
                    certificates_pb2.PairRequest(
                        statement=item.request.statement,
                        signature=item.request.signature,
                        receipt=item.receipt,
                        approval=item.request.approval,
                        call=place,
                    )
                    for item, place in zip(items, gathered.places, strict=True)
                ],
                calls=gathered.calls,
                links=await self._evidence.links_from(followed.tree_size),
                transport_certificates=[certificate],
                trust_changes=trust_changes,
                transport_key_changes=changes,
            )
            try:
                response = await call(self._issuer.IssueCertificatePairs, message, timeout=BATCH_SECONDS)
            except CheckpointGapError as gap:
                followed = self._followed = replace(followed, tree_size=gap.tree_size)
                continue
            # the CM's word, also where its tree is smaller than before
            self._followed = Followed(
                response.drm_tree_size, response.newest_change, response.transport_key_id
            )
            return response
        raise _cannot_follow()

    async def _key_changes(self, followed: Followed, known: bytes) -> Sequence[TransportKeyChange]:
        """Return how the transport key changed since the one of id ``known``, or since the newest that the CM knows."""
        if not known and followed.transport_key_id not in (b"", self._evidence.transport_key_id()):
            known = followed.transport_key_id
        if not known:
            return ()
        return (await self._evidence.transport_keys(known=known, tree_size=followed.tree_size)).changes


def _followed(answer: CosignCheckpointResponse) -> Followed:
    return Followed(answer.followed_size, answer.newest_change, answer.transport_key_id)


def _cannot_follow() -> UnavailableError:
    return UnavailableError("The CM could not follow the DRM's log; try again.")


def _positions(outcomes: Sequence[CertificatePair | KeyarkError], kind: type[KeyarkError]) -> list[int]:
    return [position for position, outcome in enumerate(outcomes) if isinstance(outcome, kind)]


def _metadata(outcome: CertificatePair | KeyarkError) -> Mapping[str, str]:
    return outcome.metadata if isinstance(outcome, KeyarkError) else {}


def _weigh(item: IssueItem) -> int:
    return len(item.request.statement) + len(item.request.signature) + len(item.receipt) + WEIGHT


def _outcomes(
    items: Sequence[IssueItem], response: certificates_pb2.IssueCertificatePairsResponse
) -> list[CertificatePair | KeyarkError]:
    if len(response.outcomes) != len(items):
        raise UnavailableError("The CM sent a different number of outcomes than requests; try again.")
    return [_outcome(outcome) for outcome in response.outcomes]


def _outcome(outcome: certificates_pb2.PairOutcome) -> CertificatePair | KeyarkError:
    return error_from_status(outcome.error) if outcome.HasField("error") else outcome.pair
