"""P6: every rejection of an authenticated caller is logged, up to a quota, and beyond it counted."""

from __future__ import annotations

import asyncio

import pytest

from keyark.clock import ManualClock
from keyark.errors import KeyarkError, PermissionDeniedError
from keyark.errors.services import StoreFullError
from keyark.transparency.events import open_event
from keyark.transparency.log import Log
from keyark.transparency.rejections import Rejection, RejectionLog, Sender
from keyark.v1.audit_pb2 import AuditDetails, EventType
from tests.support.stories.transparency import FailingStore, memory_store, new_log

ALICE, BOB = "spiffe://example.org/client/alice", "spiffe://example.org/client/bob"
METHOD = "/keyark.v1.KeyRecoveryService/RequestRecovery"
ERROR = PermissionDeniedError("Clients recover nothing; ask an agent.")
REJECTED, COUNTED = EventType.EVENT_TYPE_REQUEST_REJECTED, EventType.EVENT_TYPE_REJECTIONS_COUNTED


async def opened(quota: int = 3) -> tuple[RejectionLog, Log, FailingStore, ManualClock]:
    clock = ManualClock()
    log = new_log(clock=clock)
    store = memory_store(log)
    await log.open(store)
    return RejectionLog(log=log, store=store, clock=clock, quota=quota), log, store, clock


async def record(
    rejections: RejectionLog,
    *,
    caller: str,
    error: KeyarkError,
    method: str = METHOD,
    on_behalf_of: str = "",
    claimed: str = "",
) -> None:
    """Record one."""
    await rejections.record(
        caller=caller,
        method=method,
        rejections=[Rejection(error=error, sender=Sender(on_behalf_of, claimed))],
    )


async def logged(log: Log) -> list[tuple[int, AuditDetails]]:
    rows = [open_event(row.event) for row in await log.entries(after=0, limit=1000)]
    return [(row.event.type, row.details) for row in rows if row.details is not None]


async def test_a_rejection_is_told_with_caller_reason_and_method():
    rejections, log, _, clock = await opened()
    await record(rejections, caller=ALICE, method=METHOD, error=ERROR)
    details = AuditDetails(caller=ALICE, reason="PERMISSION_DENIED", message=ERROR.message, method=METHOD)
    assert await logged(log) == [(REJECTED, details)]
    assert open_event(log.entry(1)).event.time_us == clock.now_us()


async def test_beyond_the_quota_rejections_are_counted_per_caller():
    rejections, log, _, _ = await opened()
    for caller, times in ((ALICE, 10), (BOB, 2)):
        await asyncio.gather(*(record(rejections, caller=caller, error=ERROR) for _ in range(times)))
    told = await logged(log)
    assert [details.caller for _, details in told] == [ALICE] * 3 + [BOB] * 2
    await rejections.close()
    assert (await logged(log))[5:] == [(COUNTED, AuditDetails(caller=ALICE, count=7))]
    await rejections.close()
    assert len(await logged(log)) == 6


async def test_a_new_hour_tells_the_count_of_the_last_and_gives_a_new_quota():
    rejections, log, _, clock = await opened(quota=1)
    for _ in range(3):
        await record(rejections, caller=ALICE, method=METHOD, error=ERROR)
    clock.advance(3600)
    await record(rejections, caller=ALICE, method=METHOD, error=ERROR)
    told = await logged(log)
    assert [kind for kind, _ in told] == [REJECTED, COUNTED, REJECTED]
    assert told[1][1].count == 2


async def test_the_count_of_an_hour_is_told_even_if_nothing_follows():
    rejections, log, _, clock = await opened(quota=1)
    for _ in range(2):
        await record(rejections, caller=ALICE, method=METHOD, error=ERROR)
    await rejections.flush()
    assert len(await logged(log)) == 1
    clock.advance(3600)
    await rejections.flush()
    assert (await logged(log))[1:] == [(COUNTED, AuditDetails(caller=ALICE, count=1))]


async def test_a_long_message_is_cut():
    rejections, log, _, _ = await opened()
    await record(rejections, caller=ALICE, method=METHOD, error=PermissionDeniedError("x" * 5000))
    assert (await logged(log))[0][1].message == "x" * 1000


async def test_what_could_not_be_logged_is_told_and_counted():
    rejections, log, store, clock = await opened(quota=2)
    store.fails = True
    with pytest.raises(StoreFullError):
        await record(rejections, caller=ALICE, method=METHOD, error=ERROR)
    store.fails = False
    await record(rejections, caller=ALICE, method=METHOD, error=ERROR)
    await record(rejections, caller=ALICE, method=METHOD, error=ERROR)
    clock.advance(3600)
    store.fails = True
    with pytest.raises(StoreFullError):
        await rejections.flush()
    store.fails = False
    await rejections.close()
    assert (await logged(log))[-1] == (COUNTED, AuditDetails(caller=ALICE, count=2))


@pytest.mark.parametrize("fails", [False, True])
async def test_who_is_cancelled_while_refusals_are_written_changes_nothing_of_them(fails: bool):
    rejections, log, store, _ = await opened(quota=2)
    store.fails = fails
    several = [Rejection(error=ERROR)] * 5
    running = asyncio.create_task(rejections.record(caller=ALICE, method=METHOD, rejections=several))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    while rejections._appending:
        await asyncio.wait(rejections._appending)
    store.fails = False
    await rejections.close()
    told = await logged(log)
    assert [kind for kind, _ in told] == [REJECTED] * (0 if fails else 2) + [COUNTED]
    assert told[-1][1].count == (5 if fails else 3)


RM = "spiffe://example.org/rm"


async def test_noise_of_one_client_hides_no_refusal_of_another_behind_the_same_caller():
    rejections, log, _, _ = await opened()
    for _ in range(50):
        await record(rejections, caller=RM, method=METHOD, error=ERROR, on_behalf_of=ALICE)
    await record(rejections, caller=RM, method=METHOD, error=ERROR, on_behalf_of=BOB)
    await record(rejections, caller=RM, method=METHOD, error=ERROR)
    told = [(details.caller, details.on_behalf_of) for _, details in await logged(log)]
    assert told == [(RM, ALICE)] * 3 + [(RM, BOB), (RM, "")]
    await rejections.close()
    assert (await logged(log))[5:] == [(COUNTED, AuditDetails(caller=RM, on_behalf_of=ALICE, count=47))]


async def test_whom_a_caller_only_claims_to_ask_for_uses_up_no_clients_quota(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("keyark.transparency.rejections.MAX_CLAIMED", 5)
    rejections, log, _, _ = await opened(quota=1)
    for number in range(30):
        await record(rejections, caller=RM, error=ERROR, claimed=f"{ALICE}{number}")
    await record(rejections, caller=RM, error=ERROR, claimed=ALICE)
    await record(rejections, caller=RM, error=ERROR, on_behalf_of=ALICE, claimed=ALICE)
    told = [(details.on_behalf_of, details.claimed_client) for _, details in await logged(log)]
    assert told[-1] == (ALICE, "")
    assert told[:5] == [("", f"{ALICE}{number}") for number in range(5)]
    await rejections.close()
    assert (await logged(log))[-1] == (COUNTED, AuditDetails(caller=RM, count=26 - (len(told) - 6)))


async def test_many_clients_fill_no_log_and_hide_no_first_refusal():
    rejections, log, _, _ = await opened(quota=3)
    for number in range(100):
        for _ in range(5):
            await record(rejections, caller=RM, method=METHOD, error=ERROR, on_behalf_of=f"{ALICE}{number}")
    told = [details.on_behalf_of for _, details in await logged(log)]
    assert set(told) == {f"{ALICE}{number}" for number in range(100)}
    assert len(told) == 20 * 3 + 80


async def test_names_that_are_made_up_take_a_bounded_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("keyark.transparency.rejections.MAX_TALLIES", 4)
    rejections, log, _, _ = await opened(quota=1)
    for number in range(10):
        await record(rejections, caller=RM, method=METHOD, error=ERROR, on_behalf_of=f"{ALICE}{number}")
    await record(rejections, caller=BOB, method=METHOD, error=ERROR)
    assert [details.caller for _, details in await logged(log)] == [RM] * 5 + [BOB]
    await rejections.close()
    assert (await logged(log))[-1] == (COUNTED, AuditDetails(caller=RM, count=5))


async def test_a_text_that_is_none_is_logged_all_the_same():
    rejections, log, _, _ = await opened()
    await record(rejections, caller=ALICE, method="/\udcff", error=PermissionDeniedError("\udcff is no text"))
    assert [(details.method, details.message) for _, details in await logged(log)] == [("/?", "? is no text")]
