"""Clients repeat what is idempotent by themselves, and a service that comes back answers the call that waits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from keyark.client import (
    NO_RETRIES,
    EnrollmentClient,
    Home,
    NoConnectionError,
    Retries,
    list_entries,
    open_session,
)
from tests.support.running.deployment import Deployment


class Absent:
    """An address where nobody listens until ``come_back``; then it leads to a service."""

    def __init__(self, service: str) -> None:
        self.service, self.pauses = service, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.socket.close()

    async def come_back(self, seconds: float) -> None:
        """Be there from now on; a pause between two attempts, as ``Retries`` makes one."""
        self.pauses += 1
        if self.pauses == 1:
            self.server = await asyncio.start_server(self.forward, *self.address.split(":"))
        await asyncio.sleep(seconds)

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self.service.split(":"))
        await asyncio.gather(pipe(reader, back), pipe(there, writer))


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def away(deployment: Deployment, role: str) -> AsyncIterator[tuple[Home, Absent]]:
    """A home whose service of a role is away until somebody pauses."""
    home = deployment.home()
    absent = Absent(getattr(home.config, role))
    yield replace(home, config=home.config.model_copy(update={role: absent.address})), absent
    if absent.pauses:
        absent.server.close()


async def test_a_call_that_met_nobody_is_answered_once_the_service_is_back(deployment: Deployment) -> None:
    async with away(deployment, "rm") as (home, absent):
        retries = Retries(sleep=absent.come_back)
        async with EnrollmentClient.open(home, retries=retries) as client:
            alice = await client.enroll(common_name="Alice Example", email="alice@example.org")
            assert alice.receipt is not None
        assert absent.pauses
    async with away(deployment, "drm") as (home, absent):
        who = "auditor/auditor"
        async with open_session(
            home, "drm", identity=who, retries=Retries(sleep=absent.come_back)
        ) as session:
            assert [entry async for entry in list_entries(session)]
        assert absent.pauses


async def test_a_client_without_retries_is_told_at_once(deployment: Deployment) -> None:
    async with (
        away(deployment, "rm") as (home, absent),
        EnrollmentClient.open(home, retries=NO_RETRIES) as client,
    ):
        with pytest.raises(NoConnectionError):
            await client.form()
        assert not absent.pauses
