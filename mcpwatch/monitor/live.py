"""Live: one thread reads, judges and folds; the console, if there is one, looks on."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from mcpwatch.event import AuditEvent
from mcpwatch.incidents.fold import Change
from mcpwatch.monitor.monitor import Monitor
from mcpwatch.sources.bisect import offset_at
from mcpwatch.sources.block import Block
from mcpwatch.sources.follow import Delivery, SourceStatus
from mcpwatch.sources.lines import LineCutter
from mcpwatch.sources.live import LiveSet
from mcpwatch.times import DAY

PUBLISH_EVERY_S: Final = 0.25
NEAREST_START: Final = 64 << 20
"""Without --since, reading begins at most this many bytes before the end of a log."""

_PIECE: Final = 1 << 18

Tell = Callable[[list[Change]], None]
ShowEvents = Callable[[list[AuditEvent]], None]
Look = Callable[[Delivery, Sequence[SourceStatus]], None]
"""Shown what the sources delivered, and how it goes with each."""


def begin(monitor: Monitor, path: Path, name: str, since_ns: int, *, cap: bool) -> tuple[int, int | None]:
    """Where to begin reading a log, with the monitor's windows warmed up on what lies before.

    Args:
        since_ns: Begin with what happened then.
        cap: Begin at most `NEAREST_START` before the end.

    Returns:
        (byte offset, line number or None when that is not known).
    """
    engine = monitor.pipeline.engine
    scratch = monitor.pipeline.scratch_reader(name)

    def time_of(line: bytes) -> int | None:
        events = scratch.read(Block(name, [line], 0, None))
        return events[0].time_ns if events else None

    try:
        size = path.stat().st_size
        offset = offset_at(path, since_ns, time_of)
        if cap and offset < size - NEAREST_START:
            offset, first = _line_after(path, size - NEAREST_START)
            since_ns = time_of(first) or since_ns
        if not offset:
            return 0, 1
        start = offset_at(path, since_ns - engine.warm_up, time_of)
        for block in _blocks(path, name, max(start, offset - NEAREST_START), offset):
            engine.observe(scratch.read(block))
    except OSError:
        return 0, 1  # the follower says why it can't be read
    engine.forget_counts()
    return offset, None


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


def day_start(now_ns: int) -> int:
    """The start of the UTC day."""
    return now_ns - now_ns % DAY


class Live:
    """Feeds a monitor from its sources until it is stopped."""

    def __init__(
        self,
        monitor: Monitor,
        sources: LiveSet,
        tell: Tell | None = None,
        show: ShowEvents | None = None,
        look: Look | None = None,
    ) -> None:
        self.monitor = monitor
        monitor.on_events = show
        self.sources = sources
        self._tell = tell
        self._look = look
        self._stopping = False
        # a signal handler may put into this queue; to set an Event there can deadlock with its own wait
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._published = 0.0
        self.failure: BaseException | None = None

    def tick(self) -> None:
        """Take in whatever is there now. Never waits."""
        monitor = self.monitor
        now = monitor.clock()
        monitor.check_policy()
        delivered = self.sources.tick(now)
        with monitor.lock:
            changes = monitor.take(delivered, now)
            monitor.note_sources(self.sources.statuses)
            changes += monitor.pipeline.fold.settle(now)
        if self._look is not None:
            self._look(delivered, self.sources.statuses)
        if changes and self._tell is not None:
            self._tell(changes)

    def run(self) -> None:
        """Tick until stopped, publishing at most four times a second."""
        try:
            with self.monitor.policy_file.watch(lambda: self._wake.put(None)):
                while not self._stopping:
                    self.tick()
                    if time.monotonic() - self._published >= PUBLISH_EVERY_S:
                        self.monitor.publish()
                        self._published = time.monotonic()
                    if self.ended:
                        break
                    with contextlib.suppress(queue.Empty):
                        self._wake.get(timeout=self.sources.wait_s)
                self.tick()
                self.monitor.publish()
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self.sources.close()

    def stop(self) -> None:
        """Ask `run` to end after one last tick: from any thread, and from a signal handler."""
        self._stopping = True
        self._wake.put(None)

    @property
    def ended(self) -> bool:
        """Whether every source has come to its end (standard input does)."""
        statuses = self.sources.statuses
        return bool(statuses) and all(status.state == "ended" for status in statuses)


def wall_clock() -> int:
    """This machine's clock, ns since the epoch."""
    return time.time_ns()
