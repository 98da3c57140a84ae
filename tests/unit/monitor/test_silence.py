"""A log that delivered records regularly and delivers none for long is called silent, and no other."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mcpwatch.monitor.live import Live
from mcpwatch.monitor.silence import GAPS, LEAST, Hearing
from mcpwatch.snapshot import Snapshot
from mcpwatch.times import HOUR, MINUTE, SECOND
from tests.unit.monitor.monitor_runs import NOW, Room, call

SOURCE = "audit.jsonl"


def heard(gaps: list[int], *, behind: bool = False) -> tuple[Hearing, int]:
    """What was heard of a source with these gaps between deliveries, and when the last one was."""
    hearing, now = Hearing(), NOW
    hearing.take(SOURCE, now, behind=behind)
    for gap in gaps:
        now += gap
        hearing.take(SOURCE, now, behind=behind)
    return hearing, now


@given(st.integers(1, HOUR), st.data())
def test_a_steady_source_is_never_called_silent(least: int, data: st.DataObject) -> None:
    """Whatever its pace: gaps that differ by up to twenty times are steady."""
    hearing, now = Hearing(), NOW
    for gap in data.draw(st.lists(st.integers(least, GAPS * least), max_size=3 * GAPS)):
        hearing.take(SOURCE, now, behind=False)
        assert hearing.silence(SOURCE, now) is None
        now += gap
        assert hearing.silence(SOURCE, now) is None, "just before the next delivery"


@given(st.lists(st.integers(SECOND, HOUR), min_size=GAPS, max_size=3 * GAPS))
def test_silence_begins_after_the_limit_and_ends_with_a_record(gaps: list[int]) -> None:
    """The limit is twenty times the usual gap, and five minutes at least."""
    hearing, last = heard(gaps)
    limit = max(LEAST, sum(gaps[-GAPS:]))
    assert hearing.silence(SOURCE, last + limit) is None
    silence = hearing.silence(SOURCE, last + limit + 1)
    assert silence is not None
    assert (silence.since_ns, silence.usual_ns) == (last, sum(gaps[-GAPS:]) // GAPS)
    hearing.take(SOURCE, last + limit + 2, behind=False)
    assert hearing.silence(SOURCE, last + limit + 2) is None


def test_it_takes_some_deliveries_to_know_how_often_a_log_writes() -> None:
    """A log that wrote a few times, or much within seconds, promised nothing."""
    for gaps in ([2 * SECOND] * (GAPS - 1), [SECOND // 100] * 1_000, []):
        hearing, last = heard(gaps)
        assert hearing.silence(SOURCE, last + 24 * HOUR) is None


def test_reading_what_was_there_before_says_nothing_of_how_often_it_is_written() -> None:
    """However long it takes to catch up."""
    hearing, last = heard([2 * SECOND] * 100, behind=True)
    assert hearing.silence(SOURCE, last + HOUR) is None


def test_a_log_that_writes_in_bursts_is_given_the_time_between_them() -> None:
    """Ten seconds of records every hour are no silence of 59 minutes, once that was seen."""
    hearing, last = heard(([SECOND] * 10 + [HOUR]) * 3 + [SECOND] * 10)
    assert hearing.silence(SOURCE, last + HOUR) is None


def test_a_clock_that_is_set_back_begins_anew() -> None:
    """Nothing that was measured with the clock before is taken for a gap."""
    hearing, last = heard([2 * SECOND] * GAPS)
    hearing.take(SOURCE, last - HOUR, behind=False)
    assert hearing.silence(SOURCE, last + HOUR) is None


def test_a_source_that_is_followed_no_more_is_forgotten() -> None:
    """So that files that come and go do not add up."""
    hearing, last = heard([2 * SECOND] * GAPS)
    hearing.take("other", last, behind=False)
    hearing.keep({"other"})
    assert hearing.silence(SOURCE, last + HOUR) is None


def test_a_silent_log_has_a_notice_and_a_note_until_a_record_comes(tmp_path: Path) -> None:
    """Live, and the notice keeps its words, so that it is told once."""
    room = Room(tmp_path)
    live = Live(room.monitor, room.sources)

    def look(lines: bytes = b"") -> Snapshot:
        with room.log.open("ab") as log:
            log.write(lines)
        live.tick()
        room.monitor.publish()
        return room.monitor.snapshot()

    for _ in range(GAPS + 1):
        look(call(room.after(2)))
    last, before, alerts = room.now, look().notices, look().alert_count
    room.after(300)
    assert (look().notices, look().sources[0].note) == (before, "")
    room.after(425)
    silent = look()
    (notice,) = set(silent.notices) - set(before)
    assert notice == "audit.jsonl: nothing since 2026-11-22T10:00:42Z; before, about every 2.0 s"
    assert silent.sources[0].note == "nothing for 12m; before, about every 2.0 s"
    assert silent.alert_count == alerts, "a notice is no incident"
    room.now = last + 90 * MINUTE
    assert notice in look().notices
    assert look().sources[0].note == "nothing for 1h 30m; before, about every 2.0 s"
    again = look(call(room.after(2)))
    assert (again.notices, again.sources[0].note) == (before, "")


def test_a_log_that_says_itself_why_it_gives_nothing_is_not_called_silent_too(tmp_path: Path) -> None:
    """What keeps it from being read stays in its row."""
    room = Room(tmp_path)
    live = Live(room.monitor, room.sources)
    for _ in range(GAPS + 1):
        with room.log.open("ab") as log:
            log.write(call(room.after(2)))
        live.tick()
    room.log.unlink()
    room.log.mkdir()
    for _ in range(3):
        room.after(1_000)
        live.tick()
    room.monitor.publish()
    shown = room.monitor.snapshot()
    assert shown.sources[0].note
    assert not any("nothing since" in text for text in (*shown.notices, shown.sources[0].note))
