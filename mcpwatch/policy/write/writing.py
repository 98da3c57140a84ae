"""One write of the policy file, from the lock to the last look at what is on disk."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from mcpwatch.documents.tree import MAX_BYTES
from mcpwatch.policy import lease
from mcpwatch.policy.edit import Edit
from mcpwatch.policy.load import parse
from mcpwatch.policy.model import PolicyError
from mcpwatch.policy.write import exchange
from mcpwatch.policy.write.lockfile import PAUSE, locked
from mcpwatch.policy.write.newfile import beside, clear_leftovers, close
from mcpwatch.policy.write.refusals import check_writable, not_written, refusal
from mcpwatch.policy.write.versions import keep_version
from mcpwatch.text import safe


class Written(StrEnum):
    """What became of an edit that was not refused."""

    APPLIED = "applied"
    """The new file is in place and will survive a power cut."""
    UNCONFIRMED = "unconfirmed"
    """The new file was put in place, but the folder could not be synced, or it no longer reads the same."""
    UNCHANGED = "unchanged"
    """There was nothing to do, and nothing was written."""


class PolicyChanged(PolicyError):
    """The file is not the one that the edit was planned for: plan again."""


_Identity: TypeAlias = tuple[int, ...]


def _identity(found: os.stat_result) -> _Identity:
    """What tells a state of a file from any other, be it of its content or of who may do what with it."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _changed(path: Path) -> PolicyChanged:
    return PolicyChanged(safe(f"{path}: not written: somebody else changed it meanwhile: look again"))


@contextlib.contextmanager
def _folder_of(path: Path) -> Iterator[int]:
    # everything below goes through this descriptor, so that a folder swapped meanwhile changes nothing
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise not_written(path, f"its folder can't be opened: {error.strerror}") from None
    try:
        yield folder
    finally:
        close(folder)


@contextlib.contextmanager
def _opened(path: Path, folder: int) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path.name, flags, dir_fd=folder)
    except OSError as error:
        symlink = "it is a symbolic link: name the file that it points to"
        raise not_written(path, symlink if error.errno == errno.ELOOP else str(error.strerror)) from None
    try:
        yield descriptor
    finally:
        close(descriptor)


def _read(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    data = b""
    while len(data) <= MAX_BYTES and (piece := os.read(descriptor, MAX_BYTES + 1 - len(data))):
        data += piece
    return data


def _current(path: Path, folder: int) -> tuple[_Identity, bytes, bool]:
    """What stands there now: what tells it from another state, its content, whether somebody may be writing it."""
    with _opened(path, folder) as descriptor:
        try:
            busy = lease.take(descriptor) is lease.Access.BUSY
            return _identity(os.fstat(descriptor)), _read(descriptor), busy
        except OSError as error:
            raise not_written(path, f"it can't be read: {error.strerror}") from None


def _replace(path: Path, folder: int, edit: Edit, state_dir: Path) -> Written:
    """Put `edit.after` in the place of `edit.before`. The caller holds the lock."""
    with _opened(path, folder) as old:
        try:
            found = os.fstat(old)
            reason = refusal(found, os.fstat(folder))
            if reason is not None:
                raise not_written(path, reason)
            if _read(old) != edit.before:
                raise _changed(path)
            clear_leftovers(path, folder)
            keep_version(path, edit.before, state_dir)
            with beside(path, folder, old, edit.after) as (temporary, new):
                leased = _keep_off(path, old, found, edit.before, new)
                place = os.fstat(new)
                swapped = exchange.put_in_place(path, folder, temporary, place, found)
                if _overtaken(folder, old, found, edit.before, temporary if swapped else None, leased):
                    return _taken_back(path, folder, temporary, place, state_dir)
        except exchange.Overtaken:
            raise _changed(path) from None
        except OSError as error:
            raise not_written(path, error.strerror or str(error)) from None
    return _confirm(path, folder, edit.after)


def _keep_off(path: Path, old: int, found: os.stat_result, data: bytes, new: int) -> bool:
    """See that the old file is as it was and that nobody is writing it.

    Returns:
        Whether whoever begins to write it has to wait from now on: whether its lease is held.

    Raises:
        PolicyChanged: It is not, or somebody is.
    """
    # where no file gets a lease, not even one that nobody else knows, "busy" means nothing
    access = lease.take(old)
    if access is lease.Access.BUSY and lease.take(new) is lease.Access.QUIET:
        raise PolicyChanged(safe(f"{path}: not written: somebody is writing it just now: look again"))
    if _identity(os.fstat(old)) != _identity(found) or _read(old) != data:
        raise _changed(path)
    return access is lease.Access.QUIET


def _overtaken(
    folder: int, old: int, found: os.stat_result, data: bytes, temporary: str | None, leased: bool
) -> bool:
    """Whether somebody was in time with an edit that the exchange took out of the place, or is about to write it.

    Args:
        found: The old file as it was.
        data: What was in it.
        temporary: Where that which was taken out stands now, if it was not destroyed.
        leased: Whether the old file's lease is held.
    """
    try:
        return (
            (temporary is not None and not exchange.stands(temporary, folder, found))
            or (leased and lease.awaited(old))
            or os.fstat(old).st_mtime_ns != found.st_mtime_ns
            or _read(old) != data
        )
    except OSError:
        return False  # it was ours a moment ago


def _taken_back(path: Path, folder: int, temporary: str, place: os.stat_result, state_dir: Path) -> Written:
    """Let the edit of somebody else stand. Raises PolicyChanged; returns only if that can't be done."""
    try:
        exchange.put_back(path, folder, temporary, place)
    except OSError:
        with contextlib.suppress(OSError, PolicyError):
            keep_version(path, _current(path.with_name(temporary), folder)[1], state_dir)
        return Written.UNCONFIRMED
    raise _changed(path)


def _confirm(path: Path, folder: int, expected: bytes) -> Written:
    # the rename is done: whatever fails from here on must not be reported as "not written"
    try:
        os.fsync(folder)
        with _opened(path, folder) as descriptor:
            same = _read(descriptor) == expected
    except (OSError, PolicyError):
        return Written.UNCONFIRMED
    return Written.APPLIED if same else Written.UNCONFIRMED


def apply(path: Path, edit: Edit, *, state_dir: Path, actor: str, lock_timeout: float = 5.0) -> Written:
    """Write an edit that was planned, and perhaps shown, before.

    Args:
        state_dir: Where the replaced version is kept.
        actor: Who does it; shown to others who wait for the lock.
        lock_timeout: Seconds to wait for another writer.

    Raises:
        PolicyChanged: The file is no longer the one that the edit was planned for. Nothing was written.
        PolicyError: Nothing was written; the message says why.
    """
    if edit.noop:
        return Written.UNCHANGED
    check_writable(path)
    for data in (edit.before, edit.after):
        parse(data, path)
    with _folder_of(path) as folder, locked(path, folder, actor, lock_timeout):
        return _replace(path, folder, edit, state_dir)


def change(
    path: Path,
    make: Callable[[bytes], Edit],
    *,
    state_dir: Path,
    actor: str,
    lock_timeout: float = 5.0,
) -> tuple[Edit, Written]:
    """Plan and write in one go; plans again when somebody who ignores the lock changes the file in between.

    Args:
        make: Plans the edit from the file's bytes, for example `lambda data: plan(data, change, str(path))`.
        lock_timeout: Seconds to wait for another writer, and for somebody who ignores the lock.

    Raises:
        PolicyError: Nothing was written; the message says why.
    """
    check_writable(path)
    with _folder_of(path) as folder, locked(path, folder, actor, lock_timeout):
        deadline = time.monotonic() + lock_timeout
        while True:
            identity, data, busy = _current(path, folder)
            try:
                edit = make(data)
                if edit.noop:
                    return edit, Written.UNCHANGED
                return edit, _replace(path, folder, edit, state_dir)
            except PolicyChanged:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(PAUSE)
            except PolicyError:
                # half a file, while an editor is writing it, is no reason to give up
                time.sleep(PAUSE)
                if time.monotonic() >= deadline or not (busy or _differs(path, folder, identity)):
                    raise


def _differs(path: Path, folder: int, identity: _Identity) -> bool:
    try:
        return _identity(os.stat(path.name, dir_fd=folder, follow_symlinks=False)) != identity
    except OSError:
        return True
