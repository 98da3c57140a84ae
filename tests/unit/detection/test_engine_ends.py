"""Calls that are logged in two lines: judged when they begin, and again when they have ended."""

from __future__ import annotations

import random
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Hit, Severity
from mcpwatch.detection.rule import RuleSet
from mcpwatch.detection.rulefile import shipped
from mcpwatch.event import AuditEvent, CallEnd
from mcpwatch.formats.pairing import Pairing
from mcpwatch.incidents.fold import Fold
from mcpwatch.incidents.incident import Incident
from mcpwatch.policy.model import BUILT_IN, Key, Policy, Revocation, Tier, ToolPolicy
from tests.oracle import TwoLines, firings, read, read_calls, stamp
from tests.unit.detection.test_engine_oracle import (
    ALERTS,
    MAKERS,
    NS,
    POLICY,
    RULE_SETS,
    START,
    WORLD,
    a_log,
    warm_from,
    window_hits,
)

SECOND = 10**9
STRICT = Policy(
    alerts=ALERTS,
    deny_unlisted=True,
    tools=MappingProxyType(
        {
            "echo": ToolPolicy(),
            "http_get": ToolPolicy(require_scope="network", require_audit_log=True),
            "file_read": ToolPolicy(allowed_paths=("/app/",)),
            "bash": ToolPolicy(enabled=False),
        }
    ),
    keys=MappingProxyType({"k1": Key("k1")}),
    revoked=(Revocation("key", "k2", NS),),
)
"""A policy that has something to say of nearly every call."""
SEQUENCES = frozenset({"exfil-sequence"})
"""Rules that are about outcomes and fire on unknown ones: what they find when a call begins stays."""


def ends_of(record: dict[str, Any], at: float) -> dict[str, Any]:
    """What the line of an end says."""
    return {"timestamp": round(at, 3), "event": "request", "status": record["status"], "duration_ms": 5.0}


def split(records: list[dict[str, Any]], maker: random.Random, *, apart: bool) -> list[TwoLines]:
    """The same log with some calls in two lines; `apart`: others come between them, some ends are late or missing."""
    placed: list[tuple[float, TwoLines]] = []
    for number, record in enumerate(records):
        if maker.random() < 0.4:
            placed.append((number, TwoLines(record)))
            continue
        placed.append((number, TwoLines(record | {"status": None}, "start", str(number))))
        behind = maker.choice([0, 0, 1, 2, 5]) if apart else 0
        took = maker.choice([0, 1, 30, 119, 122]) if apart else 0
        if not apart or maker.random() < 0.9:
            end = ends_of(record, record["timestamp"] + took)
            placed.append((number + behind + 0.5, TwoLines(end, "end", str(number))))
    placed.sort(key=lambda item: item[0])
    return [line for _, line in placed]


def incidents_of(hits: list[Hit], policy: Policy, rules: RuleSet | None = None) -> list[Incident]:
    fold = Fold(policy.alerts, rules)
    fold.add(hits)
    assert sum(fold.by_severity().values()) == len(list(fold))
    return list(fold)


def outcome_of(incident: Incident) -> tuple[object, ...]:
    """All of an incident but for the places of its evidence."""
    return (
        incident.id, incident.severity, incident.count, incident.peak, dict(incident.outcomes), incident.reason,
        incident.first_ns, incident.last_ns, dict(incident.severities),
    )  # fmt: skip


def two_line_logs(*, apart: bool, wild: bool = False, most: int = 50) -> st.SearchStrategy[list[TwoLines]]:
    return MAKERS.map(lambda maker: split(a_log(maker, wild=wild, most=most), maker, apart=apart))


@settings(max_examples=150, deadline=None)
@given(RULE_SETS, two_line_logs(apart=True, wild=True))
def test_hits_are_those_of_the_definition(rules: RuleSet, lines: list[TwoLines]) -> None:
    """Whatever the rules: no window is entered twice, and none too late."""
    events = read_calls(lines)
    found = window_hits(Engine(POLICY, rules).observe(events), events, rules)
    assert found == sorted(firings(events, rules, WORLD))


def test_the_random_logs_do_have_calls_that_fire_at_their_end() -> None:
    """Otherwise the test above would prove nothing."""
    fired: set[str] = set()
    for seed in range(60):
        maker = random.Random(seed)
        events = read_calls(split(a_log(maker, wild=True), maker, apart=True))
        ends = {at for at, event in enumerate(events) if isinstance(event, CallEnd)}
        fired.update(firing.rule for firing in firings(events, shipped(), WORLD) if firing.at in ends)
    assert "auth-lockout" in fired


@settings(max_examples=60, deadline=None)
@given(two_line_logs(apart=True), st.integers(1, 12))
def test_any_chunks_give_the_same_hits_counts_and_sightings(lines: list[TwoLines], size: int) -> None:
    """Nobody knows in which pieces a log is read."""
    whole, cut = Engine(STRICT), Engine(STRICT)
    expected = whole.observe(read_calls(lines))
    hits: list[Hit] = []
    pairing = Pairing()
    for event in read_calls(lines, pairing=pairing):
        hits += cut.observe([event])
    again: list[Hit] = []
    events, third = read_calls(lines), Engine(STRICT)
    for at in range(0, len(events), size):
        again += third.observe(events[at : at + size])
        for call in third.ended:
            call.apply()
    assert hits == expected == again
    assert cut.counts == whole.counts == third.counts
    assert cut.enforcement == whole.enforcement == third.enforcement


@settings(max_examples=60, deadline=None)
@given(two_line_logs(apart=True), st.data())
def test_a_start_in_the_middle_gives_the_same_hits_from_there_on(
    lines: list[TwoLines], data: st.DataObject
) -> None:
    """After a warm-up; and calls that began before it count for nothing."""
    events = read_calls(lines)
    whole = Engine(STRICT).observe(events)
    cut = data.draw(st.integers(0, len(events) - 1))
    later = Engine(STRICT)
    warm, rest = events[warm_from(later, events, cut) : cut], events[cut:]
    later.warm(warm)
    offset = next((event.offset for event in rest if not isinstance(event, CallEnd)), 1 << 60)
    early = [event for event in rest if isinstance(event, CallEnd) and event.offset < offset]
    hits: list[Hit] = []
    for event in rest:
        if event in early:
            later.warm([event])
        else:
            hits += later.observe([event])
    assert hits == [hit for hit in whole if hit.offset >= offset]
    assert later.counts.total() == sum(not isinstance(event, CallEnd) for event in rest)
    assert all(count > 0 for count in later.counts.values())


@settings(max_examples=60, deadline=None)
@given(MAKERS)
def test_a_call_in_two_lines_is_the_same_as_in_one(maker: random.Random) -> None:
    """Where nothing comes between them: the same incidents to the letter, the same counts, the same sightings."""
    records = [record | {"duration_ms": 5.0} for record in a_log(maker, wild=True)]
    one, two = Engine(STRICT), Engine(STRICT)
    plain = incidents_of(one.observe(read(records)), STRICT)
    split_up = incidents_of(two.observe(read_calls(split(records, maker, apart=False))), STRICT)
    assert [outcome_of(each) for each in split_up if each.rule.id not in SEQUENCES] == [
        outcome_of(each) for each in plain if each.rule.id not in SEQUENCES
    ]
    assert two.counts == one.counts
    assert two.enforcement == one.enforcement
    assert two.late == one.late


@settings(max_examples=60, deadline=None)
@given(MAKERS)
def test_what_each_call_is_by_itself_does_not_hang_on_what_comes_between(maker: random.Random) -> None:
    """Rules that do not count say the same of a call whose end comes later, but in time."""
    records = a_log(maker, wild=False)
    lines = split(records, maker, apart=True)
    events = read_calls(lines)
    over = {lines[(event.line or 0) - 1].key for event in events if isinstance(event, CallEnd)}
    twins = []
    for number, record in enumerate(records):
        unknown = any(line.key == str(number) for line in lines) and str(number) not in over
        twins.append(record | ({"status": None} if unknown else {}))
    one, two = Engine(STRICT), Engine(STRICT)
    plain = incidents_of(one.observe(read(twins)), STRICT)
    split_up = incidents_of(two.observe(events), STRICT)

    def alone(incidents: list[Incident]) -> list[tuple[object, ...]]:
        # a record that is missing its outcome for good is one that nobody tells from one whose end is still to come
        kept = [
            each for each in incidents if each.rule.correlation is None and each.rule.id != "audit-missing"
        ]
        return [outcome_of(each) for each in kept]

    assert alone(split_up) == alone(plain)
    assert two.counts == one.counts


def call(*, end: dict[str, Any] | None = None, policy: Policy = STRICT, **start: Any) -> list[list[Hit]]:
    """The hits of a call's beginning and of its end."""
    record = {"timestamp": stamp(NS + SECOND), "session_id": "s1", "key_id": "k1", "params": {"n": 1}} | start
    lines = [TwoLines(record, "start", "1")]
    if end is not None:
        lines.append(TwoLines({"timestamp": stamp(NS + 2 * SECOND), "event": "request"} | end, "end", "1"))
    engine = Engine(policy)
    return [engine.observe([event]) for event in read_calls(lines)]


@pytest.mark.parametrize(
    ("status", "severity"),
    [("success", Severity.CRITICAL), ("denied", Severity.MEDIUM), ("error", Severity.HIGH)],
)
def test_the_outcome_of_a_violation_amends_its_severity(status: str, severity: Severity) -> None:
    """A path outside is high while nobody knows, critical when it was served, medium when it was refused."""
    began, ended = call(tool="file_read", params={"path": "/etc/passwd"}, end={"status": status})
    (first,) = [hit for hit in began if hit.rule == "path-outside"]
    (second,) = [hit for hit in ended if hit.rule == "path-outside"]
    assert (first.severity, first.outcome, first.amends, first.ended) == (
        Severity.HIGH,
        "unknown",
        None,
        False,
    )
    assert (second.severity, second.outcome, second.amends, second.ended) == (
        severity,
        status,
        Severity.HIGH,
        True,
    )
    assert (second.time_ns, second.line, second.offset) == (first.time_ns, first.line, first.offset)
    (incident,) = [each for each in incidents_of(began + ended, STRICT) if each.rule.id == "path-outside"]
    assert (incident.count, incident.severity, dict(incident.outcomes)) == (1, severity, {status: 1})


def test_what_only_the_outcome_shows_is_a_hit_of_its_own() -> None:
    """A success on a disabled tool is a gap; nobody knew when it began."""
    began, ended = call(tool="bash", end={"status": "success"})
    assert "enforcement-gap" not in {hit.rule for hit in began}
    (gap,) = [hit for hit in ended if hit.rule == "enforcement-gap"]
    assert (gap.amends, gap.ended, gap.outcome, gap.time_ns) == (None, True, "success", NS + SECOND)


def test_a_beginning_proves_nothing_of_a_restriction_and_its_end_does() -> None:
    """A revocation is in force when a call of the revoked key was refused."""
    record = {"timestamp": stamp(NS + SECOND), "tool": "echo", "key_id": "k2"}
    lines = [
        TwoLines(record, "start", "1"),
        TwoLines(
            {"timestamp": stamp(NS + 9 * SECOND), "event": "request", "status": "unauthenticated"}, "end", "1"
        ),
    ]
    engine = Engine(STRICT)
    start, end = read_calls(lines)
    engine.observe([start])
    assert engine.enforcement == []
    engine.observe([end])
    (seen,) = engine.enforcement
    assert (seen.refused, seen.time_ns) == (True, NS + SECOND)


def test_a_record_lacks_no_outcome_before_the_call_has_ended() -> None:
    """A tool whose calls must be audited: what the end says is not missing when it begins."""
    audited: dict[str, Any] = {"tool": "http_get", "scopes": ["network"]}
    began, ended = call(**audited, end={"status": "success", "duration_ms": 3})
    assert "audit-missing" not in {hit.rule for hit in began + ended}
    nobody: dict[str, Any] = {"session_id": None, "key_id": None, "source_ip": "203.0.113.9"}
    began, ended = call(**audited, **nobody, end={"status": "success", "duration_ms": 3})
    assert [hit.rule for hit in began].count("audit-missing") == 1
    began, ended = call(**audited, end={"duration_ms": 3, "session_id": "s1"})
    assert "audit-missing" in {hit.rule for hit in ended}


def test_an_end_with_no_outcome_says_nothing_new() -> None:
    """The hits of the beginning stand, and none is said twice."""
    began, ended = call(tool="file_read", params={"path": "/etc/passwd"}, end={"duration_ms": 3})
    assert began and ended == []


def test_failed_logins_are_counted_when_they_began() -> None:
    """Three of them whose ends come after each other; the one that completes them is the hit."""
    lines = []
    for number in range(3):
        start = {"timestamp": stamp(NS + number * SECOND), "event": "auth", "source_ip": "203.0.113.9"}
        lines.append(TwoLines(start, "start", str(number)))
    for number in (2, 1, 0):
        end = {"timestamp": stamp(NS + (60 + number) * SECOND), "event": "auth", "status": "unauthenticated"}
        lines.append(TwoLines(end, "end", str(number)))
    hits = Engine(BUILT_IN).observe(read_calls(lines))
    (locked,) = [hit for hit in hits if hit.rule == "auth-lockout"]
    assert (locked.time_ns, locked.peak, locked.ended, locked.amends) == (NS, 3, True, None)


def test_every_line_of_a_numbered_log_has_its_number() -> None:
    """Also that of an end: a number that is left out is a gap, and it is said of the line behind it."""

    def numbered(numbers: tuple[int, ...]) -> list[Hit]:
        record = {"timestamp": stamp(NS), "tool": "echo", "key_id": "k1"}
        first, second, third = numbers
        lines = [
            TwoLines(record | {"sequence": first}, "start", "1"),
            TwoLines(
                {"timestamp": stamp(NS), "event": "request", "status": "success", "sequence": second},
                "end",
                "1",
            ),
            TwoLines(record | {"sequence": third, "status": "success"}),
        ]
        return [hit for hit in Engine(BUILT_IN).observe(read_calls(lines)) if hit.rule == "audit-gap"]

    assert numbered((5, 6, 7)) == []
    assert [(hit.line, hit.ended) for hit in numbered((5, 7, 8))] == [(2, True)]
    assert [(hit.line, hit.ended) for hit in numbered((5, 6, 8))] == [(3, False)]


def test_the_windows_of_an_end_that_comes_too_late_for_them_stay_as_they_are() -> None:
    """Its log has gone on by more than the lateness meanwhile; its severity is amended all the same."""
    start = {"timestamp": stamp(NS), "tool": "file_read", "params": {"path": "/etc/shadow"}, "key_id": "k1"}
    later = {"timestamp": stamp(NS + 121 * SECOND), "tool": "echo", "key_id": "k1", "status": "success"}
    end = {"timestamp": stamp(NS + 100 * SECOND), "event": "request", "status": "unauthenticated"}
    lines = [TwoLines(start, "start", "1"), TwoLines(later), TwoLines(later), TwoLines(end, "end", "1")]
    engine = Engine(STRICT)
    hits = engine.observe(read_calls(lines))
    assert [hit.severity for hit in hits if hit.rule == "path-outside"] == [Severity.HIGH, Severity.MEDIUM]
    assert engine.late == 0
    assert engine.counts["tool_call", Tier.MEDIUM, "unauthenticated"] == 1


def test_start_is_a_second() -> None:
    """The made-up logs begin where the constant says."""
    assert START * SECOND == NS
    assert isinstance(read([{"timestamp": START, "tool": "echo"}])[0], AuditEvent)
