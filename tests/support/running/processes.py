"""The real programs as processes: `keyark` commands, and deployments run by `keyark up`."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from keyark.deployment.ports import free_ports
from tests.support.running.command_client import command_server
from tests.support.running.deployment import copy_deployment, deployment_template, edit, template_ports

KEYARK = (sys.executable, "-m", "keyark.cli")
"""The command line as a program."""


def keyark(*arguments: object, code: int = 0, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a `keyark` command to its end; fails unless it ends with ``code``.

    Every command is a process of its own. Without ``options`` for ``subprocess.run`` it is forked from one that has
    imported the commands already, since most commands take ten times longer to import than to run.
    """
    words = [str(argument) for argument in arguments]
    forked = not options and command_server().fits
    done = command_server().run(words) if forked else _executed(words, **options)
    assert done.returncode == code, f"code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def _executed(words: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KEYARK, *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
        **options,
    )


def init_home(folder: Path, *, workers: int = 1) -> Path:
    """Make a deployment as `keyark init` does, on free ports: a copy of one that was made before, which is quicker.

    ``workers`` is how many each pool of CM and DRM starts. Where a test is not about workers, one is quicker to start.
    """
    copy_deployment(deployment_template(), folder)
    for role in ("cm", "drm"):
        edit(folder / role / f"{role}.toml", "count = 1", f"count = {workers}")
    base = free_ports()
    for name in ("keyark.toml", "rm/rm.toml", "cm/cm.toml", "drm/drm.toml"):
        text = (folder / name).read_text()
        for offset in range(3):
            text = text.replace(f":{template_ports() + offset}", f":{base + offset}")
        (folder / name).write_text(text)
    return folder


async def run_printed(command: str) -> str:
    """Run a `keyark` command as something printed it, while a deployment runs on this event loop."""
    program, *arguments = shlex.split(command, comments=True)
    assert program == "keyark"
    return (await asyncio.to_thread(keyark, *arguments)).stdout


@contextlib.contextmanager
def up(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run `keyark up`, ready when this yields; stopped at the end unless the test did."""
    process = subprocess.Popen(
        [sys.executable, "-m", "keyark.cli", "up", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = [process.stdout.readline() for _ in range(3)]
        assert all(" ready at " in line for line in lines), (lines, process.stderr.read())
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
