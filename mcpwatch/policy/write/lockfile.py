"""The lock of a policy file: a file beside it, `.policy.yaml.lock`, which the kernel unlocks when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mcpwatch.policy.write.refusals import not_written
from mcpwatch.text import safe

PAUSE: Final = 0.02
"""Seconds between two looks at a lock, or at a file that somebody is writing."""

_BUSY: Final = (errno.EWOULDBLOCK, errno.EINTR)
_NO_LOCKS: Final = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextlib.contextmanager
def locked(path: Path, folder: int, actor: str, timeout: float) -> Iterator[None]:
    """Hold the lock of a policy file.

    Args:
        folder: Descriptor of its folder.
        actor: Who holds it, for those who wait.
        timeout: Seconds to wait for another holder.

    Raises:
        PolicyError: Somebody else holds it, or it can't be taken; the message says who, or why.
    """
    name = f".{path.name}.lock"
    try:
        lock = _taken(path, name, folder, time.monotonic() + timeout, timeout)
    except OSError as error:
        raise not_written(path, f"the lock file {name} can't be locked: {error.strerror}") from None
    try:
        with contextlib.suppress(OSError):  # who holds it is a courtesy; the lock is what counts
            _share(lock, os.stat(path.name, dir_fd=folder, follow_symlinks=False))
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{safe(actor, 80)} (process {os.getpid()})\n".encode(), 0)
        yield
    finally:
        # whoever locks it next by other means must not be taken for this holder
        with contextlib.suppress(OSError):
            os.ftruncate(lock, 0)
        _close(lock)


def _taken(path: Path, name: str, folder: int, deadline: float, timeout: float) -> int:
    """The descriptor of the lock file, locked."""
    while True:
        lock = _open(path, name, folder)
        try:
            if not stat.S_ISREG(os.fstat(lock).st_mode):
                raise not_written(path, f"the lock file {name} is not a regular file: remove it")
            _wait(path, lock, deadline, timeout)
            if _is_named(lock, name, folder):
                return lock
        except BaseException:
            _close(lock)
            raise
        # somebody removed the file meanwhile: others lock the one that stands there now
        _close(lock)


def _open(path: Path, name: str, folder: int) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return os.open(name, flags, 0o600, dir_fd=folder)
    except OSError as error:
        raise not_written(path, f"the lock file {name} can't be opened: {error.strerror}") from None


def _wait(path: Path, lock: int, deadline: float, timeout: float) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                reason = f"its file system has no locks ({error.strerror}): keep the policy on a local one"
                raise not_written(path, reason) from None
            if error.errno not in _BUSY:
                raise
        else:
            return
        if time.monotonic() >= deadline:
            holder = safe(os.pread(lock, 200, 0).decode("utf-8", "replace").strip(), 120) or "somebody"
            raise not_written(path, f"{holder} has been changing it for {timeout:g} s: try again")
        time.sleep(PAUSE)


def _is_named(lock: int, name: str, folder: int) -> bool:
    try:
        there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(lock))


def _share(lock: int, policy: os.stat_result) -> None:
    """Let those who may write the policy take its lock, and nobody else: who may read it could hold it for ever."""
    mine = os.fstat(lock)
    if os.geteuid() == 0:
        os.fchown(lock, policy.st_uid, policy.st_gid)
    elif mine.st_uid != os.geteuid():
        return
    elif mine.st_gid != policy.st_gid:
        os.fchown(lock, -1, policy.st_gid)
    os.fchmod(lock, 0o660 if policy.st_mode & stat.S_IWGRP else 0o600)


def _close(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)
