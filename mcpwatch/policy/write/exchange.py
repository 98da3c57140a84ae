"""Puts the new file into the place of the old one, and back where somebody else's has got into that place.

A plain rename destroys whatever stands there at that instant. An exchange takes it out, so that it can be looked at,
and put back if it is not the file that was read. Where the file system has no exchange, it is a plain rename after a
last look.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

_RENAME_EXCHANGE: Final = 2  # linux/fs.h
_NO_EXCHANGE: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


class Overtaken(Exception):
    """Another file stands in the place than the one that was to be replaced. Nothing was moved."""


def put_in_place(path: Path, folder: int, temporary: str, new: os.stat_result, old: os.stat_result) -> bool:
    """Let the temporary file stand under the path's name, if the old one still does.

    Args:
        folder: Descriptor of the folder of both.
        new: The temporary file.
        old: The file that it is to replace.

    Returns:
        Whether what it replaced, be it the old one or not, now stands under the temporary name.

    Raises:
        Overtaken: Another file than the old one stands there.
        OSError: Neither was moved.
    """
    if not stands(path.name, folder, old):
        raise Overtaken
    try:
        if _exchange(folder, temporary, path.name):
            return True
        os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        # over a network an error can come of a rename that was made
        if not stands(path.name, folder, new):
            raise
    return False


def put_back(path: Path, folder: int, temporary: str, new: os.stat_result) -> None:
    """Let what was taken out of the place stand there again, unless somebody has put a newer one there.

    Raises:
        OSError: The new file still stands there.
    """
    if not _exchange(folder, temporary, path.name):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if not stands(temporary, folder, new):
        _exchange(folder, temporary, path.name)


def stands(name: str, folder: int, wanted: os.stat_result) -> bool:
    """Whether a file stands under a name. Raises OSError where nothing does."""
    return os.path.samestat(os.stat(name, dir_fd=folder, follow_symlinks=False), wanted)


@lru_cache(maxsize=1)
def _renameat2() -> Any:
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None  # a C library without it
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return call


def _exchange(folder: int, one: str, other: str) -> bool:
    """Exchange two files of a folder in one step; whether that can be done here. Raises OSError where it failed."""
    call = _renameat2()
    if call is None:
        return False
    if call(folder, os.fsencode(one), folder, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number))
