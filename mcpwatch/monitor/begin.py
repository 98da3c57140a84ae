"""Where reading of a log begins, with the windows warmed up on what lies before."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from mcpwatch.event import logged_at
from mcpwatch.formats.reader import Reader
from mcpwatch.monitor.monitor import Monitor
from mcpwatch.monitor.watchfiles import Checkpoint
from mcpwatch.sources.bisect import TimeOf, offset_at
from mcpwatch.sources.block import Block, Gap, SourceError
from mcpwatch.sources.generations import open_this
from mcpwatch.sources.lines import LineCutter
from mcpwatch.sources.place import Place, PlacePart, find_file, place_at
from mcpwatch.sources.rotation import Rotated, rotated_files, settled_files
from mcpwatch.sources.saved import open_saved
from mcpwatch.text import safe

NEAREST_START: Final = 64 << 20
"""Without --since, reading begins at most this many bytes before the end of a log."""
NEAR: Final = 64 << 20
"""Newlines between two places are counted no farther than this, bytes."""

_PIECE: Final = 1 << 18
_SMALL: Final = 8 << 20
_GZIP_RATIO: Final = 10


class Begun(NamedTuple):
    """Where reading of a log begins.

    Attributes:
        line: Line number, None when that is not known.
        since_ns: From when on it is complete.
        gaps: What of it, from then on, is known to be lost already.
        parts: Rotated files that are to be read before it: their writer may linger on them.
        place: All that, for a follower to go on from, under whatever names the files are by now; None where
            there is no file yet.
    """

    offset: int
    line: int | None
    since_ns: int
    gaps: tuple[Gap, ...] = ()
    parts: tuple[PlacePart, ...] = ()
    place: Place | None = None


def begin(
    monitor: Monitor, path: Path, name: str, since_ns: int, *, cap: bool, near: Place | None = None
) -> Begun:
    """Where to begin reading a log, with the monitor's windows warmed up on what lies before.

    A log that was rotated since then is taken in from its rotated files first.

    Args:
        since_ns: Begin with what happened then.
        cap: Begin at most `NEAREST_START` before the end.
        near: A place in this very file whose line number is known.
    """
    first = place_at(path, 0, 1)
    begun = _begin(monitor, path, name, since_ns, cap=cap, near=near, first=first)
    if first is None:
        return begun
    # it may be rotated while we look, which may take seconds: a place is found under any name
    found = find_file(path, first)[1]
    own = (place_at(found, begun.offset, begun.line) if found is not None else None) or first
    return begun._replace(place=Place((*begun.parts, *own.parts)))


def _begin(
    monitor: Monitor,
    path: Path,
    name: str,
    since_ns: int,
    *,
    cap: bool,
    near: Place | None,
    first: Place | None,
) -> Begun:
    time_of = _time_of(monitor, name)
    try:
        size = path.stat().st_size
        offset = _offset_since(monitor, path, name, size, since_ns)
        if cap and offset < size - NEAREST_START:
            offset, line = _line_after(path, size - NEAREST_START)
            since_ns = time_of(line) or since_ns
        if not offset:
            room = NEAREST_START - size if cap else None
            return _take_rotated(monitor, path, name, since_ns, room, first)
        start = offset_at(path, since_ns - monitor.pipeline.engine.warm_up, time_of)
        _warm_up(monitor, name, _blocks(path, name, max(start, offset - NEAREST_START), offset))
        return Begun(offset, line_at(path, offset, near), since_ns)
    except OSError:
        return Begun(0, 1, since_ns)  # the follower says why it can't be read


def resume(monitor: Monitor, path: Path, name: str, checkpoint: Checkpoint) -> Begun:
    """Go on from a checkpoint, with the monitor's windows warmed up on what lies before it."""
    place = checkpoint.place
    since = checkpoint.last_ns - monitor.pipeline.engine.warm_up
    with contextlib.suppress(OSError):  # the follower says why it can't be read
        read = find_file(path, place)[1]
        if read is not None:
            files = [file.path for file in rotated_files(path) if file.stat.st_mtime_ns >= since]
            older = files[: files.index(read)] if read in files else files
            _warm_on(monitor, [*older, read], name, place, since)
    return Begun(place.offset, place.line, checkpoint.read_ns, place=place)


def line_at(path: Path, offset: int, near: Place | None) -> int | None:
    """The number of the line that begins at an offset, by the newlines between it and a line whose number is known.

    Args:
        near: A place in the file; without it, or where that is too far, the start of the file is.

    Returns:
        The number, None where no such line is near.
    """
    known = [(0, 1)]
    if near is not None and near.line is not None:
        known.append((near.offset, near.line))
    at, line = min(known, key=lambda place: abs(place[0] - offset))
    if abs(at - offset) > NEAR:
        return None
    first, last = sorted((at, offset))
    count, left = 0, last - first
    with path.open("rb") as log:
        log.seek(first)
        while left and (data := log.read(min(left, _PIECE))):
            count += data.count(b"\n")
            left -= len(data)
    if left:
        return None  # it was truncated meanwhile
    return line + count if at <= offset else line - count


def _warm_on(monitor: Monitor, paths: list[Path], name: str, place: Place, since_ns: int) -> None:
    """Fill the windows with what was logged since then, in files from the oldest on, up to a place in the last."""
    ends = {part.mark.identity: part.mark.offset for part in place.parts}
    for path in paths:
        found = path.stat()
        end = ends.get((found.st_dev, found.st_ino), place.offset if path == paths[-1] else None)
        with contextlib.suppress(SourceError):  # broken from there on
            (log,) = open_saved([path])
            start = offset_at(path, since_ns, _time_of(monitor, name)) if log.seekable else 0
            if log.seekable:
                start = max(start, (log.size if end is None else end) - NEAREST_START)
            blocks = log.blocks(start, None)
            _warm_up(monitor, name, blocks if end is None else _up_to(blocks, end), since_ns)


def _up_to(blocks: Iterable[Block], end: int) -> Iterator[Block]:
    """The lines in front of a place."""
    for block in blocks:
        if block.offset >= end:
            return
        if block.oversize is None and block.offset_at(len(block.lines)) > end:
            count = sum(block.offset_at(index) < end for index in range(len(block.lines)))
            block = Block(
                block.source, block.lines[:count], block.offset, block.line, written_ns=block.written_ns
            )
        yield block


def _time_of(monitor: Monitor, name: str) -> TimeOf:
    reader = monitor.pipeline.scratch_reader(name)

    def time_of(line: bytes) -> int | None:
        events = reader.read(Block(name, [line], 0, None))
        return logged_at(events[0]) if events else None

    return time_of


def _warm_up(monitor: Monitor, name: str, blocks: Iterable[Block], since_ns: int | None = None) -> None:
    """Fill the windows with what lies before a place. Calls that are open there are open for whoever reads on.

    Args:
        since_ns: Leave out what happened before then.
    """
    pipeline = monitor.pipeline
    scratch = pipeline.scratch_reader(name)
    scratch.pairing = pipeline.reader(name).pairing.handed_over()
    for block in blocks:
        events = scratch.read(block)
        if since_ns is not None:
            events = [event for event in events if event.time_ns is None or event.time_ns >= since_ns]
        pipeline.engine.warm(events)
    pipeline.go_on(name, scratch.pairing.handed_over())


def _take_rotated(
    monitor: Monitor, path: Path, name: str, since_ns: int, room: int | None, first: Place | None
) -> Begun:
    """Take in the rotated files of a log that were written since then, as far as there is room.

    Args:
        first: The log's own file, which is left to the follower, even if it is rotated just now.
    """
    since = since_ns
    chosen: list[Rotated] = []
    own = first.parts[-1].mark.identity if first is not None else None
    for rotated in reversed(settled_files(path)):
        if rotated.identity == own:
            chosen.clear()  # what lies behind it is newer, and the follower finds it
            continue
        if rotated.stat.st_mtime_ns < since_ns:
            break
        if room is not None:
            room -= rotated.stat.st_size * (_GZIP_RATIO if rotated.compressed else 1)
            if room < 0:
                since = chosen[0].stat.st_ctime_ns if chosen else monitor.clock()
                break
        chosen.insert(0, rotated)
    with _opened(chosen) as files:
        last = max((number for number, (file, _) in enumerate(files) if file.compressed), default=-1)
        gaps = [
            gap for file, held in files[: last + 1] for gap in _take_in(monitor, file, held, name, since_ns)
        ]
        parts = [part for _, held in files[last + 1 :] for part in _part_since(monitor, held, name, since_ns)]
    return Begun(0, 1, since, tuple(gaps), tuple(parts))


@contextlib.contextmanager
def _opened(chosen: list[Rotated]) -> Iterator[list[tuple[Rotated, Path]]]:
    """Hold rotated files open, so that each can be read under a path that no rotation changes."""
    with contextlib.ExitStack() as held:
        files = []
        for file in chosen:
            with contextlib.suppress(
                FileNotFoundError
            ):  # it was removed, or is under the next name of the list
                fd = open_this(file)
                if fd is not None:
                    held.callback(os.close, fd)
                    files.append((file, Path(f"/proc/self/fd/{fd}")))
        yield files


def _take_in(monitor: Monitor, file: Rotated, held: Path, name: str, since_ns: int) -> Iterator[Gap]:
    """Take in a rotated file that nobody writes to any more; what comes before the time only warms windows up."""
    pipeline = monitor.pipeline
    try:
        for log in open_saved([held]):
            for block in log.blocks():
                block.source = name
                events = pipeline.reader(name).read(block)
                old = [event for event in events if event.time_ns is not None and event.time_ns < since_ns]
                if old:
                    pipeline.engine.warm(old)
                    events = [event for event in events if event.time_ns is None or event.time_ns >= since_ns]
                monitor.untold += monitor.absorb(pipeline.observe(events))
    except SourceError as error:  # what is broken in it was counted as far as it could be read
        why = safe(str(error).replace(str(held), file.path.name), 300)
        yield Gap(name, 0, safe(f"a rotated file can't be read to its end: {why}", 300), None)


def _part_since(monitor: Monitor, held: Path, name: str, since_ns: int) -> tuple[PlacePart, ...]:
    """Where to begin in a rotated file, with the windows warmed up on what lies before."""
    offset = _offset_since(monitor, held, name, held.stat().st_size, since_ns)
    _warm_up(monitor, name, _blocks(held, name, max(0, offset - NEAREST_START), offset))
    place = place_at(held, offset, line_at(held, offset, None))
    return place.parts if place is not None else ()


def _offset_since(monitor: Monitor, path: Path, name: str, size: int, since_ns: int) -> int:
    """The offset of the first record from a time on."""
    if size <= _SMALL:
        scratch = monitor.pipeline.scratch_reader(name)
        return _offset_in_small(_blocks(path, name, 0, size), scratch, since_ns)
    return offset_at(path, since_ns, _time_of(monitor, name))


def _offset_in_small(blocks: Iterator[Block], reader: Reader, since_ns: int) -> int:
    """Where the first record from then on is, found by reading: lines with odd times lead a bisection astray."""
    older, end = False, 0
    for block in blocks:
        for event in reader.read(block):
            if event.time_ns is not None and event.time_ns >= since_ns:
                return event.offset if older else 0
            older = older or event.time_ns is not None
        end = _end_of(block)
    return end if older else 0  # an unfinished last line is not older: it may be finished now


def _end_of(block: Block) -> int:
    """The offset of the byte behind the last newline of a block."""
    return block.offset + block.oversize.length + 1 if block.oversize else block.offset_at(len(block.lines))


def _line_after(path: Path, offset: int) -> tuple[int, bytes]:
    """The first line that begins after an offset, and where it begins."""
    begun, end = None, path.stat().st_size
    for block in _blocks(path, "", offset - 1, end):
        for index, line in enumerate(block.lines):
            if begun is not None:
                return begun, line
            # the rest of the line that the offset falls into; the next block begins behind all of it
            begun = block.offset_at(index) + (block.oversize.length if block.oversize else len(line)) + 1
    return begun or end, b""


def _blocks(path: Path, name: str, start: int, end: int) -> Iterator[Block]:
    """The whole lines between two places. However long a line is, no more of it is held than of any other."""
    cutter = LineCutter(name, start, None)
    with path.open("rb") as log:
        log.seek(start)
        while start < end and (data := log.read(min(end - start, _PIECE))):
            yield from cutter.feed(data)
            start += len(data)
