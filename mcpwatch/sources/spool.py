"""The file that received records are written to before anything else, and its lock.

Whoever writes it is never made to wait for the disk: what can't be written is counted and told.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import queue
import stat
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROTATE_AT: Final = 64 << 20
"""Size in bytes from which a spool is rotated."""
KEPT: Final = 7
"""Rotated spools that are kept."""
BACKLOG: Final = 32 << 20
"""Bytes that wait for the disk at most."""

_MODE: Final = 0o640
_FOLDER_MODE: Final = 0o750
_RETRY_S: Final = 0.25
_LOOK_S: Final = 1.0
# Many small sends become one write, and the thread that reads the sockets is seldom interrupted.
_GATHER_S: Final = 0.004
_PIECE: Final = 1 << 20


class TakenError(Exception):
    """Another process holds the lock. The message is what it wrote there: hostile text."""


class Lock:
    """An exclusive lock on a file that says who holds it; released when the process ends, however it ends."""

    def __init__(self, path: Path, note: dict[str, object], patience_s: float = 2.0) -> None:
        """Take the lock, and wait a little for a predecessor that is just ending.

        Raises:
            TakenError: Another process holds it.
            OSError: The file can't be made or locked.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._fd = os.open(path, flags, _MODE)
        end = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() < end:
                    time.sleep(0.05)
                    continue
                holder = os.pread(self._fd, 4_096, 0).decode("utf-8", "replace")
                os.close(self._fd)
                raise TakenError(holder) from None
        # the lock holds without its note: a full disk is no reason to refuse it
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps(note).encode(), 0)


def make_folder(folder: Path) -> None:
    """Make the folder of the spools, for the group that its parent belongs to. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=_FOLDER_MODE, parents=True)
        _give_to_group(folder, folder.parent.stat().st_gid)


def _give_to_group(path: Path, gid: int) -> None:
    with contextlib.suppress(OSError):  # not a member of it: then the group is the writer's own
        if path.stat().st_gid != gid:
            os.chown(path, -1, gid, follow_symlinks=False)


class Spool:
    """An append-only file of whole lines, rotated by size.

    Attributes:
        path: The file; `.1` beside it is the newest rotated one.
        may_rotate: Whether it is rotated when it is large: not before its reader has opened it.
        offset: Bytes that the file holds.
        rotations: Times that it was rotated.
        failure: Why nothing can be written now; None while all is well.
        lost_records: Records that could not be written.
        lost_bytes: Bytes of those.
    """

    def __init__(self, path: Path, *, rotate_at: int = ROTATE_AT, kept: int = KEPT) -> None:
        """Open the file, or make it. Raises OSError."""
        self.path = path
        self.may_rotate = False
        self.rotations = 0
        self.failure: str | None = None
        self.lost_records = 0
        self.lost_bytes = 0
        self._rotate_at, self._kept = rotate_at, kept
        self._fd, self.offset = self._open(path)
        self._torn = self._ends_torn()
        self._retry_at = 0.0
        self._look_at = 0.0

    def append(self, lines: bytes, now_s: float) -> None:
        """Write whole lines; what can't be written is counted. Never raises for what the disk does.

        Args:
            now_s: Monotonic clock, in seconds.
        """
        if now_s < self._retry_at:
            self._lose(lines)
            return
        try:
            self._prepare(len(lines), now_s)
            written = self._write(lines)
        except OSError as error:
            self.failure = error.strerror or type(error).__name__
            self._retry_at = now_s + _RETRY_S
            self._lose(lines)
            return
        if written < len(lines):  # no room for the rest; the next try says why
            self._lose(lines[lines.rfind(b"\n", 0, written) + 1 :])
            self.failure = self.failure or "No space left on device"
            self._retry_at = now_s + _RETRY_S
        else:
            self.failure = None

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _lose(self, lines: bytes) -> None:
        self.lost_records += lines.count(b"\n")
        self.lost_bytes += len(lines)

    def _open(self, path: Path) -> tuple[int, int]:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(path, flags, _MODE)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "there is something that is no regular file")
        if not found.st_size:
            os.fchmod(fd, _MODE)
            _give_to_group(path, path.parent.stat().st_gid)
        return fd, found.st_size

    def _ends_torn(self) -> bool:
        return self.offset > 0 and os.pread(self._fd, 1, self.offset - 1) != b"\n"

    def _prepare(self, size: int, now_s: float) -> None:
        if now_s >= self._look_at:
            self._reopen_if_gone()
            self._look_at = now_s + _LOOK_S
        if self.may_rotate and self.offset and self.offset + size > self._rotate_at:
            with contextlib.suppress(OSError):  # a spool that grows is better than one that loses
                self._rotate()

    def _reopen_if_gone(self) -> None:
        """Somebody deleted or moved the file: what is written into the old one nobody would read."""
        held = os.fstat(self._fd)
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != (held.st_dev, held.st_ino):
            fd, self.offset = self._open(self.path)
            os.close(self._fd)
            self._fd = fd
            self._torn = self._ends_torn()
            self.rotations += 1

    def _write(self, lines: bytes) -> int:
        """Write, and return how many bytes of the lines are in the file now."""
        newline = b"\n" if self._torn else b""
        data = memoryview(newline + lines)
        done = 0
        while done < len(data):
            try:
                count = os.write(self._fd, data[done:])
            except OSError as error:
                if not done:
                    raise
                self.failure = error.strerror
                break
            done += count
        self.offset += done
        self._torn = data[done - 1] != 0x0A
        return done - len(newline)

    def _rotate(self) -> None:
        fresh = self.path.with_name(f"{self.path.name}.new")
        fresh.unlink(missing_ok=True)
        fd, _ = self._open(fresh)
        for number in range(self._kept - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._numbered(number).rename(self._numbered(number + 1))
        try:
            # linked and replaced, so that there is a spool at any moment
            os.link(self.path, self._numbered(1))
        except OSError:  # some file systems have no links
            self.path.rename(self._numbered(1))
        fresh.rename(self.path)
        os.close(self._fd)
        self._fd, self.offset, self._torn = fd, 0, False
        self.rotations += 1

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


@dataclass(slots=True)
class Backlog:
    """Lines on their way to the spool, written by a thread of its own: disks pause, senders must not.

    Attributes:
        full: Whether so much waits that what arrives is dropped.
        lost_records: Records that were dropped.
        lost_bytes: Bytes of those.
    """

    spool: Spool
    limit: int = BACKLOG
    full: bool = False
    lost_records: int = 0
    lost_bytes: int = 0
    _taken: int = 0
    _written: int = 0
    _queue: queue.SimpleQueue[bytes] = field(default_factory=queue.SimpleQueue)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def put(self, lines: bytes) -> None:
        """Hand over whole lines. Never waits."""
        if not lines:
            return
        waiting = self._taken - self._written
        # half of it has to be free again, or every other record would be lost
        self.full = waiting + len(lines) > self.limit or (self.full and waiting > self.limit // 2)
        if self.full:
            self.lost_records += lines.count(b"\n")
            self.lost_bytes += len(lines)
        else:
            self._taken += len(lines)
            self._queue.put(lines)

    def finish(self, patience_s: float) -> bool:
        """Write what waits; whether that was done in time."""
        self._queue.put(b"")
        assert self._thread is not None
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        ending = False
        while not ending:
            pieces = [self._queue.get()]
            time.sleep(_GATHER_S)
            size = len(pieces[0])
            while size < _PIECE and not self._queue.empty():
                pieces.append(self._queue.get())
                size += len(pieces[-1])
            ending = b"" in pieces
            if size:
                self.spool.append(b"".join(pieces), time.monotonic())
                self._written += size
        self.spool.close()
