"""Tells whether somebody has a file open for writing, by a read lease, which the kernel gives only if nobody has.

While a lease is held, whoever opens the file for writing waits until it is given back, so that what is read under it
is never half of what somebody is writing. Leases are given to the file's owner and to root, on local file systems.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from enum import Enum
from pathlib import Path


class Access(Enum):
    """Who has a file open."""

    QUIET = "quiet"
    """Nobody has it open for writing; the lease is held."""
    BUSY = "busy"
    """Somebody has it open for writing. Some network file systems say so of every file."""
    UNKNOWN = "unknown"
    """Leases are not given here: the file is somebody else's, or its file system has none."""


def take(descriptor: int) -> Access:
    """Ask for the lease of a file that is open for reading; closing the descriptor gives it back."""
    try:
        # the kernel's signal to a holder who is in somebody's way would end the process; this one is ignored
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return Access.BUSY
    except OSError:
        return Access.UNKNOWN
    return Access.QUIET


def awaited(descriptor: int) -> bool:
    """Whether somebody is waiting to write a file whose lease is held."""
    try:
        # the kernel tells what the lease is to become: none, if somebody wants to write
        return fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK
    except OSError:
        return False


@contextlib.contextmanager
def reading(path: Path) -> Iterator[tuple[Access, tuple[int, int]]]:
    """Hold the lease of a file while it is read.

    Yields:
        Who has it open, and its device and inode: of the file that stood there when this began.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        yield Access.UNKNOWN, (0, 0)
        return
    try:
        found = os.fstat(descriptor)
        yield take(descriptor), (found.st_dev, found.st_ino)
    finally:
        os.close(descriptor)
