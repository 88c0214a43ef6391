"""The CM's gRPC face: translates, calls issuance, translates back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from grpc.aio import ServicerContext

from cm_service.certificates.search import search
from cm_service.issuance.refusals import find_refusal
from cm_service.issuance.steps import Issuance, PairRequest
from cm_service.public.crls import AllCrls
from cm_service.records import find_certificate
from cm_service.revocation.steps import Revocations
from keyark.clock import Clock
from keyark.errors import InvalidInputError, KeyarkError
from keyark.identity.spiffe import PERSON_ROLES, SERVICE_ROLES
from keyark.rpc.serving.outcomes import Refusals
from keyark.rpc.serving.server import current_caller
from keyark.service.checks.callers import named_calls
from keyark.service.checks.requests import check_batch_size
from keyark.service.paging import page_of
from keyark.sizes import ENROLLMENT_ID_SIZE
from keyark.statements.revocations import CrlsNotConfiguredError
from keyark.store import Store
from keyark.transparency.archival import ArchiveEvidence
from keyark.v1 import certificates_pb2 as pb
from keyark.v1.certificates_pb2_grpc import (
    CertificateAdminServiceServicer,
    CertificateServiceServicer,
    CertificateStatusServiceServicer,
)
from keyark.v1.common_pb2 import CertificatePair

Context = ServicerContext[Any, Any]

ISSUE: Final = "/keyark.v1.CertificateService/IssueCertificatePairs"

ADMIN_METHODS: Final = (
    "ListCertificates",
    "GetCertificate",
    "RevokeCertificates",
    "HoldCertificates",
    "ReleaseCertificates",
    "PublishCrls",
    "GetRefusal",
)
ANYONE: Final = {*SERVICE_ROLES, *PERSON_ROLES}
ALLOWED: Final = {
    "/keyark.v1.CertificateService/GetIssuer": {"rm"},
    ISSUE: {"rm"},
    "/keyark.v1.CertificateStatusService/GetCertificateStatus": ANYONE,
    "/keyark.v1.CertificateStatusService/RevokeOwnCertificates": ANYONE,  # what counts is the key's signature
    **{f"/keyark.v1.CertificateAdminService/{method}": {"officer"} for method in ADMIN_METHODS},
}


class CertificateServicer(CertificateServiceServicer):
    """For the Registration Manager."""

    def __init__(self, issuance: Issuance, refusals: Refusals) -> None:
        self._issuance = issuance
        self._refusals = refusals

    async def GetIssuer(self, request: pb.GetIssuerRequest, context: Context) -> pb.GetIssuerResponse:
        """The issuing CA and its profiles."""
        profiles = [profile.to_proto(name) for name, profile in self._issuance.profiles.items()]
        return pb.GetIssuerResponse(chain=self._issuance.chain, profiles=profiles)

    async def IssueCertificatePairs(
        self, request: pb.IssueCertificatePairsRequest, context: Context
    ) -> pb.IssueCertificatePairsResponse:
        """Step 5, issue."""
        check_batch_size(len(request.items))
        calls = named_calls(request.calls, [item.call for item in request.items])
        requests = [
            PairRequest(
                statement=item.statement,
                signature=item.signature,
                receipt=item.receipt,
                call=call,
                approval=item.approval if item.HasField("approval") else None,
            )
            for item, call in zip(request.items, calls, strict=True)
        ]
        evidence = ArchiveEvidence(
            brought_by=str(current_caller()),
            links=request.links,
            transport_certificates=request.transport_certificates,
            transport_key_changes=request.transport_key_changes,
            trust_changes=request.trust_changes,
        )
        outcomes = await self._issuance.issue_pairs(requests, evidence)
        return pb.IssueCertificatePairsResponse(
            outcomes=await self._outcomes(requests, outcomes),
            drm_tree_size=self._issuance.receipts.heads.size,
            newest_change=self._issuance.receipts.storage_keys.newest_change,
            transport_key_id=self._issuance.receipts.keys.newest_id,
        )

    async def _outcomes(
        self, requests: Sequence[PairRequest], outcomes: Sequence[CertificatePair | KeyarkError]
    ) -> list[pb.PairOutcome]:
        errors = [outcome if isinstance(outcome, KeyarkError) else None for outcome in outcomes]
        senders = [request.sender for request in requests]
        statuses = await self._refusals.statuses(ISSUE, errors, senders=senders)
        return [
            pb.PairOutcome(error=status) if isinstance(outcome, KeyarkError) else pb.PairOutcome(pair=outcome)
            for outcome, status in zip(outcomes, statuses, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class CertificateStatusServicer(CertificateStatusServiceServicer):
    """For anyone with a certificate of the deployment."""

    store: Store
    clock: Clock
    revocations: Revocations

    async def GetCertificateStatus(
        self, request: pb.GetCertificateStatusRequest, context: Context
    ) -> pb.GetCertificateStatusResponse:
        """Whether a certificate is in force."""
        now = self.clock.now_us() // 1_000_000
        found = self.store.read(lambda txn: find_certificate(txn, request.serial, now))
        return pb.GetCertificateStatusResponse(
            state=found.state,
            revocation_reason=found.revocation_reason,
            revocation_time=found.revocation_time,
            invalidity_time=found.invalidity_time,
        )

    async def RevokeOwnCertificates(
        self, request: pb.RevokeOwnCertificatesRequest, context: Context
    ) -> pb.RevokeOwnCertificatesResponse:
        """Revocation by the holder of the signing key."""
        revoked = await self.revocations.revoke_own(
            request.statement, signature=request.signature, caller=str(current_caller())
        )
        return pb.RevokeOwnCertificatesResponse(certificates=revoked)


@dataclass(frozen=True, kw_only=True)
class CertificateAdminServicer(CertificateAdminServiceServicer):
    """For registration officers."""

    store: Store
    clock: Clock
    revocations: Revocations
    crls: AllCrls | None

    async def ListCertificates(
        self, request: pb.ListCertificatesRequest, context: Context
    ) -> pb.ListCertificatesResponse:
        """What has been issued and matches; a page counts pairs."""
        page, now = page_of(request.page, query=request.filter), self.clock.now_us() // 1_000_000
        found = await self.store.view(lambda txn: search(txn, request.filter, page, now))
        return pb.ListCertificatesResponse(certificates=found.certificates, next_page_token=found.next_token)

    async def GetCertificate(
        self, request: pb.GetCertificateRequest, context: Context
    ) -> pb.GetCertificateResponse:
        """One certificate by its serial number."""
        now = self.clock.now_us() // 1_000_000
        found = self.store.read(lambda txn: find_certificate(txn, request.serial, now))
        return pb.GetCertificateResponse(certificate=found)

    async def RevokeCertificates(
        self, request: pb.RevokeCertificatesRequest, context: Context
    ) -> pb.RevokeCertificatesResponse:
        """Revoke for good."""
        revoked = await self.revocations.revoke(
            request.serials,
            caller=str(current_caller()),
            reason=request.reason,
            invalidity_time=request.invalidity_time,
        )
        return pb.RevokeCertificatesResponse(certificates=revoked)

    async def HoldCertificates(
        self, request: pb.HoldCertificatesRequest, context: Context
    ) -> pb.HoldCertificatesResponse:
        """Revoke for the time being."""
        held = await self.revocations.hold(request.serials, caller=str(current_caller()))
        return pb.HoldCertificatesResponse(certificates=held)

    async def ReleaseCertificates(
        self, request: pb.ReleaseCertificatesRequest, context: Context
    ) -> pb.ReleaseCertificatesResponse:
        """Put in force again what is on hold."""
        released = await self.revocations.release(request.serials, caller=str(current_caller()))
        return pb.ReleaseCertificatesResponse(certificates=released)

    async def PublishCrls(self, request: pb.PublishCrlsRequest, context: Context) -> pb.PublishCrlsResponse:
        """Make new lists at once."""
        if self.crls is None:
            raise CrlsNotConfiguredError(
                "This CM publishes no revocation lists; its operator has to add a section [crl]."
            )
        published = await self.crls.publish_all()
        return pb.PublishCrlsResponse(
            crls=[
                pb.Crl(
                    name=name,
                    number=record.number,
                    this_update=record.this_update,
                    next_update=record.next_update,
                    size=record.size,
                )
                for name, record in published.items()
            ]
        )

    async def GetRefusal(self, request: pb.GetRefusalRequest, context: Context) -> pb.GetRefusalResponse:
        """What was refused for good."""
        if len(request.enrollment_id) != ENROLLMENT_ID_SIZE:
            raise InvalidInputError(
                f"An enrollment id has {ENROLLMENT_ID_SIZE} bytes.", field="enrollment_id"
            )
        found = self.store.read(lambda txn: find_refusal(txn, request.enrollment_id))
        return pb.GetRefusalResponse(message=found.message, rules=[rule.rule for rule in found.rules])
