"""P7: what one agent may cause in an hour, counted for each agent, and its approvals one after the other."""

from __future__ import annotations

import asyncio

import pytest

from drm_service.ceremonies.room import AgentRates, AgentWork
from keyark.clock import ManualClock
from keyark.errors import NotFoundError
from keyark.errors.recovery import AgentQuotaError
from keyark.identity.spiffe import SpiffeId

ALICE, BOB = (SpiffeId("example.org", f"agent/{name}") for name in ("alice", "bob"))


def test_each_agent_has_its_own_count_and_the_next_hour_a_new_one() -> None:
    clock = ManualClock()
    work = AgentWork(clock=clock, rates=AgentRates(requests=2, key_ceremonies=1))
    work.ask(ALICE)
    work.ask(ALICE)
    for _ in range(2):
        with pytest.raises(AgentQuotaError, match="alice has made 2 requests within this hour"):
            work.ask(ALICE)
    work.ask(BOB)
    work.ask_about_keys(ALICE)
    with pytest.raises(AgentQuotaError):
        work.ask_about_keys(ALICE)
    clock.advance(3600)
    work.ask(ALICE)
    work.ask_about_keys(ALICE)


async def test_approvals_that_fail_count_and_others_do_not() -> None:
    work = AgentWork(clock=ManualClock(), rates=AgentRates(refused_approvals=2))
    for _ in range(5):
        async with work.approving(ALICE):
            pass
    for _ in range(2):
        with pytest.raises(NotFoundError):
            async with work.approving(ALICE):
                raise NotFoundError("no such ceremony")
    with pytest.raises(AgentQuotaError):
        async with work.approving(ALICE):
            raise AssertionError("it is not let in")
    async with work.approving(BOB):
        pass


async def test_one_agents_approvals_are_checked_one_after_the_other() -> None:
    work, inside, most = AgentWork(clock=ManualClock()), 0, 0
    two_are_in, go_on = asyncio.Event(), asyncio.Event()

    async def check(agent: SpiffeId) -> None:
        nonlocal inside, most
        async with work.approving(agent):
            inside += 1
            most = max(most, inside)
            if inside == 2:
                two_are_in.set()
            await go_on.wait()
            inside -= 1

    async with asyncio.TaskGroup() as group:
        for agent in (ALICE, ALICE, ALICE, BOB):
            group.create_task(check(agent))
        await two_are_in.wait()
        go_on.set()
    assert most == 2  # one of each agent
