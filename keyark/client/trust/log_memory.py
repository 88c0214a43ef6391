"""The newest head of the DRM's log that a home saw: a signed note on its disk, which only a larger tree replaces."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from keyark.client.access.home import Home
from keyark.files import UnwritableFileError, make_private_folder, read_file, write_file
from keyark.transparency.checkpoint import Checkpoint, VerifiedHead, parse_checkpoint
from keyark.transparency.merkle import EMPTY_ROOT

FOLDER: Final = "checkpoints"
MAX_NOTE: Final = 1 << 17


def remembered(home: Home) -> Checkpoint:
    """Return the newest head that this home saw, the empty tree before the first.

    The home's own word counts here, so no signature is looked at. Raises UnreadableFileError and
    CheckpointFormatError.
    """
    path = _path(home)
    if not path.exists():
        return Checkpoint(f"{home.config.trust_domain}/drm", 0, EMPTY_ROOT)
    return parse_checkpoint(read_file(path, max_size=MAX_NOTE))


def remember(home: Home, head: VerifiedHead) -> None:
    """Keep a head that leads on from the one that is remembered, durably; raises UnwritableFileError."""
    path = _path(home)
    make_private_folder(path.parent)
    with _locked(path.parent):
        if head.checkpoint.size > remembered(home).size:
            write_file(path, head.note, mode=0o600)


def _path(home: Home) -> Path:
    return home.folder / FOLDER / "drm.note"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time compare and write."""
    try:
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnwritableFileError(f"{folder} cannot be written: {error.strerror}.") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
