"""P7: one client's batches keep neither the RM's loop nor its places from another client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from keyark.clock import ManualClock
from keyark.errors import KeyarkError, OverloadedError, UnavailableError
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType
from keyark.policy.engine import PolicyEngine
from keyark.statements.enrollment import new_request_id, sign_statement
from keyark.store import MemoryStore
from keyark.transparency.heads import AcceptedHeads
from keyark.v1.registration_pb2 import EnrollmentForm
from keyark.workers.turns import Turns
from rm_service.config import ApprovalSettings
from rm_service.enrollment.queue import ApprovalQueue
from rm_service.enrollment.steps import Enrollments
from rm_service.enrollment.under_way import UnderWay
from rm_service.records import TABLES
from rm_service.requests import EnrollmentRequest
from tests.support.keys.pki import NOW, private_key, spki, statement_bytes
from tests.support.running.calls import call_trust, signed_call
from tests.support.stories.transparency import new_log

EVE, ALICE = (SpiffeId("example.org", f"client/{name}") for name in ("eve", "alice"))


class Cm:
    """Answers when its gate is open, and then that it is away."""

    def __init__(self) -> None:
        self.gate, self.asked = asyncio.Event(), asyncio.Queue[None]()

    async def issue(self, *_: Any) -> Any:
        self.asked.put_nowait(None)
        await self.gate.wait()
        raise UnavailableError("The CM is away; try again.")

    async def reserve_signing_key(self, *_: Any) -> None:
        """The archive has no objection."""

    async def archive(self, *_: Any) -> Any:
        raise UnavailableError("Nothing is archived here.")


class NoArchival:
    """Every profile's form says that nothing is archived."""

    async def get(self, _: str) -> EnrollmentForm:
        return EnrollmentForm()

    def forget(self) -> None:
        """There is nothing to fetch."""

    def wake(self) -> None:
        """Nothing is linked."""


class Rm:
    """Enrollments on a store in memory; every second look at the turns' clock is a second later."""

    def __init__(self, *, max_per_caller: int = 2048) -> None:
        clock, self.cm, self.seconds = ManualClock(NOW * 1_000_000), Cm(), 0.0
        self.log = new_log(clock=clock)
        store = MemoryStore(tables=TABLES, finisher=self.log.finisher)
        self.enrollments = Enrollments(
            trust_domain="example.org",
            store=store,
            log=self.log,
            policy=PolicyEngine(subsystem="rm", rules={}),
            clock=clock,
            forms=NoArchival(),
            archiver=self.cm,
            issuer=self.cm,
            outbox=NoArchival(),
            accepted_heads=AcceptedHeads("example.org/drm"),
            queue=ApprovalQueue(store=store, log=self.log, clock=clock, settings=ApprovalSettings()),
            calls=call_trust(),
            turns=Turns(slice_seconds=4.0, clock=self._tick),
            under_way=UnderWay(max_per_caller),
        )

    def _tick(self) -> float:
        self.seconds += 0.5
        return self.seconds

    def submit(self, caller: SpiffeId, *requests: EnrollmentRequest) -> asyncio.Task[list[Any]]:
        call = signed_call(*(one.statement for one in requests), path=caller.path)
        return asyncio.create_task(self.enrollments.submit(caller, requests, call=call))


def request(caller: SpiffeId, number: int = 0, *, good: bool = True) -> EnrollmentRequest:
    raw = statement_bytes(
        caller=caller,
        request_id=new_request_id(),
        signing_spki=spki(KeyType.EC_P256, 100 + 2 * number),
        encryption_spki=spki(KeyType.EC_P256, 101 + 2 * number),
    )
    signature = sign_statement(raw, private_key(KeyType.EC_P256, 100 + 2 * number)) if good else b"no"
    return EnrollmentRequest(statement=raw, signature=signature, wrapped_private_key=b"")


async def test_one_item_is_verified_long_before_256_of_another_client() -> None:
    rm = Rm()
    bad = request(EVE, good=False)
    flood = [rm.submit(EVE, *[bad] * 256) for _ in range(3)]
    await asyncio.sleep(0)
    one = rm.submit(ALICE, request(ALICE, good=False))
    outcomes = await one
    assert [outcome.reason for outcome in outcomes] == ["STATEMENT_SIGNATURE"]
    assert not any(task.done() for task in flood)
    assert [len(outcomes) for outcomes in await asyncio.gather(*flood)] == [256] * 3


async def test_a_client_has_so_many_items_under_way_and_others_are_served_beside_it() -> None:
    rm = Rm(max_per_caller=2)
    flood = rm.submit(EVE, *(request(EVE, number) for number in range(3)))
    await rm.cm.asked.get()
    await rm.cm.asked.get()
    with pytest.raises(OverloadedError):
        await rm.submit(EVE, request(EVE, 4))
    one = rm.submit(ALICE, request(ALICE, 5))
    await rm.cm.asked.get()
    flood.cancel()  # what was begun goes on, and keeps its place
    with pytest.raises(OverloadedError):
        await rm.submit(EVE, request(EVE, 6))
    rm.cm.gate.set()
    await one
    await rm.enrollments.drain()
    (outcome,) = await rm.submit(EVE, request(EVE, 7))
    assert isinstance(outcome, KeyarkError)
    assert outcome.reason == "UNAVAILABLE"
    assert rm.cm.asked.qsize() == 1


async def test_the_items_of_a_call_that_are_too_many_are_refused_one_by_one() -> None:
    rm = Rm(max_per_caller=2)
    rm.cm.gate.set()
    outcomes = await rm.submit(EVE, *(request(EVE, number) for number in range(4)))
    assert [outcome.reason for outcome in outcomes] == ["UNAVAILABLE"] * 2 + ["OVERLOADED"] * 2
