"""The RM's gRPC face: translates, calls the enrollment process, translates back."""

from __future__ import annotations

from typing import Any, Final

from grpc.aio import ServicerContext

from keyark.identity.spiffe import SpiffeId
from keyark.rpc.serving.outcomes import Refusals
from keyark.rpc.serving.server import current_caller
from keyark.service.checks.requests import check_batch_size
from keyark.service.id_prefix import IdPrefix
from keyark.service.paging import page_of
from keyark.statements.calls import SignedCall
from keyark.statements.enrollment import enrollment_id
from keyark.store import Store
from keyark.v1 import registration_pb2 as pb
from keyark.v1.registration_pb2_grpc import RegistrationAdminServiceServicer, RegistrationServiceServicer
from rm_service.downstream.archive_head import ArchiveHead
from rm_service.enrollment.listing import find_enrollment, list_enrollments
from rm_service.enrollment.steps import Enrollments
from rm_service.officers.approvals import Act, Approvals
from rm_service.requests import EnrollmentRequest

Context = ServicerContext[Any, Any]

SUBMIT: Final = "/keyark.v1.RegistrationService/SubmitEnrollments"

ADMIN_METHODS: Final = (
    "ListEnrollments",
    "InspectEnrollment",
    "ApproveEnrollment",
    "RejectEnrollment",
    "CancelEnrollment",
    "AssignEnrollment",
)
ALLOWED: Final = {
    "/keyark.v1.RegistrationService/GetEnrollmentForm": {"client"},
    SUBMIT: {"client"},
    "/keyark.v1.RegistrationService/GetEnrollment": {"client"},
    "/keyark.v1.RegistrationService/GetArchiveHead": {"client"},
    **{f"/keyark.v1.RegistrationAdminService/{method}": {"officer"} for method in ADMIN_METHODS},
}


class RegistrationServicer(RegistrationServiceServicer):
    """For clients."""

    def __init__(self, enrollments: Enrollments, refusals: Refusals, head: ArchiveHead) -> None:
        self._enrollments = enrollments
        self._refusals = refusals
        self._head = head

    async def GetEnrollmentForm(
        self, request: pb.GetEnrollmentFormRequest, context: Context
    ) -> pb.GetEnrollmentFormResponse:
        """Step 1, serve_form."""
        self._enrollments.forms.meet(request.known_transport_key_id)
        response = pb.GetEnrollmentFormResponse(form=await self._enrollments.serve_form(request.profile))
        changes = self._enrollments.forms.transport_key_changes(request.known_transport_key_id)
        response.form.transport_key_changes.extend(changes)
        return response

    async def SubmitEnrollments(
        self, request: pb.SubmitEnrollmentsRequest, context: Context
    ) -> pb.SubmitEnrollmentsResponse:
        """Steps 2 to 6, each item on its own."""
        check_batch_size(len(request.items))
        requests = [_enrollment_request(item) for item in request.items]
        call = SignedCall.of(request.call) if request.HasField("call") else None
        results = await self._enrollments.submit(current_caller(), requests, call=call)
        errors = [result if isinstance(result, BaseException) else None for result in results]
        statuses = await self._refusals.statuses(SUBMIT, errors)
        return pb.SubmitEnrollmentsResponse(
            outcomes=[
                pb.EnrollmentOutcome(error=status)
                if isinstance(result, BaseException)
                else pb.EnrollmentOutcome(enrollment=result)
                for result, status in zip(results, statuses, strict=True)
            ]
        )

    async def GetEnrollment(
        self, request: pb.GetEnrollmentRequest, context: Context
    ) -> pb.GetEnrollmentResponse:
        """The outcome of one of the caller's own enrollments."""
        found = self._enrollments.outcome(enrollment_id(request.request_id, current_caller()))
        return pb.GetEnrollmentResponse(enrollment=found)

    async def GetArchiveHead(
        self, request: pb.GetArchiveHeadRequest, context: Context
    ) -> pb.GetArchiveHeadResponse:
        """What RM and CM say of the DRM's log."""
        return await self._head.witnessed(current_caller(), request.tree_sizes)


class RegistrationAdminServicer(RegistrationAdminServiceServicer):
    """For registration officers."""

    def __init__(self, store: Store, approvals: Approvals) -> None:
        self._store = store
        self._approvals = approvals

    async def ListEnrollments(
        self, request: pb.ListEnrollmentsRequest, context: Context
    ) -> pb.ListEnrollmentsResponse:
        """The enrollments of all callers, oldest first, or those that wait, the first to expire first."""
        prefix = IdPrefix(request.enrollment_id_prefix)
        query = pb.ListEnrollmentsRequest(state=request.state, enrollment_id_prefix=prefix.digits)
        page = page_of(request.page, query=query)
        await self._approvals.queue.expire_due()
        found = await self._store.view(lambda txn: list_enrollments(txn, request.state, prefix, page))
        return pb.ListEnrollmentsResponse(enrollments=found.enrollments, next_page_token=found.next_token)

    async def InspectEnrollment(
        self, request: pb.InspectEnrollmentRequest, context: Context
    ) -> pb.InspectEnrollmentResponse:
        """One enrollment of any caller."""
        await self._approvals.queue.expire_due()
        found = self._store.read(lambda txn: find_enrollment(txn, request.enrollment_id))
        return pb.InspectEnrollmentResponse(enrollment=found)

    async def ApproveEnrollment(
        self, request: pb.ApproveEnrollmentRequest, context: Context
    ) -> pb.ApproveEnrollmentResponse:
        """Approve, and carry out."""
        act = _act(request.enrollment_id, request.version, current_caller())
        return pb.ApproveEnrollmentResponse(enrollment=await self._approvals.approve(act, request.approval))

    async def RejectEnrollment(
        self, request: pb.RejectEnrollmentRequest, context: Context
    ) -> pb.RejectEnrollmentResponse:
        """Reject."""
        act = _act(request.enrollment_id, request.version, current_caller())
        return pb.RejectEnrollmentResponse(enrollment=await self._approvals.reject(act, request.reason))

    async def CancelEnrollment(
        self, request: pb.CancelEnrollmentRequest, context: Context
    ) -> pb.CancelEnrollmentResponse:
        """Cancel."""
        act = _act(request.enrollment_id, request.version, current_caller())
        return pb.CancelEnrollmentResponse(enrollment=await self._approvals.cancel(act, request.reason))

    async def AssignEnrollment(
        self, request: pb.AssignEnrollmentRequest, context: Context
    ) -> pb.AssignEnrollmentResponse:
        """Assign to an officer, or to any."""
        act = _act(request.enrollment_id, request.version, current_caller())
        return pb.AssignEnrollmentResponse(enrollment=await self._approvals.assign(act, request.assignee))


def _act(enrollment_id: bytes, version: int, officer: SpiffeId) -> Act:
    return Act(enrollment_id=enrollment_id, version=version, officer=officer)


def _enrollment_request(item: pb.EnrollmentRequest) -> EnrollmentRequest:
    return EnrollmentRequest(
        statement=item.statement, signature=item.signature, wrapped_private_key=item.wrapped_private_key
    )
