"""The RM's way to the CM: pairs issued in batches, with the evidence that their keys are archived."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from keyark.errors import KeyarkError, UnavailableError
from keyark.rpc.channels import call
from keyark.rpc.errors import from_status
from keyark.transparency.heads import CheckpointGapError
from keyark.v1 import certificates_pb2
from keyark.v1.audit_pb2 import CheckpointLink
from keyark.v1.common_pb2 import CertificatePair, TransportCertificate
from keyark.workers.coalescing import Coalescer
from rm_service.enrollment import EnrollmentRequest

if TYPE_CHECKING:
    from keyark.v1.certificates_pb2_grpc import CertificateServiceAsyncStub

BATCH_SECONDS: Final = 30.0
GAP_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class IssueItem:
    """A pair on its way to be issued."""

    request: EnrollmentRequest
    receipt: bytes


class IssuerClient:
    """Has pairs issued; follows which tree of the DRM's log the CM accepted last."""

    def __init__(
        self,
        *,
        issuer: CertificateServiceAsyncStub,
        links_from: Callable[[int], Awaitable[list[CheckpointLink]]],
        transport_certificates: Callable[[], Awaitable[Sequence[TransportCertificate]]],
        max_waiting: int,
    ) -> None:
        self._issuer = issuer
        self._links_from = links_from
        self._transport_certificates = transport_certificates
        self._tree_size = 0
        self.batches: Coalescer[IssueItem, CertificatePair] = Coalescer(
            self._send, weigh=_weigh, max_waiting=max_waiting, batch_seconds=BATCH_SECONDS
        )

    async def issue(self, request: EnrollmentRequest, receipt: bytes) -> CertificatePair:
        """Return both certificates of one request; it travels with whatever else is waiting."""
        return await self.batches.submit(IssueItem(request, receipt))

    async def _send(self, items: Sequence[IssueItem]) -> Sequence[CertificatePair | KeyarkError]:
        for _ in range(GAP_ATTEMPTS):
            try:
                response = await self._issue(items)
            except CheckpointGapError as gap:
                self._tree_size = int(gap.metadata["tree_size"])
                continue
            self._tree_size = max(self._tree_size, response.drm_tree_size)
            outcomes = [_outcome(outcome) for outcome in response.outcomes]
            if len(outcomes) != len(items):
                raise UnavailableError(
                    "The CM answered another number of outcomes than it was sent; try again."
                )
            return outcomes
        raise UnavailableError("The CM could not follow the DRM's log; try again.")

    async def _issue(self, items: Sequence[IssueItem]) -> certificates_pb2.IssueCertificatePairsResponse:
        message = certificates_pb2.IssueCertificatePairsRequest(
            items=[
                certificates_pb2.PairRequest(
                    statement=item.request.statement, signature=item.request.signature, receipt=item.receipt
                )
                for item in items
            ],
            links=await self._links_from(self._tree_size),
            transport_certificates=await self._transport_certificates(),
        )
        return await call(self._issuer.IssueCertificatePairs, message, timeout=BATCH_SECONDS)


def _weigh(item: IssueItem) -> int:
    return len(item.request.statement) + len(item.request.signature) + len(item.receipt)


def _outcome(outcome: certificates_pb2.PairOutcome) -> CertificatePair | KeyarkError:
    return from_status(outcome.error) if outcome.HasField("error") else outcome.pair
