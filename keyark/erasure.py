"""Files whose contents must not stay behind: erased where they lie, and exchanged so that the former one is.

File systems that copy on write, snapshots and flash memory keep what was there before; docs/deployment.md says what to
do about them.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

_CHUNK: Final = 1 << 20


def erase_file(path: Path) -> None:
    """Overwrite a file in place and delete it, durably; a file that does not exist is left at that. Raises OSError.

    Every other name of the same file loses its contents, too.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        left = os.fstat(descriptor).st_size
        while left > 0:
            left -= os.write(descriptor, bytes(min(left, _CHUNK)))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path.unlink()
    sync_folder(path.parent)


def exchange_file(new: Path, path: Path) -> None:
    """Put a file in the place of another in one durable step, then erase what was there. Raises OSError."""
    finish_exchange(path)
    if path.exists():
        _former(path).hardlink_to(path)
    new.replace(path)
    sync_folder(path.parent)
    erase_file(_former(path))


def finish_exchange(path: Path) -> None:
    """Erase what an interrupted ``exchange_file`` left beside the file that is in place. Raises OSError."""
    former = _former(path)
    if not (former.exists() and path.exists()):
        return
    if former.samefile(path):  # interrupted before the new one took its place
        former.unlink()
    else:
        erase_file(former)


def _former(path: Path) -> Path:
    return path.with_name(f"{path.name}.former")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # a file system that syncs no folders
            raise
    finally:
        os.close(descriptor)
