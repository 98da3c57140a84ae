"""Finds the rotated copies of a log, and reads what a follower missed from them."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from mcpwatch.sources.block import SourceError
from mcpwatch.sources.gunzip import CHUNK, GzipStream
from mcpwatch.sources.lines import LineCutter
from mcpwatch.sources.opened import HEAD, MARKER, Mark, open_regular

# logrotate: .1, -20261122, -20261122-1763799247, also before the extension; Python's handlers: .1,
# .2026-11-22_10-00; by hand: .old, .bak. A bare -1 is left alone: shard-1.jsonl is a log of its own.
_TAG: Final = (
    r"(?:\.(?P<number>\d{1,5})|[.\-_](?P<date>(?:\d{8,}|\d{4}-\d\d-\d\d)[\dT:._\-]*)|[.\-_](?P<word>old|bak))"
)
_AFTER: Final = re.compile(rf"(?P<base>.+?){_TAG}(?P<gz>\.gz)?", re.DOTALL | re.ASCII)
_BEFORE_EXTENSION: Final = re.compile(
    rf"(?P<base>.+?){_TAG}(?P<ext>\.[A-Za-z][A-Za-z0-9]*?)(?P<gz>\.gz)?", re.DOTALL | re.ASCII
)


@dataclass(frozen=True, slots=True)
class RotatedName:
    """A rotated file's name, taken apart.

    Attributes:
        base: The name of the log itself.
        tag: What the rotation added: a number, a date, or a word.
        number: The N of `path.N`, which grows with age; None for dates and words.
        by_hand: Whether the tag is a word: a person made the copy, whenever that was.
        gz: Whether it says that it is compressed with gzip.
    """

    base: str
    tag: str
    number: int | None
    by_hand: bool
    gz: bool


@dataclass(frozen=True, slots=True)
class Rotated:
    """A rotated file that lies beside a log."""

    path: Path
    name: RotatedName
    stat: os.stat_result

    @property
    def gz(self) -> bool:
        """Whether it is compressed."""
        return self.name.gz

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.stat.st_dev, self.stat.st_ino


def rotated_name(name: str) -> RotatedName | None:
    """Take apart the name of a rotated file; None for names that no rotation makes.

    `audit.jsonl.2.gz` is number 2 of `audit.jsonl`, and so is `audit.2.jsonl.gz`.
    """
    found = _AFTER.fullmatch(name)
    base = found["base"] if found is not None else ""
    if found is None:
        found = _BEFORE_EXTENSION.fullmatch(name)
        if found is None or found["ext"] == ".gz":
            return None
        base = found["base"] + found["ext"]
    number = int(found["number"]) if found["number"] else None
    tag = found["number"] or found["date"] or found["word"]
    return RotatedName(base, tag, number, found["word"] is not None, found["gz"] is not None)


def oldest_first(name: RotatedName, mtime_ns: int) -> tuple[int, int, str]:
    """Sort key for the rotated files of one log: by number where there is one, else by time."""
    return (-name.number, 0, "") if name.number is not None else (0, mtime_ns, name.tag)


def rotated_files(path: Path) -> list[Rotated]:
    """The rotated files that lie beside `path`, oldest first; none where the folder can't be read."""
    try:
        names = [name for name in _listing(path.parent) if name.startswith(path.stem)]
    except OSError:
        return []  # the caller reports what it cannot find
    return _rotated(path, names)


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
        if name.tag not in found or found[name.tag].gz:
            with contextlib.suppress(OSError):  # renamed since: it is in the list under its new name or gone
                status = path.with_name(text).lstat()
                if stat.S_ISREG(status.st_mode):
                    found[name.tag] = Rotated(path.with_name(text), name, status)
    return sorted(found.values(), key=lambda file: oldest_first(file.name, file.stat.st_mtime_ns))


def chunks(file: Rotated) -> Iterator[bytes]:
    """The bytes of a rotated file, decompressed.

    Raises:
        SourceError: It is broken gzip, from the broken byte on.
        OSError: It cannot be read.
    """
    fd = open_regular(file.path)
    try:
        stream = GzipStream(fd, file.path) if file.gz else None
        while data := stream.read() if stream is not None else os.read(fd, CHUNK):
            yield data
    finally:
        os.close(fd)


def starts_like(file: Rotated, mark: Mark) -> bool:
    """Whether the file's head is the one we know, as far as both go."""
    head = b""
    try:
        for data in chunks(file):
            head += data[:HEAD]
            if len(head) >= len(mark.head):
                break
    except (OSError, SourceError):
        return False
    size = min(len(head), len(mark.head))
    return size > 0 and head[:size] == mark.head[:size]


def is_copy(file: Rotated, mark: Mark) -> bool:
    """Whether this compressed file was made of the one with the mark.

    It may be shorter: a writer that lingers on a rotated file goes on after the file has been compressed.
    """
    length = _length(file)
    return length == 0 or (length is not None and length <= mark.size and starts_like(file, mark))


def is_continued(file: Rotated, mark: Mark) -> bool:
    """Whether a plain file begins with all that the mark says was read."""
    try:
        fd = open_regular(file.path)
    except (OSError, SourceError):
        return False
    try:
        return mark.in_file(lambda size, offset: os.pread(fd, size, offset))
    finally:
        os.close(fd)


def _length(file: Rotated) -> int | None:
    """Bytes when decompressed (modulo 4 GiB for gzip); None when it cannot be read."""
    if not file.gz:
        return file.stat.st_size
    try:
        with file.path.open("rb") as opened:
            opened.seek(-4, os.SEEK_END)
            return int.from_bytes(opened.read(4), "little")  # ISIZE, RFC 1952
    except OSError:
        return None


Step = tuple[LineCutter, bytes]
"""Some bytes, and the cutter of the file that they belong to. No bytes: still on the way to them."""


def missed(copies: Sequence[Rotated], mark: Mark, cutter: LineCutter) -> Generator[Step, None, bool]:
    """What the copies, oldest first, hold beyond the mark: the rest of its own copy, then the later ones whole.

    Returns (as the generator's value):
        Whether the mark's own copy was found and all could be read.
    """
    for index in reversed(range(len(copies))):
        if (yield from _rest(copies[index], mark, cutter)):
            return (yield from whole(copies[index + 1 :], cutter.source))
    for index in reversed(range(len(copies))):
        # We read further than the copy goes: it holds nothing new, but what is newer than it does.
        length = _length(copies[index])
        if length is not None and length < mark.offset and starts_like(copies[index], mark):
            return (yield from whole(copies[index + 1 :], cutter.source))
    yield from whole([copy for copy in copies if copy.stat.st_mtime_ns > mark.mtime_ns], cutter.source)
    return False


def whole(files: Sequence[Rotated], source: str) -> Generator[Step, None, bool]:
    """Rotated files that nobody has read, one after the other.

    Returns (as the generator's value):
        Whether all could be read; of a broken one, what comes before the broken place is given.
    """
    complete = True
    for file in files:
        cutter = LineCutter(source, copy=True)
        try:
            for data in chunks(file):
                yield cutter, data
        except (OSError, SourceError):
            complete = False
    return complete


def _rest(file: Rotated, mark: Mark, cutter: LineCutter) -> Generator[Step, None, bool]:
    if (not file.gz and file.stat.st_size < mark.offset) or not starts_like(file, mark):
        return False
    at = 0
    tail = b""
    verified = False
    try:
        for data in chunks(file):
            if not verified:
                before = data[: mark.offset - at]
                tail = (tail + before)[-MARKER:]
                at += len(before)
                data = data[len(before) :]
                if at == mark.offset:
                    if not tail.endswith(mark.marker):
                        return False
                    verified = True
                    cutter.copy = True
            yield cutter, data
    except (OSError, SourceError):
        return verified
    return verified
