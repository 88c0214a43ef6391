"""Ctrl-C ends a command clearly, at every prompt and in every long run, and the same command goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from keyark.cli.output import STOPPED
from keyark.keys.key_types import KeyType, generate_signing
from keyark.keys.private_keys import save_private_key
from tests.support.running.deployment import running
from tests.support.running.processes import KEYARK, keyark
from tests.support.stories.attacks import take_stock

ASKING = """\
import asyncio, click
from keyark.cli.options import confirm
from keyark.cli.output import SafeGroup

@click.group(cls=SafeGroup)
def main(): pass

@main.command()
def ask():
    async def run():
        confirm("Approve this?")
    asyncio.run(run())

main(["ask"])
"""


def heeding_sigint() -> None:
    """Let a program heed SIGINT, where the tests themselves were started in the background of a shell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def press_ctrl_c(process: subprocess.Popen[bytes]) -> None:
    """Once, and again where nothing happens: one that comes just before a program begins to read wakes no read."""
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
            return


@pytest.mark.parametrize(
    ("words", "question"),
    [
        ([*KEYARK, "keys", "list", "--home", "HOME", "--as", "agent/alice"], b"Password of"),
        ([*KEYARK, "init", "OUT"], b"Password for"),
        ([sys.executable, "-c", ASKING], b"Approve this?"),
    ],
)
def test_ctrl_c_ends_every_prompt_at_once(
    deployment_folder: Path, tmp_path: Path, words: list[str], question: bytes
) -> None:
    key = deployment_folder / "identities" / "agent" / "alice" / "key.pem"
    key.unlink()
    save_private_key(key, generate_signing(KeyType.EC_P256), password=b"correct horse")
    place = {"HOME": str(deployment_folder), "OUT": str(tmp_path / "out")}
    terminal, its = os.openpty()
    process = subprocess.Popen(
        [place.get(word, word) for word in words],
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=heeding_sigint,  # noqa: PLW1509 — as below
    )
    os.close(its)
    shown = b""
    while question not in shown:
        shown += os.read(terminal, 1024)
    press_ctrl_c(process)
    assert process.wait(timeout=60) == STOPPED
    with open(terminal, "rb", buffering=0) as rest:
        shown += rest.read(4096)
    assert b"[STOPPED]" in shown
    assert b"Traceback" not in shown
    assert not (tmp_path / "out").exists()


LONG = {
    "enroll": "enroll --name Alice --email alice@example.org --out OUT/enrolled",
    "enroll many": "enroll --csv OUT/users.csv --out OUT/enrolled",
    "list": "certificates list",
    "request": "recover request --owner alice@example.org --reason lost",
    "verify": "audit verify",
    "log": "audit log",
    "doctor": "doctor",
}


def accepted(silent: socket.socket, process: subprocess.Popen[str]) -> socket.socket:
    """Return the connection of a command, once it has one; fails with what the command said where it ends before."""
    ended = os.pidfd_open(process.pid)
    try:
        ready, _, _ = select.select([silent, ended], [], [])
    finally:
        os.close(ended)
    assert silent in ready, process.communicate()[0]
    return silent.accept()[0]


def stopped_while_a_service_is_silent(home: Path, words: list[str]) -> str:
    """Run a command against services that never answer, and press Ctrl-C once it is connected; returns what it said."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        text = (home / "keyark.toml").read_text()
        text = re.sub(r'^(rm|cm|drm) = ".*"$', rf'\1 = "{address}"', text, flags=re.MULTILINE)
        (home / "keyark.toml").write_text(text)
        process = subprocess.Popen(
            [*KEYARK, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=heeding_sigint,  # noqa: PLW1509 — no other thread of the tests holds a lock that it needs
        )
        connection = accepted(silent, process)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
        connection.close()
    assert process.returncode == STOPPED, said
    return said


@pytest.mark.parametrize("command", LONG)
def test_ctrl_c_ends_every_long_command(deployment_folder: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "users.csv").write_text("name,email\nAlice,alice@example.org\n")
    words = LONG[command].replace("OUT", str(tmp_path)).split()
    said = stopped_while_a_service_is_silent(deployment_folder, [*words, "--home", str(deployment_folder)])
    assert "run the same command again" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", ["enroll", "enroll many"])
async def test_a_stopped_enrollment_goes_on(deployment_folder: Path, tmp_path: Path, command: str) -> None:
    """P9: the folder that it left is no obstacle, and one pair is issued."""
    (tmp_path / "users.csv").write_text("name,email\nAlice,alice@example.org\n")
    words = [*LONG[command].replace("OUT", str(tmp_path)).split(), "--home", str(deployment_folder)]
    await asyncio.to_thread(stopped_while_a_service_is_silent, deployment_folder, words)
    async with running(deployment_folder) as deployment:
        await asyncio.to_thread(keyark, *words)
        stock = await take_stock(deployment.home())
    assert stock.certificates == 2
