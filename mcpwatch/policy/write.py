"""Writes the policy file: the only code that does, and only by an `Edit` of exactly what is on disk.

The new content goes into a file beside the old one, which takes over its mode, owner, group and attributes and
is renamed over it: a reader, and a machine that dies at any moment, sees the old file or the new one, complete.
Writers exclude each other through a lock file beside the policy; somebody who edits without it is noticed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from mcpwatch.documents.tree import MAX_BYTES
from mcpwatch.policy.edit import Edit
from mcpwatch.policy.load import parse
from mcpwatch.policy.model import PolicyError
from mcpwatch.text import safe

VERSIONS_KEPT: Final = 10
"""How many earlier versions of a policy file stay in the state folder."""

_RETRIES: Final = 20
_PAUSE: Final = 0.02  # seconds between two looks at a lock, or at a file that somebody is writing


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


@dataclass(frozen=True, slots=True)
class _Identity:
    device: int
    inode: int
    size: int
    modified: int
    changed: int


def _identity(found: os.stat_result) -> _Identity:
    return _Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _refusal(file: os.stat_result, folder: os.stat_result) -> str | None:
    """The first reason why a file is not one that may be replaced, from its state and its folder's."""
    checks = (
        (stat.S_ISLNK(file.st_mode), "it is a symbolic link: name the file that it points to"),
        (not stat.S_ISREG(file.st_mode), "it is not a regular file"),
        (file.st_nlink > 1, "it has a second name (hard link), which would keep the old content"),
        (bool(file.st_mode & stat.S_IWOTH), "everybody may write it: chmod o-w first"),
        (bool(folder.st_mode & stat.S_IWOTH), "everybody may write its folder: chmod o-w the folder first"),
        (not file.st_mode & 0o222, "it is read-only: chmod u+w if it may be changed"),
    )
    return next((reason for bad, reason in checks if bad), None)


def writable(path: Path) -> str | None:
    """Why the policy file can't be changed by this process, or None if it can."""
    try:
        reason = _refusal(path.lstat(), path.parent.stat())
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    if reason is not None:
        return reason
    if not os.access(path, os.R_OK | os.W_OK):
        return "no permission to write it"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return "no permission to write its folder"
    return None


def owner_change(path: Path) -> str | None:
    """What a change by this process does to the file's owner, for the operator to know; None if nothing."""
    owner, me = path.stat().st_uid, os.geteuid()
    return None if me in (0, owner) else f"the file's owner becomes user {me} (it was user {owner})"


def _check_writable(path: Path) -> None:
    # before the lock is taken too: a refusal leaves no lock file behind
    reason = writable(path)
    if reason is not None:
        raise _not_written(path, reason)


def _not_written(path: Path, reason: str) -> PolicyError:
    return PolicyError(safe(f"{path}: not written: {reason}"))


@contextlib.contextmanager
def _folder_of(path: Path) -> Iterator[int]:
    # everything below goes through this descriptor, so that a folder swapped meanwhile changes nothing
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _not_written(path, f"its folder can't be opened: {error.strerror}") from None
    try:
        yield folder
    finally:
        _close(folder)


@contextlib.contextmanager
def _locked(path: Path, folder: int, actor: str, timeout: float) -> Iterator[None]:
    name = f".{path.name}.lock"
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        lock = os.open(name, flags, 0o600, dir_fd=folder)
    except OSError as error:
        raise _not_written(path, f"the lock file {name} can't be opened: {error.strerror}") from None
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                    raise _not_written(
                        path, f"the lock file {name} can't be locked: {error.strerror}"
                    ) from None
            if time.monotonic() >= deadline:
                holder = safe(os.pread(lock, 200, 0).decode("utf-8", "replace").strip(), 120) or "somebody"
                raise _not_written(path, f"{holder} has been changing it for {timeout:g} s: try again")
            time.sleep(_PAUSE)
        with contextlib.suppress(OSError):  # who holds it is a courtesy; the lock is what counts
            _share_with_group(lock, os.stat(path.name, dir_fd=folder, follow_symlinks=False))
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{safe(actor, 80)} (process {os.getpid()})\n".encode(), 0)
        yield
    finally:
        _close(lock)


def _share_with_group(lock: int, policy: os.stat_result) -> None:
    """Let those who may write the policy take its lock."""
    mine = os.fstat(lock)
    if mine.st_uid == os.geteuid():
        if mine.st_gid != policy.st_gid:
            os.fchown(lock, -1, policy.st_gid)
        os.fchmod(lock, 0o600 | (policy.st_mode & 0o060))


def _open(path: Path, folder: int) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path.name, flags, dir_fd=folder)
    except OSError as error:
        symlink = "it is a symbolic link: name the file that it points to"
        raise _not_written(path, symlink if error.errno == errno.ELOOP else str(error.strerror)) from None


def _close(descriptor: int) -> None:
    # what counts was synced before: a failing close must not turn "written" into "not written"
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _read(descriptor: int) -> bytes:
    os.lseek(descriptor, 0, os.SEEK_SET)
    data = b""
    while len(data) <= MAX_BYTES and (piece := os.read(descriptor, MAX_BYTES + 1 - len(data))):
        data += piece
    return data


def _current(path: Path, folder: int) -> tuple[_Identity, bytes]:
    descriptor = _open(path, folder)
    try:
        return _identity(os.fstat(descriptor)), _read(descriptor)
    except OSError as error:
        raise _not_written(path, f"it can't be read: {error.strerror}") from None
    finally:
        _close(descriptor)


def _keep_version(path: Path, data: bytes, state_dir: Path) -> None:
    """Keep the content that is about to be replaced, and of all kept the newest ten."""
    folder = state_dir / "policy-versions"
    mark = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]
    pattern = re.compile(re.escape(f"{path.name}.{mark}.") + r"(\d{6,})")
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700 | (state_dir.stat().st_mode & 0o070), exist_ok=True)
        kept = sorted(int(match[1]) for name in os.listdir(folder) if (match := pattern.fullmatch(name)))  # noqa: PTH208
        number = kept[-1] + 1 if kept else 1
        file = os.open(
            folder / f"{path.name}.{mark}.{number:06d}",
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
        )
        try:
            _write_all(file, data)
            os.fsync(file)
        finally:
            _close(file)
        for old in kept[: max(0, len(kept) + 1 - VERSIONS_KEPT)]:
            (folder / f"{path.name}.{mark}.{old:06d}").unlink(missing_ok=True)
    except OSError as error:
        where = error.filename or folder
        raise _not_written(path, f"the old version can't be kept in {where}: {error.strerror}") from None


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _take_over(path: Path, old: int, new: int) -> None:
    """Give the new file the old one's owner, group, attributes (access lists are among them) and mode."""
    found = os.fstat(old)
    mine = os.fstat(new)
    if (mine.st_uid, mine.st_gid) != (found.st_uid, found.st_gid):
        try:
            os.fchown(new, found.st_uid, found.st_gid)
        except PermissionError:
            try:
                os.fchown(new, -1, found.st_gid)
            except PermissionError:
                raise _not_written(path, "its group can't be kept: you are not in it") from None
    for name in _attributes(old):
        try:
            os.setxattr(new, name, os.getxattr(old, name))
        except OSError:
            # labels that only the system may set come from the folder's own rules
            if not name.startswith(("security.", "trusted.")):
                raise
    os.fchmod(new, stat.S_IMODE(found.st_mode))


def _attributes(descriptor: int) -> list[str]:
    try:
        return os.listxattr(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return []
        raise


def _clear_leftovers(path: Path, folder: int) -> None:
    """Remove what a writer that was killed left behind: under the lock there is no other."""
    pattern = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{16}\.new")
    for name in os.listdir(folder):
        if pattern.fullmatch(name):
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=folder)


def _replace(path: Path, folder: int, edit: Edit, state_dir: Path) -> Written:
    """Put `edit.after` in the place of `edit.before`. The caller holds the lock."""
    old = _open(path, folder)
    temporary = f".{path.name}.{secrets.token_hex(8)}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        identity = _identity(os.fstat(old))
        reason = _refusal(os.fstat(old), os.fstat(folder))
        if reason is not None:
            raise _not_written(path, reason)
        if _read(old) != edit.before:
            raise PolicyChanged(safe(f"{path}: not written: somebody else changed it meanwhile: look again"))
        parse(edit.before, path)
        parse(edit.after, path)
        _clear_leftovers(path, folder)
        _keep_version(path, edit.before, state_dir)
        new = os.open(temporary, flags, 0o600, dir_fd=folder)
        try:
            _write_all(new, edit.after)
            _take_over(path, old, new)
            os.fsync(new)
        finally:
            _close(new)
        if _identity(os.stat(path.name, dir_fd=folder, follow_symlinks=False)) != identity:
            raise PolicyChanged(safe(f"{path}: not written: somebody else changed it meanwhile: look again"))
        os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError as error:
        raise _not_written(path, error.strerror or str(error)) from None
    finally:
        _close(old)
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
    return _confirm(path, folder, edit.after)


def _confirm(path: Path, folder: int, expected: bytes) -> Written:
    # the rename is done: whatever fails from here on must not be reported as "not written"
    try:
        os.fsync(folder)
        descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            same = _read(descriptor) == expected
        finally:
            _close(descriptor)
    except OSError:
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
    _check_writable(path)
    with _folder_of(path) as folder, _locked(path, folder, actor, lock_timeout):
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

    Raises:
        PolicyError: Nothing was written; the message says why.
    """
    _check_writable(path)
    with _folder_of(path) as folder, _locked(path, folder, actor, lock_timeout):
        for attempt in range(_RETRIES):
            identity, data = _current(path, folder)
            try:
                edit = make(data)
                if edit.noop:
                    return edit, Written.UNCHANGED
                return edit, _replace(path, folder, edit, state_dir)
            except PolicyChanged:
                if attempt == _RETRIES - 1:
                    raise
            except PolicyError:
                # half a file, while an editor is writing it, is no reason to give up
                time.sleep(_PAUSE)
                if not _differs(path, folder, identity):
                    raise
    raise _not_written(path, "somebody else keeps changing it: try again")


def _differs(path: Path, folder: int, identity: _Identity) -> bool:
    try:
        return _identity(os.stat(path.name, dir_fd=folder, follow_symlinks=False)) != identity
    except OSError:
        return True
