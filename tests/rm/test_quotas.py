"""The rule type Quota: so many enrollments of a caller and no more, across calls, restarts and hours."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyark.clock import ManualClock, SystemClock
from keyark.errors import ConfigurationError
from keyark.policy.requests import sample_of
from keyark.store import MemoryStore
from rm_service.enrollment.quotas import HOUR_US, HOURS, count_enrollment, enrollments_within
from rm_service.records import CALLER_COUNTS, TABLES
from tests.policy.test_expressions import decide
from tests.support.running.deployment import running
from tests.support.stories.enrolling import Enroller, enrolling

RULE = """
[[policy.rule]]
name = "not-too-many"
type = "Quota"
stage = "submit"
"""


async def sent(client: Enroller, count: int) -> list[bool]:
    """Send enrollments in one call; whether each went through, or was refused by the quota."""
    outcomes = await client.send(*(client.request() for _ in range(count)))
    refused = [[v.rule for v in getattr(outcome, "violations", ())] for outcome in outcomes]
    assert all(rules in ([], ["not-too-many"]) for rules in refused)
    return [not rules for rules in refused]


async def test_a_caller_enrolls_so_many_an_hour_and_so_many_a_day(deployment_folder: Path) -> None:
    path = deployment_folder / "rm" / "rm.toml"
    path.write_text(path.read_text() + RULE + "per_hour = 3\nper_day = 4\n")
    now = SystemClock().now_us()
    clock = ManualClock(now - now % HOUR_US + HOUR_US)
    async with (
        running(deployment_folder, clock) as deployment,
        enrolling(deployment.home(), clock=clock) as client,
    ):
        assert await sent(client, 2) == [True, True]
        assert await sent(client, 3) == [True, False, False]
        clock.advance(3599)
        assert await sent(client, 1) == [False]
    async with (
        running(deployment_folder, clock) as deployment,
        enrolling(deployment.home(), clock=clock) as client,
    ):
        assert await sent(client, 1) == [False]
        clock.advance(1)
        assert await sent(client, 2) == [True, False]
        clock.advance(3600)
        assert await sent(client, 1) == [False]
        clock.advance(22 * 3600)
        assert await sent(client, 2) == [True, True]


async def test_who_is_refused_uses_nothing_up_and_another_caller_has_its_own(deployment_folder: Path) -> None:
    path = deployment_folder / "rm" / "rm.toml"
    path.write_text(path.read_text() + RULE + "per_hour = 2\n")
    async with running(deployment_folder) as deployment, enrolling(deployment.home()) as client:
        bad = client.request(signature=b"none")
        await client.send(bad, bad)
        assert await sent(client, 3) == [True, True, False]
        again = client.request()
        await client.send(again, again)
        assert await sent(client, 1) == [False]


async def test_a_request_that_is_sent_again_counts_once(deployment_folder: Path) -> None:
    path = deployment_folder / "rm" / "rm.toml"
    path.write_text(path.read_text() + RULE + "per_hour = 2\n")
    async with running(deployment_folder) as deployment, enrolling(deployment.home()) as client:
        request = client.request()
        for _ in range(3):
            (outcome,) = await client.send(request)
            assert outcome.certificates.signing_certificate
        assert await sent(client, 2) == [True, False]


@pytest.mark.parametrize("rule", ["", "per_hour = 0", "per_day = -1", 'per_hour = "many"', "per_week = 3"])
def test_quotas_that_limit_nothing_are_refused(tmp_path: Path, rule: str) -> None:
    with pytest.raises(ConfigurationError):
        decide(tmp_path, "submit", f'type = "Quota"\n{rule}')


def test_a_count_that_is_not_known_rejects(tmp_path: Path) -> None:
    assert sample_of("submit").enrollments_within is None
    assert decide(tmp_path, "submit", 'type = "Quota"\nper_hour = 100').rejections


EVENTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30 * HOUR_US)), max_size=40)


@settings(deadline=None)
@given(EVENTS, st.integers(1, HOURS))
def test_counts_are_those_of_the_hours_that_were_asked_for(events, hours: int) -> None:
    store = MemoryStore(tables=TABLES, finisher=lambda txn, items: None)
    events = sorted(events, key=lambda event: event[1])
    now = events[-1][1] if events else 0

    def write(txn):
        for caller, at in events:
            count_enrollment(txn, caller, at)
        return {c: enrollments_within(txn, c, hours=hours, now_us=now) for c in "ab"}, txn.count(
            CALLER_COUNTS
        )

    counts, rows = asyncio.run(store.update(write))
    first = now // HOUR_US - hours + 1
    assert counts == {c: sum(e == c and at // HOUR_US >= first for e, at in events) for c in "ab"}
    assert rows <= 2 * (HOURS + 1)
