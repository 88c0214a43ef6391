"""The DRM restored from a backup by the book: docs/deployment.md, "Putting a backup in place"."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import shutil
from pathlib import Path

from cm_service import __main__ as cm_program
from drm_service import __main__ as drm_program
from drm_service.checking import check
from drm_service.config import DrmConfig
from drm_service.subsystem import run as run_drm
from keyark.config import load_config
from keyark.store import row_keys_beside
from rm_service import __main__ as rm_program
from tests.support.running.deployment import Deployment, on_a_free_port
from tests.support.stories.rotation import certificate_file, rotate


async def back_up(folder: Path, target: Path) -> None:
    """Give a stopped DRM `backup`."""
    config = folder / "drm" / "drm.toml"
    assert await asyncio.to_thread(drm_program.PROGRAM.main, ["backup", str(config), str(target)]) == 0


def put_in_place(folder: Path, backup: Path) -> None:
    """Replace the store of a DRM that is stopped, with the row keys of the backup or of a copy of the folder."""
    store, row_keys = folder / "drm" / "store", row_keys_beside(backup)
    shutil.rmtree(store)
    shutil.copytree(backup, store)
    if row_keys.exists():
        shutil.copy(row_keys, store / "row-keys")


def told_by_check(folder: Path) -> str:
    """What `check` of a stopped DRM prints."""
    return "\n".join(check(on_a_free_port(load_config(folder / "drm" / "drm.toml", DrmConfig))))


def head_of(folder: Path) -> str:
    """The head of a stopped DRM's log as `check` tells it: SIZE:ROOT."""
    return ":".join(
        re.findall("log: ([0-9]+) entries make the tree ([0-9a-f]{64})", told_by_check(folder))[0]
    )


def newest_change(folder: Path) -> str:
    """The newest change of agents or storage keys as `check` of a stopped DRM tells it: an id, or none."""
    return str(
        re.findall("^change of agents or storage keys: (.*)$", told_by_check(folder), re.MULTILINE)[-1]
    )


def confirm(program: object, config: Path, *words: object) -> int:
    """Give a stopped RM or CM `clear-alarm`; returns its exit code."""
    return program.PROGRAM.main(["clear-alarm", *map(str, (config, *words))])  # type: ignore[attr-defined]


def confirm_all(program: object, config: Path, *words: object) -> int:
    """Give a stopped RM or CM `clear-alarm`, with the evidence too where the restored log raised an alarm.

    It does so where it grew to a size that the lost one had when the service followed it, which is a matter of timing.
    """
    with contextlib.redirect_stderr(io.StringIO()) as told:
        code = confirm(program, config, *words)
    evidence = re.findall("(--evidence) ([0-9a-f]{64})", told.getvalue())
    return confirm(program, config, *words, *evidence[0]) if evidence else code


async def log_first_start_after_restore(folder: Path, backup: Path, *, generation: int = 2) -> list[object]:
    """Put a backup in place and begin another transport key; returns the words that RM and CM have to be given."""
    put_in_place(folder, backup)
    head, change = [await asyncio.to_thread(tell, folder) for tell in (head_of, newest_change)]
    async with run_drm(on_a_free_port(load_config(folder / "drm" / "drm.toml", DrmConfig))) as drm:
        await rotate(Deployment(folder=folder, services={"drm": drm}))
    key = certificate_file(folder, generation)
    return ["--restored", head, "--transport-key", key, "--newest-change", change]


async def restore(folder: Path, backup: Path, *, generation: int = 2) -> str:
    """Put a backup in place, begin another transport key, and confirm all to RM and CM; returns the head."""
    words = await log_first_start_after_restore(folder, backup, generation=generation)
    for program, role in ((rm_program, "rm"), (cm_program, "cm")):
        assert await asyncio.to_thread(confirm_all, program, folder / role / f"{role}.toml", *words) == 0
    return str(words[1])
