"""The DRM's gRPC face: translates, calls archival and linking, translates back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from google.rpc.status_pb2 import Status
from grpc.aio import ServicerContext

from drm_service.archival.linking import CertificateLinks, LinkRequest
from drm_service.archival.steps import ArchiveRequest, KeyArchive, SigningKeyRequest
from drm_service.ceremonies.trust_changes import newest_change, read_trust_changes
from drm_service.transport.keys import TransportKeys
from keyark.errors import KeyarkError
from keyark.rpc.serving.outcomes import Refusals
from keyark.service.checks.callers import named_calls
from keyark.service.checks.requests import check_batch_size
from keyark.store import Store
from keyark.transparency.log import Log
from keyark.v1 import archive_pb2 as pb
from keyark.v1.archive_pb2_grpc import KeyArchiveServiceServicer, TransportKeyServiceServicer

Context = ServicerContext[Any, Any]

ARCHIVE: Final = "/keyark.v1.KeyArchiveService/ArchiveKeys"
RESERVE: Final = "/keyark.v1.KeyArchiveService/ReserveSigningKeys"
LINK: Final = "/keyark.v1.KeyArchiveService/LinkCertificates"

ALLOWED: Final = {
    "/keyark.v1.KeyArchiveService/GetTransportCertificate": {"rm"},
    ARCHIVE: {"rm"},
    RESERVE: {"rm"},
    LINK: {"rm"},
    "/keyark.v1.KeyArchiveService/ListTrustChanges": {"rm"},
    "/keyark.v1.TransportKeyService/ListTransportKeyChanges": {"rm", "cm", "agent", "auditor"},
}


class KeyArchiveServicer(KeyArchiveServiceServicer):
    """For the Registration Manager."""

    def __init__(
        self,
        *,
        archive: KeyArchive,
        links: CertificateLinks,
        transport_keys: TransportKeys,
        refusals: Refusals,
        store: Store,
        log: Log,
    ) -> None:
        self._archive = archive
        self._links = links
        self._transport_keys = transport_keys
        self._refusals = refusals
        self._store = store
        self._log = log

    async def GetTransportCertificate(
        self, request: pb.GetTransportCertificateRequest, context: Context
    ) -> pb.GetTransportCertificateResponse:
        """The newest transport certificate."""
        return pb.GetTransportCertificateResponse(
            transport_certificate=self._transport_keys.offered,
            storage_key_id=self._archive.storage_keys.active_id,
        )

    async def ArchiveKeys(self, request: pb.ArchiveKeysRequest, context: Context) -> pb.ArchiveKeysResponse:
        """Step 4, archive."""
        check_batch_size(len(request.items))
        calls = named_calls(request.calls, [item.call for item in request.items])
        requests = [
            ArchiveRequest(
                statement=item.statement,
                signature=item.signature,
                wrapped_private_key=item.wrapped_private_key,
                call=call,
                approval=item.approval if item.HasField("approval") else None,
            )
            for item, call in zip(request.items, calls, strict=True)
        ]
        batch = await self._archive.archive_keys(requests, known_tree_size=request.known_tree_size)
        errors = [outcome if isinstance(outcome, KeyarkError) else None for outcome in batch.outcomes]
        statuses = await self._refused(ARCHIVE, requests, errors)
        outcomes = [
            pb.ArchiveOutcome(receipt=outcome)
            if isinstance(outcome, bytes)
            else pb.ArchiveOutcome(error=status)
            for outcome, status in zip(batch.outcomes, statuses, strict=True)
        ]
        return pb.ArchiveKeysResponse(
            outcomes=outcomes, link=batch.link, newest_change=self._store.read(newest_change)
        )

    async def _refused(
        self,
        method: str,
        requests: Sequence[ArchiveRequest | SigningKeyRequest],
        errors: Sequence[KeyarkError | None],
    ) -> list[Status]:
        senders = [request.sender for request in requests]
        return await self._refusals.statuses(method, errors, senders=senders)

    async def ReserveSigningKeys(
        self, request: pb.ReserveSigningKeysRequest, context: Context
    ) -> pb.ReserveSigningKeysResponse:
        """Step 4 of enrollments that archive nothing."""
        check_batch_size(len(request.items))
        calls = named_calls(request.calls, [item.call for item in request.items])
        requests = [
            SigningKeyRequest(
                statement=item.statement,
                signature=item.signature,
                call=call,
                approval=item.approval if item.HasField("approval") else None,
            )
            for item, call in zip(request.items, calls, strict=True)
        ]
        outcomes = await self._archive.reserve_signing_keys(requests)
        statuses = await self._refused(RESERVE, requests, outcomes)
        return pb.ReserveSigningKeysResponse(outcomes=statuses)

    async def LinkCertificates(
        self, request: pb.LinkCertificatesRequest, context: Context
    ) -> pb.LinkCertificatesResponse:
        """Step 6, deliver: what belongs to which key."""
        check_batch_size(len(request.items))
        requests = [
            LinkRequest(
                enrollment_id=item.enrollment_id,
                certificate=item.certificate,
                approval=item.approval if item.HasField("approval") else None,
            )
            for item in request.items
        ]
        outcomes = await self._links.link_certificates(requests)
        statuses = await self._refusals.statuses(LINK, outcomes)
        return pb.LinkCertificatesResponse(outcomes=statuses)

    async def ListTrustChanges(
        self, request: pb.ListTrustChangesRequest, context: Context
    ) -> pb.ListTrustChangesResponse:
        """What changed storage keys or agents, each with the word of its quorum."""
        changes = self._store.read(lambda txn: read_trust_changes(txn, known=request.newest_change))
        if not changes:
            return pb.ListTrustChangesResponse()
        head = await self._log.checkpoint()
        for change, index in changes:
            change.opening_proof = self._log.prove(self._log.entry(index), index, head)
        link = self._log.link(request.known_tree_size, head)
        return pb.ListTrustChangesResponse(changes=[change for change, _ in changes], link=link)


class TransportKeyServicer(TransportKeyServiceServicer):
    """For everyone who verifies the DRM's heads."""

    def __init__(self, transport_keys: TransportKeys) -> None:
        self._transport_keys = transport_keys

    async def ListTransportKeyChanges(
        self, request: pb.ListTransportKeyChangesRequest, context: Context
    ) -> pb.ListTransportKeyChangesResponse:
        """The newest certificate, and how the keys changed."""
        return pb.ListTransportKeyChangesResponse(
            transport_certificate=self._transport_keys.offered,
            changes=self._transport_keys.changes(request.known_key_id, tree_size=request.known_tree_size),
        )
