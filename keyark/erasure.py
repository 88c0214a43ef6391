"""Files whose contents must not stay behind: erased where they lie, and exchanged so that the former one is.

File systems that copy on write, snapshots and flash memory keep what was there before; docs/deployment.md says what to
do about them.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

NO_HARD_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What a file system without hard links answers."""

_CHUNK: Final = 1 << 20
_FLAGS: Final = os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe that nobody reads does not hold us


def erase_file(path: Path) -> None:
    """Overwrite a file in place and delete it, durably; a file that does not exist is left at that. Raises OSError.

    Every other name of the same file loses its contents, too.
    """
    try:
        descriptor = _opened(path)
    except FileNotFoundError:
        return
    try:
        _overwrite(descriptor)
    finally:
        os.close(descriptor)
    path.unlink()
    sync_folder(path.parent)


def exchange_file(new: Path, path: Path) -> None:
    """Put a file in the place of another in one durable step, then erase what was there. Raises OSError.

    What was there keeps a name until then, so that ``finish_exchange`` finds it after a crash, except on file systems
    without hard links. A symbolic link is replaced, and what it leads to is left to whoever put it there.
    """
    finish_exchange(path)
    if path.is_symlink() or not path.exists():
        new.replace(path)
        sync_folder(path.parent)
        return
    descriptor = _opened(path)
    try:
        try:
            _former(path).hardlink_to(path)
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
        new.replace(path)
        sync_folder(path.parent)
        _overwrite(descriptor)
    finally:
        os.close(descriptor)
    _former(path).unlink(missing_ok=True)
    sync_folder(path.parent)


def finish_exchange(path: Path) -> None:
    """Erase what an interrupted ``exchange_file`` left beside the file that is in place. Raises OSError."""
    former = _former(path)
    if not (former.exists() and path.exists()):
        return
    if former.samefile(path):  # interrupted before the new one took its place
        former.unlink()
    else:
        erase_file(former)


def _opened(path: Path) -> int:
    try:
        descriptor = os.open(path, _FLAGS)
    except PermissionError:  # its owner made it read-only
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        descriptor = os.open(path, _FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a device or a pipe is not erased, and stays
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return descriptor


def _overwrite(descriptor: int) -> None:
    left = os.fstat(descriptor).st_size
    while left > 0:
        left -= os.write(descriptor, bytes(min(left, _CHUNK)))
    os.fsync(descriptor)


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
