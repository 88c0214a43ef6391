"""P6: a caller that hangs up once it was judged is refused with an entry, or counted, all the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from drm_service.archival import refused_pairs
from keyark.keys.key_types import KeyType, generate
from keyark.rpc.calling.channels import call
from keyark.v1 import archive_pb2, registration_pb2
from rm_service.enrollment.steps import Enrollments
from tests.e2e.test_direct_attacks import HostileRm
from tests.support.running.deployment import Deployment
from tests.support.stories.attacks import refusals_of
from tests.support.stories.enrolling import enrolling, pkcs8

pytestmark = pytest.mark.asyncio
ITEMS = 12


class Watched:
    """Tells when a function was called so often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, times: int) -> None:
        self.reached, self._left, self._real = asyncio.Event(), times, getattr(owner, name)
        watched = self

        def called(*args: Any, **named: Any) -> Any:
            watched._left -= 1
            if watched._left == 0:
                watched._loop.call_soon_threadsafe(watched.reached.set)
            return watched._real(*args, **named)

        self._loop = asyncio.get_running_loop()
        monkeypatch.setattr(owner, name, called)


async def entries_reach(home: Any, role: str, count: int) -> None:
    """Return once a log has so many refusals; each look at it is a call to the service."""
    async with asyncio.timeout(20):
        while len(await refusals_of(home, role)) < count:
            pass


async def test_a_client_that_hung_up_is_refused_with_entries(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = deployment.home()
    async with enrolling(home) as client:
        before = len(await refusals_of(home, "rm"))
        judged = Watched(monkeypatch, Enrollments, "_apply_policy", ITEMS)
        items = [client.request(fields={"email": "boss@bank.example"}) for _ in range(ITEMS)]
        message = registration_pb2.SubmitEnrollmentsRequest(items=items, call=client.call(*items))
        running = client.registration.SubmitEnrollments(message, timeout=30)
        await judged.reached.wait()
        running.cancel()
        await entries_reach(home, "rm", before + ITEMS)


async def test_an_rm_that_hung_up_spoils_no_pairs_without_entries(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It wraps wrong keys for its clients' requests, and hangs up once they were refused for good."""
    home = deployment.home()
    async with enrolling(home) as victim:
        rm = HostileRm(deployment, victim.call)
        before = len(await refusals_of(home, "drm"))
        wrong = pkcs8(generate(KeyType.EC_P256))
        items = [victim.request(private_key=wrong) for _ in range(ITEMS)]
        message = archive_pb2.ArchiveKeysRequest(
            items=[
                archive_pb2.ArchiveItem(
                    statement=item.statement,
                    signature=item.signature,
                    wrapped_private_key=item.wrapped_private_key,
                    call=1,
                )
                for item in items
            ],
            calls=[victim.call(*items)],
        )
        refused = Watched(monkeypatch, refused_pairs, "refuse_for_good", ITEMS)
        running = rm.archive_service.ArchiveKeys(message, timeout=30)
        await refused.reached.wait()
        running.cancel()
        await entries_reach(home, "drm", before + ITEMS)
        again = await call(rm.archive_service.ArchiveKeys, message, timeout=30)
        assert all(outcome.HasField("error") for outcome in again.outcomes)
        await rm.close()
