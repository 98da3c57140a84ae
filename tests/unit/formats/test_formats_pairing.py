"""Calls that are logged in two lines: which end is that of which start, and what it makes of it."""

from __future__ import annotations

import json
import resource
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.event import AuditEvent, CallEnd, Flag, OwnLines
from mcpwatch.formats.pairing import MAX_OPEN, Pairing, Phase
from tests.oracle import read, stamp

T0 = 1_795_161_600 * 10**9
SECOND = 10**9
LATENESS = 120 * SECOND


def event(at: float | None = 0.0, line: int = 1, **fields: Any) -> AuditEvent:
    """An event as a reader gives it, `at` seconds after some time."""
    record = {"tool": "query", "status": "success"} | fields
    if at is not None:
        record["timestamp"] = stamp(T0 + round(at * SECOND))
    (found,) = read([{name: value for name, value in record.items() if value is not None}])
    found.origin = OwnLines("a.jsonl", [json.dumps(record).encode()], ((line, 100 * line),))
    return found


def begin(
    pairing: Pairing, key: str = "1", at: float | None = 0.0, *, by_order: bool = False, **fields: Any
) -> AuditEvent:
    """Let a call begin."""
    start = event(at, **({"status": None} | fields))
    assert pairing.take(start, "start", (key,), by_order=by_order) is start
    return start


def end(
    pairing: Pairing, key: str = "1", at: float | None = 1.0, *, by_order: bool = False, **fields: Any
) -> AuditEvent | None:
    """Let it end."""
    return pairing.take(
        event(at, 2, **({"tool": None, "event": "request"} | fields)), "end", (key,), by_order=by_order
    )


def ended(found: AuditEvent | None) -> CallEnd:
    assert isinstance(found, CallEnd)
    return found


class Line(NamedTuple):
    """A line of a made-up log."""

    phase: Phase
    key: str
    by_order: bool
    at: int
    tool: str | None
    status: str


@st.composite
def _logs(draw: st.DrawFn) -> list[Line]:
    """Logs in which no line is later than the lateness."""
    count = draw(st.integers(0, 40))
    at, lines = 0, []
    for _ in range(count):
        at += draw(st.sampled_from((0, 1, 30, 119, 120, 121, 300)))
        key = draw(st.sampled_from("abc"))
        lines.append(
            Line(
                draw(st.sampled_from(("start", "end"))),
                key,
                key == "c",
                at - draw(st.sampled_from((0, 0, 1, 60))),
                draw(st.sampled_from((None, "query", "query", "fetch"))),
                draw(st.sampled_from(("success", "denied"))),
            )
        )
    return lines


def plainly(lines: list[Line]) -> list[tuple[int | None, bool | None]]:
    """The start that each end is of, by definition, None where there is none; and whether its outcome can be told.

    Of an id it is the newest start, of an order the oldest; one that an end comes too late for is given up. The
    outcome can be told while no two calls of that id or order were open at once, and none of an order was given up
    (True), and surely not where several of an order are open (False).
    """
    said: list[tuple[int | None, bool | None]] = []
    gone: set[int] = set()
    clean = True
    reused: set[str] = set()
    for number, line in enumerate(lines):
        starts = [at for at in range(number) if (lines[at].phase, lines[at].key) == ("start", line.key)]
        waiting = [at for at in (starts if line.by_order else starts[-1:]) if at not in gone]
        found = None
        if line.phase == "end":
            too_old = [line.at - lines[at].at > 120 for at in waiting]
            late = too_old.index(False) if False in too_old else len(waiting)
            found = next(iter(waiting[late:]), None)
            gone.update(waiting[:late], waiting[late : late + 1])
            several = line.by_order and len(waiting[late:]) > 1
            clean = clean and not (line.by_order and (late or several))
            told = clean if line.by_order else line.key not in reused
            said.append((found, False if several else True if told else None))
        else:
            if any(at not in gone for at in starts):
                reused.add(line.key)
            said.append((None, None))
    return said


@settings(deadline=None)
@given(_logs())
def test_an_end_is_of_the_start_that_it_is_by_definition(lines: list[Line]) -> None:
    """By id the newest start of that id, by order the oldest that is open, at most the lateness away."""
    pairing = Pairing(LATENESS)
    for number, (line, (expected, told)) in enumerate(zip(lines, plainly(lines), strict=True)):
        kind = None if line.tool else "request"
        made = event(line.at, number + 1, tool=line.tool, status=line.status, event=kind)
        found = pairing.take(made, line.phase, (line.key,), by_order=line.by_order)
        if line.phase == "start":
            assert found is made
        elif expected is None:
            assert found is made or found is None
        else:
            call = ended(found)
            assert (call.line, call.end_line) == (expected + 1, number + 1)
            assert call.status in (
                (line.status,) if told else ("unknown",) if told is False else (line.status, "unknown")
            )
            assert bool(call.flags & Flag.PAIRED_BY_ORDER) is line.by_order
            assert call.time_ns == T0 + lines[expected].at * SECOND


@settings(deadline=None)
@given(_logs(), st.integers(0, 40))
def test_another_reader_goes_on_where_one_stopped(lines: list[Line], at: int) -> None:
    """Whoever reads on from the middle pairs as whoever read it all; calls from before count for nothing."""

    def pairs(pairing: Pairing, part: list[tuple[int, Line]]) -> list[tuple[int | None, bool] | None]:
        said: list[tuple[int | None, bool] | None] = []
        for number, line in part:
            kind = None if line.tool else "request"
            made = event(line.at, number + 1, tool=line.tool, status=line.status, event=kind)
            found = pairing.take(made, line.phase, (line.key,), by_order=line.by_order)
            said.append(None if found is None else (found.line, isinstance(found, CallEnd)))
        return said

    numbered = list(enumerate(lines))
    whole, first = Pairing(LATENESS), Pairing(LATENESS)
    expected = pairs(whole, numbered)
    assert pairs(first, numbered[:at]) == expected[:at]
    second = first.handed_over()
    assert (second.open, second.unended) == (first.open, 0)
    assert pairs(second, numbered[at:]) == expected[at:]
    assert (whole.open, whole.unended) == (second.open, first.unended + second.unended)


def test_the_beginning_is_an_event_with_outcome_unknown() -> None:
    """Whatever its line says of an outcome: nobody knows it yet."""
    start = begin(Pairing(), status="success")
    assert (start.status, start.shape.status, start.shape.tool) == ("unknown", "unknown", "query")


def test_an_end_has_the_fields_of_its_start_and_what_it_adds() -> None:
    """Time, caller and place are those of the start; outcome, error and duration the end's."""
    pairing = Pairing()
    start = begin(pairing, key_id="k1", params={"path": "/a"}, flags=None)
    found = end(
        pairing,
        "1",
        2,
        status="denied",
        error="no",
        duration_ms=7,
        call_id="c-1",
        key_id="somebody",
        sequence=9,
    )
    call = ended(found)
    assert (call.time_ns, call.logged_ns, call.line, call.end_line) == (T0, T0 + 2 * SECOND, 1, 2)
    assert call.caller is start.caller and call.key_id == "k1"
    assert (call.event, call.tool, call.params, call.status) == (
        "tool_call",
        "query",
        {"path": "/a"},
        "denied",
    )
    assert (call.error, call.duration_ms, call.call_id, call.sequence) == ("no", 7, "c-1", 9)
    assert (call.shape.kind, call.shape.tool, call.shape.status) == ("tool_call", "query", "denied")
    assert call.before is start.shape and start.status == "unknown"
    call.apply()
    assert (start.status, start.error, start.duration_ms, start.shape.status) == ("denied", "no", 7, "denied")
    assert msgspec.structs.asdict(start)["time_ns"] == T0
    assert len(start.origin.lines) == 2


def test_a_start_without_a_tool_gets_that_of_its_end() -> None:
    """What the start lacked the end may say."""
    pairing = Pairing()
    begin(pairing, tool=None, event="request")
    call = ended(end(pairing, tool="fetch", event=None, params={"url": "x"}))
    assert (call.shape.kind, call.tool, call.params) == ("tool_call", "fetch", {"url": "x"})


def test_a_duration_that_nobody_logged_is_the_time_between_the_lines() -> None:
    """Unless a line had no time of its own."""
    pairing = Pairing()
    begin(pairing)
    assert ended(end(pairing, at=1.5)).duration_ms == 1500
    start = begin(pairing, at=2)
    start.flags |= Flag.INFERRED_TIME
    call = ended(end(pairing, at=3, status="error"))
    assert call.duration_ms is None and call.flags & Flag.INFERRED_TIME


def test_lines_without_times_are_paired_by_their_order() -> None:
    """Most text logs of Python programs have none."""
    pairing = Pairing()
    begin(pairing, at=None)
    assert ended(end(pairing, at=None)).time_ns is None
    begin(pairing, at=None)
    assert ended(end(pairing, at=900)).logged_ns == T0 + 900 * SECOND


def test_an_end_within_the_lateness_counts_and_a_later_one_adds_nothing() -> None:
    """At 120 s it does, a nanosecond later it does not; the call is counted as one that never ended."""
    pairing = Pairing(LATENESS)
    begin(pairing, "a")
    assert ended(end(pairing, "a", at=120))
    begin(pairing, "b")
    assert end(pairing, "b", at=120.000000001) is None
    assert (pairing.unended, pairing.open) == (1, 0)
    begin(pairing, "o", by_order=True)
    assert end(pairing, "o", at=121, tool="query", by_order=True) is None
    assert pairing.unended == 2


def test_an_end_alone_is_the_call_itself() -> None:
    """Begun as long before as it lasted, if it names a tool; else nothing is known of it."""
    pairing = Pairing()
    found = end(pairing, tool="query", at=10, duration_ms=2500)
    assert found is not None and not isinstance(found, CallEnd)
    assert found.time_ns == T0 + 7_500_000_000
    assert end(pairing, "2", at=10, duration_ms=2500) is None
    vast = end(pairing, "3", tool="query", at=10, duration_ms=1e300)
    assert vast is not None and vast.time_ns == T0 + 10 * SECOND


def test_a_second_end_adds_nothing_unless_it_says_something_else() -> None:
    """The same outcome again is a repeat; another tool or outcome is a call that must not hide behind an old id."""
    pairing = Pairing()
    begin(pairing)
    assert ended(end(pairing, status="success"))
    assert end(pairing, status="success") is None
    assert end(pairing, status="success", tool="query") is None
    assert end(pairing, status="denied", tool="query") is not None
    assert end(pairing, status="success", tool="shell") is not None
    assert end(pairing, status="success", tool="query", at=300) is not None


def test_an_id_that_is_used_again_means_the_newest_call() -> None:
    """JSON-RPC counts from 1 in every session: the old call is given up."""
    pairing = Pairing()
    begin(pairing, at=0)
    newer = begin(pairing, at=200)
    assert (pairing.unended, pairing.open) == (1, 1)
    found = ended(end(pairing, at=201))
    assert (found.start, found.status, found.duration_ms) == (newer, "success", 1_000.0)


def test_who_gives_two_calls_at_once_one_id_does_not_give_the_outcome_of_one_to_the_other() -> None:
    """The end of the first must not read as that of the second, and not as that of a third either."""
    pairing = Pairing()
    begin(pairing, at=0)
    second = begin(pairing, at=1, tool="nothing")
    found = ended(end(pairing, at=2, status="success"))
    assert (found.start, found.status, found.duration_ms) == (second, "unknown", None)
    begin(pairing, at=3)
    assert ended(end(pairing, at=4, status="denied", error="no")).status == "unknown"
    assert end(pairing, at=5, status="success", tool="query") is None
    begin(pairing, at=6)
    assert ended(end(pairing, at=7, status="success")).status == "success"


def test_by_order_the_oldest_open_call_is_meant() -> None:
    """And it is flagged that this is a guess."""
    pairing = Pairing()
    starts = [begin(pairing, at=at, by_order=True) for at in range(3)]
    calls = [ended(end(pairing, at=3 + at, by_order=True)) for at in range(3)]
    assert [call.start for call in calls] == starts
    assert all(call.flags & Flag.PAIRED_BY_ORDER for call in calls)


def test_an_id_and_an_order_of_the_same_name_are_two_things() -> None:
    """A key is one of its kind."""
    pairing = Pairing()
    begin(pairing, "x", by_order=True)
    assert end(pairing, "x", by_order=False) is None
    assert pairing.open == 1


def test_what_the_log_has_left_behind_is_given_up() -> None:
    """By twice the lateness, as an end may be late itself; one line from the future moves nothing."""
    pairing = Pairing(LATENESS)
    begin(pairing, "a", at=0)
    begin(pairing, "b", at=1e9)
    assert (pairing.open, pairing.unended) == (2, 0)
    begin(pairing, "c", at=240)
    begin(pairing, "d", at=241)
    assert (pairing.open, pairing.unended) == (4, 0)
    begin(pairing, "e", at=242)
    assert (pairing.open, pairing.unended) == (4, 1)


@pytest.mark.parametrize("by_order", [False, True])
def test_a_flood_of_starts_without_ends_stays_bounded(by_order: bool) -> None:
    """Each with an id of its own, or all in one queue, at one time: the oldest are given up."""
    pairing = Pairing(LATENESS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    record = event()
    for number in range(200_000):
        record.origin = OwnLines("a.jsonl", [b"x" * 100], ((1, 0),))
        start = msgspec.structs.replace(record)
        pairing.take(start, "start", ("q" if by_order else str(number),), by_order=by_order)
    assert (pairing.open, pairing.unended) == (MAX_OPEN, 200_000 - MAX_OPEN)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000
    assert len(pairing._over) <= MAX_OPEN


def test_long_lines_of_open_calls_stay_bounded() -> None:
    """By bytes, and not by number alone."""
    pairing = Pairing(LATENESS)
    for number in range(40):
        start = event()
        start.origin = OwnLines("a.jsonl", [b"x" * (1 << 20)], ((1, 0),))
        pairing.take(start, "start", (str(number),), by_order=False)
    assert pairing.open == 16


def test_ends_without_starts_leave_nothing() -> None:
    """Nothing is kept of an end whose start nobody saw."""
    pairing = Pairing(LATENESS)
    assert [end(pairing, str(number)) for number in range(500)] == [None] * 500
    assert (pairing.open, pairing.unended, len(pairing._over)) == (0, 0, 0)


def test_who_holds_a_slow_call_open_does_not_give_its_outcome_to_another() -> None:
    """A slow call begins, another begins and is denied, the slow one ends well: nothing says which is which."""
    pairing = Pairing(LATENESS)
    begin(pairing, at=0, by_order=True)
    begin(pairing, at=1, by_order=True)
    first = ended(end(pairing, at=2, by_order=True, status="denied", error="access denied"))
    second = ended(end(pairing, at=3, by_order=True, status="success"))
    assert [(call.status, call.error, call.duration_ms) for call in (first, second)] == [
        ("unknown", None, None)
    ] * 2
    begin(pairing, at=4, by_order=True)
    assert ended(end(pairing, at=5, by_order=True, status="success")).status == "success"


def test_of_calls_at_once_the_one_that_began_as_long_before_as_it_lasted_is_meant() -> None:
    pairing = Pairing(LATENESS)
    slow = begin(pairing, at=0, by_order=True)
    quick = begin(pairing, at=1, by_order=True)
    first = ended(end(pairing, at=1.25, by_order=True, status="denied", duration_ms=249.2))
    second = ended(end(pairing, at=3, by_order=True, status="success", duration_ms=3_000.0))
    assert (first.start, first.status) == (quick, "denied")
    assert (second.start, second.status) == (slow, "success")


def test_the_end_of_a_call_that_was_given_up_is_not_that_of_the_next() -> None:
    pairing = Pairing(LATENESS)
    begin(pairing, at=0, by_order=True)
    begin(pairing, at=200, by_order=True)
    assert ended(end(pairing, at=201, by_order=True, status="success")).status == "unknown"
    begin(pairing, at=1_000, by_order=True)
    assert ended(end(pairing, at=1_001, by_order=True, status="success")).status == "success"
