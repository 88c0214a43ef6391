"""Typed errors cross the wire and come back as they were; what is not typed says nothing."""

from __future__ import annotations

import asyncio
import importlib
import pkgutil

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status
from grpc._cython import cygrpc
from hypothesis import given
from hypothesis import strategies as st

import cm_service
import drm_service
import keyark.custody.envelopes
import keyark.statements.enrollment
import rm_service
from keyark.errors import (
    InvalidInputError,
    KeyarkError,
    Kind,
    NotFoundError,
    OverloadedError,
    PolicyRejectedError,
    Violation,
    error_class,
)
from keyark.errors.services import CheckpointGapError
from keyark.rpc.calling.channels import MAX_RESPONSE
from keyark.rpc.errors import (
    RemoteError,
    abort,
    error_from_call,
    error_from_status,
    error_to_status,
    internal_error,
    status_code,
)


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("no such thing"),
        InvalidInputError("bad", field="email"),
        OverloadedError("later"),
        keyark.custody.envelopes.EnvelopeError("closed"),
        CheckpointGapError("gap", metadata={"tree_size": "7"}),
        PolicyRejectedError(
            "no",
            violations=[
                Violation(rule="r", subsystem="cm", message="m"),
                Violation(rule="s", subsystem="cm", message="n"),
            ],
        ),
    ],
)
def test_an_error_comes_back_as_it_was(error: KeyarkError) -> None:
    back = error_from_status(Status.FromString(error_to_status(error).SerializeToString()))
    assert type(back) is type(error)
    assert back.message == error.message
    assert back.metadata == error.metadata
    assert getattr(back, "field", None) == getattr(error, "field", None)
    assert getattr(back, "violations", None) == getattr(error, "violations", None)


def test_every_kind_has_a_code_of_its_own() -> None:
    codes = [status_code(type("E", (KeyarkError,), {"kind": kind})("")) for kind in Kind]
    assert len(set(codes)) == len(codes)


def test_an_unknown_reason_keeps_its_name_and_kind() -> None:
    status = error_to_status(NotFoundError("newer"))
    altered = Status.FromString(status.SerializeToString().replace(b"NOT_FOUND", b"NEW_REASN"))
    back = error_from_status(altered)
    assert isinstance(back, RemoteError)
    assert (back.reason, back.kind) == ("NEW_REASN", Kind.NOT_FOUND)
    again = error_from_status(error_to_status(back))
    assert isinstance(again, RemoteError)
    assert again.reason == "NEW_REASN"


def test_reasons_of_another_domain_are_not_ours() -> None:
    altered = Status.FromString(
        error_to_status(NotFoundError("x")).SerializeToString().replace(b"keyark", b"others")
    )
    assert isinstance(error_from_status(altered), RemoteError)


def test_internal_errors_differ_by_id_only() -> None:
    (first, first_id), (second, second_id) = internal_error(), internal_error()
    assert first_id != second_id
    assert first.metadata == {"error_id": first_id}
    assert first.message.replace(first_id, second_id) == second.message


@pytest.mark.parametrize(
    ("code", "details", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect", "NO_CONNECTION"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", "DEADLINE_EXCEEDED"),
        (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "Received message larger than max (5 vs. 4)",
            "MESSAGE_TOO_LARGE",
        ),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "other", "OVERLOADED"),
        (grpc.StatusCode.UNIMPLEMENTED, "", "NOT_FOUND"),
        (grpc.StatusCode.DATA_LOSS, "", "INTERNAL_ERROR"),
    ],
)
def test_what_reached_no_handler_is_typed_too(code: grpc.StatusCode, details: str, reason: str) -> None:
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)
    assert error_from_call(error).reason == reason


def test_garbage_in_the_details_falls_back_to_the_code() -> None:
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff"))
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), trailing)
    assert error_from_call(error).reason == "NO_CONNECTION"


def every_class() -> list[type[KeyarkError]]:
    """Every error class that the whole distribution defines."""
    for root in (keyark, rm_service, cm_service, drm_service):
        for module in pkgutil.walk_packages(root.__path__, f"{root.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    found, seen = [KeyarkError], []
    while found:
        seen.append(found.pop())
        found.extend(seen[-1].__subclasses__())
    return [each for each in seen if error_class(each.reason) is each]


def test_every_error_of_the_distribution_comes_back_as_its_own_class() -> None:
    classes = [each for each in every_class() if each is not RemoteError]
    assert len(classes) > 40
    for each in classes:
        back = error_from_status(error_to_status(each("a message", metadata={"a": "b"})))
        assert (type(back), back.message, back.metadata) == (each, "a message", {"a": "b"})


@pytest.mark.parametrize("seconds", [0.25, 1.0, 2.5])
def test_how_long_to_wait_comes_back(seconds: float) -> None:
    error = OverloadedError("later")
    error.retry_after = seconds
    back = error_from_status(error_to_status(error))
    assert isinstance(back, OverloadedError)
    assert back.retry_after == seconds


@pytest.mark.parametrize(("said", "taken"), [(1 << 40, 60.0), (-5, 0.0)])
def test_nobody_is_made_to_wait_for_ever(said: int, taken: float) -> None:
    status = error_to_status(OverloadedError("later"))
    status.details[-1].Pack(RetryInfo(retry_delay=Duration(seconds=said)))
    back = error_from_status(status)
    assert isinstance(back, OverloadedError)
    assert back.retry_after == taken


@pytest.mark.parametrize("reason", ["REMOTE", "", "NO_SUCH_REASON"])
def test_a_reason_that_no_service_gives_is_a_remote_error(reason: str) -> None:
    status = Status(code=5, message="m")
    status.details.add().Pack(ErrorInfo(reason=reason, domain="keyark"))
    back = error_from_status(status)
    assert isinstance(back, RemoteError)
    assert (back.reason, back.kind) == (reason or "REMOTE", Kind.NOT_FOUND)


@given(st.sampled_from([ErrorInfo, BadRequest, PreconditionFailure, RetryInfo]), st.binary(max_size=40))
def test_malformed_details_are_absent_and_no_error_of_their_own(detail: type, value: bytes) -> None:
    status = error_to_status(NotFoundError("m"))
    status.details.add(type_url=f"type.googleapis.com/{detail.DESCRIPTOR.full_name}", value=value)
    assert isinstance(error_from_status(status), KeyarkError)


def test_a_whole_batch_of_the_longest_errors_fits_into_its_answer() -> None:
    text = "💥" * 100_000
    violations = [Violation(rule=text, subsystem="rm", message=text)] * 500
    for error in (
        PolicyRejectedError(text, violations=violations, metadata={text: text}),
        InvalidInputError(text, field=text),
    ):
        assert error_to_status(error).ByteSize() * 256 < MAX_RESPONSE / 4
        assert type(error_from_status(error_to_status(error))) is type(error)


class EndedCall:
    """gRPC's context of a call whose client is gone."""

    async def abort(self, *_: object) -> None:
        raise cygrpc.ExecuteBatchError("Failed execute_batch")


async def test_a_call_that_ended_is_cancelled_and_leaves_no_traceback() -> None:
    """gRPC logs every other exception of a handler, and takes this one for what it is."""
    with pytest.raises(asyncio.CancelledError):
        await abort(EndedCall(), NotFoundError("no such thing"))
