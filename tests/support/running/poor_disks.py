"""File systems that lack something, for one process and what it starts: full, without hard links, without fsync.

The kernel itself refuses, so LMDB meets it as Python does. A process that called one of these is poor for good: see
tests/support/running/offline_work.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_CALLS: Final = {
    "x86_64": {"fsync": 74, "fdatasync": 75, "link": 86, "linkat": 265},
    "aarch64": {"fsync": 82, "fdatasync": 83, "linkat": 37},
}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NEWNS, _NEWUSER = 0x20000, 0x10000000
_PRIVATE = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE
PAGE: Final = resource.getpagesize()


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def without_hard_links() -> None:
    """Have every attempt to make a hard link refused, as FAT does."""
    _refuse(["link", "linkat"], errno.EPERM)


def without_fsync() -> None:
    """Have every fsync and fdatasync refused, as some network and FUSE file systems do."""
    _refuse(["fsync", "fdatasync"], errno.EINVAL)


def _refuse(calls: Sequence[str], number: int) -> None:
    """Let this process and its children get an error from system calls (seccomp)."""
    numbers = [n for name, n in _CALLS[platform.machine()].items() if name in calls]
    code = [struct.pack("HBBI", _LOAD, 0, 0, 0)]  # the number of the call
    for left, call in enumerate(reversed(numbers)):
        code.insert(1, struct.pack("HBBI", _EQUAL, left + 1, 0, call))
    code += [struct.pack("HBBI", _RETURN, 0, 0, value) for value in (_ALLOW, _ERRNO | number)]
    raw = b"".join(code)
    program = _Program(len(code), raw)
    _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(_LIBC.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(program)))


class FullDisk:
    """A file system of a few MiB at a folder, which is full whenever ``fill`` was called.

    It is a tmpfs in a mount namespace of this process, made with the privileges of root or of a user namespace. Where a
    container permits neither, the process is refused to write any file beyond its first ``left`` pages (RLIMIT_FSIZE).
    """

    def __init__(self, folder: Path, *, mebibytes: int) -> None:
        self._filler = folder / "filler"
        self.is_mounted = _own_mounts()
        if self.is_mounted:
            options = f"size={mebibytes}m,mode=700".encode()
            _check(_LIBC.mount(b"none", os.fsencode(folder), b"tmpfs", 0, options))

    def fill(self, *, left: int) -> None:
        """Leave room for some pages and no more."""
        self.make_room()
        if not self.is_mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (left * PAGE, resource.RLIM_INFINITY))
            return
        with self._filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):  # no room
            while True:
                file.write(bytes(PAGE))
        os.truncate(self._filler, self._filler.stat().st_size - left * PAGE)

    def make_room(self) -> None:
        """Empty it of what filled it."""
        if self.is_mounted:
            self._filler.unlink(missing_ok=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _own_mounts() -> bool:
    user, group = os.geteuid(), os.getegid()
    if _LIBC.unshare(_NEWNS) != 0:
        if _LIBC.unshare(_NEWNS | _NEWUSER) != 0:
            return False
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return bool(_LIBC.mount(b"none", b"/", None, _PRIVATE, None) == 0)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
