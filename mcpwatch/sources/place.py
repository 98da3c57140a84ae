"""How far a log was read, in a form that outlives the process, and where that is to be found again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

from mcpwatch.sources.block import SourceError
from mcpwatch.sources.copies import sample_of
from mcpwatch.sources.mark import MOST_POINTS, Mark, Point, Trail, is_digest
from mcpwatch.sources.opened import open_regular
from mcpwatch.sources.rotation import Rotated, rotated_files, settled_files
from mcpwatch.times import SECOND

Where = Literal["here", "rotated", "copied", "lost"]

PAST_KEPT: Final = 4
"""Most files read before that a place remembers, where no rotated files are still to be looked for."""
MOST_PAST: Final = 64
"""Most of them otherwise: what was read of a long list of rotated files must not be read again."""
CLOSE_NS: Final = 10 * SECOND
"""Of two files written to within so long of each other, times do not tell which one is older."""
_LARGEST: Final = (1 << 63) - 1
_MOST_PARTS: Final = 64
_NUMBERS: Final = ("dev", "ino", "size", "mtime_ns", "offset")


@dataclass(frozen=True, slots=True)
class PlacePart:
    """How far one file of a log was read.

    Attributes:
        mark: All that was read of it.
        offset: Where the last line begins that was not finished, and so is to be read again.
        line: Number of that line, None when unknown.
        pending: Whether rotated files that followed it were still to be looked for.
    """

    mark: Mark
    offset: int
    line: int | None
    pending: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """How far a log was read: its current file, and before it rotated ones that were not done with.

    It holds digests in place of the log's bytes, which may be secret.

    Attributes:
        parts: The files, oldest first; at least one.
        past: Files that were read before, to know copies of them.
    """

    parts: tuple[PlacePart, ...]
    past: tuple[Mark, ...] = ()

    @property
    def offset(self) -> int:
        """Offset in the current file of the first line that was not delivered."""
        return self.parts[-1].offset

    @property
    def line(self) -> int | None:
        """Number of that line, None when unknown."""
        return self.parts[-1].line

    @property
    def unread(self) -> int | None:
        """Bytes that were there and not delivered when the place was noted; None for none."""
        return sum(part.mark.size - part.offset for part in self.parts) or None

    def to_json(self) -> dict[str, Any]:
        """As what JSON can hold."""
        return {
            "parts": [_part_to_json(part) for part in self.parts],
            "past": [_mark_to_json(mark) for mark in self.past],
        }

    @classmethod
    def from_json(cls, value: object) -> Self | None:
        """Read it; None for whatever is not one."""
        try:
            return cls(tuple(_parts(value)), tuple(_mark(each) for each in _list(value, "past", MOST_PAST)))
        except ValueError:
            return None


def place_at(path: Path, offset: int, line: int | None) -> Place | None:
    """The place of a line that begins at `offset` of a file; None where that can't be read.

    What lies rotated beside it now counts as read.
    """
    try:
        found, mark = _mark_in(path, offset)
    except (OSError, SourceError):
        return None
    if offset > found.st_size:
        return None
    past = []
    for file in rotated_files(path):
        if not file.compressed and file.stat.st_mtime_ns >= found.st_mtime_ns - CLOSE_NS:
            with contextlib.suppress(OSError, SourceError):
                past.append(_mark_in(file.path, None)[1].thinned)
    return Place((PlacePart(mark.thinned, offset, line),), tuple(past[-PAST_KEPT:]))


def _mark_in(path: Path, offset: int | None) -> tuple[os.stat_result, Mark]:
    fd = open_regular(path, follow_symlinks=True)
    try:
        found = os.fstat(fd)
        end = found.st_size if offset is None else offset
        return found, Trail.at(lambda size, start: os.pread(fd, size, start), end).mark(found)
    finally:
        os.close(fd)


def find_place(path: Path, place: Place) -> Where:
    """Where the file is that was read last: at its path, under a rotated name, only as a copy, or nowhere."""
    return find_file(path, place)[0]


def find_file(path: Path, place: Place) -> tuple[Where, Path | None]:
    """The same, with the file that begins with all that was read of it."""
    mark = place.parts[-1].mark
    if _is_in(path, mark):
        return "here", path
    files = settled_files(path)
    for file in files:
        if file.identity == mark.identity and not file.compressed and _is_in(file.path, mark):
            return "rotated", file.path
    for file in reversed(files):
        if mark.telling and _is_copy(file, mark):
            return "copied", file.path
    return "lost", None


def _is_in(path: Path, mark: Mark) -> bool:
    try:
        fd = open_regular(path, follow_symlinks=True)
    except (OSError, SourceError):
        return False
    try:
        found = os.fstat(fd)
        known = mark.telling or (found.st_dev, found.st_ino) == mark.identity
        return known and mark.in_file(lambda size, offset: os.pread(fd, size, offset))
    except OSError:
        return False
    finally:
        os.close(fd)


def _is_copy(file: Rotated, mark: Mark) -> bool:
    try:
        return mark.related(sample_of(file, [mark])) == "holds"
    except (OSError, SourceError):
        return False


def _mark_to_json(mark: Mark) -> dict[str, Any]:
    return {name: getattr(mark, name) for name in _NUMBERS} | {"points": [[*point] for point in mark.points]}


def _part_to_json(part: PlacePart) -> dict[str, Any]:
    return _mark_to_json(part.mark) | {"begin": part.offset, "line": part.line, "pending": part.pending}


def _parts(value: object) -> Iterator[PlacePart]:
    parts = _list(value, "parts", _MOST_PARTS)
    if not parts:
        raise ValueError("no part")
    for each in parts:
        mark, begin, line = _mark(each), _whole(each.get("begin")), each.get("line")
        if begin > mark.offset:
            raise ValueError("begins beyond what was read")
        pending = each.get("pending") is True
        yield PlacePart(mark, begin, None if line is None else _whole(line, 1), pending)


def _mark(value: object) -> Mark:
    dev, ino, size, mtime_ns, offset = (
        _whole(value.get(name) if isinstance(value, dict) else None) for name in _NUMBERS
    )
    points: list[Point] = []
    for each in _list(value, "points", MOST_POINTS):
        if not isinstance(each, list) or len(each) != 2 or not is_digest(each[1]):
            raise ValueError("no point")
        points.append(Point(_whole(each[0], points[-1].offset + 1 if points else 1), each[1]))
    if offset > size or (points[-1].offset if points else 0) != offset:
        raise ValueError("no mark")
    return Mark(dev, ino, size, mtime_ns, offset, tuple(points))


def _list(value: object, name: str, most: int) -> list[Any]:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, list) or len(found) > most:
        raise ValueError(name)
    return found


def _whole(value: object, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= _LARGEST:
        raise ValueError("no whole number")
    return value
