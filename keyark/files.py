"""Files that appear whole or not at all, and that only their owner reads."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from keyark.erasure import NO_HARD_LINKS, erase_file, exchange_file, finish_exchange, sync_folder
from keyark.errors import ConfigurationError

PUBLIC: Final = 0o644
PRIVATE: Final = 0o600
_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022
_ROOT: Final = 0
_FOLDER_MODE: Final = 0o700
_KINDS: Final = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))


class LaxPermissionsError(ConfigurationError):
    """Others than the owner may read or change a file or folder with secrets."""

    reason = "LAX_PERMISSIONS"


class ForeignOwnerError(ConfigurationError):
    """Another user owns a file or folder that this process would have to trust."""

    reason = "FOREIGN_OWNER"


class FileExistsAlreadyError(ConfigurationError):
    """A file that must not be overwritten exists."""

    reason = "FILE_EXISTS"


class UnreadableFileError(ConfigurationError):
    """A file does not exist, cannot be read, or is larger than it can rightly be."""

    reason = "UNREADABLE_FILE"


class UnwritableFileError(ConfigurationError):
    """A file or folder cannot be written."""

    reason = "UNWRITABLE_FILE"


def read_file(path: Path, *, max_size: int) -> bytes:
    """Return a file's bytes; raises UnreadableFileError."""
    with _opened(path) as descriptor:
        return _read(descriptor, path, max_size)


@contextlib.contextmanager
def opened_file(path: Path) -> Iterator[int]:
    """Open a regular file to read from its descriptor; raises UnreadableFileError, for a pipe or a device too."""
    with _opened(path) as descriptor:
        _regular(descriptor, path)
        yield descriptor


def read_secret_file(path: Path, *, max_size: int) -> bytes:
    """Return the bytes of a file that nobody but its owner can read or replace.

    Others may search and list its folder, as where a container platform mounts secrets, but not write there. The owner
    is this user or root. Root may open the files of any one user, in that user's folder.
    Raises LaxPermissionsError with what was seen, ForeignOwnerError and UnreadableFileError.
    """
    with _opened(path) as descriptor:
        status = _regular(descriptor, path)
        if status.st_mode & _OTHERS:
            raise LaxPermissionsError(
                f"{path} can be read by users other than its owner (mode {_mode(status)}); run: chmod 600 "
                f"'{path}'"
            )
        folders = {
            path.absolute().parent,
            path.resolve().parent,
        }  # of a link, and of the file that it leads to
        owners = {status.st_uid, *(_check_not_written_by_others(folder).st_uid for folder in folders)}
        if not owners <= {os.geteuid(), _ROOT} and (os.geteuid() != _ROOT or len(owners) > 1):
            raise _foreign(path)
        return _read(descriptor, path, max_size)


def is_there(path: Path) -> bool:
    """Whether a path exists; raises UnreadableFileError where the folders above it cannot be searched."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise UnreadableFileError(f"{path} cannot be opened: {words_of(error)}.") from None
    return True


def words_of(error: OSError | ValueError) -> str:
    """What the operating system says; a path that no system call takes has no such words."""
    return (error.strerror if isinstance(error, OSError) else None) or "a file cannot have this name"


def check_private_folder(folder: Path) -> None:
    """Raise ForeignOwnerError where another user owns a folder, LaxPermissionsError where it is laxer than 0700.

    Raises UnreadableFileError where it is no folder.
    """
    if _check_private(folder).st_uid != os.geteuid():
        raise _foreign(folder)


def check_own_folder(folder: Path) -> None:
    """Raise ForeignOwnerError where another user than root owns a folder, LaxPermissionsError where others write it.

    Raises UnreadableFileError where it is no folder.
    """
    if _check_not_written_by_others(folder).st_uid not in {os.geteuid(), _ROOT}:
        raise _foreign(folder)


def check_trusted_file(path: Path) -> None:
    """Raise ForeignOwnerError where another user than root owns a file, LaxPermissionsError where others may write it.

    Raises UnreadableFileError where there is none.
    """
    with _opened(path) as descriptor:
        status = os.fstat(descriptor)
    if status.st_uid not in {os.geteuid(), _ROOT}:
        raise _foreign(path)
    if status.st_mode & _OTHERS_WRITE:
        raise LaxPermissionsError(
            f"{path} can be changed by users other than its owner; run: chmod go-w '{path}'"
        )


def _check_private(folder: Path) -> os.stat_result:
    status = _folder_status(folder)
    if status.st_mode & _OTHERS:
        raise LaxPermissionsError(
            f"{folder} can be opened by users other than its owner (mode {_mode(status)}); "
            f"{_remedy(folder, status)}"
        )
    return status


def _remedy(folder: Path, status: os.stat_result) -> str:
    """What to do about a lax folder; nobody is told to close one that others need, or that a person lives in."""
    if status.st_mode & stat.S_ISVTX or folder.resolve() in (Path("/"), Path.home().resolve(), Path.cwd()):
        return "choose a new folder."
    return f"run: chmod 700 '{folder}'"


def _check_not_written_by_others(folder: Path) -> os.stat_result:
    """Raise LaxPermissionsError where others could put another file in the place of one in a folder."""
    status = _folder_status(folder)
    if status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX:
        raise LaxPermissionsError(
            f"{folder} can be changed by users other than its owner (mode {_mode(status)}), who could "
            f"replace its files; run: chmod go-w '{folder}'"
        )
    return status


def _folder_status(folder: Path) -> os.stat_result:
    try:
        status = folder.stat()
    except (OSError, ValueError) as error:
        raise UnreadableFileError(f"{folder} cannot be opened: {words_of(error)}.") from None
    if not stat.S_ISDIR(status.st_mode):
        raise UnreadableFileError(f"{folder} is not a folder.")
    return status


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"


def _foreign(path: Path) -> ForeignOwnerError:
    return ForeignOwnerError(
        f"{path} belongs to another user, who could replace it. Run the command as its owner, or "
        "change the owner."
    )


def make_private_folder(folder: Path) -> None:
    """Make a folder (0700) and its parents, or check the one that exists as ``check_private_folder`` does."""
    if not is_there(folder):
        make_folder(folder)
    check_private_folder(folder)


def make_folder(folder: Path) -> None:
    """Make a folder (0700) and its parents where there is none; raises UnwritableFileError."""
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    except FileExistsError:
        what = "is not a folder" if is_there(folder) else "is a symbolic link to nothing"
        raise UnwritableFileError(f"{folder} {what}; choose a new folder.") from None
    except (OSError, ValueError) as error:
        raise UnwritableFileError(f"{folder} cannot be made: {words_of(error)}.") from None


def write_file(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that replaces an older one in one durable step; raises UnwritableFileError.

    A device, a pipe or a socket is never replaced: as root, that would take it from everybody.
    """
    _check_replaceable(path)
    with _replacement(path, data, mode) as temporary:
        temporary.replace(path)


def _check_replaceable(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise UnwritableFileError(f"{path} cannot be written: {words_of(error)}.") from None
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise UnwritableFileError(f"{path} is not a regular file, so it was not replaced; name another file.")


def write_new_file(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file that must not exist yet, in one durable step.

    Raises FileExistsAlreadyError and leaves the older file as it is; raises UnwritableFileError.
    """
    with _replacement(path, data, mode) as temporary:
        try:
            _put_in_place(temporary, path)
        except FileExistsError:
            raise FileExistsAlreadyError(
                f"{path} exists and was not overwritten; move it away first."
            ) from None


def put_new_file(source: Path, path: Path) -> None:
    """Rename a file, durably, to a name in its folder that is free; raises FileExistsAlreadyError, UnwritableFileError.

    One run at a time, as within ``keyark.folders.working_in``.
    """
    if is_there(path):
        raise FileExistsAlreadyError(f"{path} exists and was not overwritten; move it away first.")
    with _writing(path):
        source.rename(path)
        sync_folder(path.parent)


def names_in(folder: Path) -> set[str]:
    """Return the names of what is in a folder; raises UnreadableFileError."""
    try:
        return set(os.listdir(folder))
    except (OSError, ValueError) as error:
        raise UnreadableFileError(f"{folder} cannot be opened: {words_of(error)}.") from None


def erase_secret_file(path: Path) -> None:
    """Overwrite and delete a file, durably; one that does not exist is left at that. Raises UnwritableFileError."""
    with _writing(path):
        erase_file(path)


def exchange_secret_file(new: Path, path: Path) -> None:
    """Put a file in the place of another in one durable step, and erase the former one; raises UnwritableFileError."""
    with _writing(path):
        exchange_file(new, path)


def finish_secret_exchange(path: Path) -> None:
    """Erase what an interrupted ``exchange_secret_file`` left; raises UnwritableFileError."""
    with _writing(path):
        finish_exchange(path)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise UnwritableFileError(f"{path} cannot be written: {words_of(error)}.") from None


def _put_in_place(temporary: Path, path: Path) -> None:
    try:
        path.hardlink_to(temporary)  # unlike a rename it never overwrites
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        temporary.replace(path)  # the empty file of our own, which nobody else could make


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise UnreadableFileError(f"{path} cannot be opened: {words_of(error)}.") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _regular(descriptor: int, path: Path) -> os.stat_result:
    """Return the status of a regular file; raises UnreadableFileError that says what else it is."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        kind = next((word for is_kind, word in _KINDS if is_kind(status.st_mode)), "device")
        raise UnreadableFileError(f"{path} is a {kind}, not a file; name a file.")
    return status


def _read(descriptor: int, path: Path, max_size: int) -> bytes:
    if (size := _regular(descriptor, path).st_size) > max_size:
        raise UnreadableFileError(
            f"{path} has {size} bytes, which is more than the allowed {max_size}; name another file."
        )
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read(max_size)


@contextlib.contextmanager
def _replacement(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """Write and sync a temporary file beside the target, and sync the folder once it was put in place."""
    with _writing(path), contextlib.ExitStack() as undo:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        undo.callback(forget_file, temporary)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        yield temporary
        sync_folder(path.parent)


def forget_file(temporary: Path) -> None:
    """Delete a file that may hold a secret; where it has another name, only this one."""
    try:
        if temporary.exists() and temporary.stat().st_nlink == 1:
            erase_file(temporary)
    finally:  # also where nothing can be overwritten, or not for sure
        temporary.unlink(missing_ok=True)
