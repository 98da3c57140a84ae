"""What the panes count: lines, sessions, rates, tiers. Numbers on the screen add up."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mcpwatch.detection.hit import Severity
from mcpwatch.monitor.board import KEPT_RECORDS, MAX_SESSIONS, MAX_TOOLS
from mcpwatch.monitor.picture import SHOWN_EVENTS, SHOWN_SESSIONS
from mcpwatch.snapshot import TREND_BUCKETS
from mcpwatch.times import MINUTE, SECOND
from tests.unit.monitor.monitor_runs import NOW, Room, add_up, call


@pytest.mark.parametrize("seed", range(4))
def test_counters_account_for_every_line_at_every_moment(tmp_path: Path, seed: int) -> None:
    """Whatever is appended, in pieces that end anywhere: whole lines plus the unfinished one, if there is one."""
    rng = random.Random(seed)
    room = Room(tmp_path)
    kinds = (call(NOW), call(None), b"\n", b"\0\0\n", b"[1]\n", b"not json\n", b'{"a": 1}\n', b"\r\n", b"\xff\xfe\n",
             call(NOW - 10 * MINUTE))  # fmt: skip
    stream = b"".join(rng.choice(kinds) for _ in range(300))
    written = 0
    while written < len(stream):
        size = rng.choice((1, 7, 60, 200, 900))
        count = room.write(stream[written : written + size]).counters
        written += size
        seen = stream[:written]
        assert add_up(count)
        assert count.held == (not seen.endswith(b"\n"))
        assert count.lines == seen.count(b"\n") + count.held
        (source,) = room.monitor.snapshot().sources
        assert source.counters.lines == count.lines and add_up(source.counters)


def test_a_snapshot_keeps_its_version_while_nothing_changes(tmp_path: Path) -> None:
    """Time may pass: an idle console draws nothing."""
    room = Room(tmp_path)
    room.write(*(call(NOW - 60 * MINUTE + n) for n in range(20)))
    room.after(30)
    version = room.look().version
    for _ in range(8):
        room.after(0.25)
        assert room.look().version == version
    assert room.write(call(room.after(2))).version == version + 1


def test_a_session_has_its_calls_of_the_last_minute_by_five_seconds(tmp_path: Path) -> None:
    room = Room(tmp_path, now=NOW - SECOND)
    times = [0, 1, 2, 30, 59]
    shown = room.write(*(call(NOW - 60 * SECOND + at * SECOND) for at in times))
    (row,) = shown.sessions
    assert (row.session, row.key, row.client, row.calls, row.per_minute) == ("s1", "k1", "bot", 5, 5)
    assert len(row.trend) == TREND_BUCKETS
    assert (row.trend[0], row.trend[-1], sum(row.trend)) == (3, 1, 5)
    room.after(10)
    (row,) = room.look().sessions
    assert (row.per_minute, row.calls) == (2, 5)
    room.after(3_600)
    (row,) = room.look().sessions
    assert (row.per_minute, row.trend) == (0, (0,) * TREND_BUCKETS)


def test_only_failures_count_as_errors_of_a_session(tmp_path: Path) -> None:
    """A call whose outcome nobody logged has not failed."""
    room = Room(tmp_path)
    outcomes = ("success", "unknown", None, "error", "denied", "unauthenticated", "timeout", "rate_limited")
    (row,) = room.write(*(call(NOW, status=status) for status in outcomes)).sessions
    assert (row.calls, row.errors) == (8, 5)


def test_sessions_seen_once_are_one_row_under_their_principal(tmp_path: Path) -> None:
    """A server with a session id per request does not fill the pane; its row opens, and keeps its handle."""
    room = Room(tmp_path)
    lines = [call(NOW - n * SECOND, session_id=f"r{n}", tool="shell_execute") for n in range(9)]
    shown = room.write(*lines, *(call(NOW, session_id="s1") for _ in range(2)))
    by_name = {str(row.session): row for row in shown.sessions}
    assert by_name.keys() == {"(9 seen once)", "s1"}
    row = by_name["(9 seen once)"]
    assert (row.calls, row.high, row.per_minute, sum(row.trend), row.key) == (9, 9, 9, 9, "k1")
    assert {target.kind for target in row.targets} == {"key", "client", "source_ip"}
    detail = room.monitor.session(row.ref)
    assert detail is not None and detail.row == row and len(detail.timeline) == 9
    again = room.write(call(NOW, session_id="r99"))
    assert row.ref in {other.ref for other in again.sessions}
    assert again.session_count == 11


def test_busier_sessions_stand_first_and_carry_their_worst_incident(tmp_path: Path) -> None:
    room = Room(tmp_path)
    quiet = [call(NOW, session_id="calm", key_id="k2", source_ip="198.51.100.1") for _ in range(2)]
    fast = [call(NOW, session_id="fast") for _ in range(7)]
    shown = room.write(*quiet, *fast)
    assert [(row.session, row.worst) for row in shown.sessions] == [("fast", Severity.MEDIUM), ("calm", None)]


def test_tiers_and_minutes_add_up_to_the_tool_calls(tmp_path: Path) -> None:
    room = Room(tmp_path)
    tools = ("shell_execute", "file_read", "file_read", "calculator", None)
    lines = [
        call(NOW - n * MINUTE, tool=tools[n % 5], event=None if n % 5 < 4 else "auth") for n in range(15)
    ]
    shown = room.write(*lines)
    assert [(row.tier, row.calls) for row in shown.tiers] == [("high", 3), ("medium", 6), ("low", 3)]
    assert sum(row.share for row in shown.tiers) == pytest.approx(1, abs=0.01)
    assert shown.tiers[1].tools == (("file_read", 6),)
    assert [sum(rate.per_minute) for rate in shown.rates] == [3, 6, 3]
    assert all(rate.now == rate.per_minute[-1] for rate in shown.rates)


def test_records_a_second_are_those_that_arrived_lately(tmp_path: Path) -> None:
    """By arrival, not by the times in the log; in all and of each log."""
    room = Room(tmp_path)
    room.write(*(call(NOW - 60 * MINUTE) for _ in range(10)))
    room.after(1)
    shown = room.look()
    assert shown.per_second == shown.sources[0].per_second == 2.0
    room.after(10)
    shown = room.look()
    assert shown.per_second == shown.sources[0].per_second == 0.0


def test_a_flood_of_names_stays_within_bounds(tmp_path: Path) -> None:
    """More sessions, tools and records than anybody has: the newest stay, and tier counts stay exact."""
    room = Room(tmp_path)
    number = KEPT_RECORDS + 2_000
    lines = (call(NOW + n * 1_000_000, session_id=f"s{n}", tool=f"read_{n % 3_000}") for n in range(number))
    shown = room.write(*lines)
    board = room.monitor.board
    assert len(board.sessions) <= MAX_SESSIONS
    assert all(len(tools) <= MAX_TOOLS for tools in board.tools.values())
    assert (len(board.records), len(shown.events), len(shown.sessions)) == (KEPT_RECORDS, SHOWN_EVENTS, 1)
    assert sum(row.calls for row in shown.tiers) == number == shown.counters.events
    assert len(shown.sessions) <= SHOWN_SESSIONS
    assert room.monitor.record(1) is None
    last = room.monitor.record(number)
    assert last is not None and last.row.session == f"s{number - 1}"
