"""Opens log files safely, and knows an open file again by what was read of it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Final, Self

from mcpwatch.sources.block import SourceError
from mcpwatch.sources.lines import LineCutter
from mcpwatch.sources.mark import TELLING, Mark, Trail, mark_of
from mcpwatch.text import safe

_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class RefusedError(SourceError):
    """The path is there but is nothing that may be followed."""


def refusal(path: Path, mode: int) -> str | None:
    """Why a path of this `st_mode` is not read, or None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISLNK(mode):
        return f"{safe(path)} is a symbolic link: name its target, or use --follow-symlinks"
    kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
    return f"{safe(path)} is {kind}: only regular files are read; pipe anything else into '-'"


def open_regular(path: Path, *, follow_symlinks: bool = False) -> int:
    """Open a regular file for reading, without ever waiting for a writer.

    Raises:
        RefusedError: It is something else.
        OSError: It cannot be opened.
    """
    look = os.stat if follow_symlinks else os.lstat
    # asked before opening too: to open a device can already do something
    why = refusal(path, look(path).st_mode)
    if why is not None:
        raise RefusedError(why)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_symlinks else os.O_NOFOLLOW)
    fd = os.open(path, flags)
    why = refusal(path, os.fstat(fd).st_mode)
    if why is not None:
        os.close(fd)
        raise RefusedError(why)
    return fd


class OpenFile:
    """One generation of a followed path: how far it was read, and what identifies it.

    Attributes:
        fd: Its descriptor; None while it is parked.
        cutter: Cuts what was read of it into lines.
        trail: What was read of it.
        delivered: Hashes of lines that may come again in it, and how often: it may be a copy.
        torn: Whether it is still to be told that what it is a copy of was truncated after it.
        told_at: Where the unfinished line begins that was told with it.
        quiet_ns: For how long it has given no data since it was rotated away.
        seen: What it held when it was opened, or when its copies were last looked for.
    """

    def __init__(
        self, fd: int, source: str, *, offset: int = 0, line: int | None = 1, copy: bool = False
    ) -> None:
        """Read on from `offset`, the first byte of line number `line` (None: unknown)."""
        self.fd: int | None = fd
        self._stat: os.stat_result | Mark = os.fstat(fd)
        self._verified: os.stat_result | Mark = self._stat
        self.cutter = LineCutter(source, offset, line, copy=copy)
        self.trail = Trail.at(self.pread, offset) if offset else Trail()
        self.resumed: Mark | None = None
        self.delivered: Counter[int] = Counter()
        self.torn = False
        self.told_at = -1
        self.quiet_ns = 0
        self.seen: Mark | None = None
        self._head_checked_ns = -1

    @classmethod
    def parked(cls, mark: Mark, offset: int, line: int | None, source: str) -> Self:
        """A file that another process read as far as the mark, to be found, and read on from `offset`."""
        part = cls.__new__(cls)
        part.fd = None
        part._stat = part._verified = part.resumed = mark
        part.cutter = LineCutter(source, offset, line)
        part.trail = Trail()
        part.trail.offset = part.trail.line_offset = offset
        part.delivered = Counter()
        part.torn, part.told_at = False, -1
        part.quiet_ns, part._head_checked_ns = 0, -1
        part.seen = None if mark.telling else mark
        return part

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return identity_of(self._stat)

    @property
    def size(self) -> int:
        """Size in bytes when last looked at."""
        return self._stat.size if isinstance(self._stat, Mark) else self._stat.st_size

    @property
    def mtime_ns(self) -> int:
        """When it had been written to, as of the last read that found it to be still the same."""
        return mtime_of(self._verified)

    @property
    def read_to(self) -> int:
        """Offset of the first byte not read yet."""
        return self.trail.offset

    @property
    def mark(self) -> Mark:
        """What to know this file by, as of the last read that found it to be still the same."""
        return self.resumed or self.trail.mark(self._verified)

    @property
    def line_mark(self) -> Mark:
        """The same as of the beginning of the line that is not finished yet."""
        return self.trail.mark(self._verified, line=True)

    def look(self) -> int:
        """Ask the system for the file's size and times; returns the size."""
        if self.fd is not None:
            with contextlib.suppress(OSError):  # a stale network handle: the read says so
                self._stat = os.fstat(self.fd)
        return self.size

    def unchanged(self, now: os.stat_result) -> bool:
        """Whether nothing happened to the file since it was last read to its end."""
        then = self._verified
        return (
            not isinstance(then, Mark)
            and identity_of(then) == identity_of(now)
            and (then.st_size, then.st_mtime_ns, then.st_ctime_ns)
            == (now.st_size, now.st_mtime_ns, now.st_ctime_ns)
            and self.read_to == now.st_size
        )

    def take(self, want: int) -> bytes | None:
        """Read up to `want` bytes on; None when what was read before is no longer there.

        The bytes before our place come with the same read, so that nothing can slip in between the check and
        the use. A truncated file never has all of them; a refilled one has others.
        """
        behind = len(self.trail.marker)
        data = self.pread(behind + want, self.read_to - behind)
        if data[:behind] != self.trail.marker or not self._head_holds():
            return None
        self._verified = self._stat
        if len(data) > behind:
            self.trail.pass_over(data, behind)
        return data[behind:]

    def restart(self, source: str) -> None:
        """The same descriptor now holds other content: read it from its first byte."""
        self.cutter, self.trail, self.resumed = LineCutter(source), Trail(), None
        self._verified = self._stat
        self.note_content()

    def note_content(self) -> None:
        """Remember what it holds, to see a change before anything is read of it."""
        assert self.fd is not None
        self.seen = mark_of(self.fd)

    @property
    def may_be_emptied(self) -> bool:
        """Whether it may have been truncated while too little of it was read for the read to show that."""
        if self.seen is None or self.fd is None or self.seen.mtime_ns == mtime_of(self._stat):
            return False
        unknown = self.trail.line_offset == 0 and self.read_to < TELLING
        return unknown and not (self.seen.telling and self.seen.in_file(self.pread))

    def attach(self, fd: int) -> bool:
        """Come back from being parked; whether the file begins with what was read (else nothing is changed)."""

        def read(size: int, offset: int) -> bytes:
            return os.pread(fd, size, offset)

        if not self.mark.in_file(read):
            return False
        if self.resumed is not None:
            self.trail, self.resumed = Trail.at(read, self.read_to), None
        self.replace(fd)
        return True

    def replace(self, fd: int) -> None:
        """Take another descriptor of the same file."""
        self.close()
        self.fd = fd
        self._stat = os.fstat(fd)
        self._head_checked_ns = -1

    def close(self) -> None:
        """Close the descriptor; what identifies the file is kept."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def pread(self, size: int, offset: int) -> bytes:
        """Bytes of the file, fewer at its end."""
        assert self.fd is not None
        return os.pread(self.fd, size, offset)

    def _head_holds(self) -> bool:
        assert not isinstance(self._stat, Mark)
        if self._stat.st_mtime_ns == self._head_checked_ns:
            return True
        self._head_checked_ns = self._stat.st_mtime_ns
        return self.pread(len(self.trail.head), 0) == self.trail.head


def identity_of(found: os.stat_result | Mark) -> tuple[int, int]:
    """Device and inode."""
    return found.identity if isinstance(found, Mark) else (found.st_dev, found.st_ino)


def mtime_of(found: os.stat_result | Mark) -> int:
    """When it was last written to, ns since the epoch."""
    return found.mtime_ns if isinstance(found, Mark) else found.st_mtime_ns
