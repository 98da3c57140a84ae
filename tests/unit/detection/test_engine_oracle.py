"""The engine gives exactly the hits of the definition, however and from wherever it is fed."""

from __future__ import annotations

import random
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.detection import engine as engine_module
from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Hit
from mcpwatch.event import AuditEvent
from mcpwatch.formats.reader import Reader
from mcpwatch.incidents.fold import Fold
from mcpwatch.policy.model import Alerts, Key, Policy
from mcpwatch.times import SECOND
from tests.oracle import Firing, block_of, firings, late_events, read

START = 1_795_132_800
ALERTS = Alerts(
    session_calls_per_minute=2, key_requests_per_minute=4, auth_failures=2, auth_failures_within=90 * SECOND
)
KNOWN = frozenset({"k1"})
POLICY = Policy(alerts=ALERTS, keys=MappingProxyType({name: Key(name) for name in KNOWN}))
WINDOW_RULES = {"session-rate", "session-churn", "key-rate", "auth-lockout"}


@st.composite
def logs(draw: st.DrawFn, *, wild: bool) -> list[dict[str, Any]]:
    """Records of some callers, not in order: by up to the lateness, and if `wild` by far more."""
    maker = random.Random(draw(st.integers(0, 2**32)))
    now, records = 5000.0, []
    era = 0
    for number in range(draw(st.integers(5, 90))):
        now += maker.choice([0, 0, 0.5, 1, 5, 10, 20, 45])
        back = maker.choice([0, 0, 0, 0, 5, 59.999, 60, 119, 120])
        call = maker.choice([None, None, None, maker.randrange(max(1, number))])
        if wild and maker.random() < 0.08:
            back, call = maker.choice([121, 400, -4000, -90]), None
        if wild and maker.random() < 0.03:
            now, era = now + maker.choice([-3000, 3000]), era + 1
        records.append(
            {
                "timestamp": round(START + now - back, 3),
                "event": maker.choice(["tool_call"] * 6 + ["request", "request", "auth", "session_start"]),
                "tool": "echo",
                "status": maker.choice(
                    ["success", "success", "unauthenticated", "denied", "error", "timeout"]
                ),
                "key_id": maker.choice([None, "k1", "k2"]),
                "client_id": maker.choice([None, "c1"]),
                "session_id": maker.choice([None, "s1", "s2", f"new{maker.randrange(6)}"]),
                "source_ip": maker.choice([None, "192.0.2.1", "192.0.2.2"]),
                "call_id": None if call is None else f"{era}-{call}",
            }
        )
    return records


def window_hits(hits: list[Hit], events: list[AuditEvent]) -> list[Firing]:
    places = {(event.source, event.offset): index for index, event in enumerate(events)}
    return [
        Firing(places[hit.source, hit.offset], hit.rule, hit.subject, hit.time_ns, hit.peak)
        for hit in hits
        if hit.rule in WINDOW_RULES
    ]


@settings(max_examples=300, deadline=None)
@given(logs(wild=True))
def test_hits_are_those_of_the_definition(records: list[dict[str, Any]]) -> None:
    events = read(records)
    engine = Engine(POLICY)
    found = window_hits(engine.observe(events), events)
    assert sorted(found) == sorted(firings(events, ALERTS, KNOWN))
    assert engine.late == len(late_events([event.time_ns for event in events], ALERTS.allowed_lateness))


def test_the_random_logs_do_make_every_rule_fire_and_events_late() -> None:
    """Otherwise the test above would prove nothing."""
    seen: set[str] = set()
    late = restarts = 0

    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    @given(logs(wild=True))
    def collect(records: list[dict[str, Any]]) -> None:
        nonlocal late, restarts
        events = read(records)
        seen.update(firing.rule for firing in firings(events, ALERTS, KNOWN))
        behind = late_events([event.time_ns for event in events], ALERTS.allowed_lateness)
        late += len(behind)
        restarts += any(set(range(at, at + 10)) <= behind for at in behind)

    collect()
    assert seen == WINDOW_RULES
    assert late and restarts


@settings(max_examples=200, deadline=None)
@given(logs(wild=False), st.data())
def test_a_start_in_the_middle_gives_the_same_hits_from_there_on(
    records: list[dict[str, Any]], data: st.DataObject
) -> None:
    """After a warm-up, nothing of what came before it matters; nor does it for the rules that don't count."""
    for record in records[::7]:
        record.update(key_id=None, client_id=None)
    events = read(records)
    whole = Engine(POLICY).observe(events)
    cut = data.draw(st.integers(0, len(events) - 1))
    moment = events[cut].time_ns
    assert moment is not None
    later = Engine(POLICY)
    warm = next(
        i for i, e in enumerate(events) if e.time_ns is not None and e.time_ns >= moment - later.warm_up
    )
    later.observe(events[warm:cut])
    offset = events[cut].offset
    assert later.observe(events[cut:]) == [hit for hit in whole if hit.offset >= offset]


def test_the_warm_up_covers_the_look_back_for_named_callers() -> None:
    """With short windows too: a success of nobody is judged by whether callers were named 5 minutes before."""
    policy = Policy(alerts=Alerts(auth_failures_within=SECOND, allowed_lateness=0))
    named = {"timestamp": START, "tool": "echo", "key_id": "k", "status": "success"}
    nobody = {"timestamp": START + 299, "tool": "echo", "source_ip": "192.0.2.1", "status": "success"}
    assert Engine(policy).warm_up >= 300 * SECOND
    assert [hit.rule for hit in Engine(policy).observe(read([named, nobody]))] == ["unauthenticated-success"]


@settings(max_examples=100, deadline=None)
@given(logs(wild=True), st.integers(1, 20))
def test_blocks_of_any_size_give_the_same_hits_and_incidents(
    records: list[dict[str, Any]], size: int
) -> None:
    whole_fold, cut_fold = Fold(ALERTS), Fold(ALERTS)
    whole = Engine(POLICY).observe(read(records))
    whole_fold.add(whole)
    reader, engine = Reader("a.jsonl"), Engine(POLICY)
    block, hits = block_of(records), []
    for at in range(0, len(records), size):
        piece = block_of(records[at : at + size])
        piece.offset, piece.line = block.offset_at(at), block.line_at(at)
        found = engine.observe(reader.read(piece))
        cut_fold.add(found)
        hits += found
    assert hits == whole
    assert [(i.id, i.count, i.evidence) for i in cut_fold] == [
        (i.id, i.count, i.evidence) for i in whole_fold
    ]


@settings(max_examples=150, deadline=None)
@given(logs(wild=False), st.integers(1, 10), st.integers(1, 10))
def test_freeing_idle_windows_changes_no_hit(records: list[dict[str, Any]], every: int, size: int) -> None:
    events = read(records)
    expected = Engine(POLICY).observe(events)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "SWEEP_EVERY", every)
        engine, hits = Engine(POLICY), []
        for at in range(0, len(events), size):
            hits += engine.observe(events[at : at + size])
    assert hits == expected


def test_idle_windows_are_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "SWEEP_EVERY", 100)
    engine = Engine(POLICY)
    for at in range(0, 10_000, 100):
        engine.observe(
            read(
                {"timestamp": START + at + i, "tool": "echo", "session_id": f"s{at + i}"} for i in range(100)
            )
        )
    held = sum(len(pool) for pool in engine._pools.values())
    assert held < 400  # the last three minutes, and what came since the last sweep
    assert not engine.evictions


def test_more_subjects_than_fit_are_counted_as_evictions_and_the_newest_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also right at the limit: the attacker's windows are made while others are thrown out, and lose nothing."""
    monkeypatch.setattr(engine_module, "MAX_SUBJECTS", 20)
    engine = Engine(POLICY)
    crowd = [{"timestamp": START + i / 1000, "tool": "echo", "session_id": f"s{i}"} for i in range(500)]
    attacker = {"tool": "echo", "session_id": "bad", "key_id": "k2", "client_id": "c1"}
    calls = [attacker | {"timestamp": START + 0.5 + i / 1000} for i in range(3)]
    engine.observe(read(crowd))
    hits = engine.observe(read(calls))
    assert [(hit.rule, hit.peak) for hit in hits] == [("session-rate", 3)]
    assert engine.evictions["session-rate"] >= 480 - 20
    assert all(len(pool) <= 20 for pool in engine._pools.values())


def test_pools_apart_sessions_push_no_address_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes up session ids evicts sessions, never the windows of keys and addresses."""
    monkeypatch.setattr(engine_module, "MAX_SUBJECTS", 20)
    engine = Engine(POLICY)
    by_address = {"tool": "echo", "source_ip": "192.0.2.9", "status": "success"}
    engine.observe(read([by_address | {"timestamp": START + i / 1000} for i in range(2)]))
    engine.observe(
        read({"timestamp": START + 1 + i / 1000, "tool": "echo", "session_id": f"s{i}"} for i in range(500))
    )
    hits = engine.observe(read([by_address | {"timestamp": START + 2}]))
    assert [(hit.rule, hit.subject, hit.peak) for hit in hits] == [
        ("session-rate", (("source_ip", "192.0.2.9"),), 3)
    ]


def test_one_line_from_the_future_makes_nothing_late() -> None:
    engine = Engine(POLICY)
    times = [START, START + 1, START + 2e9, START + 2, START + 3, START + 4]
    engine.observe(read({"timestamp": time, "tool": "echo", "session_id": "s"} for time in times))
    assert engine.late == 0


def test_two_lines_from_the_future_do_until_ten_late_ones() -> None:
    """Then the reference starts anew: the tenth is late itself, the eleventh is not."""
    engine = Engine(POLICY)
    times = [START + 2e9, START + 2e9, *(START + i for i in range(20))]
    engine.observe(read({"timestamp": time, "tool": "echo", "session_id": f"s{time}"} for time in times))
    assert engine.late == 10


@pytest.mark.parametrize(("behind", "late"), [(120, 0), (120.001, 1)])
def test_exactly_the_allowed_lateness_is_not_late(behind: float, late: int) -> None:
    engine = Engine(POLICY)
    times = [START, START, START - behind]
    engine.observe(read({"timestamp": time, "tool": "echo", "session_id": "s"} for time in times))
    assert engine.late == late


def test_late_events_and_events_without_time_are_judged_but_counted_in_no_window() -> None:
    engine = Engine(Policy(alerts=ALERTS))
    call = {"tool": "shell_execute", "session_id": "s"}
    late = [call | {"timestamp": START - 1000}] * 4
    timeless = [call] * 4
    hits = engine.observe(read([*[call | {"timestamp": START}] * 2, *late, *timeless]))
    assert [hit.rule for hit in hits] == ["shell-execute"] * 10
    assert engine.late == 4


def test_references_of_sources_are_apart() -> None:
    """A source that lies an hour behind another is not late."""
    engine = Engine(POLICY)
    engine.observe(read([{"timestamp": START + 3600, "tool": "echo", "session_id": "s"}] * 2, "new.jsonl"))
    hits = engine.observe(read([{"timestamp": START, "tool": "echo", "session_id": "s"}] * 3, "old.jsonl"))
    assert engine.late == 0
    assert [hit.source for hit in hits] == ["old.jsonl"]


def test_other_limits_hold_at_once_and_keep_what_was_counted() -> None:
    engine = Engine(POLICY)
    calls = [{"timestamp": START + i, "tool": "echo", "session_id": "s"} for i in range(9)]
    assert len(engine.observe(read(calls[:3]))) == 1
    engine.set_policy(Policy(alerts=Alerts(session_calls_per_minute=7)))
    assert engine.observe(read(calls[3:7])) == []
    assert [hit.peak for hit in engine.observe(read(calls[7:]))] == [8, 9]
