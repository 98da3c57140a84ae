"""Reads from rotated copies of a log what a follower did not read from the log itself."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from mcpwatch.sources.block import Block, Gap, SourceError
from mcpwatch.sources.compressed import CHUNK, CompressedStream
from mcpwatch.sources.lines import LineCutter
from mcpwatch.sources.mark import HEAD, Mark, Relation, Sample, Trail, digest, offsets_of, point_at, window_of
from mcpwatch.sources.opened import open_regular
from mcpwatch.sources.rotation import Rotated
from mcpwatch.text import safe

BETWEEN: Final = "the file was copied and truncated: what was written between the two is lost"
PERHAPS: Final = (
    "the file was copied and replaced unseen: what was written after a copy, if anything, is lost"
)
_UNFINISHED: Final = "the rotated file ends in the middle of a line"
_REMEMBERED: Final = 1_024
_FIRST: Final = 1 << 16

Step = tuple[list[Block], int]
"""Blocks, perhaps none, and the bytes that were read for them."""


class Recent:
    """Hashes of the first lines of the newest generations, to know them again in a copy too short to tell otherwise.

    Hashing every line would cost a twentieth of the time that a line takes in all; a copy that is longer than
    the lines remembered here is recognised by its bytes.
    """

    def __init__(self) -> None:
        self._hashes: deque[int] = deque(maxlen=_REMEMBERED)

    def note(self, blocks: Sequence[Block]) -> None:
        """These blocks are delivered."""
        for block in blocks:
            if block.offset < _FIRST:
                self._hashes.extend(map(hash, block.lines[:_REMEMBERED]))

    def counted(self) -> Counter[int]:
        """How often each was delivered."""
        return Counter(self._hashes)


@dataclass(slots=True, eq=False)
class Loss:
    """A file that cannot be read on, and the gap to report unless a copy holds the rest.

    Attributes:
        mark: How far it was read; goes on as copies of it are read.
        start: From where on its copies are read: where its mark ends, or where a line begins that is not held.
        cutter: Holds its unfinished line.
        since_ns: Rotated files that follow it were written since then; None where there can be none.
        in_place: Whether it was truncated, rather than renamed or deleted.
        unseen: Whether it was not open then: another file may have been given its inode.
        looked: Whether copies were looked for.
        found: Whether a copy of it was.
        short: Whether that copy ends before what had been read.
        told: Whether copies of it that were read whole told of themselves what is lost.
    """

    mark: Mark
    cutter: LineCutter
    gap: Gap
    start: int
    since_ns: int | None
    in_place: bool
    unseen: bool = False
    looked: bool = False
    found: bool = False
    short: bool = False
    told: bool = False
    trail: Trail | None = None

    @property
    def reached(self) -> tuple[Mark, int]:
        """How far it is read by now, and where the line begins that is not finished yet."""
        if self.trail is None:
            return self.mark, self.cutter.offset
        return self.trail.mark(self.mark), self.trail.line_offset

    @property
    def truncated(self) -> bool:
        """Whether it was seen to be truncated, and so copied before."""
        return self.in_place and not self.unseen

    def take(self, relation: Relation, file: Rotated) -> None:
        """A copy of it was found: one that goes as far as was read, or is `short` of that."""
        self.mark = replace(self.mark, mtime_ns=max(self.mark.mtime_ns, file.stat.st_mtime_ns))
        # who copies by hand may do so long before the file is gone
        short = relation == "short" or file.name.by_hand
        self.short = short and (self.short or not self.found)
        self.found = True

    def outcome(self) -> Gap | None:
        """The gap there is in the end."""
        if not self.found:
            # of a file of which nothing was seen it is not known that there was anything
            return None if self.mark.size == 0 else self.gap
        if self.mark.offset == 0 and self.told:
            return None
        if self.in_place or self.short:
            # what the copy left unfinished belongs to the same loss
            reason = PERHAPS if self.unseen else BETWEEN
            return replace(self.gap, offset=self.cutter.offset, reason=reason, size=None)
        return cut_off(self.cutter)


def cut_off(cutter: LineCutter) -> Gap | None:
    """The gap for a line that was never finished."""
    return Gap(cutter.source, cutter.offset, _UNFINISHED, cutter.held) if cutter.held else None


class Known(NamedTuple):
    """What a copy is compared with.

    Attributes:
        losses: Gives the files that it may hold the rest of.
        sought: The one of them that the search is for, if any.
        since_ns: A copy of nothing known is read whole if it was written to since then; None: not for that.
        present: Marks of what the files hold, or held, that are being read now.
        read: Marks of files that were read before, of which no copy is to be read.
        recent: What tells repeats.
        copied: Whether files that nobody has read are copies, made before the file they were of was truncated.
    """

    losses: Callable[[], Sequence[Loss]]
    sought: Loss | None
    since_ns: int | None
    present: Sequence[Mark]
    read: Sequence[Mark]
    recent: Recent
    copied: bool

    def found_whole(self) -> None:
        """A file that nobody has read was found: of a loss of which nothing was read it is what was lost."""
        if self.sought is not None and self.sought.mark.offset == 0:
            self.sought.found = True
            self.sought.told |= self.copied


class CopyReader:
    """Reads what one rotated copy holds beyond what was read before.

    Attributes:
        file: The copy, as it was found.
        cutter: Cuts what is read of it as a file of its own.
        begun: Whether it was looked at.
        set_aside: Whether it turned out to be nothing to read now, but may come to be: a copy of what a file that is
            being read still holds, or of nothing known.
        torn: Whether the file it is a copy of was truncated after it, and it holds all that was saved of that file.
        failure: Why it could not be read to its end, if so.
    """

    def __init__(self, file: Rotated, fd: int, source: str, known: Known, *, later: bool) -> None:
        """Take over `fd`, which is closed at the end.

        Args:
            known: What it is compared with.
            later: Whether it is known to be younger than what was read.
        """
        self.file = file
        self.cutter = LineCutter(source, copy=True)
        self.begun = self.set_aside = self.torn = False
        self.failure: str | None = None
        self._fd: int | None = fd
        self._known = known
        self._later = later
        self._trail = Trail()
        self._left = self._steps()

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the copy."""
        return self.file.identity

    @property
    def reached(self) -> tuple[Mark, int] | None:
        """How far it was read as a file of its own, and where its unfinished line begins; None while it is not."""
        return (self._trail.mark(self.file.stat), self._trail.line_offset) if self._trail.offset else None

    def outcome(self) -> Gap | None:
        """The gap there is at its end."""
        if self.failure is not None:
            return Gap(self.cutter.source, self.cutter.offset, self.failure, None)
        if self.torn:
            return Gap(self.cutter.source, self.cutter.offset, BETWEEN, None)
        return cut_off(self.cutter)

    def read(self, budget: int) -> tuple[list[Block], int]:
        """Read on, a piece of at most 256 KiB more than `budget` bytes.

        Returns:
            What came of it, and the bytes left of the budget: none of them where there is more to read.
        """
        blocks: list[Block] = []
        self.begun = True
        while budget > 0:
            step = next(self._left, None)
            if step is None:
                return blocks, budget
            blocks += step[0]
            budget -= step[1]
        return blocks, 0

    def release(self) -> int:
        """Hand over the descriptor instead of reading."""
        fd, self._fd = self._open_fd, None
        return fd

    @property
    def _open_fd(self) -> int:
        assert self._fd is not None
        return self._fd

    def close(self) -> None:
        """Close the copy."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @property
    def whole(self) -> bool:
        """Whether it is read from its start where it is a copy of nothing known: not if a person made it."""
        starts = [self._known.since_ns, *(loss.since_ns for loss in self._known.losses())]
        late = any(start is not None and self.file.stat.st_mtime_ns >= start for start in starts)
        return not self.file.name.by_hand and (self._later or late)

    def plain_relation(self) -> tuple[Relation, Loss | None]:
        """What a copy that is not compressed is: see `_relation`."""
        looking = self._relation()
        while True:
            try:
                next(looking)
            except StopIteration as end:
                found: tuple[Relation, Loss | None] = end.value
                return found

    def _relation(self) -> Generator[Step, None, tuple[Relation, Loss | None]]:
        """What the copy is: it `holds` more of what was lost, has nothing new (`short`), or nobody has read it.

        Yields:
            Nothing but what it costs to look at a compressed copy.
        """
        losses, present = self._known.losses(), self._known.present
        marks = [*(loss.mark for loss in losses), *present, *self._known.read]
        sample = yield from _sample(self._open_fd, self.file, marks)
        for loss in losses:
            relation = loss.mark.related(sample)
            if relation in ("holds", "short") and loss.mark.telling:
                loss.take(relation, self.file)
                return ("holds" if sample.length > loss.start else "short"), loss
        if any(is_copy(self.file, sample, mark) for mark in present):
            self.set_aside = True
            return "short", None
        if any(is_copy(self.file, sample, mark) for mark in self._known.read):
            return "short", None
        for loss in losses:
            if loss.mark.related(sample) == "holds" and self.whole:
                loss.take("holds", self.file)
                return "holds", loss
        self.set_aside = not self.whole
        return ("other" if all(mark.related(sample) == "other" for mark in marks) else "doubtful"), None

    def _steps(self) -> Generator[Step, None, None]:
        try:
            relation, loss = yield from self._relation()
            if loss is not None:
                if relation == "holds":
                    yield from self._rest(loss)
            elif self.whole and relation != "short":
                self._known.found_whole()
                self.torn = self._known.copied
                yield from self._whole(Counter() if relation == "other" else self._known.recent.counted())
        except (OSError, SourceError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self.failure = f"{safe(self.file.path.name)} cannot be read to its end: {reason}"
        finally:
            self.close()

    def _whole(self, delivered: Counter[int]) -> Generator[Step, None, None]:
        for data in _chunks(self._open_fd, self.file):
            self._trail.advance(data)
            blocks = self.cutter.feed(data)
            if delivered:
                mark_repeats(blocks, delivered)
            self._known.recent.note(blocks)
            yield blocks, len(data)

    def _rest(self, loss: Loss) -> Generator[Step, None, None]:
        loss.cutter.copy = True
        start, trail = loss.start, Trail()
        for data in _chunks(self._open_fd, self.file):
            fresh = data[max(0, start - trail.offset) :]
            trail.advance(data)
            if fresh:
                loss.trail = trail
                blocks = loss.cutter.feed(fresh)
                self._known.recent.note(blocks)
                yield blocks, len(data)
            else:
                yield [], len(data)
        loss.mark, loss.start, loss.trail = trail.mark(loss.mark), trail.offset, None


def sample_of(file: Rotated, marks: Sequence[Mark]) -> Sample:
    """What is to be known of a copy to compare it with marks. Reads a compressed one as far as they go.

    Raises:
        OSError, SourceError: It cannot be read.
    """
    fd = open_regular(file.path)
    try:
        looking = _sample(fd, file, marks)
        while True:
            next(looking)
    except StopIteration as end:
        found: Sample = end.value
        return found
    finally:
        os.close(fd)


def _sample(fd: int, file: Rotated, marks: Sequence[Mark]) -> Generator[Step, None, Sample]:
    """Look a copy up at the points of marks; a compressed one only while there is a mark that it fits."""
    stops = offsets_of(marks)
    if not file.compressed:
        length = os.fstat(fd).st_size
        found = (
            point_at(lambda size, offset: os.pread(fd, size, offset), stop)
            for stop in stops
            if stop <= length
        )
        return Sample(length, dict(found))
    digests: dict[int, str] = {}
    at, tail = 0, b""
    try:
        for data in _chunks(fd, file):
            joined = tail + data
            base, at = at - len(tail), at + len(data)
            while stops and stops[0] <= at:
                stop = stops.pop(0)
                digests[stop] = digest(joined[stop - base - window_of(stop) : stop - base])
            tail = joined[-HEAD:]
            yield [], len(data)
            sample = Sample(at, digests)
            marks = [mark for mark in marks if mark.related(sample) != "other"]
            stops = [stop for stop in offsets_of(marks) if stop > at]
            if not stops:
                break
    except SourceError:
        pass  # whoever reads it to there says so; what comes before the break can be compared
    return Sample(at, digests)


def _chunks(fd: int, file: Rotated) -> Iterator[bytes]:
    """The bytes of a copy from its start, decompressed.

    Raises:
        SourceError: It is broken, from the broken byte on.
        OSError: It cannot be read.
    """
    if file.compressed:
        stream = CompressedStream(fd, file.path)
        while data := stream.read():
            yield data
    else:
        at = 0
        while data := os.pread(fd, CHUNK, at):
            at += len(data)
            yield data


def is_copy(file: Rotated, sample: Sample, mark: Mark) -> bool:
    """Whether a file is what was read, or a copy of it: a few bytes in common prove nothing."""
    relation = mark.related(sample)
    same = mark.telling or sample.length == mark.offset or file.identity == mark.identity
    return relation == "short" or (relation == "holds" and same)


def mark_repeats(blocks: Sequence[Block], delivered: Counter[int]) -> None:
    """Mark the lines that were delivered before, each as often as it was."""
    for block in blocks:
        found = []
        for index, line in enumerate(block.lines):
            if delivered[hash(line)] > 0:
                delivered[hash(line)] -= 1
                found.append(index)
        block.repeats = frozenset(found)
