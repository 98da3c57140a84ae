"""Finds the place of a time in a log without reading it all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from mcpwatch.sources.lines import LineCutter

_PROBE: Final = 1 << 16
_SAMPLES: Final = 9
_LINEAR: Final = 1 << 18
_LONGEST_LOOK: Final = 1 << 22

TimeOf = Callable[[bytes], int | None]
"""The time of a raw line in ns, None when it has none that can be read."""


def offset_at(path: Path, time_ns: int, time_of: TimeOf) -> int:
    """The byte offset of the first line at or after a time, in a log that is roughly in time order.

    Each probe takes the median of a few lines, so that a single line from the year 2099 leads nowhere. In a
    log that is up to L out of order the result may be off by records of up to L: start that much earlier.

    Returns:
        The offset of the first byte of a line; the offset after the last whole line when all are earlier;
        0 when nothing is readable.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        found = os.fstat(fd)
        return _search(fd, found.st_size, time_ns, time_of) if stat.S_ISREG(found.st_mode) else 0
    except OSError:
        return 0
    finally:
        os.close(fd)


def _search(fd: int, size: int, time_ns: int, time_of: TimeOf) -> int:
    # all before `low`, a line's first byte, is earlier; the line that contains `high - 1` or follows is not
    low, high = 0, size
    while high - low > _LINEAR:
        middle = (low + high) // 2
        sample = _sample(fd, middle, high, time_of)
        if sample is None or sample[1] >= time_ns:
            high = middle
        else:
            low = sample[0]
    return _scan(fd, low, size if high == size else min(size, high + _LONGEST_LOOK), time_ns, time_of)


def _sample(fd: int, middle: int, high: int, time_of: TimeOf) -> tuple[int, int] | None:
    """The first line that begins after `middle`, and the median time of the next few that have one."""
    data = b""
    while True:
        more = os.pread(fd, _PROBE, middle + len(data))
        data += more
        first = data.find(b"\n") + 1
        lines = data[first:].split(b"\n")[:-1] if first else []
        times = [time for time in map(time_of, lines[: 8 * _SAMPLES]) if time is not None][:_SAMPLES]
        if times:
            return middle + first, sorted(times)[len(times) // 2]
        if not more or len(data) >= _LONGEST_LOOK or middle + len(data) >= high:
            return None


def _scan(fd: int, low: int, end: int, time_ns: int, time_of: TimeOf) -> int:
    """From `low` on, the first line at or after the time; none before `end`: the offset after the last."""
    cutter = LineCutter("", low, None)
    readable = False
    position = low
    while position < end and (data := os.pread(fd, _PROBE, position)):
        position += len(data)
        for block in cutter.feed(data):
            at = block.offset
            for line in block.lines:
                time = time_of(line)
                if time is not None:
                    if time >= time_ns:
                        return at
                    readable = True
                at += len(line) + 1
    return cutter.offset if readable else low
