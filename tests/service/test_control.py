"""Commands to a running service: they reach the one whose store it is, one at a time, and errors come back typed."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from keyark.errors import KeyarkError, UnavailableError
from keyark.errors.services import WorkerStartError
from keyark.service.control import (
    SOCKET,
    Commands,
    ServiceNotRunningError,
    UnknownCommandError,
    answering,
    ask,
)


class Asked:
    """Commands that record what they were asked."""

    def __init__(self) -> None:
        self.arguments: list[Sequence[str]] = []
        self.release = asyncio.Event()
        self.entered = asyncio.Event()
        self.at_once = 0
        self.most_at_once = 0

    async def echo(self, arguments: Sequence[str]) -> Any:
        self.arguments.append(arguments)
        return {"told": list(arguments)}

    async def wait(self, arguments: Sequence[str]) -> str:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.entered.set()
        await self.release.wait()
        self.at_once -= 1
        return "waited"

    async def fail(self, arguments: Sequence[str]) -> None:
        raise WorkerStartError("A worker did not start; it has a secret.")

    async def burst(self, arguments: Sequence[str]) -> None:
        raise RuntimeError("a secret")

    def commands(self) -> Commands:
        return Commands({"echo": self.echo, "wait": self.wait, "fail": self.fail, "burst": self.burst})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store's folder, with a longer path than a socket's name may have."""
    made = tmp_path / ("long" * 30)
    made.mkdir(mode=0o700)
    return made


async def test_a_command_is_carried_out_with_its_arguments(folder: Path) -> None:
    asked = Asked()
    async with answering(folder, asked.commands()):
        assert await asyncio.to_thread(ask, folder, "echo", "a b", "ü\n") == {"told": ["a b", "ü\n"]}
    assert asked.arguments == [["a b", "ü\n"]]
    assert not (folder / SOCKET).exists()


async def test_typed_errors_come_back_as_what_they_are(folder: Path) -> None:
    async with answering(folder, Asked().commands()):
        with pytest.raises(WorkerStartError, match="did not start"):
            await asyncio.to_thread(ask, folder, "fail")


async def test_what_went_wrong_inside_is_not_told(folder: Path) -> None:
    async with answering(folder, Asked().commands()):
        with pytest.raises(KeyarkError) as caught:
            await asyncio.to_thread(ask, folder, "burst")
        assert (caught.value.reason, "secret" in caught.value.message) == ("INTERNAL", False)
        assert await asyncio.to_thread(ask, folder, "echo") == {"told": []}


@pytest.mark.parametrize(
    "line", [b"\n", b"[]\n", b"{}\n", b'"echo"\n', b'[["echo"]]\n', b'["echo", 1]\n', b"\xff\n", b"x"]
)
async def test_anything_but_words_is_refused_and_nothing_is_carried_out(folder: Path, line: bytes) -> None:
    asked = Asked()

    def send() -> dict[str, str]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(f"/proc/self/fd/{socket_folder}/{SOCKET}")
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            return json.loads(connection.makefile("rb").read())

    async with answering(folder, asked.commands()):
        socket_folder = os.open(folder, os.O_PATH)
        try:
            assert (await asyncio.to_thread(send))["reason"] == UnknownCommandError.reason
        finally:
            os.close(socket_folder)
    assert asked.arguments == []


async def test_an_unknown_command_is_refused(folder: Path) -> None:
    async with answering(folder, Asked().commands()):
        with pytest.raises(UnknownCommandError, match="echo, wait"):
            await asyncio.to_thread(ask, folder, "stop")


async def test_commands_are_carried_out_one_at_a_time(folder: Path) -> None:
    asked = Asked()
    commands = asked.commands()
    both = [asyncio.create_task(commands.carry_out(["wait"])) for _ in range(2)]
    await asked.entered.wait()
    asked.release.set()
    assert await asyncio.gather(*both) == ["waited", "waited"]
    assert asked.most_at_once == 1


async def test_the_end_waits_for_a_command_and_its_asker_gets_the_answer(folder: Path) -> None:
    asked = Asked()
    async with answering(folder, asked.commands()):
        answer = asyncio.create_task(asyncio.to_thread(ask, folder, "wait"))
        await asked.entered.wait()
        asyncio.get_running_loop().call_soon(asked.release.set)
    assert asked.at_once == 0
    assert await answer == "waited"


async def test_who_gives_up_does_not_stop_the_command() -> None:
    asked = Asked()
    commands = asked.commands()
    waiting = asyncio.create_task(commands.carry_out(["wait"]))
    await asked.entered.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    asked.release.set()
    await commands.finish()
    assert asked.at_once == 0


async def test_the_socket_of_a_killed_service_is_no_service_and_is_replaced(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        descriptor = os.open(folder, os.O_PATH)
        left.bind(f"/proc/self/fd/{descriptor}/{SOCKET}")
        os.close(descriptor)
    with pytest.raises(ServiceNotRunningError, match="start it"):
        ask(folder, "echo")
    async with answering(folder, Asked().commands()):
        assert await asyncio.to_thread(ask, folder, "echo") == {"told": []}


def test_a_folder_without_a_service_or_without_a_folder_is_said_so(folder: Path) -> None:
    for path in (folder, folder / "missing"):
        with pytest.raises(ServiceNotRunningError):
            ask(path, "echo")


async def test_a_service_that_ends_first_is_said_so(folder: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    descriptor = os.open(folder, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{descriptor}/{SOCKET}")
        os.close(descriptor)
        async with await asyncio.start_unix_server(hang_up, sock=listener):
            with pytest.raises(UnavailableError, match="ended before"):
                await asyncio.to_thread(ask, folder, "echo")


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o277, 0o777], ids=oct)
async def test_the_socket_is_its_owners_alone_under_any_umask(folder: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        async with answering(folder, Asked().commands()):
            assert stat.S_IMODE((folder / SOCKET).stat().st_mode) == 0o600
    finally:
        os.umask(before)
