"""Opens log files safely, and knows an open file again by what was read of it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mcpwatch.sources.block import SourceError
from mcpwatch.sources.lines import LineCutter
from mcpwatch.text import safe

HEAD: Final = 1_024
"""Bytes of a file's head that identify it, as far as they have been read."""
MARKER: Final = 256
"""Bytes before our offset that must still be there when we come back."""

_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}

Read = Callable[[int, int], bytes]
"""Reads `size` bytes at `offset`: `read(size, offset)`."""


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


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a file was read, and by what to know it again: an inode alone is soon given to another file."""

    dev: int
    ino: int
    offset: int
    size: int
    """Bytes that it had when it was last seen to be this file."""
    mtime_ns: int
    head: bytes
    """Its first bytes, at most `HEAD`, never beyond `offset`."""
    marker: bytes
    """The bytes before `offset`, at most `MARKER`."""

    def in_file(self, read: Read) -> bool:
        """Whether a file begins with what was read."""
        return (
            read(len(self.head), 0) == self.head
            and read(len(self.marker), self.offset - len(self.marker)) == self.marker
        )


class OpenFile:
    """One generation of a followed path: an open file, how far it was read, and what identifies it.

    Attributes:
        fd: Its descriptor; None while it is parked.
        read_to: Offset of the first byte not read yet.
        size: Its size when last looked at.
        quiet_since_ns: When it last gave data, or was found to be rotated away.
        seen_empty: Whether it was empty when it was last read.
        copies_until_ns: Time of the newest rotated file when this one began: later ones are copies of it.
    """

    def __init__(self, fd: int, cutter: LineCutter) -> None:
        self.fd: int | None = fd
        self.cutter = cutter
        self.read_to = cutter.offset
        self.quiet_since_ns = 0
        self.copies_until_ns = -1
        self.seen_empty = False
        self._stat = self._verified = os.fstat(fd)
        self.head = self._pread(min(HEAD, self.read_to), 0)
        self.marker = self._pread(min(MARKER, self.read_to), max(0, self.read_to - MARKER))
        self._head_checked_ns = -1

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self._stat.st_dev, self._stat.st_ino

    @property
    def size(self) -> int:
        """Size in bytes when last looked at."""
        return self._stat.st_size

    @property
    def mark(self) -> Mark:
        """What to know this file by, as of the last read that found it to be still the same."""
        seen = self._verified
        size = max(seen.st_size, self.read_to)
        return Mark(*self.identity, self.read_to, size, seen.st_mtime_ns, self.head, self.marker)

    @property
    def mark_as_is(self) -> Mark:
        """The mark with the size and head that the file has by now, read or not."""
        if self.fd is None:
            return self.mark
        return replace(self.mark, size=self.size, head=self._pread(HEAD, 0))

    def look(self) -> int:
        """Ask the system for the file's size and times; returns the size."""
        if self.fd is not None:
            with contextlib.suppress(OSError):  # a stale network handle: the read says so
                self._stat = os.fstat(self.fd)
        return self.size

    def unchanged(self, now: os.stat_result) -> bool:
        """Whether nothing happened to the file since it was last read to its end."""
        then = self._verified
        return (then.st_dev, then.st_ino, then.st_size, then.st_mtime_ns, then.st_ctime_ns) == (
            (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
        ) and self.read_to == now.st_size

    def take(self, want: int) -> bytes | None:
        """Read up to `want` bytes on; None when what was read before is no longer there.

        The bytes before our place come with the same read, so that nothing can slip in between the check and
        the use. A truncated file never has all of them; a refilled one has others.
        """
        behind = len(self.marker)
        data = self._pread(behind + want, self.read_to - behind)
        if data[:behind] != self.marker or not self._head_holds():
            return None
        self._verified = self._stat
        fresh = data[behind:]
        if fresh:
            self.head += fresh[: max(0, HEAD - len(self.head))]
            self.marker = data[-MARKER:]
            self.read_to += len(fresh)
        return fresh

    def restart(self, cutter: LineCutter) -> None:
        """The same descriptor now holds other content: read it from its first byte."""
        self.cutter = cutter
        self.read_to = 0
        self.seen_empty = True
        self.head = self.marker = b""
        self._verified = self._stat

    def attach(self, fd: int) -> None:
        """Come back from being parked, with a descriptor of the same inode."""
        self.fd = fd
        self._stat = os.fstat(fd)
        self._head_checked_ns = -1

    def close(self) -> None:
        """Close the descriptor; what identifies the file is kept."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def _head_holds(self) -> bool:
        if self._stat.st_mtime_ns == self._head_checked_ns:
            return True
        self._head_checked_ns = self._stat.st_mtime_ns
        return self._pread(len(self.head), 0) == self.head

    def _pread(self, size: int, offset: int) -> bytes:
        assert self.fd is not None
        return os.pread(self.fd, size, offset)
