"""Folders that one process works in at a time, and those that are filled as a whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from keyark.errors import ConfigurationError
from keyark.files import (
    UnreadableFileError,
    UnwritableFileError,
    check_private_folder,
    forget_file,
    is_there,
    make_folder,
    words_of,
)

_LOCK: Final = ".lock"


class FolderInUseError(ConfigurationError):
    """Another process works in a folder."""

    reason = "FOLDER_IN_USE"


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Make a folder (0700) where there is none, and keep other runs out of it meanwhile.

    A folder in which nothing was written is removed again. Raises FolderInUseError where another run works in it, and
    UnwritableFileError. The lock is the operating system's: it ends with the process.
    """
    lock = folder / _LOCK
    make_folder(folder)
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except (OSError, ValueError) as error:
        raise UnwritableFileError(f"{folder} cannot be written: {words_of(error)}.") from None
    try:
        _take_lock(descriptor, lock)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it holds something, as it should
                folder.rmdir()
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[None]:
    """Fill a folder (0700) that does not exist or is empty, alone; where that fails, nothing of it stays.

    Raises ConfigurationError where it holds anything, ForeignOwnerError, LaxPermissionsError, FolderInUseError and
    UnwritableFileError; then it is left as it is.
    """
    if is_there(folder):
        _check_empty(folder)
    with working_in(folder):
        _check_empty(folder)
        try:
            yield
        except BaseException:
            _empty(folder)
            raise


def _check_empty(folder: Path) -> None:
    check_private_folder(folder)
    if any(path.name != _LOCK for path in folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty, so nothing was written; name another folder.")


def _empty(folder: Path) -> None:
    """Erase what is in a folder, but for the lock; what cannot be erased is deleted."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with contextlib.suppress(OSError):
            if path.is_symlink():
                path.unlink()
            elif path.is_dir():
                path.rmdir()
            elif path != folder / _LOCK:
                forget_file(path)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Change what is in a folder one process after the other: a second one waits until the first is done.

    Raises UnreadableFileError where there is no such folder.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UnreadableFileError(f"{folder} cannot be opened: {words_of(error)}.") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _take_lock(descriptor: int, lock: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_current = is_there(lock) and lock.stat().st_ino == os.fstat(descriptor).st_ino
    except BlockingIOError:
        is_current = False
    except OSError as error:  # a file system without locks
        raise UnwritableFileError(f"{lock.parent} cannot be locked: {error.strerror}.") from None
    if not is_current:  # or it was removed with its folder
        raise FolderInUseError(
            f"Another keyark command is working in {lock.parent}; wait until it ends, or choose another "
            "folder."
        )
