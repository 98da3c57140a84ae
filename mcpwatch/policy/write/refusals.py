"""Which policy files are never replaced, and why; and what the operator must know before one is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mcpwatch.policy.model import PolicyError
from mcpwatch.text import safe


def refusal(file: os.stat_result, folder: os.stat_result) -> str | None:
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
        reason = refusal(path.lstat(), path.parent.stat())
        mounted = os.statvfs(path.parent)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    if reason is not None:
        return reason
    if mounted.f_flag & os.ST_RDONLY:
        return "its file system is mounted read-only"
    immutable = ", even for root: lsattr shows whether it is immutable" if os.geteuid() == 0 else ""
    if not os.access(path, os.R_OK | os.W_OK):
        return f"no permission to write it{immutable}"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"no permission to write its folder{immutable}"
    return None


def owner_change(path: Path) -> str | None:
    """What a change by this process does to the file's owner, for the operator to know; None if nothing."""
    try:
        owner = path.stat().st_uid
    except OSError:
        return None
    me = os.geteuid()
    return None if me in (0, owner) else f"the file's owner becomes user {me} (it was user {owner})"


def check_writable(path: Path) -> None:
    """Raise PolicyError where the file can't be changed: before the lock, so that no lock file is left behind."""
    reason = writable(path)
    if reason is not None:
        raise not_written(path, reason)


def not_written(path: Path, reason: str) -> PolicyError:
    """The error of a change of which nothing was written."""
    return PolicyError(safe(f"{path}: not written: {reason}"))
