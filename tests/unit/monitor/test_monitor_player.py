"""The replay player: whatever way one goes through a log, a moment of it looks the same."""

from __future__ import annotations

import gzip
import json
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from mcpwatch.data import shipped
from mcpwatch.monitor.pipeline import Reading
from mcpwatch.snapshot import Snapshot
from mcpwatch.times import MINUTE, SECOND, iso, parse_rfc3339
from tests.functional.program import wait_until
from tests.unit.monitor.monitor_runs import NOW, Deck, add_up, call, everything, headless

SAMPLES = shipped("sample_logs")
POLICY = SAMPLES / "policy.yaml"
LOGS = ("demo-incident", "brute-force", "exfiltration", "broken", "quiet-day")


def sample(name: str) -> Path:
    return SAMPLES / f"{name}.jsonl"


def surveyed(*paths: Path, policy: Path | None = POLICY, reading: Reading | None = None) -> Deck:
    deck = Deck(list(paths), policy, reading)
    deck.until_paused()
    return deck


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def picture_at(shown: Snapshot) -> tuple[Any, ...]:
    """What a moment looks like, without what counts up from run to run."""
    events = [(e.time_ns, e.tool, e.detail, e.status, e.worst, e.note) for e in shown.events]
    return (
        shown.counters,
        shown.severities,
        [(a.id, a.count, a.note, a.last_ns) for a in shown.alerts],
        [(s.session, s.per_minute, s.calls, s.worst) for s in shown.sessions],
        shown.rates,
        shown.tiers,
        events,
    )


@pytest.mark.parametrize("name", LOGS)
def test_the_survey_finds_what_a_replay_without_a_console_finds(name: str) -> None:
    deck = surveyed(sample(name))
    whole = headless([sample(name)], POLICY)
    assert deck.found() == everything(list(whole.fold))
    shown = deck.monitor.snapshot()
    assert add_up(shown.counters)
    assert {n: getattr(shown.counters, n) for n in whole.totals()} == dict(whole.totals())
    assert shown.counters.late == whole.engine.late
    replay = deck.replay
    assert (replay.at_ns, replay.playing, replay.indexed) == (replay.end_ns, False, 1.0)
    assert len(replay.marks) == len(whole.fold)


@pytest.mark.parametrize("name", LOGS)
def test_from_any_moment_playing_on_gives_the_same_incidents(name: str) -> None:
    deck = surveyed(sample(name))
    replay, whole = deck.replay, deck.found()
    ends = deck.monitor.snapshot()
    rng = random.Random(name)
    for _ in range(3):
        deck.player.seek(rng.randint(replay.start_ns, replay.end_ns))
        deck.turn()
        shown = deck.play_to_the_end()
        assert deck.found() == whole
        assert shown.counters == ends.counters
        assert shown.tiers == ends.tiers


def test_a_moment_looks_the_same_from_before_and_from_behind() -> None:
    """Panes, counters, alerts and confirmations: as if one had played to there from the start."""
    deck = surveyed(sample("demo-incident"))
    replay = deck.replay
    for share in (0.2, 0.7, 0.9):
        at = replay.start_ns + round((replay.end_ns - replay.start_ns) * share)
        deck.player.seek(replay.start_ns - SECOND)
        deck.player.seek(at)
        forward = picture_at(deck.turn())
        deck.player.seek(replay.end_ns)
        deck.player.seek(at)
        assert picture_at(deck.turn()) == forward
        assert deck.replay.at_ns == at
        until = [line for line in lines_of(sample("demo-incident")) if _time(line) <= at]
        assert deck.monitor.snapshot().counters.lines == len(until) == deck.position


def _time(line: bytes) -> int:
    found = parse_rfc3339(json.loads(line)["timestamp"])
    assert found is not None
    return found[0]


def test_counters_say_how_much_lies_before_the_cursor_also_in_a_broken_log() -> None:
    """Record by record: the counters add up to exactly the lines up to the record under the cursor."""
    path = sample("broken")
    deck = surveyed(path)
    last = deck.position
    for position in random.Random(5).sample(range(1, last), 12):
        deck.player.step(position - deck.position)
        shown = deck.turn()
        assert deck.position == position == shown.counters.events
        assert add_up(shown.counters)
        newest = deck.monitor.board.records[-1].event
        assert newest.line is not None
        # lines behind the record that hold no event belong to what comes next or were just passed
        assert newest.line <= shown.counters.lines < newest.line + 40


def test_steps_go_on_and_back_by_records() -> None:
    deck = surveyed(sample("demo-incident"))
    end = deck.position
    deck.player.step(-1)
    back = deck.turn()
    assert deck.position == end - 1 == back.counters.lines
    deck.player.step(-50)
    deck.turn()
    deck.player.step(51)
    deck.turn()
    assert deck.position == end
    deck.player.step(1)
    deck.turn()
    assert deck.position == end
    deck.player.step(-10 * end)
    start = deck.turn()
    assert (deck.position, start.counters.lines, start.alert_count, start.events) == (0, 0, 0, ())
    assert deck.replay.at_ns == deck.replay.start_ns
    deck.player.step(1)
    assert len(deck.turn().events) == 1
    assert not deck.replay.playing


def test_next_and_previous_incident_go_to_where_each_begins_and_around() -> None:
    deck = surveyed(sample("demo-incident"))
    begins = sorted({time for time, _ in deck.replay.marks})
    visited = []
    for _ in begins:
        deck.player.next_incident(1)
        shown = deck.turn()
        visited.append(deck.replay.at_ns)
        assert any(alert.first_ns == visited[-1] for alert in shown.alerts)
    assert visited == begins
    deck.player.next_incident(1)
    deck.turn()
    assert deck.replay.at_ns == begins[0]
    deck.player.next_incident(-1)
    deck.turn()
    assert deck.replay.at_ns == begins[-1]
    deck.player.next_incident(-1)
    deck.turn()
    assert deck.replay.at_ns == begins[-2]


def test_play_at_the_end_begins_at_the_start() -> None:
    deck = surveyed(sample("demo-incident"))
    deck.player.toggle()
    shown = deck.turn()
    assert deck.replay.playing
    assert shown.counters.lines < 50
    deck.player.toggle()
    deck.turn()
    assert not deck.replay.playing
    at = deck.replay.at_ns
    deck.player.toggle()
    deck.turn()
    assert deck.replay.at_ns >= at


def test_the_cursor_moves_with_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds at 2x are twenty seconds of log, and all that lies in them."""
    deck = surveyed(sample("demo-incident"))
    wall = 100.0
    monkeypatch.setattr("mcpwatch.monitor.player.time.monotonic", lambda: wall)
    start = deck.replay.start_ns
    deck.player.seek(start)
    deck.player.set_speed(2.0)
    deck.player.toggle()
    deck.turn()
    for _ in range(20):
        wall += 0.5
        deck.turn()
    assert deck.replay.at_ns == start + 20 * SECOND
    assert deck.position == sum(
        _time(line) <= start + 20 * SECOND for line in lines_of(sample("demo-incident"))
    )
    deck.player.set_speed(60.0)
    deck.turn()
    wall += 60
    deck.turn()
    assert (deck.replay.at_ns, deck.replay.playing) == (deck.replay.end_ns, False)


def test_several_logs_are_one_timeline_from_any_moment(tmp_path: Path) -> None:
    lines = lines_of(sample("demo-incident"))
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_bytes(b"".join(lines[::2]))
    two.write_bytes(b"".join(lines[1::2]))
    deck = surveyed(one, two)
    whole = deck.found()
    assert whole == everything(list(headless([one, two], POLICY).fold))
    assert whole.keys() == everything(list(headless([sample("demo-incident")], POLICY).fold)).keys()
    middle = deck.replay.start_ns + 40 * SECOND
    deck.player.seek(middle)
    shown = deck.turn()
    before = [sum(_time(line) <= middle for line in lines_of(path)) for path in (one, two)]
    assert [source.counters.lines for source in shown.sources] == before
    assert shown.counters.lines == sum(before) == deck.position
    deck.play_to_the_end()
    assert deck.found() == whole


def test_gzip_and_rotation_sets_can_be_gone_through_as_well(tmp_path: Path) -> None:
    lines = lines_of(sample("demo-incident"))
    (tmp_path / "audit.jsonl.2.gz").write_bytes(gzip.compress(b"".join(lines[:150])))
    (tmp_path / "audit.jsonl.1").write_bytes(b"".join(lines[150:300]))
    (tmp_path / "audit.jsonl").write_bytes(b"".join(lines[300:]))
    deck = surveyed(*tmp_path.iterdir())
    counts = {name: found[0] for name, found in deck.found().items()}
    whole = everything(list(headless([sample("demo-incident")], POLICY).fold))
    assert counts == {name: found[0] for name, found in whole.items()}
    found = deck.found()
    deck.player.seek(deck.replay.start_ns + 30 * SECOND)
    assert deck.turn().counters.lines == deck.position < len(lines)
    deck.play_to_the_end()
    assert deck.found() == found


def long_log(path: Path) -> int:
    """Four hours of calls, most of them quiet, in many blocks, with late and time-less records in between."""
    rng = random.Random(3)
    out = []
    for n in range(6_000):
        at: int | None = NOW + n * 2_400_000_000
        fields: dict[str, object] = {"session_id": f"s{n // 7}", "call_id": f"c{n}"}
        if n % 97 == 0:
            at = NOW + n * 2_400_000_000 - 10 * MINUTE if n > 500 else at
        elif n % 89 == 0:
            at = None
        if n % 500 < 9:
            fields |= {
                "tool": "shell_execute",
                "session_id": "fast",
                "status": rng.choice(("success", "denied")),
            }
        out.append(call(at, **fields))
        if n % 50 == 0:
            out.append(b"not json\n")
    path.write_bytes(b"".join(out))
    return len(out)


def test_a_long_log_is_the_same_from_every_checkpoint(tmp_path: Path) -> None:
    """Late and time-less records, and lines that are none: incidents, tiers, late and line counts."""
    path = tmp_path / "long.jsonl"
    number = long_log(path)
    deck = surveyed(path, policy=None)
    assert len(deck.player._checkpoints) > 4, "the log is too short for this test"
    whole, ends = deck.found(), deck.monitor.snapshot()
    assert whole == everything(list(headless([path], None).fold))
    assert ends.counters.lines == number and ends.counters.late > 30
    for share in (0.1, 0.45, 0.8):
        at = NOW + round(6_000 * 2_400_000_000 * share)
        deck.player.seek(at)
        behind = deck.turn()
        position = deck.position
        deck.player.step(-10 * number)
        deck.player.step(position)
        before = deck.turn()
        assert behind.counters == before.counters
        assert behind.tiers == before.tiers
        assert [(a.id, a.count) for a in behind.alerts] == [(a.id, a.count) for a in before.alerts]
        assert deck.play_to_the_end().counters == ends.counters
        assert deck.found() == whole


def test_too_many_hits_to_remember_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcpwatch.monitor.player.MAX_STORED_HITS", 20)
    deck = surveyed(sample("demo-incident"))
    whole = deck.found()
    deck.player.seek(deck.replay.start_ns + 50 * SECOND)
    assert 0 < deck.turn().alert_count <= len(whole)
    deck.play_to_the_end()
    assert deck.found() == whole == everything(list(headless([sample("demo-incident")], POLICY).fold))


def test_a_span_of_the_log_is_all_that_is_shown_also_after_going_back() -> None:
    """--from and --to: what lies before only warms windows up."""
    path = sample("demo-incident")
    times = sorted(map(_time, lines_of(path)))
    reading = Reading(from_ns=times[100], to_ns=times[350])
    deck = surveyed(path, reading=reading)
    whole = deck.found()
    assert whole == everything(list(headless([path], POLICY, reading).fold))
    assert deck.monitor.snapshot().events[0].time_ns >= times[100]
    deck.player.seek(times[200])
    shown = deck.turn()
    assert all(times[100] <= event.time_ns <= times[200] for event in shown.events)
    deck.play_to_the_end()
    assert deck.found() == whole


def test_what_is_asked_during_the_survey_is_done_after_it(tmp_path: Path) -> None:
    """Keys pressed while a long log is still read are not lost, and need no further key."""
    path = tmp_path / "long.jsonl"
    long_log(path)
    deck = Deck([path], None)
    asked = threading.Event()
    take = deck.player._take

    def ask_once(events: list[Any]) -> None:
        take(events)
        if not asked.is_set():
            asked.set()
            deck.player.seek(NOW + 60 * SECOND)

    deck.player._take = ask_once  # type: ignore[method-assign]
    thread = threading.Thread(target=deck.player.run, daemon=True)
    thread.start()
    try:
        wait_until(
            lambda: deck.monitor.replay is not None and deck.monitor.replay.at_ns == NOW + 60 * SECOND,
            f"the cursor at {iso(NOW + 60 * SECOND)}",
        )
        assert asked.is_set()
    finally:
        deck.player.stop()
        thread.join(5)
    assert not thread.is_alive()


def test_a_log_that_cannot_be_read_any_more_is_a_failure_that_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "gone.jsonl"
    path.write_bytes(call(NOW))
    deck = surveyed(path, policy=None)
    path.unlink()
    deck.player.seek(NOW)
    with pytest.raises(Exception, match="no such file"):
        deck.player.run()
    assert deck.player.failure is not None
