"""Hits fold into the same incidents in whatever order and pieces they come."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Hit, Severity, Subject
from mcpwatch.detection.rule import RuleSet
from mcpwatch.detection.rulefile import shipped
from mcpwatch.incidents.fold import Change, Fold
from mcpwatch.incidents.incident import EVIDENCE_HEAD, EVIDENCE_TAIL, Incident, incident_id, quiet_after
from mcpwatch.policy.model import Alerts, Policy
from mcpwatch.times import DAY, MINUTE, SECOND
from tests.oracle import read

NOON = 1_795_132_800 * SECOND + DAY // 2
ALERTS = Alerts()


def hit(time_ns: int = NOON, rule: str = "session-rate", who: str = "s1", **fields: Any) -> Hit:
    base = Hit(
        rule, (("session", who),), time_ns, Severity.MEDIUM, "success", "", 6, "a.jsonl", 1, time_ns % 1000
    )
    return base._replace(**fields)


def fold(*hits: Hit) -> Fold:
    folded = Fold(ALERTS)
    folded.add(hits)
    return folded


def only(*hits: Hit) -> Incident:
    (incident,) = fold(*hits)
    return incident


def test_the_published_id() -> None:
    assert incident_id("session-rate", (("session", "s1"),), "2026-11-20") == "INC-5R3JIASZOBTCFJZK"
    assert only(hit()).id == "INC-5R3JIASZOBTCFJZK"


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ((("key", "ключ"),), '["r",{"key":"\\u043a\\u043b\\u044e\\u0447"},"2026-11-20"]'),
        ((("key", "😀"),), '["r",{"key":"\\ud83d\\ude00"},"2026-11-20"]'),
        ((("key", "\ud800"),), '["r",{"key":"\\ud800"},"2026-11-20"]'),
        ((("key", "k"), ("client", "c")), '["r",{"client":"c","key":"k"},"2026-11-20"]'),
    ],
)
def test_ids_of_any_subject(subject: Subject, text: str) -> None:
    """The hash is over ASCII JSON with sorted names, so any program can work it out."""
    digest = base64.b32encode(hashlib.sha256(text.encode("ascii")).digest()).decode()
    assert incident_id("r", subject, "2026-11-20") == "INC-" + digest[:16]


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), unique_by=lambda pair: pair[0]))
def test_the_order_within_a_subject_gives_no_other_id(pairs: list[tuple[str, str]]) -> None:
    assert incident_id("r", tuple(pairs), "d") == incident_id("r", tuple(reversed(pairs)), "d")


hits = st.lists(
    st.builds(
        lambda seconds, rule, who, severity, outcome, peak: hit(
            NOON + seconds * SECOND, rule, who, severity=severity, outcome=outcome, peak=peak
        ),
        st.integers(-50_000, 50_000),
        st.sampled_from(["session-rate", "path-outside"]),
        st.sampled_from(["s1", "s2"]),
        st.sampled_from(Severity),
        st.sampled_from(["success", "denied"]),
        st.integers(0, 20),
    ),
    max_size=40,
)


@settings(max_examples=200)
@given(hits, st.randoms(use_true_random=False))
def test_the_order_of_hits_changes_nothing_that_is_counted(found: list[Hit], maker: random.Random) -> None:
    def facts(folded: Fold) -> list[tuple[Any, ...]]:
        return [(i.id, i.count, i.first_ns, i.last_ns, i.severity, i.outcomes, i.peak) for i in folded]

    shuffled = maker.sample(found, len(found))
    assert facts(fold(*found)) == facts(fold(*shuffled))


@given(hits)
def test_an_incident_is_the_sum_of_its_hits(found: list[Hit]) -> None:
    groups: dict[tuple[str, Subject, int], list[Hit]] = {}
    for each in found:
        groups.setdefault((each.rule, each.subject, each.time_ns // DAY), []).append(each)
    folded = {(i.rule.id, i.subject, i.first_ns // DAY): i for i in fold(*found)}
    assert folded.keys() == groups.keys()
    for name, members in groups.items():
        incident = folded[name]
        assert incident.count == len(members) == sum(incident.outcomes.values())
        assert incident.first_ns == min(each.time_ns for each in members)
        assert incident.last_ns == max(each.time_ns for each in members)
        assert incident.severity == max(each.severity for each in members)
        assert incident.peak == max(each.peak for each in members)


@given(hits, st.integers(1, 7))
def test_pieces_of_any_size_tell_the_same_changes(found: list[Hit], size: int) -> None:
    def told(changes: list[Change]) -> list[tuple[str, str]]:
        return [(change.kind, change.incident.id) for change in changes]

    folded = Fold(ALERTS)
    pieces = [change for at in range(0, len(found), size) for change in folded.add(found[at : at + size])]
    assert told(pieces) == told(Fold(ALERTS).add(found))


def test_ten_thousand_hits_are_one_incident_with_the_first_5_and_last_20_records() -> None:
    incident = only(*(hit(NOON + n, line=n, offset=10 * n) for n in range(10_000)))
    assert incident.count == 10_000
    expected = [*range(EVIDENCE_HEAD), *range(10_000 - EVIDENCE_TAIL, 10_000)]
    assert [(item.source, item.line, item.offset, item.time_ns) for item in incident.evidence] == [
        ("a.jsonl", n, 10 * n, NOON + n) for n in expected
    ]


@pytest.mark.parametrize("count", [1, 5, 6, 25, 26, 45, 46, 47])
def test_evidence_never_repeats_or_loses_a_record_it_should_hold(count: int) -> None:
    lines = [item.line for item in only(*(hit(NOON + n, line=n) for n in range(count))).evidence]
    every = list(range(count))
    assert lines == (every if count <= 25 else every[:5] + every[-20:])


def test_midnight_utc_begins_another_incident() -> None:
    midnight = NOON + DAY // 2
    before, after = fold(hit(midnight - 1), hit(midnight))
    assert (before.day, after.day) == ("2026-11-20", "2026-11-21")
    assert before.id == incident_id("session-rate", (("session", "s1"),), "2026-11-20")
    assert after.id == incident_id("session-rate", (("session", "s1"),), "2026-11-21")


def test_changes_tell_the_opening_and_counts_of_ten_and_its_powers() -> None:
    folded = Fold(ALERTS)
    told = [
        (change.kind, change.incident.count)
        for n in range(1_001)
        for change in folded.add([hit(NOON + n)])
    ]  # fmt: skip
    assert told == [("opened", 1), ("count", 10), ("count", 100), ("count", 1_000)]


def test_changes_tell_a_higher_severity_once_and_no_lower_one() -> None:
    folded = Fold(ALERTS)
    kinds = []
    for n, severity in enumerate(
        [Severity.MEDIUM, Severity.LOW, Severity.CRITICAL, Severity.HIGH, Severity.CRITICAL]
    ):
        kinds += [change.kind for change in folded.add([hit(NOON + n, severity=severity, reason=f"why {n}")])]
    (incident,) = folded
    assert kinds == ["opened", "severity"]
    assert (incident.severity, incident.reason) == (Severity.CRITICAL, "why 2")


@pytest.mark.parametrize(
    ("rule", "within", "quiet"),
    [
        ("session-rate", 5 * MINUTE, 10 * MINUTE),
        ("shell-execute", 5 * MINUTE, 10 * MINUTE),
        ("auth-lockout", 5 * MINUTE, 10 * MINUTE),
        ("auth-lockout", 30 * MINUTE, 30 * MINUTE),
        ("exfil-sequence", 5 * MINUTE, 10 * MINUTE),
    ],
)
def test_quiet_comes_after_the_window_and_at_least_ten_minutes(rule: str, within: int, quiet: int) -> None:
    alerts = Alerts(auth_failures_within=within)
    assert quiet_after(shipped().by_id[rule], alerts) == quiet
    folded = Fold(alerts)
    folded.add([hit(rule=rule)])
    assert folded.settle(NOON + quiet) == []
    assert [change.kind for change in folded.settle(NOON + quiet + 1)] == ["quiet"]
    assert folded.settle(NOON + 10 * quiet) == []


def test_each_episode_becomes_quiet_once() -> None:
    folded = Fold(ALERTS)
    folded.add([hit()])
    (incident,) = folded
    assert len(folded.settle(NOON + 11 * MINUTE)) == 1
    folded.add([hit(NOON - MINUTE)])  # late: belongs to the episode that is over
    assert folded.settle(NOON + 12 * MINUTE) == []
    assert folded.add([hit(NOON + 20 * MINUTE)]) == []
    assert incident.episodes == 2
    assert len(folded.settle(NOON + 31 * MINUTE)) == 1


def test_a_gap_of_exactly_the_quiet_time_is_one_episode() -> None:
    assert only(hit(), hit(NOON + 10 * MINUTE)).episodes == 1
    assert only(hit(), hit(NOON + 10 * MINUTE + 1)).episodes == 2


def test_other_limits_change_the_quiet_time_from_then_on() -> None:
    folded = Fold(ALERTS)
    folded.add([hit(rule="auth-lockout")])
    folded.set_limits(Alerts(auth_failures_within=60 * MINUTE), shipped())
    assert folded.settle(NOON + 11 * MINUTE) == []


def test_incidents_are_listed_by_first_hit_then_id_and_counted_by_severity() -> None:
    folded = fold(hit(NOON + 1, who="b"), hit(NOON, who="c", severity=Severity.HIGH), hit(NOON + 1, who="a"))
    listed = [(incident.first_ns, incident.id) for incident in folded]
    assert listed == sorted(listed)
    assert list(folded.by_severity().items()) == [
        (Severity.CRITICAL, 0), (Severity.HIGH, 1), (Severity.MEDIUM, 2), (Severity.LOW, 0),
    ]  # fmt: skip


@given(hits)
def test_ids_are_hashes_of_rule_subject_and_day_alone(found: list[Hit]) -> None:
    for incident in fold(*found):
        text = json.dumps(
            [incident.rule.id, dict(incident.subject), incident.day], sort_keys=True, separators=(",", ":")
        )
        digest = base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()
        assert incident.id == "INC-" + digest[:16]


def test_a_change_tells_the_incident_as_it_was_at_that_moment() -> None:
    """Many hits may come in one batch; each line printed of them must be true of its own moment."""
    told = Fold(ALERTS).add([hit(NOON + n) for n in range(150)])
    assert [(change.kind, change.incident.count) for change in told] == [
        ("opened", 1),
        ("count", 10),
        ("count", 100),
    ]


def test_ten_thousand_hits_are_told_at_most_five_times() -> None:
    """Opened, then at 10, 100, 1000 and 10,000; what lies between is counted, exactly."""
    folded = Fold(ALERTS)
    told = [change for n in range(10_000) for change in folded.add([hit(NOON + n)])]
    assert [(change.kind, change.incident.count) for change in told] == [
        ("opened", 1), ("count", 10), ("count", 100), ("count", 1_000), ("count", 10_000),
    ]  # fmt: skip
    assert [incident.count for incident in folded] == [10_000]


def test_an_incident_keeps_the_rule_that_opened_it_and_new_ones_have_the_new() -> None:
    """Rules are reloaded while the log goes on; one that is gone still becomes quiet."""
    folded = Fold(ALERTS)
    folded.add([hit(who="old"), hit(rule="shell-execute", who="old")])
    renamed = replace(shipped().by_id["session-rate"], title="Another title")
    folded.set_limits(ALERTS, RuleSet((renamed,)))
    folded.add([hit(NOON + 1, who="old"), hit(NOON + 1, who="new")])
    titles = {dict(i.subject)["session"]: i.rule.title for i in folded if i.rule.id == "session-rate"}
    assert titles == {"old": shipped().by_id["session-rate"].title, "new": "Another title"}
    assert len(folded.settle(NOON + 11 * MINUTE)) == 3


def test_the_limit_that_was_set_for_a_caller_is_the_incidents() -> None:
    incident = only(hit(limit=60))
    assert incident.limit(ALERTS) == "more than 60 calls in 60 s"
    assert incident.why(ALERTS) == "6 calls within the window; the limit is more than 60 calls in 60 s"
    assert only(hit()).limit(ALERTS) == "more than 5 calls in 60 s"


def test_a_sequence_says_that_it_is_complete() -> None:
    incident = only(hit(rule="exfil-sequence", peak=2))
    assert incident.limit(ALERTS) == "2 steps in order within 10m"
    assert incident.why(ALERTS) == "the last of 2 steps in order within 10m was seen"


def test_an_incident_about_a_log_has_an_id_like_any_other() -> None:
    gap = only(hit(rule="audit-gap", severity=Severity.HIGH, reason="3 records are missing"))
    assert gap.why(ALERTS) == "3 records are missing"
    about = Fold(ALERTS)
    about.add([hit(rule="audit-gap")._replace(subject=(("gap", "files"),))])
    assert [incident.id for incident in about] == [
        incident_id("audit-gap", (("gap", "files"),), "2026-11-20")
    ]


def test_a_flood_of_calls_is_one_incident_that_is_told_five_times() -> None:
    """From the log to what is told: 10,005 calls in eleven seconds are 10,000 hits."""
    events = read(
        {"timestamp": 1_795_132_800 + n / 1_000, "tool": "t", "session_id": "s1"} for n in range(10_005)
    )
    rules = shipped().only("session-rate")
    engine, folded = Engine(Policy(), rules), Fold(ALERTS, rules)
    told = [
        change for at in range(0, 10_005, 512) for change in folded.add(engine.observe(events[at : at + 512]))
    ]
    assert [(change.kind, change.incident.count) for change in told] == [
        ("opened", 1), ("count", 10), ("count", 100), ("count", 1_000), ("count", 10_000),
    ]  # fmt: skip
    (incident,) = folded
    assert (incident.id, incident.count, incident.peak) == ("INC-5R3JIASZOBTCFJZK", 10_000, 1_024)
