"""Replay in the console: plays saved logs along their own time, and goes to any moment of them.

The first pass, as fast as it goes, is the survey: it finds every hit and notes which byte of the log came when. From
then on any moment is rebuilt from what was found before it and by reading the warm-up before it.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from mcpwatch.detection.checks import Enforcement
from mcpwatch.detection.hit import Hit, Severity
from mcpwatch.event import AuditEvent
from mcpwatch.monitor.monitor import Monitor
from mcpwatch.monitor.pipeline import Batch, saved_events
from mcpwatch.snapshot import RATE_MINUTES, ReplayRow
from mcpwatch.sources.follow import SourceStatus
from mcpwatch.sources.saved import SavedLog, open_saved
from mcpwatch.text import SafeText
from mcpwatch.times import MINUTE, SECOND

TICK_S: Final = 0.05
CHUNK: Final = 4_000
"""Events taken in at once: the console waits no longer than that for an answer."""
MAX_STORED_HITS: Final = 300_000
FIRST_SPEED: Final = 10.0

_COUNTERS: Final = ("lines", "understood", "not_understood", "blank", "repeated", "joined", "events")


class Checkpoint(NamedTuple):
    """A place from which reading can begin.

    Attributes:
        time_ns: Latest event time before it.
        position: How many events come before it.
        counters: The reader's counters there.
    """

    time_ns: int
    position: int
    offset: int
    line: int | None
    counters: tuple[int, ...]


START: Final = Checkpoint(-(1 << 62), 0, 0, 1, (0,) * len(_COUNTERS))


class ReplayPlayer:
    """Drives a monitor through saved logs. Its controls (`snapshot.Player`) may be used from any thread."""

    def __init__(self, monitor: Monitor, paths: Sequence[Path]) -> None:
        self.monitor = monitor
        self.failure: BaseException | None = None
        self._paths = tuple(paths)
        self._commands: list[Callable[[], None]] = []
        self._guard = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._logs: list[SavedLog] = []
        self._events: Iterator[AuditEvent] = iter(())
        self._ahead: AuditEvent | None = None
        self._position = 0
        self._checkpoints = [START]
        self._hits: list[Hit] | None = []
        self._hit_positions: list[int] = []
        self._sightings: list[tuple[int, Enforcement]] = []
        self._marks: dict[str, tuple[int, Severity]] = {}
        self._surveyed = False
        self._playing = True
        self._speed = math.inf
        self._at = self._start = self._end = 0
        self._last_wall = 0.0
        self._read_to = START.time_ns

    def toggle(self) -> None:
        """Play or pause; at the end, play from the start."""
        self._ask(self._toggle)

    def set_speed(self, speed: float) -> None:
        """Seconds of log per second; inf is as fast as it goes."""
        self._ask(lambda: self._set_speed(speed))

    def step(self, events: int) -> None:
        """Go on by that many events (back when negative), and pause."""
        self._ask(lambda: self._step(events))

    def seek(self, time_ns: int) -> None:
        """Go to a time."""
        self._ask(lambda: self._seek(time_ns))

    def next_incident(self, direction: int) -> None:
        """Go to where the next (1) or previous (-1) incident begins."""
        self._ask(lambda: self._next_incident(direction))

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Survey the logs, then play as asked, until stopped."""
        try:
            self._restart(START)
            while not self._stop.is_set():
                if self._surveyed:
                    with self._guard:
                        commands, self._commands = self._commands, []
                    for command in commands:
                        command()
                self._advance()
                self._publish()
                waits = None if not self._playing else 0 if self._speed == math.inf else TICK_S
                if self._wake.wait(waits):
                    self._wake.clear()
        except BaseException as error:
            self.failure = error
            raise

    def _ask(self, command: Callable[[], None]) -> None:
        with self._guard:
            self._commands.append(command)
        self._wake.set()

    def _toggle(self) -> None:
        self._playing = not self._playing
        self._last_wall = time.monotonic()
        if self._playing and self._ahead is None:
            self._seek(self._start)

    def _set_speed(self, speed: float) -> None:
        self._speed = speed

    def _step(self, events: int) -> None:
        self._playing = False
        if events >= 0:
            self._take(self._next_events(count=events))
            return
        target = max(0, self._position + events)
        near = self._checkpoints[bisect_right(self._checkpoints, target, key=lambda c: c.position) - 1]
        self._go(near.time_ns, lambda: self._next_events(count=min(CHUNK, target - self._position)))

    def _seek(self, time_ns: int) -> None:
        self._go(time_ns, lambda: self._next_events(count=CHUNK, until=time_ns))
        self._at = min(max(time_ns, self._start), self._end)

    def _next_incident(self, direction: int) -> None:
        begins = sorted({mark[0] for mark in self._marks.values()})
        place = bisect_right(begins, self._at) if direction > 0 else bisect_left(begins, self._at) - 1
        if 0 <= place < len(begins):
            self._playing = False
            self._seek(begins[place])

    def _go(self, time_ns: int, read_on: Callable[[], list[AuditEvent]]) -> None:
        """Rebuild a moment: warm up before it, and fold what the survey found before it."""
        if self._hits is None:
            self._restart(START)
            while events := read_on():
                self._take(events)
            return
        reach = max(self.monitor.pipeline.engine.warm_up, RATE_MINUTES * MINUTE)
        place = bisect_right(self._checkpoints, time_ns - reach, key=lambda c: c.time_ns)
        self._restart(self._checkpoints[max(place - 1, 0)])
        while events := read_on():
            self._warm_up(events)
        monitor = self.monitor
        with monitor.lock:
            found = bisect_left(self._hit_positions, self._position)
            monitor.pipeline.fold.add(self._hits[:found])
            monitor.confirmations.observe(
                seen for position, seen in self._sightings if position < self._position
            )

    def _restart(self, checkpoint: Checkpoint) -> None:
        monitor = self.monitor
        with monitor.lock:
            monitor.reset()
            self._logs = open_saved(self._paths)
            if checkpoint is START:
                batches = saved_events(self._logs, monitor.pipeline, self._note_block)
            else:
                reader = monitor.pipeline.reader(self._logs[0].name)
                for name, value in zip(_COUNTERS, checkpoint.counters, strict=True):
                    setattr(reader, name, value)
                blocks = self._logs[0].blocks(checkpoint.offset, checkpoint.line)
                batches = (reader.read(block) for block in blocks)
            self._events = self._one_by_one(batches)
            self._position = checkpoint.position
            self._ahead = None

    def _note_block(self, offset: int, line: int | None) -> None:
        """Note a place to begin from, while surveying one log that can be read from anywhere."""
        if self._surveyed or not self._logs[0].seekable:
            return
        reader = self.monitor.pipeline.reader(self._logs[0].name)
        counters = tuple(getattr(reader, name) for name in _COUNTERS)
        if reader.events:
            self._checkpoints.append(Checkpoint(self._read_to, reader.events, offset, line, counters))

    def _one_by_one(self, batches: Iterable[list[AuditEvent]]) -> Iterator[AuditEvent]:
        self._read_to = START.time_ns
        for batch in batches:
            yield from batch
            newest = max(
                (event.time_ns for event in batch if event.time_ns is not None), default=self._read_to
            )
            self._read_to = max(self._read_to, newest)

    def _advance(self) -> None:
        """Take in what is due."""
        now = time.monotonic()
        elapsed, self._last_wall = now - self._last_wall, now
        if not self._playing:
            return
        if self._speed == math.inf:
            self._take(self._next_events(count=CHUNK))
        else:
            self._at = min(self._at + round(elapsed * self._speed * SECOND), self._end)
            while events := self._next_events(count=CHUNK, until=self._at):
                self._take(events)
        if self._ahead is None:
            self._playing = False
            self._at = self._end
            if not self._surveyed:
                self._surveyed = True
                self._speed = FIRST_SPEED

    def _next_events(self, *, count: int, until: int | None = None) -> list[AuditEvent]:
        """Read on, at most so far. `_ahead` is then the first event that was not taken, None at the end."""
        events: list[AuditEvent] = []
        if self._ahead is None:
            self._ahead = next(self._events, None)
        while self._ahead is not None and len(events) < count:
            due = self._ahead.time_ns
            if until is not None and due is not None and due > until:
                break
            events.append(self._ahead)
            self._ahead = next(self._events, None)
        return events

    def _take(self, events: list[AuditEvent]) -> None:
        """Judge events and show them."""
        if not events:
            return
        monitor = self.monitor
        with monitor.lock:
            batch = monitor.pipeline.observe(events)
            if not self._surveyed:
                self._survey(batch)
            monitor.absorb(batch)
        self._pass(events)

    def _warm_up(self, events: list[AuditEvent]) -> None:
        """Fill windows and panes with events whose hits are known already."""
        assert self._hits is not None
        monitor = self.monitor
        with monitor.lock:
            monitor.pipeline.engine.observe(events)
            monitor.pipeline.engine.enforcement.clear()
            first = bisect_left(self._hit_positions, self._position)
            last = bisect_left(self._hit_positions, self._position + len(events))
            monitor.absorb(Batch(events, self._hits[first:last]))
        self._pass(events)

    def _pass(self, events: list[AuditEvent]) -> None:
        self._position += len(events)
        times = [event.time_ns for event in events if event.time_ns is not None]
        if not times:
            return
        if self._speed == math.inf or not self._playing:
            self._at = max(times)
        if not self._surveyed:
            self._start = min(self._start or min(times), min(times))
            self._end = max(self._end, max(times))

    def _survey(self, batch: Batch) -> None:
        """Remember what a batch gave, and at which event."""
        for change in batch.changes:
            if change.kind in ("opened", "severity"):
                incident = change.incident
                self._marks[incident.id] = (incident.first_ns, incident.severity)
        sightings = self.monitor.pipeline.engine.enforcement
        self._sightings += [(self._position, seen) for seen in sightings]
        if self._hits is None or not batch.hits:
            return
        if len(self._hits) + len(batch.hits) > MAX_STORED_HITS:
            self._hits = None
            return
        places = {(event.source, event.offset): place for place, event in enumerate(batch.events)}
        self._hits += batch.hits
        self._hit_positions += [self._position + places[hit.source, hit.offset] for hit in batch.hits]

    def _publish(self) -> None:
        monitor = self.monitor
        size = sum(log.size for log in self._logs)
        read = sum(log.progress for log in self._logs)
        with monitor.lock:
            monitor.replay = ReplayRow(
                start_ns=self._start,
                end_ns=self._end,
                at_ns=self._at,
                playing=self._playing,
                speed=self._speed,
                marks=tuple(sorted(self._marks.values())),
                indexed=1.0 if self._surveyed or not size else min(read / size, 1.0),
            )
            monitor.note_sources([self._status(log) for log in self._logs])
        monitor.publish()

    def _status(self, log: SavedLog) -> SourceStatus:
        done = self._ahead is None and self._surveyed
        return SourceStatus(
            name=log.name,
            path=str(log.paths[-1]),
            state="ended" if done else "reading",
            note=SafeText("saved log"),
            offset=log.progress,
            size=log.size,
            held=0,
            behind=max(log.size - log.progress, 0),
            rotations=0,
            truncations=0,
            gaps=0,
            last_read_ns=None,
        )
