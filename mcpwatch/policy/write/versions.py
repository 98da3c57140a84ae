"""Keeps what is about to be replaced: of each policy file the newest ten versions, in the state folder."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Final

from mcpwatch.policy.write.refusals import not_written

VERSIONS_KEPT: Final = 10
"""How many earlier versions of a policy file stay in the state folder."""


def keep_version(path: Path, data: bytes, state_dir: Path) -> None:
    """Keep the content of a policy file. What is kept as the newest version already is not kept twice.

    Raises:
        PolicyError: It can't be kept; the message says where and why.
    """
    folder = state_dir / "policy-versions"
    mark = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]
    stem = f"{path.name}.{mark}."
    try:
        _make(folder)
        kept = _numbers(folder, stem)
        if kept and _is(folder / f"{stem}{kept[-1]:06d}", data):
            return
        _write(folder / f"{stem}new", folder / f"{stem}{kept[-1] + 1 if kept else 1:06d}", data)
        for old in kept[: max(0, len(kept) + 1 - VERSIONS_KEPT)]:
            (folder / f"{stem}{old:06d}").unlink(missing_ok=True)
    except OSError as error:
        where = error.filename or folder
        raise not_written(path, f"the old version can't be kept in {where}: {error.strerror}") from None


def _make(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    # a group that shares the state folder shares this one, whatever the umask of who was first
    shared = stat.S_IMODE(folder.parent.stat().st_mode) & (stat.S_ISGID | stat.S_IRWXG)
    if shared:
        folder.chmod(0o700 | shared)


def _numbers(folder: Path, stem: str) -> list[int]:
    pattern = re.compile(re.escape(stem) + r"(\d{6,})")
    return sorted(int(match[1]) for name in os.listdir(folder) if (match := pattern.fullmatch(name)))  # noqa: PTH208


def _is(version: Path, data: bytes) -> bool:
    try:
        return version.read_bytes() == data
    except OSError:
        return False  # somebody else's of the same group, who need not share what he replaced


def _write(temporary: Path, version: Path, data: bytes) -> None:
    # whole or not at all: half a version is none, and would push out a whole one
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(temporary, flags, 0o600)
    try:
        write_all(file, data)
        os.fsync(file)
    finally:
        os.close(file)
    temporary.rename(version)


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it: one call may write a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
