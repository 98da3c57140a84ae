"""Knows which of the rotated files beside a followed log hold what was never read."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mcpwatch.sources.block import Gap, SourceError
from mcpwatch.sources.copies import CopyReader, Known, Loss, Recent, is_copy, sample_of
from mcpwatch.sources.mark import Mark, mark_of
from mcpwatch.sources.opened import OpenFile, RefusedError, open_regular
from mcpwatch.sources.rotation import Rotated, rotated_files_at_start, settled_files
from mcpwatch.text import safe

MAX_AT_ONCE: Final = 8
"""Most files that are opened at a time to catch up."""
_SCANS: Final = 5
_MARKS_KEPT: Final = 64


@dataclass(frozen=True, slots=True, eq=False)
class More:
    """Stands where more rotated files may have to be read than were opened at once."""

    after: tuple[int, int]
    since_ns: int


Part = OpenFile | CopyReader | Loss | More


class Generations:
    """The files that a log's path has named, as far as they matter any more.

    Attributes:
        past: Marks of those that were read, or were there before reading began.
        torn: Marks of those of them that were copies of a file which was truncated then.
        recent: What tells repeats where marks cannot.
    """

    def __init__(self, path: Path, source: str) -> None:
        self.past: deque[Mark] = deque(maxlen=_MARKS_KEPT)
        self.torn: deque[Mark] = deque(maxlen=_MARKS_KEPT)
        self.recent = Recent()
        self._path, self._source = path, source
        self._known: set[tuple[int, int, int, int]] = set()
        self._set_aside: dict[tuple[int, int, int, int], bool] = {}

    def begin(self) -> None:
        """What was rotated before we came is not ours to read, even where its writer still lingers on it."""
        files = rotated_files_at_start(self._path)
        self._known = {file.version for file in files}
        for file in files:
            if not file.compressed:
                with contextlib.suppress(OSError, RefusedError):
                    fd = open_regular(file.path)
                    try:
                        self.past.append(mark_of(fd))
                    finally:
                        os.close(fd)

    def note(self, reader: CopyReader) -> None:
        """A copy was looked at. What is nothing to read now may come to be when something else happens."""
        if reader.set_aside:
            self._set_aside[reader.file.version] = reader.file.compressed

    def known_as(self, fd: int) -> Mark | None:
        """The mark of an open file that was read before."""
        found = os.fstat(fd)
        for mark in reversed(self.past):
            if mark.identity != (found.st_dev, found.st_ino) or mark.offset == 0:
                continue
            untouched = (mark.size, mark.mtime_ns) == (found.st_size, found.st_mtime_ns)
            known = mark.telling or untouched
            if known and mark.in_file(lambda size, offset: os.pread(fd, size, offset)):
                return mark
        return None

    def has_told(self, seen: Mark) -> bool:
        """Whether what a truncation destroyed of a file was told already: with a copy made after it was seen."""
        return any(mark.mtime_ns >= seen.mtime_ns and seen.begins(mark) for mark in self.torn)

    def is_known(self, file: Rotated, chain: Sequence[Part]) -> bool:
        """Whether a file is a copy of what was read."""
        marks = [*self.past, *_present(chain)]
        try:
            sample = sample_of(file, marks)
        except (OSError, SourceError):
            return False
        return any(is_copy(file, sample, mark) for mark in marks)

    def retire(self, part: OpenFile) -> None:
        """A file is read no more."""
        mark = part.mark
        self.past.append(part.line_mark)
        self._known.add((*mark.identity, mark.size, mark.mtime_ns))

    def unread(
        self,
        chain: Sequence[Part],
        *,
        since_ns: int | None,
        after: tuple[int, int] | None = None,
        before: tuple[int, int] | None = None,
        sought: Loss | None = None,
        further: bool = False,
        current: bool = False,
    ) -> tuple[list[OpenFile | CopyReader], list[Gap]]:
        """Open rotated files that may hold what was not read, oldest first, some at a time.

        Args:
            chain: What is being read, from now on too: the list itself.
            since_ns: Copies of nothing that is known are read where they were written to since then, and not made
                by a person; None: never.
            after: Identity of a file; if it lies there, only younger ones, whenever they were written to.
            before: Identity of a file; if it lies there, only older ones.
            sought: The loss that this is for.
            further: This goes on with a search that was begun before.
            current: Whether `before` is what the path names.

        Returns:
            What is to be read, and what cannot be. There may be more while there is any.
        """
        # what a file still held is nothing to read, until it is truncated; compressed copies cost to look at
        again = [version for version, compressed in self._set_aside.items() if not (further and compressed)]
        self._known.difference_update(again)
        for version in again:
            del self._set_aside[version]
        parts: list[OpenFile | CopyReader] = []
        gaps: list[Gap] = []
        while not parts:
            opened, ordered, bounded = self._open(held_by(chain), after, before)
            if not opened:
                break
            # what lies between a truncated file and the copies of it was copied of it too
            copied = sought is not None and sought.truncated and (current or bounded)
            known = Known(
                lambda: losses_in(chain),
                sought,
                since_ns,
                _present(chain),
                list(self.past),
                self.recent,
                copied,
            )
            for file, fd in opened:
                self._known.add(file.version)
                if fd is not None:
                    reader = CopyReader(file, fd, self._source, known, later=ordered)
                    parts += self._sort_out(reader, known)
                elif ordered or (since_ns is not None and file.stat.st_mtime_ns >= since_ns):
                    size = None if file.compressed else file.stat.st_size
                    gaps.append(Gap(self._source, 0, f"{safe(file.path.name)} cannot be read", size))
        return parts, gaps

    def _sort_out(self, reader: CopyReader, known: Known) -> list[OpenFile | CopyReader]:
        """What is to be read: a copy is compared first, and a file that nobody has read may still be written to."""
        if reader.file.compressed:
            return [reader]
        try:
            relation, loss = reader.plain_relation()
        except OSError:
            return [reader]  # and it says so when it is read
        self.note(reader)
        if relation == "holds" and loss is not None:
            return [reader]
        if relation == "short" or not reader.whole:
            reader.close()
            return []
        known.found_whole()
        part = OpenFile(reader.release(), self._source)
        part.torn = known.copied
        if relation == "doubtful":
            part.delivered = self.recent.counted()
        return [part]

    def _open(
        self,
        held: Collection[tuple[int, int]],
        after: tuple[int, int] | None,
        before: tuple[int, int] | None,
    ) -> tuple[list[tuple[Rotated, int | None]], bool, bool]:
        """Open what is new, as far as may be; whether the files to come after and before lie there."""
        for _ in range(_SCANS):
            files = settled_files(self._path)
            self._known &= {file.version for file in files}
            # the inode of a file that nobody holds may be another's by now
            places = {file.identity: place for place, file in enumerate(files) if file.identity in held}
            first = places[after] + 1 if after in places else 0
            last = places.get(before, len(files)) if before is not None else len(files)
            opened: list[tuple[Rotated, int | None]] = []
            try:
                for file in files[first:last]:
                    if (
                        len(opened) < MAX_AT_ONCE
                        and file.identity not in held
                        and file.version not in self._known
                    ):
                        opened.append((file, open_this(file)))
            except FileNotFoundError:
                # a name changed hands while we looked: the next scan finds each file under its new one
                for _, fd in opened:
                    if fd is not None:
                        os.close(fd)
                continue
            return opened, after in places, before in places
        return [], False, False


def _present(chain: Sequence[Part]) -> list[Mark]:
    """What the files of a chain hold, and what was read of them: that may have been truncated meanwhile."""
    marks = []
    for part in chain:
        if isinstance(part, OpenFile):
            marks.append(part.mark)
            if part.fd is not None:
                with contextlib.suppress(OSError):
                    marks.append(mark_of(part.fd))
    return marks


def losses_in(chain: Sequence[Part]) -> list[Loss]:
    """The files of a chain that cannot be read on."""
    return [part for part in chain if isinstance(part, Loss)]


def held_by(chain: Sequence[Part]) -> set[tuple[int, int]]:
    """Device and inode of each file held open (while it is, nothing else can get its inode)."""
    return {
        part.identity
        for part in chain
        if isinstance(part, CopyReader) or (isinstance(part, OpenFile) and part.fd is not None)
    }


def open_this(file: Rotated) -> int | None:
    """Open a rotated file; None where that is not allowed.

    Raises:
        FileNotFoundError: It is not under this name any more.
    """
    try:
        fd = open_regular(file.path)
    except FileNotFoundError:
        raise
    except (OSError, SourceError):
        return None
    found = os.fstat(fd)
    if (found.st_dev, found.st_ino) != file.identity:
        os.close(fd)
        raise FileNotFoundError
    return fd
