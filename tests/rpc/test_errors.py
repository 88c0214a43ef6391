"""Typed errors cross the wire and come back as they were; what is not typed says nothing."""

from __future__ import annotations

import grpc
import pytest
from google.rpc.status_pb2 import Status

import keyark.crypto.envelopes
import keyark.pki.statements
import keyark.transparency.heads
from keyark.errors import (
    InvalidInputError,
    KeyarkError,
    Kind,
    NotFoundError,
    OverloadedError,
    PolicyRejectedError,
    Violation,
)
from keyark.rpc.errors import RemoteError, from_rpc_error, from_status, internal_error, status_code, to_status


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("no such thing"),
        InvalidInputError("bad", field="email"),
        OverloadedError("later"),
        keyark.crypto.envelopes.EnvelopeError("closed"),
        keyark.transparency.heads.CheckpointGapError("gap", metadata={"tree_size": "7"}),
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
    back = from_status(Status.FromString(to_status(error).SerializeToString()))
    assert type(back) is type(error)
    assert back.message == error.message
    assert back.metadata == error.metadata
    assert getattr(back, "field", None) == getattr(error, "field", None)
    assert getattr(back, "violations", None) == getattr(error, "violations", None)


def test_every_kind_has_a_code_of_its_own() -> None:
    codes = [status_code(type("E", (KeyarkError,), {"kind": kind})("")) for kind in Kind]
    assert len(set(codes)) == len(codes)


def test_an_unknown_reason_keeps_its_name_and_kind() -> None:
    status = to_status(NotFoundError("newer"))
    altered = Status.FromString(status.SerializeToString().replace(b"NOT_FOUND", b"NEW_REASN"))
    back = from_status(altered)
    assert isinstance(back, RemoteError)
    assert (back.remote_reason, back.kind) == ("NEW_REASN", Kind.NOT_FOUND)
    again = from_status(to_status(back))
    assert isinstance(again, RemoteError)
    assert again.remote_reason == "NEW_REASN"


def test_reasons_of_another_domain_are_not_ours() -> None:
    altered = Status.FromString(
        to_status(NotFoundError("x")).SerializeToString().replace(b"keyark", b"others")
    )
    assert isinstance(from_status(altered), RemoteError)


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
    assert from_rpc_error(error).reason == reason


def test_garbage_in_the_details_falls_back_to_the_code() -> None:
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff"))
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), trailing)
    assert from_rpc_error(error).reason == "NO_CONNECTION"
