"""The DRM restored from a backup by the book: docs/deployment.md, "Putting a backup in place"."""

from __future__ import annotations

import asyncio
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
from tests.support.deployment import Deployment
from tests.support.rotation import certificate_file, rotate


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


def head_of(folder: Path) -> str:
    """The head of a stopped DRM's log as `check` tells it: SIZE:ROOT."""
    told = "\n".join(check(load_config(folder / "drm" / "drm.toml", DrmConfig)))
    return ":".join(re.findall("log: ([0-9]+) entries make the tree ([0-9a-f]{64})", told)[0])


def confirm(program: object, config: Path, *words: object) -> int:
    """Give a stopped RM or CM `clear-alarm`; returns its exit code."""
    return program.PROGRAM.main(["clear-alarm", *map(str, (config, *words))])  # type: ignore[attr-defined]


async def restore(folder: Path, backup: Path, *, generation: int = 2) -> str:
    """Put a backup in place, begin another transport key, and confirm both to RM and CM; returns the head."""
    put_in_place(folder, backup)
    head = await asyncio.to_thread(head_of, folder)
    async with run_drm(load_config(folder / "drm" / "drm.toml", DrmConfig)) as drm:
        await rotate(Deployment(folder=folder, services={"drm": drm}))
    words = ("--restored", head, "--transport-key", certificate_file(folder, generation))
    for program, role in ((rm_program, "rm"), (cm_program, "cm")):
        assert await asyncio.to_thread(confirm, program, folder / role / f"{role}.toml", *words) == 0
    return head
