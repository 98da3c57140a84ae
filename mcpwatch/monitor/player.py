"""Replay in the console: plays saved logs along their own time, and goes to any moment of them.

The first pass, as fast as it goes, is the survey: it finds every hit and notes which byte of the log came when. From
then on any moment is rebuilt from what was found before it and by reading the warm-up before it, line by line, so
that the counters say how much of the log lies before the cursor.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from mcpwatch.detection.enforcement import Enforcement
from mcpwatch.detection.hit import Hit, Severity
from mcpwatch.event import AuditEvent, CallEnd, logged_at
from mcpwatch.incidents.fold import Fold
from mcpwatch.incidents.incident import incident_id
from mcpwatch.monitor.monitor import Monitor
from mcpwatch.monitor.pipeline import Batch, saved_events
from mcpwatch.monitor.rewind import START, Checkpoint, Sums, counters_of, line_by_line
from mcpwatch.snapshot import RATE_MINUTES, ReplayRow
from mcpwatch.sources.follow import SourceStatus
from mcpwatch.sources.saved import SavedLog, open_saved
from mcpwatch.text import SafeText
from mcpwatch.times import MINUTE, SECOND, utc_day

TICK_S: Final = 0.05
CHUNK: Final = 4_000
"""Events taken in at once: the console waits no longer than that for an answer."""
MAX_STORED_HITS: Final = 300_000
FIRST_SPEED: Final = 10.0
MAX_OPEN: Final = 100
"""A replay begins anew only where no more calls than these are open: they are kept for each such place."""
MAX_MARKS: Final = 20_000
"""Incidents that the timeline marks: of more the worst, of equals the first."""


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
        self._position = self._given = 0
        self._checkpoints = [START]
        self._sums = [Sums.of(monitor)]
        self._counted: dict[str, Mapping[str, int]] = {}
        self._hits: list[Hit] | None = []
        self._hit_positions: list[int] = []
        self._sightings: list[tuple[int, Enforcement]] = []
        self._marks: dict[str, tuple[int, Severity]] = {}
        self._surveyed = False
        self._playing = True
        self._speed = math.inf
        self._at = self._start = self._end = 0
        self._last_wall = 0.0
        self._newest = START.time_ns
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
            self._restart(0)
            while not self._stop.is_set():
                self._obey()
                self._advance()
                self._publish()
                if self._wake.wait(self._wait_s):
                    self._wake.clear()
        except BaseException as error:
            self.failure = error
            self.monitor.fail(error)
            if threading.current_thread() is threading.main_thread():
                raise  # in the background a traceback would be printed over the console, with log text in it

    def _obey(self) -> None:
        """Do what was asked; what was asked during the survey is done after it."""
        if not self._surveyed:
            return
        with self._guard:
            commands, self._commands = self._commands, []
        for command in commands:
            command()

    @property
    def _wait_s(self) -> float | None:
        """How long there is nothing to do; None for until somebody asks for something."""
        if self._playing:
            return 0 if self._speed == math.inf else TICK_S
        # asked for during the survey, which woke up for it in vain
        return 0 if self._commands else None

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
        self._at = self._start
        self._go(near.time_ns, lambda: self._next_events(count=min(CHUNK, target - self._position)))

    def _seek(self, time_ns: int) -> None:
        self._go(time_ns, lambda: self._next_events(count=CHUNK, until=time_ns))
        self._at = min(max(time_ns, self._start), self._end)
        self._last_wall = time.monotonic()

    def _next_incident(self, direction: int) -> None:
        """To the next one along the log; behind the last one comes the first."""
        begins = sorted({mark[0] for mark in self._marks.values()})
        if not begins:
            return
        place = bisect_right(begins, self._at) if direction > 0 else bisect_left(begins, self._at) - 1
        self._playing = False
        self._seek(begins[place % len(begins)])

    def _go(self, time_ns: int, read_on: Callable[[], list[AuditEvent]]) -> None:
        """Rebuild a moment: warm up before it, and fold what the survey found before it."""
        if self._hits is None:
            self._restart(0)
            while events := read_on():
                self._take(events)
            return
        reach = max(self.monitor.pipeline.engine.warm_up, RATE_MINUTES * MINUTE)
        place = bisect_right(self._checkpoints, time_ns - reach, key=lambda c: c.time_ns)
        self._restart(max(place - 1, 0))
        while events := read_on():
            self._warm_up(events)
        monitor = self.monitor
        with monitor.lock:
            pipeline = monitor.pipeline
            found = bisect_left(self._hit_positions, self._position)
            # the warm-up found some of these, but it does not know what was before it
            pipeline.fold = Fold(pipeline.fold.alerts, pipeline.fold.rules)
            pipeline.fold.add(self._hits[:found])
            monitor.confirmations.observe(
                seen for position, seen in self._sightings if position < self._position
            )

    def _restart(self, number: int) -> None:
        """Begin to read at a checkpoint."""
        monitor, checkpoint = self.monitor, self._checkpoints[number]
        with monitor.lock:
            monitor.reset()
            self._sums[number].restore(monitor)
            self._logs = open_saved(self._paths)
            if not self._surveyed:
                batches = saved_events(self._logs, monitor.pipeline, self._note_block)
                self._events = self._one_by_one(batches)
            else:
                self._events = line_by_line(self._logs, monitor.pipeline, checkpoint, self._counted)
            self._position = checkpoint.position
            self._newest = checkpoint.time_ns
            self._ahead = None

    def _note_block(self, offset: int, line: int | None) -> None:
        """Note a place to begin from, while surveying one log that can be read from anywhere."""
        reader = self.monitor.pipeline.reader(self._logs[0].name)
        if self._logs[0].seekable and self._given and reader.pairing.open <= MAX_OPEN:
            counters, calls = counters_of(reader), reader.pairing.handed_over()
            self._checkpoints.append(Checkpoint(self._read_to, self._given, offset, line, counters, calls))

    def _one_by_one(self, batches: Iterable[list[AuditEvent]]) -> Iterator[AuditEvent]:
        self._read_to = START.time_ns
        self._given = 0
        for batch in batches:
            yield from batch
            self._given += len(batch)
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
                self.monitor.tally.closed = True
                self._speed = FIRST_SPEED

    def _next_events(self, *, count: int, until: int | None = None) -> list[AuditEvent]:
        """Read on, at most so far. `_ahead` is then the first event that was not taken, None at the end.

        While surveying it stops at checkpoints, so that the sums of each are known.
        """
        events: list[AuditEvent] = []
        if self._ahead is None:
            self._ahead = next(self._events, None)
        checkpoints = len(self._checkpoints)
        while self._ahead is not None and len(events) < count and len(self._checkpoints) == checkpoints:
            due = logged_at(self._ahead)
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
                self._survey(events, batch)
            monitor.absorb(batch)
            while len(self._sums) < len(self._checkpoints):
                self._sums.append(Sums.of(monitor))
        self._pass(events)

    def _warm_up(self, events: list[AuditEvent]) -> None:
        """Fill windows and panes with events whose hits are known already."""
        assert self._hits is not None
        monitor = self.monitor
        with monitor.lock:
            batch = monitor.pipeline.observe(events)
            monitor.pipeline.engine.enforcement.clear()
            first = bisect_left(self._hit_positions, self._position)
            last = bisect_left(self._hit_positions, self._position + len(events))
            monitor.absorb(Batch(batch.events, self._hits[first:last], ended=batch.ended))
        self._pass(events)

    def _pass(self, events: list[AuditEvent]) -> None:
        self._position += len(events)
        times = [event.time_ns for event in events if event.time_ns is not None]
        if not times:
            return
        self._newest = max(self._newest, *times)
        if self._speed == math.inf or not self._playing:
            self._at = self._newest
        if not self._surveyed:
            self._start = min(self._start or min(times), min(times))
            self._end = max(self._end, max(times))

    def _survey(self, events: list[AuditEvent], batch: Batch) -> None:
        """Remember what came of some events, and of which."""
        for change in batch.changes:
            if change.kind in ("opened", "severity"):
                incident = change.incident
                self._marks[incident.id] = (incident.first_ns, incident.severity)
        for hit in batch.hits:
            if hit.amends is not None and hit.severity < hit.amends:
                name = incident_id(hit.rule, hit.subject, utc_day(hit.time_ns))
                found = self.monitor.pipeline.fold.find(name)
                if found is not None and name in self._marks:
                    self._marks[name] = (found.first_ns, found.severity)
        if len(self._marks) > MAX_MARKS:
            worst = sorted(self._marks.items(), key=lambda item: (-item[1][1], item[1][0]))
            self._marks = dict(worst[: MAX_MARKS // 2])
        sightings = self.monitor.pipeline.engine.enforcement
        self._sightings += [(self._position, seen) for seen in sightings]
        if self._hits is None or not batch.hits:
            return
        if len(self._hits) + len(batch.hits) > MAX_STORED_HITS:
            self._hits = None
            return
        places = _places(events)
        self._hits += batch.hits
        self._hit_positions += [
            self._position + places[hit.source, hit.offset, hit.ended] for hit in batch.hits
        ]

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
            monitor.counted = dict(self._counted)
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


def _places(events: Iterable[AuditEvent]) -> dict[tuple[str, int, bool], int]:
    """The places of events in a run, by what their hits say of them: source, offset, and whether a call ended."""
    places: dict[tuple[str, int, bool], int] = {}
    for place, event in enumerate(events):
        ended = isinstance(event, CallEnd)
        places[event.source, event.offset, ended] = place
        if isinstance(event, CallEnd):
            places[event.source, event.end_offset, ended] = place
    return places
