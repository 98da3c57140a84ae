"""Opens saved logs for replay: plain, gzip, zstd, and whole rotation sets as one log."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mcpwatch.sources.block import Block, SourceError
from mcpwatch.sources.compressed import CompressedStream, compression_of
from mcpwatch.sources.lines import LineCutter
from mcpwatch.sources.rotation import oldest_first, rotated_name
from mcpwatch.text import safe

BLOCK: Final = 1 << 18
"""Bytes of a log read at a time."""
_LOOK: Final = 8_192
_SUFFIXES: Final = (".gz", ".zst")


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    size: int
    mtime_ns: int
    compressed: bool


class SavedLog:
    """One finished log, in one file or in the files of a rotation set, oldest first.

    Offsets are of the decompressed bytes, and like line numbers they run on through the set.
    """

    def __init__(self, name: str, files: Sequence[_File]) -> None:
        self.name = name
        """Short name, unique among the logs that were opened together."""
        self._files = tuple(files)
        self._done = 0
        self._stream: CompressedStream | None = None
        self._plain_read = 0

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files, oldest first."""
        return tuple(file.path for file in self._files)

    @property
    def size(self) -> int:
        """Bytes on disk, compressed where the file is."""
        return sum(file.size for file in self._files)

    @property
    def progress(self) -> int:
        """How many of `size` have been read by the newest `blocks`."""
        return self._done + (self._stream.consumed if self._stream is not None else self._plain_read)

    @property
    def seekable(self) -> bool:
        """Whether `blocks` can begin anywhere without reading what is before: not in gzip and zstd."""
        return not any(file.compressed for file in self._files)

    def blocks(self, start: int = 0, line: int | None = 1) -> Iterator[Block]:
        """Read on from byte `start`, the first of a line, which is number `line` (None: unknown).

        Of a file that is broken, what comes before the broken byte is given, and then the later files of the set;
        behind a break line numbers are unknown, and offsets count what could be read.

        Raises:
            SourceError: At the end: a file can't be read (any more), or is broken gzip or zstd.
        """
        self._done = self._plain_read = 0
        cutter = LineCutter(self.name, start, line)
        skip = start
        broken: list[SourceError] = []
        for file in self._files:
            passed = 0
            try:
                for dropped, data in self._chunks(file, skip):
                    passed += dropped
                    yield from _written(cutter.feed(data), file)
            except SourceError as error:
                broken.append(error)
            skip -= passed
            # a rotation never cuts a line on purpose: what has no newline here is a line that was not finished
            yield from _written(cutter.finish(), file)
            if broken:
                cutter = LineCutter(self.name, cutter.offset, None)
            self._stream, self._plain_read = None, 0
            self._done += file.size
        if broken:
            raise broken[0] if len(broken) == 1 else SourceError("; ".join(map(str, broken)))

    def _chunks(self, file: _File, skip: int) -> Iterator[tuple[int, bytes]]:
        """The file's bytes without the first `skip`, each chunk with how many were dropped before it."""
        fd = _open(file.path)
        try:
            if file.compressed:
                self._stream = CompressedStream(fd, file.path)
                while data := self._stream.read():
                    dropped = min(skip, len(data))
                    skip -= dropped
                    yield dropped, data[dropped:]
                return
            self._plain_read = os.lseek(fd, min(skip, file.size), os.SEEK_SET)
            yield self._plain_read, b""
            while data := os.read(fd, BLOCK):
                self._plain_read += len(data)
                yield 0, data
        except OSError as error:
            raise SourceError(f"{safe(file.path)}: cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)


def open_saved(paths: Sequence[Path]) -> list[SavedLog]:
    """Open saved logs, in the order given; the files of one rotation set become one log, oldest first.

    Raises:
        SourceError: A path is missing, unreadable, no regular file, binary, or compressed in a way that is
            not read here.
    """
    sets: dict[Path, list[_File]] = {}
    files = [_inspect(path) for path in dict.fromkeys(paths)]
    for file in files:
        sets.setdefault(_log_path(file.path), []).append(file)
    basenames = [base.name for base in sets]
    logs = []
    for base, members in sets.items():
        shown = base if len(members) > 1 else members[0].path
        name = safe(shown.name if basenames.count(base.name) == 1 else shown)
        logs.append(SavedLog(name, sorted(members, key=_age)))
    return logs


def _written(blocks: list[Block], file: _File) -> Iterator[Block]:
    """Blocks that know when their file was last written."""
    for block in blocks:
        block.written_ns = file.mtime_ns
        yield block


def _log_path(path: Path) -> Path:
    """The log that a file belongs to: itself, or what it was called before it was rotated and compressed."""
    rotated = rotated_name(path.name)
    if rotated is not None:
        return path.with_name(rotated.base)
    return path.with_suffix("") if path.suffix in _SUFFIXES else path


def _age(file: _File) -> tuple[int, int, int, str]:
    """Sort key, oldest first: the log itself is the newest of its set, words (.old) are the oldest."""
    rotated = rotated_name(file.path.name)
    if rotated is None:
        return 2, 0, 0, ""
    # a copy made for replay has lost its times, but a date in the name says the same
    mtime_ns = 0 if rotated.number is None and not rotated.by_hand else file.mtime_ns
    return (0 if rotated.by_hand else 1, *oldest_first(rotated, mtime_ns))


def _open(path: Path) -> int:
    try:
        # non-blocking, so that a FIFO without a writer is refused instead of waited for
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SourceError(f"{safe(path)}: there is no such file") from None
    except OSError as error:
        raise SourceError(f"{safe(path)}: cannot be opened: {error.strerror}") from error
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise SourceError(f"{safe(path)}: is a directory: name the files in it")
    raise SourceError(f"{safe(path)}: is a FIFO or a device: pipe it into '-'")


def _inspect(path: Path) -> _File:
    fd = _open(path)
    try:
        head = os.pread(fd, _LOOK, 0)
        found = os.fstat(fd)
        compressed = compression_of(head) is not None
        if compressed:
            CompressedStream(fd, path)  # says it now if a library is missing
    except OSError as error:
        raise SourceError(f"{safe(path)}: cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    # leading NULs are what a crash or a truncation leaves at the start of a log, and lines may hold some
    if not compressed and b"\0" in head.lstrip(b"\0") and b"\n" not in head:
        raise SourceError(
            f"{safe(path)}: looks binary: give an audit log in text, or that text in .gz or .zst"
        )
    return _File(path, found.st_size, found.st_mtime_ns, compressed)
