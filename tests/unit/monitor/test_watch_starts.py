"""Where reading begins, what was missed before, and how it goes on from where another process stopped."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mcpwatch.event import AuditEvent
from mcpwatch.monitor import begin as beginning
from mcpwatch.monitor.begin import begin, line_at
from mcpwatch.monitor.live import Live, day_start
from mcpwatch.monitor.monitor import Monitor, Settings
from mcpwatch.monitor.pipeline import Pipeline, Reading, saved_events
from mcpwatch.monitor.starts import LOST, Starts
from mcpwatch.monitor.watchfiles import checkpoints, look
from mcpwatch.monitor.watching import Watching
from mcpwatch.policy.file import PolicyFile
from mcpwatch.sources.live import LiveSet
from mcpwatch.sources.place import place_at
from mcpwatch.sources.rotation import Rotated, rotated_files
from mcpwatch.sources.saved import open_saved
from mcpwatch.times import HOUR, MINUTE, SECOND
from tests.unit.monitor.monitor_runs import NOW, call

LATE = day_start(NOW) - 2 * HOUR
"""22:00 on the day before."""


@dataclass
class Run:
    """One live process after another on the same log, each on the clock that it is given."""

    folder: Path
    numbers: list[int] = field(default_factory=list)
    places: list[tuple[int | None, int]] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / "audit.jsonl"

    def write(self, *lines: bytes) -> None:
        with self.log.open("ab") as log:
            log.write(b"".join(lines))

    def go(self, now: int, *, last: bool = False, cap: bool = True, ticks: int = 30) -> Monitor:
        """Start, read what is there, stop in order; `numbers` are those of the records that were judged."""
        self.numbers, self.places = [], []
        clock = [now]
        monitor = Monitor(PolicyFile(None), Reading(), Settings(self.folder / "state"), lambda: clock[0])
        known = checkpoints(look(self.folder / "state"))
        self.starts = Starts(monitor, day_start(now), known, cap=cap, last=last)
        sources = LiveSet([str(self.log)], start=self.starts)
        self.starts.announce()
        watching = Watching(monitor, self.folder / "state")
        live = Live(monitor, sources, show=self._show, gaps=self.starts.gaps, watching=watching)
        for _ in range(ticks):
            live.tick()
            clock[0] += SECOND
        monitor.publish()
        watching.close(monitor.snapshot(), sources.places, "stopped")
        sources.close()
        return monitor

    def _show(self, events: Sequence[AuditEvent]) -> None:
        self.numbers += [json.loads(event.call_id or "0") for event in events]
        self.places += [(event.line, event.offset) for event in events]


def numbered(first: int, last: int, at_ns: int, **fields: object) -> list[bytes]:
    """Records with a number each, a second apart."""
    return [
        call(at_ns + (n - first) * SECOND, call_id=str(n), session_id=f"s{n}", **fields)
        for n in range(first, last)
    ]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def notices(monitor: Monitor) -> str:
    return "\n".join(monitor.snapshot().notices)


def test_since_last_reads_what_was_written_in_between_and_nothing_twice(run: Run) -> None:
    run.write(*numbered(0, 10, LATE), call(LATE, call_id="10")[:30])
    run.go(LATE + MINUTE, cap=False)
    assert run.numbers == list(range(10))
    run.write(call(LATE, call_id="10")[30:], *numbered(11, 20, LATE + MINUTE))
    run.go(NOW, last=True)
    assert run.numbers == list(range(10, 20))
    assert [line for line, _ in run.places] == list(range(11, 21))
    run.go(NOW + MINUTE, last=True)
    assert run.numbers == []


def rename(log: Path, name: str) -> None:
    log.rename(log.with_name(name))


def squeeze(log: Path, name: str) -> None:
    log.with_name(name + ".gz").write_bytes(gzip.compress(log.read_bytes()))
    log.unlink()


def copytruncate(log: Path, name: str) -> None:
    shutil.copyfile(log, log.with_name(name))
    os.truncate(log, 0)


@pytest.mark.parametrize("rotate", [rename, squeeze, copytruncate])
def test_since_last_reads_through_rotations(run: Run, rotate: Callable[[Path, str], None]) -> None:
    run.write(*numbered(0, 10, LATE))
    run.go(LATE + MINUTE, cap=False)
    run.write(*numbered(10, 15, LATE + MINUTE))
    rotate(run.log, "audit.jsonl.2")
    run.write(*numbered(15, 20, LATE + 2 * MINUTE))
    rotate(run.log, "audit.jsonl.1")
    run.write(*numbered(20, 25, LATE + 3 * MINUTE))
    monitor = run.go(NOW, last=True)
    assert run.numbers == list(range(10, 25))
    # whether a copy was complete when its original went is not known
    assert monitor.gaps.count <= (0 if rotate is rename else 2)


def test_since_last_has_the_windows_of_what_was_read_before(run: Run) -> None:
    """Four calls of a session before the stop, two after it: the sixth is a hit, as in replay."""
    lines = [call(LATE + n * SECOND, call_id=str(n), session_id="s") for n in range(6)]
    run.write(*numbered(100, 104, LATE - HOUR), *lines[:4])
    assert not list(run.go(LATE + 5 * SECOND, cap=False).pipeline.fold)
    run.write(*lines[4:])
    monitor = run.go(LATE + 6 * SECOND, last=True)
    pipeline = Pipeline(PolicyFile(None).policy, Reading())
    for events in saved_events(open_saved([run.log]), pipeline):
        pipeline.observe(events)
    assert [(i.id, i.count) for i in monitor.pipeline.fold] == [(i.id, i.count) for i in pipeline.fold]
    assert len(list(pipeline.fold)) == 1


def test_windows_are_warm_also_where_the_log_was_rotated_right_before_the_stop(run: Run) -> None:
    lines = [call(LATE + n * SECOND, call_id=str(n), session_id="s") for n in range(6)]
    run.write(*lines[:3])
    rename(run.log, "audit.jsonl.1")
    run.write(lines[3])
    run.go(LATE + 5 * SECOND, cap=False)
    os.utime(run.log.with_name("audit.jsonl.1"), ns=(LATE + 4 * SECOND,) * 2)
    run.write(*lines[4:])
    assert len(list(run.go(LATE + 6 * SECOND, last=True).pipeline.fold)) == 1


def test_without_a_checkpoint_since_last_is_the_default_start_and_says_so(run: Run) -> None:
    run.write(*numbered(0, 5, LATE), *numbered(5, 10, NOW))
    monitor = run.go(NOW, last=True)
    assert run.numbers == list(range(5, 10))
    assert "no watch has read it before" in notices(monitor)


def test_a_start_after_a_pause_says_what_was_not_watched_and_how_to_read_it(run: Run) -> None:
    run.write(*numbered(0, 10, LATE))
    run.go(LATE + 4 * MINUTE, cap=False, ticks=4)
    skipped = numbered(10, 20, LATE + HOUR)
    run.write(*skipped, *numbered(20, 30, NOW))
    monitor = run.go(NOW)
    assert run.numbers == list(range(20, 30))
    size = len(b"".join(skipped))
    word = f"not watched from 2026-11-21T22:04Z to 2026-11-22T00:00Z ({size:,} bytes); --since last reads it"
    assert word in notices(monitor)
    assert monitor.gaps.count == 0


def test_a_start_without_a_pause_says_nothing(run: Run) -> None:
    run.write(*numbered(0, 10, LATE))
    run.go(LATE + 4 * MINUTE, cap=False)
    run.write(*numbered(20, 30, NOW))
    monitor = run.go(NOW)
    assert "not watched" not in notices(monitor)
    run.write(*numbered(30, 31, NOW))
    monitor = run.go(NOW + MINUTE)
    assert "not watched" not in notices(monitor)
    assert monitor.gaps.count == 0


@pytest.mark.parametrize("last", [False, True])
def test_what_was_replaced_while_nobody_watched_is_a_gap(run: Run, last: bool) -> None:
    run.write(*numbered(0, 10, LATE))
    run.go(LATE + 4 * MINUTE, cap=False)
    run.log.unlink()
    run.write(*numbered(20, 30, NOW))
    monitor = run.go(NOW, last=last)
    assert run.numbers == list(range(20, 30))
    assert monitor.gaps.count == 1
    (row,) = monitor.snapshot().sources
    assert "while mcpwatch was not running" in row.gaps[0].reason
    assert last or row.gaps[0].reason == LOST
    run.write(*numbered(30, 40, NOW))
    assert run.go(NOW + MINUTE).gaps.count == 0


def test_the_number_of_a_line_is_known_after_a_start_in_the_middle(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted from the nearest line whose number is known; too far from any of them, it is not known."""
    old, new = numbered(0, 50, LATE), numbered(50, 60, NOW)
    run.write(*old, *new)
    before, begun = len(b"".join(old[:40])), len(b"".join(old))
    near = place_at(run.log, before, 41)
    monitor = Monitor(PolicyFile(None), Reading(), Settings(run.folder), lambda: NOW)
    found = begin(monitor, run.log, "a", day_start(NOW), cap=True)
    assert (found.offset, found.line) == (begun, 51)
    assert line_at(run.log, begun + (1 << 20), near) is None
    monkeypatch.setattr(beginning, "NEAR", begun - before)
    assert line_at(run.log, begun, near) == 51
    assert line_at(run.log, len(b"".join(old[:30])), near) == 31
    assert line_at(run.log, begun, None) is None


def test_an_unfinished_line_is_never_begun_in_its_middle(run: Run) -> None:
    """All there is lies before the start, and its last line is finished only now."""
    run.write(*numbered(0, 5, LATE), call(NOW, call_id="5")[:40])
    monitor = Monitor(PolicyFile(None), Reading(), Settings(run.folder), lambda: NOW)
    offset = begin(monitor, run.log, "a", day_start(NOW), cap=True).offset
    assert run.log.read_bytes()[offset:] == call(NOW, call_id="5")[:40]


def test_a_log_that_is_rotated_while_its_start_is_looked_for_is_read_as_it_was(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write(*numbered(0, 5, NOW))
    real = rotated_files

    def rotated_just_then(path: Path) -> list[Rotated]:
        if run.log.exists() and not run.log.with_name("audit.jsonl.1").exists():
            rename(run.log, "audit.jsonl.1")
            run.write(*numbered(5, 10, NOW))
        return real(path)

    monkeypatch.setattr(beginning, "settled_files", rotated_just_then)
    monitor = run.go(NOW)
    assert run.numbers == list(range(10))
    assert monitor.snapshot().counters.lines == 10


def test_a_rotated_file_that_is_broken_is_a_gap(run: Run) -> None:
    run.write(*numbered(0, 5, NOW))
    broken = gzip.compress(b"".join(numbered(0, 500, NOW)))
    run.log.with_name("audit.jsonl.1.gz").write_bytes(broken[: len(broken) // 2])
    os.utime(run.log.with_name("audit.jsonl.1.gz"), ns=(NOW, NOW))
    monitor = run.go(NOW)
    assert monitor.gaps.count == 1
    (row,) = monitor.snapshot().sources
    assert "can't be read to its end" in row.gaps[0].reason
