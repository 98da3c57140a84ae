"""Live: one thread reads, judges and folds; the console, if there is one, looks on."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from mcpwatch.event import AuditEvent
from mcpwatch.formats.reader import Reader
from mcpwatch.incidents.fold import Change
from mcpwatch.monitor.lockouts import Lockouts
from mcpwatch.monitor.monitor import Monitor
from mcpwatch.response.report import Report, Reporter
from mcpwatch.sources.bisect import offset_at
from mcpwatch.sources.block import Block, Gap, SourceError
from mcpwatch.sources.follow import Delivery, SourceStatus
from mcpwatch.sources.lines import LineCutter
from mcpwatch.sources.live import LiveSet
from mcpwatch.sources.rotation import rotated_files
from mcpwatch.sources.saved import open_saved
from mcpwatch.times import DAY, SECOND

PUBLISH_EVERY_S: Final = 0.25
NEAREST_START: Final = 64 << 20
"""Without --since, reading begins at most this many bytes before the end of a log."""

_PIECE: Final = 1 << 18
_SMALL: Final = 8 << 20
_GZIP_RATIO: Final = 10

Tell = Callable[[list[Change]], None]
ShowEvents = Callable[[list[AuditEvent]], None]
Look = Callable[[Delivery, Sequence[SourceStatus]], None]
"""Shown what the sources delivered, and how it goes with each."""
TellReports = Callable[[list[Report]], None]
"""Shown what became of restrictions."""


RULES_EVERY: Final = SECOND
"""How often a folder of rule files is looked at, ns."""


class Begun(NamedTuple):
    """Where reading of a log begins.

    Attributes:
        line: Line number, None when that is not known.
        since_ns: From when on it is complete.
    """

    offset: int
    line: int | None
    since_ns: int


def begin(monitor: Monitor, path: Path, name: str, since_ns: int, *, cap: bool) -> Begun:
    """Where to begin reading a log, with the monitor's windows warmed up on what lies before.

    A log that was rotated since then is taken in from its rotated files first.

    Args:
        since_ns: Begin with what happened then.
        cap: Begin at most `NEAREST_START` before the end.
    """
    engine = monitor.pipeline.engine
    scratch = monitor.pipeline.scratch_reader(name)

    def time_of(line: bytes) -> int | None:
        events = scratch.read(Block(name, [line], 0, None))
        return events[0].time_ns if events else None

    try:
        size = path.stat().st_size
        if size <= _SMALL:
            offset = _offset_in_small(_blocks(path, name, 0, size), scratch, size, since_ns)
        else:
            offset = offset_at(path, since_ns, time_of)
        if cap and offset < size - NEAREST_START:
            offset, first = _line_after(path, size - NEAREST_START)
            since_ns = time_of(first) or since_ns
        if not offset:
            return Begun(
                0, 1, _take_rotated(monitor, path, name, since_ns, NEAREST_START - size if cap else None)
            )
        start = offset_at(path, since_ns - engine.warm_up, time_of)
        for block in _blocks(path, name, max(start, offset - NEAREST_START), offset):
            engine.warm(scratch.read(block))
    except OSError:
        return Begun(0, 1, since_ns)  # the follower says why it can't be read
    return Begun(offset, None, since_ns)


def _take_rotated(monitor: Monitor, path: Path, name: str, since_ns: int, room: int | None) -> int:
    """Take in the rotated files of a log that were written since then, as far as there is room; since when."""
    since = since_ns
    chosen: list[Path] = []
    for rotated in reversed(rotated_files(path)):
        if rotated.stat.st_mtime_ns < since_ns:
            break
        if room is not None:
            room -= rotated.stat.st_size * (_GZIP_RATIO if rotated.gz else 1)
            if room < 0:
                since = chosen[0].stat().st_ctime_ns if chosen else monitor.clock()
                break
        chosen.insert(0, rotated.path)
    if not chosen:
        return since
    pipeline = monitor.pipeline
    with contextlib.suppress(SourceError):  # what is broken in it was counted as far as it could be read
        for log in open_saved(chosen):
            for block in log.blocks():
                block.source = name
                events = pipeline.reader(name).read(block)
                old = [event for event in events if event.time_ns is not None and event.time_ns < since_ns]
                if old:
                    pipeline.engine.warm(old)
                    events = [event for event in events if event.time_ns is None or event.time_ns >= since_ns]
                monitor.untold += monitor.absorb(pipeline.observe(events))
    return since


def _offset_in_small(blocks: Iterator[Block], reader: Reader, size: int, since_ns: int) -> int:
    """Where the first record from then on is, found by reading: lines with odd times lead a bisection astray."""
    older = False
    for block in blocks:
        for event in reader.read(block):
            if event.time_ns is not None and event.time_ns >= since_ns:
                return event.offset if older else 0
            older = older or event.time_ns is not None
    return size if older else 0


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
    """Feeds a monitor from its sources until it is stopped, and writes lockouts where it may."""

    def __init__(
        self,
        monitor: Monitor,
        sources: LiveSet,
        tell: Tell | None = None,
        show: ShowEvents | None = None,
        look: Look | None = None,
        report: TellReports | None = None,
    ) -> None:
        self.monitor = monitor
        monitor.on_events = show
        self.sources = sources
        self._tell = tell
        self._look = look
        self._report = report
        self._reporter = Reporter(monitor.policy_file.policy, monitor.clock())
        self._stopping = False
        # a signal handler may put into this queue; to set an Event there can deadlock with its own wait
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._publish_at = 0.0
        self._check_rules_at = 0
        self.failure: BaseException | None = None
        self._lockouts = Lockouts(monitor, lambda: self._wake.put(None))
        monitor.lockout_notices = lambda: self._lockouts.notices

    def tick(self) -> None:
        """Take in whatever is there now. Never waits."""
        monitor = self.monitor
        now = monitor.clock()
        monitor.check_policy()
        if now >= self._check_rules_at:
            self._check_rules_at = now + RULES_EVERY
            monitor.check_rules()
        delivered = self.sources.tick(now)
        statuses = self.sources.statuses
        behind = {status.name for status in statuses if status.behind}
        with monitor.lock:
            changes = [*monitor.untold]
            monitor.untold.clear()
            reports = []
            for item in delivered:
                if isinstance(item, Gap):
                    changes += monitor.take([item], now)
                    continue
                batch = monitor.pipeline.take(item, now)
                if batch.events:
                    monitor.hearing.take(item.source, now, behind=item.source in behind)
                changes += monitor.absorb(batch, now)
                reports += self._lockouts.take(batch.hits, now)
            reports += self._lockouts.take((), now)
            reports += self._reporter.look(monitor.policy_file.policy, monitor.confirmations.turns, now)
            monitor.confirmations.turns.clear()
            monitor.note_sources(statuses)
            monitor.hearing.keep({status.name for status in statuses})
            changes += monitor.pipeline.fold.settle(now)
        if self._look is not None:
            self._look(delivered, statuses)
        if changes and self._tell is not None:
            self._tell(changes)
        if reports and self._report is not None:
            self._report(reports)

    def run(self) -> None:
        """Tick until stopped, publishing at most four times a second."""
        try:
            with self.monitor.policy_file.watch(lambda: self._wake.put(None)):
                while not self._stopping:
                    self.tick()
                    if time.monotonic() >= self._publish_at:
                        began = time.monotonic()
                        self.monitor.publish()
                        ended = time.monotonic()
                        # with very many incidents a picture takes long: it may cost a fifth of the time at most
                        self._publish_at = ended + max(PUBLISH_EVERY_S, 4 * (ended - began))
                    if self.ended:
                        break
                    with contextlib.suppress(queue.Empty):
                        self._wake.get(timeout=self.sources.wait_s)
                self.tick()
                if self._lockouts.close():
                    self.monitor.publish()
                    self.tick()  # tells what was written last, or why it was not
                self.monitor.publish()
        except BaseException as error:
            self.failure = error
            self.monitor.fail(error)
            if threading.current_thread() is threading.main_thread():
                raise  # in the background a traceback would be printed over the console, with log text in it
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
