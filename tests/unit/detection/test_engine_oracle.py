"""The engine gives exactly the hits of the definition, whatever the rules, however and from wherever it is fed."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import date
from types import MappingProxyType
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.detection import engine as engine_module
from mcpwatch.detection import pools as pools_module
from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Hit, Severity
from mcpwatch.detection.rule import (
    Condition,
    Correlation,
    Limit,
    Rule,
    RuleException,
    RuleSet,
    Threshold,
)
from mcpwatch.detection.rulefile import shipped
from mcpwatch.event import AuditEvent, CallEnd
from mcpwatch.filter import parse
from mcpwatch.formats.reader import Reader
from mcpwatch.incidents.fold import Fold
from mcpwatch.policy.model import Alerts, Key, Policy
from mcpwatch.policy.tiers import tier_of
from mcpwatch.text import SafeText
from mcpwatch.times import SECOND
from tests.oracle import Firing, World, block_of, firings, late_events, read

START = 1_795_132_800
NS = START * SECOND
ALERTS = Alerts(
    session_calls_per_minute=2, key_requests_per_minute=4, auth_failures=2, auth_failures_within=90 * SECOND
)
KNOWN = frozenset({"k1"})
POLICY = Policy(alerts=ALERTS, keys=MappingProxyType({name: Key(name) for name in KNOWN}))
CORE: Final = ("session-rate", "session-churn", "key-rate", "auth-lockout")
NOWHERE = SafeText("")


def finds(event: AuditEvent) -> tuple[str, ...]:
    """What the checks find, of what the logs here have."""
    shell = (
        ("shell-execute",)
        if event.tool == "bash" and (event.event == "tool_call" or event.params is not None)
        else ()
    )
    secret = event.params is not None and event.params.get("path") == "/home/ann/.ssh/id_rsa"
    return shell + (("sensitive-read",) if secret and event.status in ("success", "unknown") else ())


def tier(event: AuditEvent) -> str | None:
    return tier_of(POLICY, event.tool) if event.event == "tool_call" and event.tool is not None else None


WORLD = World(ALERTS, KNOWN, finds, tier)


def a_log(maker: random.Random, *, wild: bool, most: int = 90) -> list[dict[str, Any]]:
    """Records of some callers, not in order: by up to the lateness, and if `wild` by far more."""
    now, records = 5000.0, []
    era = 0
    for number in range(maker.randrange(5, most + 1)):
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
                "tool": maker.choice(["echo", "echo", "http_get", "bash", "file_read"]),
                "params": maker.choice(
                    [None, {}, {"n": 1}, {"n": 2}, {"n": [1, {"m": "a"}]}, {"n": "[redacted]"},
                     {"path": "/home/ann/.ssh/id_rsa"}]
                ),
                "status": maker.choice(["success", "success", "unauthenticated", "denied", "error", "timeout"]),
                "key_id": maker.choice([None, "k1", "k2"]),
                "client_id": maker.choice([None, "c1"]),
                "session_id": maker.choice([None, "s1", "s2", f"new{maker.randrange(6)}"]),
                "source_ip": maker.choice([None, "192.0.2.1", "192.0.2.2", "198.51.100.1"]),
                "call_id": None if call is None else f"{era}-{call}",
            }
        )  # fmt: skip
    return records


FILTERS = [
    parse(text)
    for text in (
        "kind:tool_call", "kind:tool_call or kind:request", "kind:auth or status:unauthenticated", "-status:denied",
        "tool:echo", "-tool:echo", "tool:h*", "tier>=medium", "key:k1", "-client:c1", "session:s* status:success",
        "param:a or key:k2", "kind:tool_call (session:new* or param:a)", "-(kind:auth or param:a)", "-call:*",
    )
]  # fmt: skip
CALLERS = [
    parse(text)
    for text in (
        "client:c1", "key:k*", "-key:k1", "tool:bash", "tier:high", "status:denied", "kind:request", "-session:s1",
    )
]  # fmt: skip
GROUPINGS = [
    (("session",), ("key", "client"), ("source_ip",)),
    (("key",), ("client",)),
    (("known_key", "source_ip"), ("source_ip",)),
    (("source_ip",),),
    (("key",), ("subject",), ("client",), ("session",), ("source_ip",)),
]
SPANS = [*(Limit(seconds * SECOND) for seconds in (1, 45, 60, 300)), Limit(setting="auth_failures_within")]
LIMITS = [*(Limit(count) for count in (1, 1, 2, 2, 3, 4, 6)), Limit(setting="session_calls_per_minute")]
VALUES = ["session", "key", "network", "tool", "client", "source_ip"]


def a_condition(maker: random.Random) -> Condition:
    if maker.random() < 0.7:
        return Condition(maker.choice(FILTERS))
    return Condition(maker.choice([None, *FILTERS]), maker.choice(["shell-execute", "sensitive-read"]))


def a_correlation(maker: random.Random) -> Correlation:
    span, steps = maker.choice(SPANS), maker.choice([2, 3])
    count: dict[str, Any] = {
        "events": (a_condition(maker),), "timespan": span, "op": maker.choice(["gt", "gte"]),
        "limit": maker.choice(LIMITS),
    }  # fmt: skip
    once = maker.random() < 0.5
    alike = maker.choice([("tool",), ("params",), ("tool", "params")])
    return maker.choice(
        [
            Correlation("event_count", **count, once_per_call=once),
            Correlation("event_count", **count, once_per_call=once, same=alike),
            Correlation("value_count", **count, fields=tuple(maker.sample(VALUES, maker.choice([1, 2])))),
            Correlation(
                "temporal_ordered", tuple(a_condition(maker) for _ in range(steps)), span, in_one_call=once
            ),
        ]
    )


def an_exception(maker: random.Random) -> RuleException:
    until = maker.choice([None, NS + maker.randrange(4_900, 6_000) * SECOND])
    return RuleException(maker.choice([*FILTERS, *CALLERS]), "ann", "known", until, NOWHERE)


def a_threshold(maker: random.Random) -> Threshold:
    return Threshold(maker.choice(CALLERS), maker.randrange(1, 8), "ann", "known", NOWHERE)


def a_rule(maker: random.Random, name: str) -> Rule:
    correlation = a_correlation(maker)
    counts = correlation.type != "temporal_ordered"
    return Rule(
        name, "t", Severity.MEDIUM, "d",
        group_by=maker.choice(GROUPINGS),
        correlation=correlation,
        exceptions=tuple(an_exception(maker) for _ in range(maker.choice([0, 0, 1, 2]))),
        thresholds=tuple(a_threshold(maker) for _ in range(maker.choice([0, 0, 1, 2]) if counts else 0)),
    )  # fmt: skip


def some_rules(maker: random.Random) -> RuleSet:
    return RuleSet(tuple(a_rule(maker, f"own-{number}") for number in range(maker.choice([1, 2, 3]))))


MAKERS = st.integers(0, 2**32).map(random.Random)
RULE_SETS = MAKERS.map(some_rules)


def logs(*, wild: bool, most: int = 90) -> st.SearchStrategy[list[dict[str, Any]]]:
    return MAKERS.map(lambda maker: a_log(maker, wild=wild, most=most))


def window_hits(hits: list[Hit], events: list[AuditEvent], rules: RuleSet) -> list[Firing]:
    places = {
        (event.source, event.offset, isinstance(event, CallEnd)): index for index, event in enumerate(events)
    }
    correlated = {rule.id for rule in rules if rule.correlation is not None}
    return sorted(
        Firing(
            places[hit.source, hit.offset, hit.ended], hit.rule, hit.subject, hit.time_ns, hit.peak, hit.limit
        )
        for hit in hits
        if hit.rule in correlated and hit.amends is None
    )


def warm_from(engine: Engine, events: list[AuditEvent], cut: int) -> int:
    """The first event that an engine must have seen to go on at a place."""
    moment = events[cut].time_ns
    assert moment is not None
    return next(
        i for i, e in enumerate(events) if e.time_ns is not None and e.time_ns >= moment - engine.warm_up
    )


class TestShippedRules:
    """All of them at once, under a policy with low limits."""

    @settings(max_examples=70, deadline=None)
    @given(logs(wild=True))
    def test_hits_are_those_of_the_definition(self, records: list[dict[str, Any]]) -> None:
        events = read(records)
        engine = Engine(POLICY)
        found = window_hits(engine.observe(events), events, shipped())
        assert found == sorted(firings(events, shipped(), WORLD))
        assert engine.late == len(late_events([event.time_ns for event in events], ALERTS.allowed_lateness))

    def test_the_random_logs_do_make_the_rules_fire_and_events_late(self) -> None:
        """Otherwise the test above would prove nothing."""
        seen: set[str] = set()
        late = restarts = 0
        for seed in range(40):
            events = read(a_log(random.Random(seed), wild=True))
            seen.update(firing.rule for firing in firings(events, shipped(), WORLD))
            behind = late_events([event.time_ns for event in events], ALERTS.allowed_lateness)
            late += len(behind)
            restarts += any(set(range(at, at + 10)) <= behind for at in behind)
        assert {*CORE, "exfil-sequence", "session-shared"} <= seen
        assert late and restarts

    @settings(max_examples=50, deadline=None)
    @given(logs(wild=False), st.data())
    def test_a_start_in_the_middle_gives_the_same_hits_from_there_on(
        self, records: list[dict[str, Any]], data: st.DataObject
    ) -> None:
        """After a warm-up, nothing of what came before it matters; nor does it for the rules that don't count."""
        for record in records[::7]:
            record.update(key_id=None, client_id=None)
        events = read(records)
        whole = Engine(POLICY).observe(events)
        cut = data.draw(st.integers(0, len(events) - 1))
        later = Engine(POLICY)
        later.warm(events[warm_from(later, events, cut) : cut])
        offset = events[cut].offset
        assert later.observe(events[cut:]) == [hit for hit in whole if hit.offset >= offset]
        assert later.counts.total() == len(events) - cut


class TestAnyRules:
    """Rules that somebody could write, on logs in which everything collides."""

    @settings(max_examples=300, deadline=None)
    @given(RULE_SETS, logs(wild=True, most=50))
    def test_hits_are_those_of_the_definition(self, rules: RuleSet, records: list[dict[str, Any]]) -> None:
        events = read(records)
        found = window_hits(Engine(POLICY, rules).observe(events), events, rules)
        assert found == sorted(firings(events, rules, WORLD))

    def test_the_random_rules_do_fire_in_every_way(self) -> None:
        """Otherwise the test above would prove nothing."""
        seen: set[str] = set()
        for seed in range(200):
            maker = random.Random(seed)
            rules, events = some_rules(maker), read(a_log(maker, wild=True))
            fired = firings(events, rules, WORLD)
            bare = RuleSet(tuple(replace(rule, exceptions=()) for rule in rules))
            if len(firings(events, bare, WORLD)) > len(fired):
                seen.add("exception")
            for firing in fired:
                counting = rules.by_id[firing.rule].correlation
                assert counting is not None
                seen.update(
                    (counting.type, f"{len(counting.events)} steps", *counting.same, *counting.fields)
                )
                seen.update(["own limit"] * (firing.limit is not None) + ["once"] * counting.once_per_call)
        assert seen >= {
            "event_count", "value_count", "temporal_ordered", "2 steps", "3 steps", "params", "session",
            "network", "tool", "own limit", "once", "exception",
        }  # fmt: skip

    @settings(max_examples=120, deadline=None)
    @given(RULE_SETS, logs(wild=False), st.data())
    def test_a_start_in_the_middle_gives_the_same_hits_from_there_on(
        self, rules: RuleSet, records: list[dict[str, Any]], data: st.DataObject
    ) -> None:
        events = read(records)
        whole = Engine(POLICY, rules).observe(events)
        cut = data.draw(st.integers(0, len(events) - 1))
        later = Engine(POLICY, rules)
        later.observe(events[warm_from(later, events, cut) : cut])
        offset = events[cut].offset
        assert later.observe(events[cut:]) == [hit for hit in whole if hit.offset >= offset]

    @settings(max_examples=100, deadline=None)
    @given(RULE_SETS, logs(wild=True), st.integers(1, 20))
    def test_blocks_of_any_size_give_the_same_hits_and_incidents(
        self, rules: RuleSet, records: list[dict[str, Any]], size: int
    ) -> None:
        whole_fold, cut_fold = Fold(ALERTS, rules), Fold(ALERTS, rules)
        whole = Engine(POLICY, rules).observe(read(records))
        whole_fold.add(whole)
        reader, engine = Reader("a.jsonl"), Engine(POLICY, rules)
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
    @given(RULE_SETS, logs(wild=False), st.integers(1, 10), st.integers(1, 10))
    def test_freeing_idle_windows_changes_no_hit(
        self, rules: RuleSet, records: list[dict[str, Any]], every: int, size: int
    ) -> None:
        events = read(records)
        expected = Engine(POLICY, rules).observe(events)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine_module, "SWEEP_EVERY", every)
            engine, hits = Engine(POLICY, rules), []
            for at in range(0, len(events), size):
                hits += engine.observe(events[at : at + size])
        assert hits == expected


def counts(counting: Correlation) -> tuple[object, ...]:
    """What a rule counts, whatever its limit."""
    once = counting.once_per_call, counting.in_one_call
    return counting.type, counting.events, counting.fields, counting.same, once


class TestOtherRules:
    """Rules and policies are reloaded while the log goes on."""

    @settings(max_examples=100, deadline=None)
    @given(RULE_SETS, logs(wild=True, most=60), st.integers(0, 60))
    def test_equal_rules_and_policies_change_nothing(
        self, rules: RuleSet, records: list[dict[str, Any]], cut: int
    ) -> None:
        events = read(records)
        expected = Engine(POLICY, rules).observe(events)
        engine = Engine(POLICY, rules)
        hits = engine.observe(events[:cut])
        engine.set_policy(replace(POLICY))
        engine.set_rules(RuleSet(tuple(replace(rule) for rule in rules)))
        assert hits + engine.observe(events[cut:]) == expected

    @settings(max_examples=150, deadline=None)
    @given(RULE_SETS, MAKERS, logs(wild=False, most=60), st.integers(0, 60))
    def test_a_rule_that_counts_otherwise_starts_anew_and_no_other_does(
        self, rules: RuleSet, maker: random.Random, records: list[dict[str, Any]], cut: int
    ) -> None:
        """It counts other events, or other things about the same events."""
        events = read(records)
        first, *rest = rules
        assert first.correlation is not None
        changed = a_correlation(maker)
        if maker.random() < 0.5 and len(changed.events) == len(first.correlation.events):
            changed = replace(changed, events=first.correlation.events)
        if counts(changed) == counts(first.correlation):
            return
        others = RuleSet((replace(first, correlation=changed, thresholds=()), *rest))
        engine = Engine(POLICY, rules)
        engine.observe(events[:cut])
        engine.set_rules(others)
        found = window_hits(engine.observe(events[cut:]), events, others)
        anew = [
            firing._replace(at=firing.at + cut) for firing in firings(events[cut:], others.rules[:1], WORLD)
        ]
        going_on = [firing for firing in firings(events, rest, WORLD) if firing.at >= cut]
        assert found == sorted(anew + going_on)

    @settings(max_examples=100, deadline=None)
    @given(RULE_SETS, logs(wild=True, most=60), st.integers(0, 60), st.integers(1, 9))
    def test_another_limit_holds_at_once_and_keeps_what_was_counted(
        self, rules: RuleSet, records: list[dict[str, Any]], cut: int, limit: int
    ) -> None:
        events = read(records)
        others = RuleSet(
            tuple(
                replace(rule, thresholds=(), correlation=replace(rule.correlation, limit=Limit(limit)))
                for rule in rules
                if rule.correlation is not None
            )
        )
        engine = Engine(POLICY, rules)
        engine.observe(events[:cut])
        engine.set_rules(others)
        found = window_hits(engine.observe(events[cut:]), events, others)
        assert found == sorted(firing for firing in firings(events, others, WORLD) if firing.at >= cut)

    def test_a_limit_of_the_policy_holds_at_once_and_keeps_what_was_counted(self) -> None:
        engine = Engine(POLICY, shipped().only(*CORE))
        calls = [{"timestamp": START + i, "tool": "echo", "session_id": "s"} for i in range(9)]
        assert len(engine.observe(read(calls[:3]))) == 1
        engine.set_policy(Policy(alerts=Alerts(session_calls_per_minute=7)))
        assert engine.observe(read(calls[3:7])) == []
        assert [hit.peak for hit in engine.observe(read(calls[7:]))] == [8, 9]

    @pytest.mark.parametrize("limit", [2, 3])
    def test_a_window_of_values_that_is_full_stays_so(self, limit: int) -> None:
        """The next event may bring nothing new, and fires all the same."""
        rule = shipped().by_id["session-shared"]
        assert rule.correlation is not None
        engine = Engine(POLICY, RuleSet((rule,)))
        calls = [
            {"timestamp": START + n, "tool": "echo", "session_id": "s", "key_id": f"k{n % 3}"} for n in range(4)
        ]  # fmt: skip
        assert [hit.peak for hit in engine.observe(read(calls[:3]))] == [2, 3]
        engine.set_rules(RuleSet((replace(rule, correlation=replace(rule.correlation, limit=Limit(limit))),)))
        assert [hit.peak for hit in engine.observe(read(calls[3:]))] == [3]

    def test_a_rule_that_is_gone_fires_no_more_and_comes_back_empty(self) -> None:
        engine = Engine(POLICY, shipped().only("session-rate", "key-rate"))
        calls = [
            {"timestamp": START + i, "tool": "echo", "session_id": "s", "key_id": "k"} for i in range(20)
        ]
        assert {hit.rule for hit in engine.observe(read(calls[:6]))} == {"session-rate", "key-rate"}
        engine.set_rules(shipped().only("key-rate"))
        assert [hit.rule for hit in engine.observe(read(calls[6:8]))] == ["key-rate"] * 2
        engine.set_rules(shipped().only("session-rate", "key-rate"))
        assert [hit.rule for hit in engine.observe(read(calls[8:11]))].count("session-rate") == 1


class TestWarmUp:
    """How far back an engine must begin to read."""

    def test_it_covers_the_look_back_for_named_callers(self) -> None:
        """Without windows too: a success of nobody is judged by whether callers were named 5 minutes before."""
        policy = Policy(alerts=Alerts(auth_failures_within=SECOND, allowed_lateness=0))
        named = {"timestamp": START, "tool": "echo", "key_id": "k", "status": "success"}
        nobody = {"timestamp": START + 299, "tool": "echo", "source_ip": "192.0.2.1", "status": "success"}
        rules = shipped().only("unauthenticated-success")
        assert Engine(policy, rules).warm_up >= 300 * SECOND
        hits = Engine(policy, rules).observe(read([named, nobody]))
        assert [hit.rule for hit in hits] == ["unauthenticated-success"]

    def test_it_covers_the_longest_window_of_any_rule(self) -> None:
        rule = replace(
            shipped().by_id["key-rate"],
            correlation=Correlation("event_count", (Condition(parse("key:*")),), Limit(86_400 * SECOND)),
        )
        assert Engine(POLICY, RuleSet((rule,))).warm_up >= 86_400 * SECOND + ALERTS.allowed_lateness

    def test_a_call_that_was_logged_long_before_the_window_still_counts_once(self) -> None:
        """The window reaches back to 300 s before the start, its oldest call was logged first 400 s before that."""
        calls = [(0, "a"), (400, "a"), (690, "b")]
        records = [
            {"timestamp": START + second, "tool": "echo", "key_id": "k", "call_id": call} for second, call in calls
        ]  # fmt: skip
        counting = Correlation(
            "event_count", (Condition(parse("kind:tool_call")),), Limit(300 * SECOND), limit=Limit(1),
            once_per_call=True,
        )  # fmt: skip
        rules = RuleSet((Rule("own", "t", Severity.LOW, "d", correlation=counting),))
        events = read(records)
        assert Engine(POLICY, rules).observe(events) == []
        later = Engine(POLICY, rules)
        later.observe(events[warm_from(later, events, 2) : 2])
        assert later.observe(events[2:]) == []


class TestMemory:
    """What a log can make the engine hold."""

    def test_idle_windows_are_freed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(engine_module, "SWEEP_EVERY", 100)
        rules = shipped().only(*CORE)
        engine = Engine(POLICY, rules)
        for at in range(0, 10_000, 100):
            engine.observe(
                read(
                    {"timestamp": START + at + i, "tool": "echo", "session_id": f"s{at + i}"}
                    for i in range(100)
                )
            )
        held = sum(len(pool) for pool in engine._feeder.pools._pools.values())
        assert held < 400  # the last three minutes, and what came since the last sweep
        assert not engine.evictions

    @pytest.mark.parametrize("rules", [shipped().only(*CORE), shipped()], ids=["core", "all"])
    def test_more_subjects_than_fit_are_counted_as_evictions_and_the_newest_stay(
        self, rules: RuleSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also right at the limit: the attacker's windows are made while others are thrown out, and lose nothing."""
        monkeypatch.setattr(pools_module, "MAX_SUBJECTS", 20)
        engine = Engine(POLICY, rules)
        crowd = [{"timestamp": START + i / 1000, "tool": "echo", "session_id": f"s{i}"} for i in range(500)]
        attacker = {"tool": "echo", "session_id": "bad", "key_id": "k2", "client_id": "c1"}
        calls = [attacker | {"timestamp": START + 0.5 + i / 1000} for i in range(3)]
        engine.observe(read(crowd))
        hits = engine.observe(read(calls))
        assert [(hit.rule, hit.peak) for hit in hits] == [("session-rate", 3)]
        assert engine.evictions["session-rate"] >= 480 - 20
        assert all(len(pool) <= 20 for pool in engine._feeder.pools._pools.values())

    def test_pools_apart_sessions_push_no_address_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever makes up session ids evicts sessions, never the windows of keys and addresses."""
        monkeypatch.setattr(pools_module, "MAX_SUBJECTS", 20)
        engine = Engine(POLICY)
        by_address = {"tool": "echo", "source_ip": "192.0.2.9", "status": "success"}
        engine.observe(read([by_address | {"timestamp": START + i / 1000} for i in range(2)]))
        engine.observe(
            read(
                {"timestamp": START + 1 + i / 1000, "tool": "echo", "session_id": f"s{i}"} for i in range(500)
            )
        )
        hits = engine.observe(read([by_address | {"timestamp": START + 2}]))
        assert [(hit.rule, hit.subject, hit.peak) for hit in hits] == [
            ("session-rate", (("source_ip", "192.0.2.9"),), 3)
        ]


def session(times: list[float]) -> list[AuditEvent]:
    return read({"timestamp": time, "tool": "echo", "session_id": f"s{time}"} for time in times)


class TestLateness:
    """Which records are late, and what becomes of them."""

    def test_one_line_from_the_future_makes_nothing_late(self) -> None:
        engine = Engine(POLICY)
        engine.observe(session([START, START + 1, START + 2e9, START + 2, START + 3, START + 4]))
        assert engine.late == 0

    def test_two_lines_from_the_future_do_until_ten_late_ones(self) -> None:
        """Then the reference starts anew: the tenth is late itself, the eleventh is not."""
        engine = Engine(POLICY)
        engine.observe(session([START + 2e9, START + 2e9, *(START + i for i in range(20))]))
        assert engine.late == 10

    @pytest.mark.parametrize(("behind", "late"), [(120, 0), (120.001, 1)])
    def test_exactly_the_allowed_lateness_is_not_late(self, behind: float, late: int) -> None:
        engine = Engine(POLICY)
        engine.observe(session([START, START, START - behind]))
        assert engine.late == late

    def test_late_events_and_events_without_time_are_judged_but_counted_in_no_window(self) -> None:
        engine = Engine(Policy(alerts=ALERTS))
        call = {"tool": "shell_execute", "session_id": "s"}
        late = [call | {"timestamp": START - 1000}] * 4
        timeless = [call] * 4
        hits = engine.observe(read([*[call | {"timestamp": START}] * 2, *late, *timeless]))
        assert [hit.rule for hit in hits] == ["shell-execute"] * 10
        assert engine.late == 4

    def test_what_a_check_finds_in_a_late_event_enters_no_window_either(self) -> None:
        shells = Correlation(
            "event_count", (Condition(None, "shell-execute"),), Limit(60 * SECOND), limit=Limit(1)
        )
        rules = RuleSet((Rule("shells", "t", Severity.LOW, "d", correlation=shells),))
        call = {"tool": "shell_execute", "session_id": "s"}
        late, timeless = [call | {"timestamp": START - 1000}] * 3, [call] * 3
        now = [call | {"timestamp": START}]
        engine = Engine(POLICY, rules)
        assert engine.observe(read([*session_records(), *late, *timeless, *now])) == []
        assert [hit.peak for hit in engine.observe(read(now))] == [2]

    def test_references_of_sources_are_apart(self) -> None:
        """A source that lies an hour behind another is not late."""
        engine = Engine(POLICY)
        call = {"tool": "echo", "session_id": "s"}
        engine.observe(read([call | {"timestamp": START + 3600}] * 2, "new.jsonl"))
        hits = engine.observe(read([call | {"timestamp": START}] * 3, "old.jsonl"))
        assert engine.late == 0
        assert [hit.source for hit in hits] == ["old.jsonl"]

    @pytest.mark.parametrize("year", ["0800", "1700", "2200", "9900"])
    def test_any_year_is_a_time_like_another(self, year: str) -> None:
        times = [f"{year}-11-20T08:00:0{second}Z" for second in range(3)]
        calls = [{"timestamp": time, "tool": "echo", "session_id": "s", "key_id": "k9"} for time in times]
        hits = Engine(POLICY).observe(read(call | {"status": "success"} for call in calls))
        assert [hit.rule for hit in hits] == ["key-unknown", "key-unknown", "session-rate", "key-unknown"]


def session_records() -> list[dict[str, Any]]:
    """Two records that set the reference time."""
    return [{"timestamp": START, "tool": "echo", "session_id": "other"}] * 2


class TestOneHitPerEvent:
    """The count of an incident is its number of events: a rule fires once on each."""

    def test_a_rule_that_counts_two_fields_fires_once_on_an_event_that_is_new_in_both(self) -> None:
        calls = [
            {"timestamp": START, "tool": "echo", "session_id": "s", "key_id": "k1", "source_ip": "192.0.2.1"},
            {"timestamp": START, "tool": "echo", "session_id": "s", "key_id": "k2", "source_ip": "198.51.100.1"},
        ]  # fmt: skip
        hits = Engine(POLICY, shipped().only("session-shared")).observe(read(calls))
        assert [(hit.rule, hit.peak, hit.line) for hit in hits] == [("session-shared", 2, 2)]

    def test_a_late_event_that_is_two_steps_of_two_sequences_is_one_hit(self) -> None:
        step = Condition(parse("tool:echo"))
        rule = Rule(
            "twice", "t", Severity.LOW, "d",
            correlation=Correlation("temporal_ordered", (step, step), Limit(60 * SECOND)),
        )  # fmt: skip
        calls = [{"timestamp": START + second, "tool": "echo", "key_id": "k"} for second in (0, 2, 1)]
        hits = Engine(POLICY, RuleSet((rule,))).observe(read(calls))
        assert [hit.line for hit in hits] == [2, 3]

    def test_no_event_is_two_steps_of_one_sequence(self) -> None:
        """Also where one step is what a check finds, and the other what the event looks like."""
        steps = (Condition(None, "shell-execute"), Condition(parse("tool:bash")))
        for order in (steps, steps[::-1]):
            rule = Rule(
                "twice", "t", Severity.LOW, "d",
                correlation=Correlation("temporal_ordered", order, Limit(60 * SECOND)),
            )  # fmt: skip
            call = {"timestamp": START, "tool": "bash", "key_id": "k"}
            hits = Engine(POLICY, RuleSet((rule,))).observe(read([call, call]))
            assert [hit.line for hit in hits] == [2]


@pytest.mark.parametrize(
    ("check", "record"),
    [
        ("audit-gap", {"sequence": 7}),
        ("key-stale", {}),
        ("token-lifetime", {"auth": {"method": "jwt"}, "status": "success"}),
        ("shell-execute", {"tool": "bash"}),
    ],
)
def test_every_check_can_be_counted(check: str, record: dict[str, Any]) -> None:
    """A rule may count what a check finds, whichever check it is."""
    counting = Correlation(
        "event_count", (Condition(None, check),), Limit(60 * SECOND), op="gte", limit=Limit(3)
    )
    rules = RuleSet((Rule("often", "t", Severity.LOW, "d", correlation=counting),))
    policy = Policy(keys=MappingProxyType({"k1": Key("k1", created=date(2020, 1, 1))}))
    calls = [{"timestamp": START + n, "tool": "echo", "key_id": "k1"} | record for n in range(5)]
    hits = Engine(policy, rules).observe(read(calls))
    assert [hit.line for hit in hits] == ([4, 5] if check == "audit-gap" else [3, 4, 5])
