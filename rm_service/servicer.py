"""The RM's gRPC face: translates, calls the enrollment process, translates back."""

from __future__ import annotations

from typing import Any, Final

from grpc.aio import ServicerContext

from keyark.pki.statements import enrollment_id
from keyark.records.v1.rm_pb2 import EnrollmentRecord
from keyark.rpc.outcomes import Refusals
from keyark.rpc.server import current_caller
from keyark.service.paging import page_of
from keyark.service.requests import check_batch_size
from keyark.store import Store
from keyark.v1 import registration_pb2 as pb
from keyark.v1.registration_pb2_grpc import RegistrationAdminServiceServicer, RegistrationServiceServicer
from rm_service.enrollment import EnrollmentRequest, Enrollments
from rm_service.records import ENROLLMENTS, describe

Context = ServicerContext[Any, Any]

SUBMIT: Final = "/keyark.v1.RegistrationService/SubmitEnrollments"

ALLOWED: Final = {
    "/keyark.v1.RegistrationService/GetEnrollmentForm": {"client"},
    SUBMIT: {"client"},
    "/keyark.v1.RegistrationService/GetEnrollment": {"client"},
    "/keyark.v1.RegistrationAdminService/ListEnrollments": {"officer"},
}


class RegistrationServicer(RegistrationServiceServicer):
    """For clients."""

    def __init__(self, enrollments: Enrollments, refusals: Refusals) -> None:
        self._enrollments = enrollments
        self._refusals = refusals

    async def GetEnrollmentForm(
        self, request: pb.GetEnrollmentFormRequest, context: Context
    ) -> pb.GetEnrollmentFormResponse:
        """Step 1, serve_form."""
        return pb.GetEnrollmentFormResponse(form=await self._enrollments.serve_form(request.profile))

    async def SubmitEnrollments(
        self, request: pb.SubmitEnrollmentsRequest, context: Context
    ) -> pb.SubmitEnrollmentsResponse:
        """Steps 2 to 6, each item on its own."""
        check_batch_size(len(request.items))
        requests = [_enrollment_request(item) for item in request.items]
        results = await self._enrollments.submit(current_caller(), requests)
        return pb.SubmitEnrollmentsResponse(outcomes=[await self._outcome(result) for result in results])

    async def _outcome(self, result: pb.Enrollment | BaseException) -> pb.EnrollmentOutcome:
        if isinstance(result, BaseException):
            return pb.EnrollmentOutcome(error=await self._refusals.status(SUBMIT, result))
        return pb.EnrollmentOutcome(enrollment=result)

    async def GetEnrollment(
        self, request: pb.GetEnrollmentRequest, context: Context
    ) -> pb.GetEnrollmentResponse:
        """The outcome of one of the caller's own enrollments."""
        found = self._enrollments.outcome(enrollment_id(request.request_id, current_caller()))
        return pb.GetEnrollmentResponse(enrollment=found)


class RegistrationAdminServicer(RegistrationAdminServiceServicer):
    """For registration officers."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def ListEnrollments(
        self, request: pb.ListEnrollmentsRequest, context: Context
    ) -> pb.ListEnrollmentsResponse:
        """The enrollments of all callers, oldest first."""
        page = page_of(request.page)
        rows = await self._store.view(lambda txn: txn.scan(ENROLLMENTS, after=page.after, limit=page.limit))
        return pb.ListEnrollmentsResponse(
            enrollments=[describe(key, EnrollmentRecord.FromString(value)) for key, value in rows],
            next_page_token=page.next_token(rows),
        )


def _enrollment_request(item: pb.EnrollmentRequest) -> EnrollmentRequest:
    return EnrollmentRequest(
        statement=item.statement, signature=item.signature, wrapped_private_key=item.wrapped_private_key
    )
