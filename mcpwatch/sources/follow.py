"""Follows one log file through rotation, truncation and replacement without losing or repeating a line.

What a file *is* is decided by its open descriptor, its device and inode, its head and the bytes before our
place, all together: ext4 gives a recreated file the inode of the deleted one nearly every time, and some logs
begin with the same line for ever.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from mcpwatch.sources.attach import Finder, has_twin, is_here
from mcpwatch.sources.block import MAX_LINE, Block, Gap
from mcpwatch.sources.copies import BETWEEN, CopyReader, Loss, cut_off, mark_repeats
from mcpwatch.sources.generations import Generations, More, Part, held_by, losses_in
from mcpwatch.sources.lines import LineCutter
from mcpwatch.sources.mounts import network_filesystem
from mcpwatch.sources.opened import OpenFile, RefusedError, open_regular, refusal
from mcpwatch.sources.place import CLOSE_NS, MOST_PAST, PAST_KEPT, Place, PlacePart
from mcpwatch.text import SafeText, safe
from mcpwatch.times import SECOND

READ_LIMIT: Final = MAX_LINE
"""Most bytes that one tick reads."""
QUIET_NS: Final = 5 * SECOND
"""A rotated file is closed when it has given nothing for so long and its successor has data."""
REOPEN_NS: Final = SECOND
"""How often a file on a network file system is opened anew: only that asks the server how long it is."""
_MOST_QUIET_NS: Final = SECOND
_MAX_RETIRING: Final = 16
_NO_NOTE: Final = SafeText("")

_TRUNCATED: Final = "the file was truncated or overwritten in place"
_REPLACED: Final = "the file was replaced and is gone"
_AWAY: Final = " while mcpwatch was not running"
_UNSEEN: Final = "the file was truncated before it was read"
_BEYOND: Final = "the file is shorter than where reading was to begin: read from its start"

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
        filesystem: The network file system that it lies on; None for any other.
        senders: Who is connected, of a source that others send to.
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
    filesystem: str | None = None
    senders: tuple[SafeText, ...] = ()


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
        self,
        path: Path,
        name: str,
        *,
        offset: int = 0,
        line: int | None = 1,
        resume: Place | None = None,
        follow_symlinks: bool = False,
    ) -> None:
        """Follow `path` as source `name`.

        Args:
            offset: Where to begin in a file that is there at the first tick: the first byte of a line. A file
                that appears later is read from its beginning.
            line: Number of that line, None when unknown.
            resume: Read on from there instead, wherever the file has gone since, and then all later ones in order.
                What cannot be found is a gap.
        """
        self.path = path
        self.more = False
        """Whether the last tick left data that could be read at once."""
        self._start: tuple[int, int | None] = (offset, line)
        self._follow_symlinks = follow_symlinks
        self._generations = Generations(path, name)
        self._finder = Finder(path, self._generations, follow_symlinks=follow_symlinks)
        self._chain: list[Part] = []
        self._opened = resume is not None
        if resume is not None:
            for part in resume.parts:
                self._chain.append(OpenFile.parked(part.mark, part.offset, part.line, name))
                if part.pending:
                    self._chain.append(More(part.mark.identity, part.mark.mtime_ns))
            self._generations.past.extend(resume.past)
        self._ticked_ns: int | None = None
        self._reopened_ns = 0
        self._status = SourceStatus(name, str(path), "waiting", filesystem=network_filesystem(path))

    @property
    def status(self) -> SourceStatus:
        """How it goes, as of the last tick."""
        current = self._current
        if current is None:
            return self._status
        return replace(
            self._status,
            offset=current.read_to,
            size=current.size,
            held=current.cutter.held,
            behind=sum(max(0, part.size - part.read_to) for part in self._files),
        )

    @property
    def place(self) -> Place | None:
        """How far was read, as of the last tick, for another process to go on from; None before there was a file."""
        parts: list[PlacePart] = []
        for part in self._chain:
            if isinstance(part, More):
                parts[-1:] = [replace(last, pending=True) for last in parts[-1:]]
            elif isinstance(part, OpenFile):
                parts.append(PlacePart(part.mark.thinned, part.trail.line_offset, part.cutter.line))
            elif part.reached is not None:
                mark, offset = part.reached
                parts.append(PlacePart(mark.thinned, offset, part.cutter.line, isinstance(part, Loss)))
        if not parts:
            return None
        # whether a rotated file is older is told by when it was written to, unless it was but now
        alone = len(parts) == 1 and parts[0].mark.offset > 0
        since = parts[-1].mark.mtime_ns - CLOSE_NS if alone else 0
        kept = MOST_PAST if any(part.pending for part in parts) else PAST_KEPT
        past = [mark for mark in self._generations.past if mark.mtime_ns >= since][-kept:]
        return Place(tuple(parts), tuple(mark.thinned for mark in past))

    @property
    def descriptors(self) -> int:
        """Files held open."""
        return len(self.identities)

    @property
    def identities(self) -> set[tuple[int, int]]:
        """Device and inode of each file held open (while it is, nothing else can get its inode)."""
        return held_by(self._chain)

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
            if isinstance(part, OpenFile | CopyReader):
                part.close()
        self._chain.clear()

    def tick(self, now_ns: int, budget: int = READ_LIMIT) -> Delivery:
        """Look at the path and read what is new, at most `budget` bytes (and never more than 1 MiB).

        Never waits, never raises for what happens to the file: the status and gaps tell.
        """
        out: Delivery = []
        if self._status.state == "ended":
            return out
        self.more = False
        # a clock that was set must not make a rotated file look quiet, nor busy for an hour
        elapsed = min(max(0, now_ns - self._ticked_ns), _MOST_QUIET_NS) if self._ticked_ns is not None else 0
        self._ticked_ns = now_ns
        try:
            self._look_at_path(now_ns, out)
        except OSError as error:
            self._say("reading", f"{self.path} cannot be read: {error.strerror}; trying on")
        # newest first: what a successor holds by now was written after all that its predecessor will show
        limits = [part.look() if isinstance(part, OpenFile) else 0 for part in reversed(self._chain)]
        allowed = _Budget(min(budget, READ_LIMIT))
        for part, limit in zip(list(self._chain), reversed(limits), strict=True):
            if isinstance(part, OpenFile):
                if part.fd is not None:
                    self._read_file(part, limit, elapsed, allowed, out)
            elif isinstance(part, CopyReader):
                self._read_copy(part, allowed, out)
            else:
                allowed.blocked = self._look_for_more(part, out)
            if allowed.blocked:
                self.more = True
                break
        self._retire(out)
        gaps = sum(isinstance(item, Gap) for item in out)
        if gaps:
            self._status = replace(self._status, gaps=self._status.gaps + gaps)
        self._start = (0, 1)
        return out

    @property
    def _current(self) -> OpenFile | None:
        last = self._chain[-1] if self._chain else None
        return last if isinstance(last, OpenFile) else None

    @property
    def _files(self) -> list[OpenFile]:
        return [part for part in self._chain if isinstance(part, OpenFile)]

    def _say(self, state: State, note: str = "") -> None:
        if (state, note) != (self._status.state, self._status.note):
            self._status = replace(self._status, state=state, note=safe(note))

    def _read_file(self, part: OpenFile, limit: int, elapsed: int, allowed: _Budget, out: Delivery) -> None:
        want = min(allowed.left, max(0, limit - part.read_to))
        try:
            if part.may_be_emptied and self._look_for_more(self._emptied(part), out):
                allowed.blocked = True
                return
            data = part.take(want)
        except OSError as error:
            self._say("reading", f"{self.path} cannot be read: {error.strerror}; trying on")
            if error.errno == errno.ESTALE:
                part.close()  # its server knows it no more under this handle: looked for anew
            return
        if data is None:
            self._truncated(part, _TRUNCATED)
            allowed.blocked = True
            return
        part.quiet_ns = 0 if data else part.quiet_ns + elapsed
        if data:
            self._status = replace(self._status, last_read_ns=self._ticked_ns)
        blocks = part.cutter.feed(data)
        if part.delivered:
            mark_repeats(blocks, part.delivered)
        self._generations.recent.note(blocks)
        out += blocks
        allowed.left -= len(data)
        allowed.blocked = part.read_to < limit
        if part.torn and not allowed.blocked:
            part.torn, part.told_at = False, part.cutter.offset
            out.append(Gap(self._status.name, part.told_at, BETWEEN, None))
            self._generations.torn.append(part.mark)

    def _read_copy(self, part: CopyReader, allowed: _Budget, out: Delivery) -> None:
        blocks, allowed.left = part.read(allowed.left)
        if blocks:
            self._status = replace(self._status, last_read_ns=self._ticked_ns)
        out += blocks
        if allowed.left == 0:
            allowed.blocked = True
            return
        self._chain.remove(part)
        self._generations.note(part)
        gap = part.outcome()
        out += [gap] if gap is not None else []
        if part.reached is not None:
            self._generations.past.append(part.reached[0])
            if part.torn:
                self._generations.torn.append(part.reached[0])
            self._status = replace(self._status, rotations=self._status.rotations + 1)

    def _truncated(self, part: OpenFile, reason: str, fd: int | None = None) -> None:
        """The file is not the one we read any more: save what its copies hold, then begin anew.

        Args:
            fd: A new descriptor of it, where it was not open.
        """
        self._status = replace(self._status, truncations=self._status.truncations + 1)
        loss = self._loss_of(part, reason, part.mark.mtime_ns, in_place=True)
        if fd is not None:
            part.replace(fd)
        part.restart(self._status.name)
        self._chain.insert(self._chain.index(part), loss)

    def _verify(self) -> None:
        """Notice of older files now what a read would notice: what the rotated files are copies of depends on it."""
        for part in self._files[:-1]:
            if part.fd is not None:
                part.look()
                with contextlib.suppress(OSError):  # the read says so
                    if part.take(0) is None:
                        self._truncated(part, _TRUNCATED)
                    elif part.may_be_emptied:
                        self._emptied(part)

    def _loss_of(self, part: OpenFile, reason: str, since_ns: int | None, *, in_place: bool) -> Loss:
        mark = part.mark
        lost = part.cutter.held + max(0, mark.size - part.read_to)
        reason += _AWAY if part.resumed is not None else ""
        gap = Gap(self._status.name, part.cutter.offset, reason, lost or None)
        return Loss(mark, part.cutter, gap, part.read_to, since_ns, in_place, unseen=part.fd is None)

    def _emptied(self, part: OpenFile) -> Loss:
        """What the file held before we read a byte of it may be in copies."""
        seen = part.seen or part.mark
        emptied = not seen.in_file(part.pread)
        part.note_content()
        name = self._status.name
        mark = replace(seen, size=seen.size if emptied else 0, offset=0, points=())
        loss = Loss(mark, LineCutter(name), Gap(name, 0, _UNSEEN, None), 0, mark.mtime_ns, in_place=True)
        loss.found = loss.told = emptied and self._generations.has_told(seen)
        self._chain.insert(self._chain.index(part), loss)
        return loss

    def _look_at_losses(self, out: Delivery) -> None:
        """Open copies of what was lost just now, before anything else becomes of them."""
        for loss in losses_in(self._chain):
            if not loss.looked:
                self._open_more(loss, out)

    def _look_for_more(self, part: Loss | More, out: Delivery) -> bool:
        """Open further copies to be read before going on; when there are none, say what is lost.

        Returns:
            Whether there are.
        """
        if self._open_more(part, out):
            return True
        self._chain.remove(part)
        if isinstance(part, Loss):
            gap = part.outcome()
            out += [gap] if gap is not None else []
            if part.mark.offset:
                self._generations.past.append(part.mark)
        return False

    def _open_more(self, part: Loss | More, out: Delivery) -> bool:
        at = self._chain.index(part)
        later = next((each for each in self._chain[at:] if isinstance(each, OpenFile)), None)
        parts, gaps = self._generations.unread(
            self._chain,
            since_ns=part.since_ns,
            after=part.after if isinstance(part, More) else None,
            before=later.identity if later is not None else None,
            sought=part if isinstance(part, Loss) else None,
            further=part.looked if isinstance(part, Loss) else True,
            current=later is not None and later is self._chain[-1],
        )
        out += gaps
        if isinstance(part, Loss):
            part.looked = True
            if not parts:
                # one that was opened for another reason may be what is missing here
                parts = [each for each in self._chain[at:] if isinstance(each, CopyReader) and not each.begun]
        rest = [each for each in self._chain[at:] if each not in parts]
        self._chain[at:] = [*parts, *rest]
        return bool(parts)

    def _look_at_path(self, now_ns: int, out: Delivery) -> None:
        """Open what the path names now, if that is not the current file, and append it to the chain."""
        idle: State = "reading" if self._chain else "waiting"
        try:
            found = self.path.stat() if self._follow_symlinks else self.path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            self._find_parked(None, out)
            self._say(idle, f"{self.path} is not there: waiting for it")
            return
        except OSError as error:
            self._say(idle, f"{self.path} cannot be looked at: {error.strerror}; trying on")
            return
        self._find_parked(found, out)
        current = self._current
        if current is not None and current.identity == (found.st_dev, found.st_ino):
            self._say("reading")
            if self._status.filesystem is not None and current.fd is not None:
                self._reopen(current, now_ns)
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
            self._succeed(fd, out)

    def _reopen(self, current: OpenFile, now_ns: int) -> None:
        """Ask the server for the file as it is by now: other machines write to it, and the kernel caches."""
        if 0 <= now_ns - self._reopened_ns < REOPEN_NS:
            return
        self._reopened_ns = now_ns
        try:
            fd = open_regular(self.path, follow_symlinks=self._follow_symlinks)
        except (OSError, RefusedError):
            return
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) == current.identity:
            current.replace(fd)
        else:
            os.close(fd)

    def _succeed(self, fd: int, out: Delivery) -> None:
        """The path names another file than before."""
        if self._opened:
            self._status = replace(self._status, rotations=self._status.rotations + 1)
        else:
            self._opened = True
            self._generations.begin()
        found = os.fstat(fd)
        for part in self._files:
            if part.identity == (found.st_dev, found.st_ino) and part.fd is not None:
                # a rotated file was moved back: go on with it where we are
                os.close(fd)
                self._chain.remove(part)
                self._chain.append(part)
                return
        try:
            new = self._open_new(fd, found, out)
            new.note_content()
        except OSError:
            os.close(fd)
            raise
        old = self._current
        self._chain.append(new)
        if old is None:
            return
        old.quiet_ns = 0
        self._verify()
        self._look_at_losses(out)
        parts, gaps = self._generations.unread(
            self._chain, since_ns=old.mtime_ns, after=old.identity, before=new.identity
        )
        out += gaps
        if parts:
            self._chain[-1:] = [*parts, More(parts[-1].identity, old.mtime_ns), new]
        files = sum(isinstance(part, OpenFile) for part in parts)
        self._status = replace(self._status, rotations=self._status.rotations + files)

    def _open_new(self, fd: int, found: os.stat_result, out: Delivery) -> OpenFile:
        """The file that is at the path now, from where reading is to begin."""
        name = self._status.name
        offset, line = self._start
        if offset > found.st_size:
            out.append(Gap(name, found.st_size, _BEYOND, None))
            offset, line = 0, 1
        known = self._generations.known_as(fd) if offset == 0 else None
        if known is not None:
            # it was read before, under a rotated name perhaps, and was moved back
            offset, line = known.offset, None
        return OpenFile(fd, name, offset=offset, line=line)

    def _find_parked(self, found: os.stat_result | None, out: Delivery) -> None:
        """Find the files that were given up: at the path, else under a rotated name, else in a copy."""
        parked = [part for part in self._files if part.fd is None]
        if found is not None and len(parked) == len(self._chain) == 1 and parked[0].unchanged(found):
            return
        gone = []
        for part in parked:
            how, fd = self._finder.find(part, self._chain, found)
            if how == "overwritten":
                self._truncated(part, _TRUNCATED, fd)
            elif how == "gone":
                gone.append(part)
        for part in (
            gone if found is not None else ()
        ):  # without a file at the path a rotation may be under way
            at = self._chain.index(part)
            in_place = is_here(part, found) or has_twin(part, self._chain)
            # where another file follows, all between the two has been opened
            last = at == len(self._chain) - 1 or isinstance(self._chain[at + 1], More)
            since_ns = part.mark.mtime_ns if last else None
            self._chain[at] = self._loss_of(part, _REPLACED, since_ns, in_place=in_place)
        self._look_at_losses(out)

    def _retire(self, out: Delivery) -> None:
        """Close rotated files that have been quiet long enough."""
        for part in self._files:
            if part is self._chain[-1] or part.fd is None or part.look() > part.read_to:
                continue
            later = self._chain[self._chain.index(part) + 1 :]
            replaced = any(isinstance(other, OpenFile) and other.size > 0 for other in later)
            if (replaced and part.quiet_ns >= QUIET_NS) or len(self._chain) > _MAX_RETIRING:
                part.close()
                self._generations.retire(part)
                gap = cut_off(part.cutter)
                out += [gap] if gap is not None and gap.offset != part.told_at else []
                self._chain.remove(part)
