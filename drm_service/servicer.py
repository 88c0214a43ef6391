"""The DRM's gRPC face: translates, calls archival and linking, translates back."""

from __future__ import annotations

from typing import Any, Final

from google.rpc.status_pb2 import Status
from grpc.aio import ServicerContext

from drm_service.archival import ArchiveRequest, KeyArchive
from drm_service.linking import CertificateLinks, LinkRequest
from drm_service.records import KEYS, describe, find_by_key_id
from keyark.errors import KeyarkError
from keyark.records.v1.drm_pb2 import ArchivedKeyRecord
from keyark.rpc.outcomes import Refusals
from keyark.service.paging import page_of
from keyark.service.requests import check_batch_size
from keyark.store import Store
from keyark.v1 import archive_pb2 as pb
from keyark.v1 import recovery_pb2
from keyark.v1.archive_pb2_grpc import KeyArchiveServiceServicer
from keyark.v1.common_pb2 import TransportCertificate
from keyark.v1.recovery_pb2_grpc import KeyRecoveryServiceServicer

Context = ServicerContext[Any, Any]

ARCHIVE: Final = "/keyark.v1.KeyArchiveService/ArchiveKeys"
LINK: Final = "/keyark.v1.KeyArchiveService/LinkCertificates"

ALLOWED: Final = {
    "/keyark.v1.KeyArchiveService/GetTransportCertificate": {"rm"},
    ARCHIVE: {"rm"},
    LINK: {"rm"},
    "/keyark.v1.KeyRecoveryService/ListKeys": {"agent"},
    "/keyark.v1.KeyRecoveryService/GetKey": {"agent"},
}


class KeyArchiveServicer(KeyArchiveServiceServicer):
    """For the Registration Manager."""

    def __init__(
        self,
        *,
        archive: KeyArchive,
        links: CertificateLinks,
        transport_certificate: TransportCertificate,
        refusals: Refusals,
    ) -> None:
        self._archive = archive
        self._links = links
        self._transport_certificate = transport_certificate
        self._refusals = refusals

    async def GetTransportCertificate(
        self, request: pb.GetTransportCertificateRequest, context: Context
    ) -> pb.GetTransportCertificateResponse:
        """The newest transport certificate."""
        return pb.GetTransportCertificateResponse(
            transport_certificate=self._transport_certificate,
            storage_key_id=self._archive.storage_keys.active_id,
        )

    async def ArchiveKeys(self, request: pb.ArchiveKeysRequest, context: Context) -> pb.ArchiveKeysResponse:
        """Step 4, archive."""
        check_batch_size(len(request.items))
        requests = [
            ArchiveRequest(
                statement=item.statement,
                signature=item.signature,
                wrapped_private_key=item.wrapped_private_key,
            )
            for item in request.items
        ]
        batch = await self._archive.archive_keys(requests, known_tree_size=request.known_tree_size)
        outcomes = [
            pb.ArchiveOutcome(error=await self._refusals.status(ARCHIVE, outcome))
            if isinstance(outcome, KeyarkError)
            else pb.ArchiveOutcome(receipt=outcome)
            for outcome in batch.outcomes
        ]
        return pb.ArchiveKeysResponse(outcomes=outcomes, link=batch.link)

    async def LinkCertificates(
        self, request: pb.LinkCertificatesRequest, context: Context
    ) -> pb.LinkCertificatesResponse:
        """Step 6, deliver: what belongs to which key."""
        check_batch_size(len(request.items))
        requests = [
            LinkRequest(enrollment_id=item.enrollment_id, certificate=item.certificate)
            for item in request.items
        ]
        outcomes = await self._links.link_certificates(requests)
        statuses = [
            Status() if outcome is None else await self._refusals.status(LINK, outcome)
            for outcome in outcomes
        ]
        return pb.LinkCertificatesResponse(outcomes=statuses)


class KeyRecoveryServicer(KeyRecoveryServiceServicer):
    """For recovery agents; no method returns key material."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def ListKeys(
        self, request: recovery_pb2.ListKeysRequest, context: Context
    ) -> recovery_pb2.ListKeysResponse:
        """The archived keys, oldest first."""
        page = page_of(request.page)
        rows = await self._store.view(lambda txn: txn.scan(KEYS, after=page.after, limit=page.limit))
        return recovery_pb2.ListKeysResponse(
            keys=[describe(ArchivedKeyRecord.FromString(value)) for _, value in rows],
            next_page_token=page.next_token(rows),
        )

    async def GetKey(
        self, request: recovery_pb2.GetKeyRequest, context: Context
    ) -> recovery_pb2.GetKeyResponse:
        """One archived key by its key id."""
        record = self._store.read(lambda txn: find_by_key_id(txn, request.key_id))
        return recovery_pb2.GetKeyResponse(key=describe(record))
