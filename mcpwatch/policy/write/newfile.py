"""The new content in a file of its own beside the old one, with the old one's owner, group, attributes and mode."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mcpwatch.policy.write.refusals import not_written
from mcpwatch.policy.write.versions import write_all

_OF_THE_SYSTEM: Final = ("security.", "trusted.")
_OF_THE_CONTENT: Final = ("security.ima", "security.evm")
_ACCESS_LIST: Final = "system.posix_acl_access"


@contextlib.contextmanager
def beside(path: Path, folder: int, old: int, data: bytes) -> Iterator[tuple[str, int]]:
    """Write content into a new file and sync it: its name in the folder, and a descriptor to read it.

    What stands under that name is removed in the end, unless nothing does.

    Args:
        folder: Descriptor of the folder.
        old: Descriptor of the file that it is to replace.

    Raises:
        OSError: It can't be written.
        PolicyError: It can't be given to the old one's group.
    """
    name = f".{path.name}.{secrets.token_hex(8)}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    new = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        try:
            write_all(new, data)
            take_over(path, old, new)
            os.fsync(new)
            reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        finally:
            close(new)
        try:
            yield name, reader
        finally:
            close(reader)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)


def take_over(path: Path, old: int, new: int) -> None:
    """Give the new file the old one's owner, group, attributes (access lists are among them) and mode."""
    found = os.fstat(old)
    mine = os.fstat(new)
    if (mine.st_uid, mine.st_gid) != (found.st_uid, found.st_gid):
        try:
            os.fchown(new, found.st_uid, found.st_gid)
        except PermissionError:
            _take_over_group(path, new, found.st_gid)
    attributes = _attributes(old)
    for name in attributes:
        if name in _OF_THE_CONTENT:
            continue
        try:
            os.setxattr(new, name, os.getxattr(old, name))
        except OSError:
            # labels that only the system may set come from the folder's own rules
            if not name.startswith(_OF_THE_SYSTEM):
                raise
    if _ACCESS_LIST not in attributes and _ACCESS_LIST in _attributes(new):
        # inherited from the folder: it would let in whom the old file does not
        os.removexattr(new, _ACCESS_LIST)
    os.fchmod(new, stat.S_IMODE(found.st_mode))


def _take_over_group(path: Path, new: int, group: int) -> None:
    try:
        os.fchown(new, -1, group)
    except PermissionError:
        raise not_written(path, "its group can't be kept: you are not in it") from None


def _attributes(descriptor: int) -> list[str]:
    try:
        return os.listxattr(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return []
        raise


def clear_leftovers(path: Path, folder: int) -> None:
    """Remove what a writer that was killed left behind: under the lock there is no other."""
    pattern = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{16}\.new")
    for name in os.listdir(folder):
        if pattern.fullmatch(name):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)


def close(descriptor: int) -> None:
    """Close a file. What counts was synced before: a failing close must not turn "written" into "not written"."""
    with contextlib.suppress(OSError):
        os.close(descriptor)
