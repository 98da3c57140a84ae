"""Follows one log file through rotation, truncation and replacement without losing or repeating a line.

What a file *is* is decided by its open descriptor, its device and inode, its head and the bytes before our
place, all together: ext4 gives a recreated file the inode of the deleted one nearly every time, and some logs
begin with the same line for ever.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from mcpwatch.sources.block import MAX_LINE, Block, Gap
from mcpwatch.sources.lines import LineCutter
from mcpwatch.sources.opened import Mark, OpenFile, RefusedError, open_regular, refusal
from mcpwatch.sources.rotation import (
    Rotated,
    Step,
    is_continued,
    is_copy,
    missed,
    rotated_files,
    rotated_files_at_start,
    whole,
)
from mcpwatch.text import SafeText, safe
from mcpwatch.times import SECOND

READ_LIMIT: Final = MAX_LINE
"""Most bytes that one tick reads."""
QUIET_NS: Final = 5 * SECOND
"""A rotated file is closed when it has given nothing for so long and its successor has data."""
_SKIP_COST: Final = 1 << 18
_SCANS: Final = 5
_MARKS_KEPT: Final = 32
_MAX_RETIRING: Final = 16

_BETWEEN: Final = "the file was copied and truncated: what was written between the two is lost"
_NO_NOTE: Final = SafeText("")

State = Literal["waiting", "reading", "refused", "ended"]
Delivery = list[Block | Gap]


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How it goes with one source.

    Attributes:
        note: What keeps it from reading, or nothing.
        offset: Bytes of the current file read so far.
        size: Bytes that the current file has.
        held: Bytes of the unfinished last line.
        behind: Bytes that are there and not read yet.
        rotations: Times that another file took the path.
        truncations: Times that the file was cut or overwritten under us.
        gaps: Gaps reported.
        last_read_ns: When it last gave data; None before the first.
    """

    name: str
    path: str
    state: State
    note: SafeText = _NO_NOTE
    offset: int = 0
    size: int = 0
    held: int = 0
    behind: int = 0
    rotations: int = 0
    truncations: int = 0
    gaps: int = 0
    last_read_ns: int | None = None


@dataclass(slots=True, eq=False)
class _Missed:
    """Rotated copies still to be read, and the gap to report after them."""

    steps: Generator[Step, None, bool]
    cutter: LineCutter
    gap: Gap
    found: str | None = None
    """The gap's reason when the copy of the lost file was among them; None: then there is no gap."""


@dataclass(slots=True)
class _Budget:
    left: int
    blocked: bool = field(default=False)


class Follower:
    """One followed path. `tick` never waits and never reads more than it is allowed to.

    The files of the path form a chain, oldest first: rotated ones that may still be written to, copies being
    caught up on, and last the current one. They are read in that order, and a successor only as far as it had
    grown before its predecessor was read to the end, so a writer that switches files is read in its own order.
    """

    def __init__(
        self, path: Path, name: str, *, offset: int = 0, line: int | None = 1, follow_symlinks: bool = False
    ) -> None:
        """Follow `path` as source `name`.

        Args:
            offset: Where to begin in a file that is there at the first tick: the first byte of a line. A file
                that appears later is read from its beginning.
            line: Number of that line, None when unknown.
        """
        self.path = path
        self.more = False
        """Whether the last tick left data that could be read at once."""
        self._start: tuple[int, int | None] | None = (offset, line)
        self._follow_symlinks = follow_symlinks
        self._chain: list[OpenFile | _Missed] = []
        self._opened = False
        self._past: deque[Mark] = deque(maxlen=_MARKS_KEPT)
        self._status = SourceStatus(name, str(path), "waiting")

    @property
    def status(self) -> SourceStatus:
        """How it goes, as of the last tick."""
        current = self._current
        if current is None:
            return self._status
        files = [part for part in self._chain if isinstance(part, OpenFile)]
        return replace(
            self._status,
            offset=current.read_to,
            size=current.size,
            held=current.cutter.held,
            behind=sum(max(0, part.size - part.read_to) for part in files),
        )

    @property
    def descriptors(self) -> int:
        """Files held open."""
        return sum(isinstance(part, OpenFile) and part.fd is not None for part in self._chain)

    @property
    def identities(self) -> set[tuple[int, int]]:
        """Device and inode of each file held open (while it is, nothing else can get its inode)."""
        return {part.identity for part in self._chain if isinstance(part, OpenFile) and part.fd is not None}

    def park(self) -> bool:
        """Give up the descriptor, where one file is all there is; the next data brings it back.

        Returns:
            Whether it was given up: not while rotated files are being read.
        """
        if len(self._chain) == 1 and isinstance(part := self._chain[0], OpenFile):
            part.close()
            return True
        return False

    def close(self) -> None:
        """Close every descriptor; the source has ended."""
        self._status = replace(self.status, state="ended", behind=0)
        for part in self._chain:
            if isinstance(part, OpenFile):
                part.close()
            else:
                part.steps.close()
        self._chain.clear()

    def tick(self, now_ns: int, budget: int = READ_LIMIT) -> Delivery:
        """Look at the path and read what is new, at most `budget` bytes (and never more than 1 MiB).

        Never waits, never raises for what happens to the file: the status and gaps tell.
        """
        out: Delivery = []
        if self._status.state == "ended":
            return out
        self.more = False
        self._look_at_path(now_ns, out)
        # newest first: what a successor holds by now was written after all that its predecessor will show
        limits = [part.look() if isinstance(part, OpenFile) else 0 for part in reversed(self._chain)]
        allowed = _Budget(min(budget, READ_LIMIT))
        for part, limit in zip(list(self._chain), reversed(limits), strict=True):
            if isinstance(part, _Missed):
                self._read_missed(part, allowed, now_ns, out)
            elif part.fd is not None:
                self._read_file(part, limit, allowed, now_ns, out)
            if allowed.blocked:
                self.more = True
                break
        else:
            self._retire(now_ns, out)
        gaps = sum(isinstance(item, Gap) for item in out)
        if gaps:
            self._status = replace(self._status, gaps=self._status.gaps + gaps)
        self._start = None
        return out

    @property
    def _current(self) -> OpenFile | None:
        last = self._chain[-1] if self._chain else None
        return last if isinstance(last, OpenFile) else None

    def _say(self, state: State, note: str = "") -> None:
        if (state, note) != (self._status.state, self._status.note):
            self._status = replace(self._status, state=state, note=safe(note))

    def _read_file(self, part: OpenFile, limit: int, allowed: _Budget, now_ns: int, out: Delivery) -> None:
        if (
            part.read_to == 0 < limit
            and part is self._chain[-1]
            and part.seen_empty
            and self._emptied_unseen(part)
        ):
            allowed.blocked = True
            return
        want = min(allowed.left, max(0, limit - part.read_to))
        try:
            data = part.take(want)
        except OSError as error:
            self._say("reading", f"{self.path} cannot be read: {error.strerror}; trying on")
            return
        if data is None:
            self._truncated(part, out)
            allowed.blocked = True
            return
        part.seen_empty = part is self._chain[-1] and part.read_to == 0
        if data:
            out += part.cutter.feed(data)
            part.quiet_since_ns = now_ns
            self._status = replace(self._status, last_read_ns=now_ns)
        allowed.left -= len(data)
        allowed.blocked = part.read_to < limit

    def _read_missed(self, part: _Missed, allowed: _Budget, now_ns: int, out: Delivery) -> None:
        while allowed.left > 0:
            try:
                cutter, data = next(part.steps)
            except StopIteration as end:
                self._report_missed(part, bool(end.value), out)
                self._chain.remove(part)
                return
            if cutter is not part.cutter:
                if part.cutter.copy:
                    self._cut_off(part.cutter, out)
                part.cutter = cutter
            out += cutter.feed(data)
            self._status = replace(self._status, last_read_ns=now_ns)
            allowed.left -= len(data) or _SKIP_COST
        allowed.blocked = True

    def _report_missed(self, part: _Missed, found: bool, out: Delivery) -> None:
        gap = part.gap
        if not found:
            out.append(gap)
        elif part.found is not None:
            # what the copy left unfinished belongs to the same loss
            out.append(replace(gap, offset=part.cutter.offset, reason=part.found, size=None))
        else:
            self._cut_off(part.cutter, out)

    def _cut_off(self, cutter: LineCutter, out: Delivery) -> None:
        if cutter.held:
            reason = "the rotated file ends in the middle of a line"
            out.append(Gap(cutter.source, cutter.offset, reason, cutter.held))

    def _truncated(self, part: OpenFile, out: Delivery) -> None:
        """The file is not the one we read any more: save what its copies hold, then begin anew."""
        self._status = replace(self._status, truncations=self._status.truncations + 1)
        self._recover(part, "the file was truncated or overwritten in place", out)
        part.restart(LineCutter(self._status.name))
        part.copies_until_ns = newest_ns(rotated_files(self.path))

    def _emptied_unseen(self, part: OpenFile) -> bool:
        """Whether the file was filled, copied and truncated before we read a byte: nothing in it shows that."""
        copies = [
            copy
            for copy in rotated_files(self.path)
            if copy.stat.st_mtime_ns > part.copies_until_ns
            and not copy.name.by_hand
            and copy.identity not in self.identities
            and not self._was_read(copy)
        ]
        if not copies:
            return False
        part.copies_until_ns = max(copy.stat.st_mtime_ns for copy in copies)
        self._status = replace(self._status, truncations=self._status.truncations + 1)
        name = self._status.name
        gap = Gap(name, 0, "the file was truncated before it was read", None)
        steps = whole(copies, name)
        self._chain.insert(self._chain.index(part), _Missed(steps, LineCutter(name), gap, _BETWEEN))
        return True

    def _recover(self, part: OpenFile, reason: str, out: Delivery) -> None:
        mark = part.mark
        lost = part.cutter.held + max(0, mark.size - mark.offset)
        gap = Gap(self._status.name, part.cutter.offset, reason, lost or None)
        copies = [
            copy
            for copy in rotated_files(self.path)
            if copy.stat.st_mtime_ns >= mark.mtime_ns and copy.identity not in self.identities
        ]
        if not copies:
            out.append(gap)
            return
        steps = missed(copies, mark, part.cutter)
        self._chain.insert(self._chain.index(part), _Missed(steps, part.cutter, gap, _BETWEEN))

    def _look_at_path(self, now_ns: int, out: Delivery) -> None:
        """Open what the path names now, if that is not the current file, and append it to the chain."""
        idle: State = "reading" if self._chain else "waiting"
        try:
            found = self.path.stat() if self._follow_symlinks else self.path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            self._unpark(None, out)
            self._say(idle, f"{self.path} is not there: waiting for it")
            return
        except OSError as error:
            self._say(idle, f"{self.path} cannot be looked at: {error.strerror}; trying on")
            return
        current = self._current
        if current is not None and current.fd is None and not current.unchanged(found):
            self._unpark(found, out)
            current = self._current
            if current is not None and current.fd is None:
                self._say("reading", f"{self.path} cannot be opened; trying on")
                return
        if current is not None and current.identity == (found.st_dev, found.st_ino):
            self._say("reading")
            return
        why = refusal(self.path, found.st_mode)
        if why is not None:
            self._say("refused", why)
            return
        try:
            fd = open_regular(self.path, follow_symlinks=self._follow_symlinks)
        except RefusedError as error:
            self._say("refused", str(error))
        except OSError as error:
            self._say(idle, f"{self.path} cannot be opened: {error.strerror}; trying on")
        else:
            self._say("reading")
            self._succeed(fd, now_ns, out)

    def _succeed(self, fd: int, now_ns: int, out: Delivery) -> None:
        old = self._current
        new = OpenFile(fd, LineCutter(self._status.name, *(self._start or (0, 1))))
        if new.size < new.read_to:
            reason = "the file is shorter than where reading was to begin: read from its start"
            out.append(Gap(self._status.name, new.size, reason, None))
            new.restart(LineCutter(self._status.name))
        new.quiet_since_ns = now_ns
        if self._opened:
            self._status = replace(self._status, rotations=self._status.rotations + 1)
        else:
            self._opened = True
            self._mark_older()
        for part in self._chain:
            if isinstance(part, OpenFile) and part.identity == new.identity:
                # a rotated file was moved back: go on with it where we are
                new.close()
                self._chain.remove(part)
                self._chain.append(part)
                return
        if old is not None:
            old.quiet_since_ns = now_ns
            self._append_unopened(old, new, now_ns)
        new.copies_until_ns = newest_ns(rotated_files_at_start(self.path))
        self._chain.append(new)

    def _mark_older(self) -> None:
        """What was rotated before we came is not ours to read, even where its writer still lingers on it."""
        for file in rotated_files_at_start(self.path):
            with contextlib.suppress(OSError, RefusedError):
                if not file.gz:
                    part = OpenFile(open_regular(file.path), LineCutter(self._status.name, file.stat.st_size))
                    part.close()
                    self._past.append(part.mark)

    def _append_unopened(self, old: OpenFile, new: OpenFile, now_ns: int) -> None:
        """Generations that came and went between two ticks, in order."""
        for held in self._chain:
            if isinstance(held, OpenFile):
                held.look()
        for _ in range(_SCANS):
            later = self._later_than(old, new)
            parts = [None if file.gz else self._open_unread(file) for file in later]
            if all(file.gz or part is not None for file, part in zip(later, parts, strict=True)):
                break
            for part in parts:
                if part is not None:
                    part.close()
            # a name changed hands while we looked: the next scan finds each file under its new one
        else:
            return
        for file, part in zip(later, parts, strict=True):
            self._status = replace(self._status, rotations=self._status.rotations + 1)
            if part is not None:
                part.quiet_since_ns = now_ns
                self._chain.append(part)
            else:
                self._append_copy(file)

    def _later_than(self, old: OpenFile, new: OpenFile) -> list[Rotated]:
        """The rotated files between two generations that were never read, oldest first."""
        files = [file for file in rotated_files(self.path) if not file.name.by_hand]
        names = [file.identity for file in files]
        if new.identity in names:
            files = files[: names.index(new.identity)]
        if old.identity in names:
            files = files[names.index(old.identity) + 1 :]
        else:
            files = [file for file in files if file.stat.st_mtime_ns >= old.mark.mtime_ns]
        return [file for file in files if file.identity not in self.identities and not self._was_read(file)]

    def _open_unread(self, file: Rotated) -> OpenFile | None:
        try:
            part = OpenFile(open_regular(file.path), LineCutter(self._status.name))
        except (OSError, RefusedError):
            return None
        if part.identity != file.identity:
            part.close()
            return None
        return part

    def _append_copy(self, file: Rotated) -> None:
        name = self._status.name
        gap = Gap(name, 0, f"{safe(file.path.name)} could not be read to its end", None)
        self._chain.append(_Missed(whole([file], name), LineCutter(name, copy=True), gap))

    def _was_read(self, file: Rotated) -> bool:
        if file.gz:
            marks = [part.mark_as_is for part in self._chain if isinstance(part, OpenFile)]
            return any(is_copy(file, mark) for mark in [*marks, *self._past])
        return any(
            file.identity == (mark.dev, mark.ino) and mark.offset > 0 and is_continued(file, mark)
            for mark in self._past
        )

    def _unpark(self, found: os.stat_result | None, out: Delivery) -> None:
        """Find the file that was given up: at its path, else under a rotated name, else in a copy."""
        part = self._current
        if part is None or part.fd is not None:
            return
        if found is not None and (found.st_dev, found.st_ino) == part.identity:
            self._attach(part, self.path, None)
            return
        for file in rotated_files(self.path):
            if file.identity == part.identity and self._attach(part, file.path, part.mark):
                return
        if found is not None:
            self._past.append(part.mark)
            self._recover(part, "the file was replaced and is gone", out)
            self._chain.remove(part)

    def _attach(self, part: OpenFile, path: Path, expected: Mark | None) -> bool:
        try:
            fd = open_regular(path, follow_symlinks=self._follow_symlinks)
        except (OSError, RefusedError):
            return False
        stat = os.fstat(fd)
        if (stat.st_dev, stat.st_ino) != part.identity or (
            expected is not None and not expected.in_file(lambda size, offset: os.pread(fd, size, offset))
        ):
            os.close(fd)
            return False
        part.attach(fd)
        return True

    def _retire(self, now_ns: int, out: Delivery) -> None:
        """Close rotated files that have been quiet long enough."""
        for part in self._chain[:-1]:
            if not isinstance(part, OpenFile) or part.look() > part.read_to:
                continue
            later = self._chain[self._chain.index(part) + 1 :]
            replaced = any(isinstance(other, OpenFile) and other.size > 0 for other in later)
            quiet = replaced and now_ns - part.quiet_since_ns >= QUIET_NS
            if quiet or len(self._chain) > _MAX_RETIRING:
                part.close()
                self._past.append(part.mark)
                self._cut_off(part.cutter, out)
                self._chain.remove(part)


def newest_ns(files: Sequence[Rotated]) -> int:
    """The latest modification time among rotated files, -1 for none."""
    return max((file.stat.st_mtime_ns for file in files), default=-1)
