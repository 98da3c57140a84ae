"""Finds the rotated files that lie beside a log, and knows their order."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

# logrotate: .1, -20261122, -20261122-1763799247, also before the extension; Python's handlers: .1,
# .2026-11-22_10-00; by hand: .old, .bak. A bare -1 is left alone: shard-1.jsonl is a log of its own.
_TAG: Final = (
    r"(?:\.(?P<number>\d{1,5})|[.\-_](?P<date>(?:\d{8,}|\d{4}-\d\d-\d\d)[\dT:._\-]*)|[.\-_](?P<word>old|bak))"
)
_AFTER: Final = re.compile(rf"(?P<base>.+?){_TAG}(?P<packed>\.gz|\.zst)?", re.DOTALL | re.ASCII)
_BEFORE_EXTENSION: Final = re.compile(
    rf"(?P<base>.+?){_TAG}(?P<ext>\.[A-Za-z][A-Za-z0-9]*?)(?P<packed>\.gz|\.zst)?", re.DOTALL | re.ASCII
)
_SCANS: Final = 5


@dataclass(frozen=True, slots=True)
class RotatedName:
    """A rotated file's name, taken apart.

    Attributes:
        base: The name of the log itself.
        tag: What the rotation added: a number, a date, or a word.
        number: The N of `path.N`, which grows with age; None for dates and words.
        by_hand: Whether the tag is a word: a person made the copy, whenever that was.
        compressed: Whether it says that it is, with gzip or zstd.
    """

    base: str
    tag: str
    number: int | None
    by_hand: bool
    compressed: bool


@dataclass(frozen=True, slots=True)
class Rotated:
    """A rotated file that lies beside a log."""

    path: Path
    name: RotatedName
    stat: os.stat_result

    @property
    def compressed(self) -> bool:
        """Whether it is compressed."""
        return self.name.compressed

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.stat.st_dev, self.stat.st_ino

    @property
    def version(self) -> tuple[int, int, int, int]:
        """What stays the same while nobody writes to it, whatever it is called."""
        return (*self.identity, self.stat.st_size, self.stat.st_mtime_ns)


def rotated_name(name: str) -> RotatedName | None:
    """Take apart the name of a rotated file; None for names that no rotation makes.

    `audit.jsonl.2.gz` is number 2 of `audit.jsonl`, and so is `audit.2.jsonl.gz`.
    """
    found = _AFTER.fullmatch(name)
    base = found["base"] if found is not None else ""
    if found is None:
        found = _BEFORE_EXTENSION.fullmatch(name)
        if found is None or found["ext"] in (".gz", ".zst"):
            return None
        base = found["base"] + found["ext"]
    number = int(found["number"]) if found["number"] else None
    tag = found["number"] or found["date"] or found["word"]
    return RotatedName(base, tag, number, found["word"] is not None, found["packed"] is not None)


def oldest_first(name: RotatedName, mtime_ns: int) -> tuple[int, int, str]:
    """Sort key for the rotated files of one log: by number where there is one, else by date, else by time.

    The date goes before the time of writing, since a writer may linger on an older file.
    """
    if name.number is not None:
        return -name.number, 0, ""
    return (1, mtime_ns, name.tag) if name.by_hand else (0, 0, "".join(filter(str.isdigit, name.tag)))


def rotated_files(path: Path) -> list[Rotated]:
    """The rotated files that lie beside `path`, oldest first; none where the folder can't be read."""
    try:
        names = [name for name in _listing(path.parent) if name.startswith(path.stem)]
    except OSError:
        return []  # the caller reports what it cannot find
    return _rotated(path, names)


def settled_files(path: Path) -> list[Rotated]:
    """The same at a moment when no name changes hands: a listing made during a rotation may miss files."""
    files = rotated_files(path)
    for _ in range(_SCANS):
        again = rotated_files(path)
        if [(file.path, file.identity) for file in again] == [(file.path, file.identity) for file in files]:
            break
        files = again
    return files


def rotated_files_at_start(path: Path) -> list[Rotated]:
    """The same from a listing that may be some milliseconds old: for thousands of files of one folder."""
    try:
        by_base = _by_base(path.parent, path.parent.stat().st_mtime_ns)
    except OSError:
        return []
    return _rotated(path, by_base.get(path.name, ()))


def _listing(folder: Path) -> list[str]:
    return os.listdir(folder)  # noqa: PTH208 - a Path for each of thousands of names costs


@lru_cache(maxsize=8)
def _by_base(folder: Path, _mtime_ns: int) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name in _listing(folder):
        rotated = rotated_name(name)
        if rotated is not None:
            names.setdefault(rotated.base, []).append(name)
    return names


def _rotated(path: Path, names: Iterable[str]) -> list[Rotated]:
    found: dict[str, Rotated] = {}
    for text in names:
        name = rotated_name(text)
        if name is None or name.base != path.name:
            continue
        # while a file is being compressed both are there, and only the plain one is complete
        if name.tag not in found or found[name.tag].compressed:
            with contextlib.suppress(OSError):  # renamed since: it is in the list under its new name or gone
                status = path.with_name(text).lstat()
                if stat.S_ISREG(status.st_mode):
                    found[name.tag] = Rotated(path.with_name(text), name, status)
    return sorted(found.values(), key=lambda file: oldest_first(file.name, file.stat.st_mtime_ns))
