"""What is remembered of a file, to know it again: an inode alone is soon given to another file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, Literal, NamedTuple, Self

WINDOW: Final = 256
"""Bytes that one point of a mark looks at, beyond `HEAD`."""
HEAD: Final = 4_096
"""Bytes of a file's beginning that are compared as a whole."""
MOST_POINTS: Final = 128
"""More points than any mark has."""
TELLING: Final = 64
"""Bytes that two files do not begin with both by accident: a record's time is among them."""
_ALIKE: Final = 1_024
_STEPS: Final = tuple(HEAD << (2 * step) for step in range(1, 26))
_DIGITS: Final = 32

Read = Callable[[int, int], bytes]
"""Reads `size` bytes at `offset`: `read(size, offset)`; fewer at the end of the file."""
Relation = Literal["holds", "short", "doubtful", "other"]


class Point(NamedTuple):
    """A digest of the bytes before an offset: all of them within `HEAD`, else `WINDOW`. No log text is kept."""

    offset: int
    digest: str


class Sample(NamedTuple):
    """What was looked up in a copy: its length (at least, where that was not needed), and digests by offset."""

    length: int
    digests: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a file was read, and what to know it again by.

    Attributes:
        size: Bytes that it had when it was last seen to be this file.
        mtime_ns: When it had been written to then, ns since the epoch.
        offset: Bytes read of it.
        points: Samples of what was read, in order: at 64 bytes and at line ends within `HEAD`, then at 16 KiB,
            64 KiB, 256 KiB, …, and at `offset`.
    """

    dev: int
    ino: int
    size: int
    mtime_ns: int
    offset: int
    points: tuple[Point, ...]

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.dev, self.ino

    @property
    def telling(self) -> bool:
        """Whether so much was read that the same bytes elsewhere are no accident."""
        return self.offset >= TELLING

    @property
    def thinned(self) -> Mark:
        """The same with fewer points, to be kept on disk: without those that only tell short copies."""
        few = tuple(point for point in self.points if point.offset == TELLING or point.offset >= HEAD)
        return replace(self, points=few) if self.offset >= HEAD else self

    def in_file(self, read: Read) -> bool:
        """Whether a file begins with what was read."""
        early = [point for point in self.points if point.offset <= HEAD]
        return all(
            point_at(read, point.offset) == point
            for point in (*early[-1:], *self.points[len(early) :])  # each early one covers those before it
        )

    def begins(self, other: Mark) -> bool:
        """Whether it marks the beginning of what another does, as far as points tell that both have."""
        theirs = dict(other.points)
        common = [point for point in self.points if point.offset in theirs]
        alike = all(theirs[point.offset] == point.digest for point in common)
        return bool(common) and alike and self.size <= other.offset

    def related(self, sample: Sample) -> Relation:
        """What a copy that was sampled at this mark's points is to the file.

        Returns:
            `holds`: a copy of it that goes as far as was read, or further. `short`: a copy that ends before. `other`:
            it begins otherwise. `doubtful`: it begins alike and is too short or too different to tell.
        """
        agreed = {
            point.offset: sample.digests.get(point.offset) == point.digest
            for point in self.points
            if point.offset <= sample.length
        }
        if not self.points or not all(same for offset, same in agreed.items() if offset <= _ALIKE):
            return "other"
        if not agreed or not all(agreed.values()):
            return "doubtful"
        return "holds" if sample.length >= self.offset else "short"


class Trail:
    """What has been read of a file so far, as far as a mark needs it.

    Attributes:
        offset: Bytes read.
        head: The first of them, at most `HEAD`.
        marker: The last of them, at most `WINDOW`.
        line_offset: Where the last line began that was not finished yet.
    """

    __slots__ = ("_early", "_line_marker", "_points", "head", "line_offset", "marker", "offset")

    def __init__(self) -> None:
        self.offset = self.line_offset = 0
        self.head = self.marker = self._line_marker = b""
        self._early: tuple[int, list[Point]] = (0, [])
        self._points: list[Point] = []

    @classmethod
    def at(cls, read: Read, offset: int) -> Self:
        """The trail of a file of which `offset` bytes, up to the beginning of a line, count as read."""
        trail = cls()
        trail.offset = trail.line_offset = offset
        trail.head = read(min(HEAD, offset), 0)
        trail.marker = trail._line_marker = read(min(WINDOW, offset), max(0, offset - WINDOW))
        trail._points = [point_at(read, step) for step in _STEPS if step <= offset]
        return trail

    def advance(self, data: bytes) -> None:
        """The next bytes were read."""
        self.pass_over(self.marker + data, len(self.marker))

    def pass_over(self, joined: bytes, behind: int) -> None:
        """The same for bytes that come with the marker, `behind` bytes of it, before them."""
        base = self.offset - behind
        end = base + len(joined)
        step = len(self._points)
        while step < len(_STEPS) and _STEPS[step] <= end:
            stop = _STEPS[step] - base
            self._points.append(Point(_STEPS[step], digest(joined[max(0, stop - WINDOW) : stop])))
            step += 1
        stop = joined.rfind(b"\n", behind) + 1
        if stop:
            self.line_offset, self._line_marker = base + stop, joined[max(0, stop - WINDOW) : stop]
        if len(self.head) < HEAD:
            self.head += joined[behind : behind + HEAD - len(self.head)]
        self.marker = joined[-WINDOW:]
        self.offset = end

    def mark(self, found: os.stat_result | Mark, *, line: bool = False) -> Mark:
        """The mark of all that was read, or with `line` of the finished lines only; `found` says of which file."""
        offset, last = (self.line_offset, self._line_marker) if line else (self.offset, self.marker)
        points = [point for point in [*self._early_points(), *self._points] if point.offset < offset]
        if offset:
            points.append(Point(offset, digest(self.head[:offset] if offset <= HEAD else last)))
        if isinstance(found, Mark):
            return replace(found, size=max(found.size, offset), offset=offset, points=tuple(points))
        size = max(found.st_size, offset)
        return Mark(found.st_dev, found.st_ino, size, found.st_mtime_ns, offset, tuple(points))

    def _early_points(self) -> list[Point]:
        """The points within the head, but for its end: they stay the same while it grows."""
        length, points = self._early
        if length < len(self.head):
            points, before, hashed = [], 0, sha256()
            for end in _line_ends(self.head):
                hashed.update(self.head[before:end])
                before = end
                points.append(Point(end, hashed.hexdigest()[:_DIGITS]))
            self._early = len(self.head), points
        return points


def _line_ends(head: bytes) -> Iterator[int]:
    """Where points of a head are: at 64 bytes, at ends of lines 64 bytes or more apart, and at its own last byte."""
    end = TELLING
    while end < len(head):
        yield end
        end = head.find(b"\n", end + TELLING - 1) + 1 or len(head)
    if len(head) == HEAD:
        yield HEAD


def window_of(offset: int) -> int:
    """How many bytes before an offset its point looks at."""
    return offset if offset <= HEAD else WINDOW


def point_at(read: Read, offset: int) -> Point:
    """The point of a file at an offset."""
    size = window_of(offset)
    return Point(offset, digest(read(size, offset - size)))


def offsets_of(marks: Iterable[Mark]) -> list[int]:
    """Where a copy must be sampled to compare it with marks."""
    return sorted({point.offset for mark in marks for point in mark.points})


def mark_of(fd: int) -> Mark:
    """The mark of all that an open file holds now."""
    found = os.fstat(fd)
    return Trail.at(lambda size, offset: os.pread(fd, size, offset), found.st_size).mark(found)


def digest(window: bytes) -> str:
    """What is kept instead of bytes of a log."""
    return sha256(window).hexdigest()[:_DIGITS]


def is_digest(text: object) -> bool:
    """Whether it has the form of one."""
    return isinstance(text, str) and len(text) == _DIGITS and set(text) <= set("0123456789abcdef")
