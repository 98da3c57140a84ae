"""The counters add up, and the watch file is whole: whatever is written into a log, whenever it is killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mcpwatch.console.lines import plain
from mcpwatch.console.screens.sources import counter_sum
from mcpwatch.monitor.live import Live
from mcpwatch.monitor.monitor import Monitor, Settings
from mcpwatch.monitor.pipeline import Reading
from mcpwatch.monitor.watch import Counted, Watch, decode
from mcpwatch.monitor.watchfiles import look
from mcpwatch.monitor.watching import Watching
from mcpwatch.policy.file import PolicyFile
from mcpwatch.snapshot import Counters, Snapshot
from mcpwatch.sources.live import LiveSet
from mcpwatch.times import SECOND
from tests.faults.matrix import FULL, Figure, row
from tests.random_writer import NOW, Writer

SEEDS = 200 if FULL else 6
KILLS = 100 if FULL else 4


def adds_up(count: Counters | Counted) -> bool:
    parts = count.understood + count.not_understood + count.blank + count.repeated + count.joined + count.held
    return count.lines == parts


def check_snapshot(shown: Snapshot) -> None:
    assert adds_up(shown.counters)
    counts = [source.counters for source in shown.sources]
    for count in counts:
        assert adds_up(count)
        assert count.held in (0, 1)
        assert "DOES NOT ADD UP" not in "".join(plain(part) for part in counter_sum(count))
    assert shown.counters.lines == sum(count.lines for count in counts)
    assert shown.counters.held == sum(count.held for count in counts)


def check_watch(watch: Watch) -> None:
    assert adds_up(watch.totals) and watch.totals.add_up
    assert all(source.counters.add_up for source in watch.sources)
    assert watch.totals.lines == sum(source.counters.lines for source in watch.sources)


@row("A31")
def test_counters_add_up_in_every_picture_and_every_file_whatever_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    """Rubbish, parts of lines, NULs, lines that are too long, rotations: each line on disk is counted once."""
    monkeypatch.setattr("mcpwatch.monitor.watching.EVERY_S", 0.0)
    lines = looks = 0
    for seed in range(SEEDS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        found = _one_session(folder, random.Random(seed))
        lines, looks = lines + found[0], looks + found[1]
    assert looks > 50 * SEEDS
    figure(f"{lines:,} lines of {SEEDS} sessions, all accounted for in {looks:,} pictures and watch files")


def _one_session(tmp_path: Path, rng: random.Random) -> tuple[int, int]:
    """Lines on disk, and how many watch files were looked at."""
    logs = tmp_path / "logs"
    logs.mkdir()
    writers = [Writer(logs / name, rng) for name in ("a.jsonl", "b.jsonl")]
    for writer in writers:
        writer.path.touch()
    now = NOW
    monitor = Monitor(PolicyFile(None), Reading(), Settings(tmp_path / "state"), lambda: now)
    sources = LiveSet([str(writer.path) for writer in writers])
    watching = Watching(monitor, tmp_path / "state")
    live = Live(monitor, sources, watching=watching)
    looks = 0

    def turn() -> None:
        nonlocal now, looks
        now += SECOND // 3
        live.tick()
        monitor.publish()
        check_snapshot(monitor.snapshot())
        watching.look(monitor.snapshot(), lambda: sources.places)
        if watching.path.exists():
            check_watch(decode(watching.path.read_bytes()))
            looks += 1

    for writer in writers:
        writer.around_copy = turn
    for _ in range(150):
        rng.choice(writers).act()
        if rng.random() < 0.8:
            turn()
    for _ in range(30):  # rotated files are read until they have been quiet for a while
        turn()
    for writer in writers:
        (found,) = (source for source in monitor.snapshot().sources if source.path == str(writer.path))
        unfinished = not writer.path.read_bytes().endswith((b"\n",)) and writer.path.stat().st_size > 0
        assert found.counters.held == unfinished
        assert found.counters.lines - found.counters.held - found.counters.repeated == writer.newlines
        assert writer.on_disk() == writer.newlines
        writer.finish()
    turn()
    watching.close(monitor.snapshot(), sources.places, "stopped")
    summary = monitor.pipeline.summary(monitor.snapshot().counters.held)
    assert summary["lines"] - summary["repeated"] == sum(writer.on_disk() for writer in writers)
    (left,) = look(tmp_path / "state").found
    assert left.state == "stopped"
    assert (left.watch.totals.lines, left.watch.totals.held) == (summary["lines"], summary["held"])
    sources.close()
    return summary["lines"], looks


WRITER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from mcpwatch.monitor import watching
from tests.unit.monitor.monitor_runs import Room, call, NOW
watching.EVERY_S = 0.0
room = Room(Path({folder!r}))
kept = watching.Watching(room.monitor, Path({folder!r}) / "state")
print("ready", flush=True)
n = 0
while True:
    n += 1
    kept.look(room.write(call(NOW + n)), lambda: room.sources.places)
"""


@row("A32")
def test_killed_at_any_moment_it_leaves_a_whole_file(tmp_path: Path, figure: Figure) -> None:
    """The newest or the one before, never a torn one; and nobody takes it for running."""
    root = str(Path(__file__).parents[2])
    for turn in range(KILLS):
        code = WRITER.format(root=root, folder=str(tmp_path))
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as program:
            assert program.stdout is not None and program.stdout.readline() == b"ready\n"
            time.sleep(0.02 + 0.037 * (turn % 10) + 0.001 * (turn // 10))
            program.send_signal(signal.SIGKILL)
            program.wait()
        found = look(tmp_path / "state")
        assert found.ignored == ()
        assert {each.state for each in found.found} <= {"died"}
        for each in found.found:
            assert each.watch.totals.add_up
    assert found.found
    figure(f"{KILLS} kills, each left a whole file or none")
