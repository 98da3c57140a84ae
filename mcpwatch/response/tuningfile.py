"""Puts a file that tunes a rule into its folder: whole or not at all, and never over anything but what was shown."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mcpwatch.documents.tree import MAX_BYTES
from mcpwatch.response.plan import ResponseError
from mcpwatch.text import safe

_MODE: Final = 0o644
_CHANGED: Final = "somebody else changed it meanwhile: look again"
_LINK: Final = "it is a symbolic link: name the file that it points to"


def refusal(folder: Path) -> str | None:
    """Why no file can be written into a folder by this process, or None if one can."""
    try:
        found = folder.stat()
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        return "everybody may write its folder: chmod o-w the folder first"
    return None if os.access(folder, os.W_OK | os.X_OK) else "no permission to write its folder"


def write(path: Path, before: bytes | None, after: bytes) -> None:
    """Put a file in place, readable by everybody.

    Args:
        before: What stands there now; None is no file.

    Raises:
        ResponseError: Nothing was written, among other reasons because something else stands there.
    """
    temporary = f".{path.name}.{secrets.token_hex(8)}.new"
    try:
        with _locked(path) as folder:
            if _current(path, folder) != before:
                raise _not_written(path, _CHANGED)
            try:
                _make(temporary, folder, after)
                _put(temporary, path, folder, new=before is None)
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
            # the file is in place: that the folder can't be synced does not undo it
            with contextlib.suppress(OSError):
                os.fsync(folder)
    except OSError as error:
        raise _not_written(path, error.strerror or str(error)) from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """The folder, which no other mcpwatch writes to meanwhile."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                raise _not_written(path, "somebody else is writing there: try again") from None
            raise
        yield folder
    finally:
        os.close(folder)


def _current(path: Path, folder: int) -> bytes | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path.name, flags, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _not_written(path, _LINK if error.errno == errno.ELOOP else str(error.strerror)) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _not_written(path, "it is not a regular file")
        if found.st_nlink > 1:
            raise _not_written(path, "it has a second name (hard link), which would keep the old content")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def _make(name: str, folder: int, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, 0o600, dir_fd=folder), "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(data)
        file.flush()
        os.fchmod(file.fileno(), _MODE)
        os.fsync(file.fileno())


def _put(name: str, path: Path, folder: int, *, new: bool) -> None:
    if new:
        try:
            # unlike a rename this fails where a file has appeared since
            os.link(name, path.name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            raise _not_written(path, _CHANGED) from None
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise
        else:
            return
    os.rename(name, path.name, src_dir_fd=folder, dst_dir_fd=folder)


def _not_written(path: Path, reason: str) -> ResponseError:
    return ResponseError(safe(f"{path}: not written: {reason}"))
