"""Refusals are logged, what is no refusal is not, and a log that is full does not turn one into something else."""

from __future__ import annotations

import pytest

from keyark.errors import KeyarkError, NotFoundError, OverloadedError, UnavailableError
from keyark.identity.spiffe import SpiffeId
from keyark.rpc.errors import error_from_status
from keyark.rpc.serving.guard import _caller
from keyark.rpc.serving.outcomes import Refusals
from keyark.transparency.rejections import RejectionLog
from keyark.v1.audit_pb2 import AuditDetails
from tests.support.stories.transparency import opened_log

CALLER = SpiffeId("example.org", "client/alice")


async def reasons(log) -> list[str]:
    return [AuditDetails.FromString(entry.event.details).reason for entry in await log.entries(limit=99)][1:]


async def refusals():
    log, store = await opened_log()
    return Refusals(RejectionLog(log=log, store=store, clock=log._clock, quota=9)), log, store


async def test_a_refusal_is_logged() -> None:
    made, log, _ = await refusals()
    await made.record(CALLER, "/a/B", NotFoundError("no"))
    assert await reasons(log) == ["NOT_FOUND"]


@pytest.mark.parametrize("error", [OverloadedError("later"), UnavailableError("away"), KeyarkError("broken")])
async def test_what_cannot_be_done_now_is_no_refusal(error: KeyarkError) -> None:
    made, log, _ = await refusals()
    await made.record(CALLER, "/a/B", error)
    assert await reasons(log) == []


async def test_a_log_that_cannot_be_written_leaves_the_refusal_one(caplog: pytest.LogCaptureFixture) -> None:
    made, _, store = await refusals()
    await store.close()
    await made.record(CALLER, "/a/B", NotFoundError("no"))
    assert "could not be logged: STORE_CLOSED" in caplog.text


async def test_an_untyped_item_tells_an_id_only(caplog: pytest.LogCaptureFixture) -> None:
    made, _, _ = await refusals()
    _caller.set(CALLER)
    error = error_from_status((await made.statuses("/a/B", [ValueError("secret")]))[0])
    assert error.reason == "INTERNAL_ERROR"
    assert "secret" not in error.message
    assert error.metadata["error_id"] in caplog.text
