"""How often rules fire: one run tells it for every limit, and what is proposed against noise does what it says."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.data import shipped as shipped_data
from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Severity
from mcpwatch.detection.rule import Condition, Correlation, CorrelationType, Limit, Rule, RuleSet, Threshold
from mcpwatch.detection.rulefile import parse as parse_rule
from mcpwatch.detection.rulefile import shipped
from mcpwatch.detection.tuning import Tuning, tuned
from mcpwatch.filter import parse
from mcpwatch.monitor.pipeline import Pipeline, Reading, saved_events
from mcpwatch.monitor.rates import LIMITS, Rate, Rates, lowered, rates
from mcpwatch.policy.load import parse as parse_policy
from mcpwatch.policy.model import Policy
from mcpwatch.sources.block import SourceError
from mcpwatch.sources.saved import open_saved
from mcpwatch.text import safe
from mcpwatch.times import DAY, MINUTE, iso
from tests.oracle import read

START = 1_795_132_800
SAMPLES = shipped_data("sample_logs")
POLICY = parse_policy((SAMPLES / "policy.yaml").read_bytes(), None)
LOGS = sorted(SAMPLES.glob("*.jsonl"))


def rule(
    op: Literal["gt", "gte"] = "gt",
    limit: int = 5,
    kind: CorrelationType = "event_count",
    fields: tuple[str, ...] = (),
    same: tuple[str, ...] = (),
) -> Rule:
    counting = Correlation(
        kind,
        (Condition(match=parse("kind:tool_call")),),
        Limit(MINUTE),
        op,
        Limit(limit),
        fields,
        same,
        not fields,
    )
    return Rule("mine", "Mine", Severity.LOW, "x", (("key",),), correlation=counting)


def at_limit(each: Rule, limit: int) -> Rule:
    assert each.correlation is not None
    return replace(each, correlation=replace(each.correlation, limit=Limit(limit)))


def rate_of(each: Rule, lines: list[dict[str, Any]]) -> Rate:
    """The rate of one rule, of a run with lower limits."""
    rules, policy = RuleSet((each,)), Policy()
    judged_by = lowered(rules, policy.alerts)
    counted, engine, events = Rates(rules, policy.alerts, judged_by), Engine(policy, judged_by), read(lines)
    counted.add(events, engine.observe(events))
    (rate,) = counted.rates()
    return rate


def call(second: float, **fields: Any) -> dict[str, Any]:
    record = {"timestamp": START + second, "tool": "a", "status": "success", "key_id": "k", "params": {}}
    return record | fields


LINES = st.lists(
    st.builds(
        lambda half, fields: call(half / 2 - 60, **fields),
        st.integers(0, 240),
        st.fixed_dictionaries(
            {
                "key_id": st.sampled_from(("k", "k", "k", "l")),
                "tool": st.sampled_from("aabcdefg"),
                "session_id": st.sampled_from("stuvwxyz"),
                "params": st.sampled_from(({}, {"a": 1})),
                "call_id": st.sampled_from((None, None, "c1", "c2")),
            }
        ),
    ),
    min_size=12,
    max_size=60,
)
THRESHOLD = Threshold(parse("tool:a"), 3, "me", "why", safe("x:1"))
SHAPES: tuple[tuple[CorrelationType, tuple[str, ...], tuple[str, ...]], ...] = (
    ("event_count", (), ()),
    ("event_count", (), ("tool",)),
    ("event_count", (), ("tool", "params")),
    ("value_count", ("session",), ()),
    ("value_count", ("tool", "session"), ()),
)
RULES = st.builds(
    lambda op, limit, shape, set_one: replace(
        rule(op, limit, *shape), thresholds=(THRESHOLD,) if set_one else ()
    ),
    st.sampled_from(("gt", "gte")),
    st.integers(2, 12),
    st.sampled_from(SHAPES),
    st.booleans(),
)


@given(each=RULES, lines=LINES, in_order=st.booleans())
@settings(max_examples=120, deadline=None)
def test_one_run_tells_for_every_limit_what_a_run_with_that_limit_finds(
    each: Rule, lines: list[dict[str, Any]], in_order: bool
) -> None:
    """Late records, repeated calls, midnight, thresholds, and values of two fields included."""
    if in_order:
        lines = sorted(lines, key=lambda line: float(line["timestamp"]))
    assert each.correlation is not None
    own = each.correlation.limit.value
    rate = rate_of(each, lines)
    assert [at.limit for at in rate.limits] == sorted({own, *LIMITS})
    for at in rate.limits:
        hits = Engine(Policy(), RuleSet((at_limit(each, at.limit),))).observe(read(lines))
        incidents = {(hit.subject, hit.time_ns // DAY) for hit in hits}
        assert (at.hits, at.incidents) == (len(hits), len(incidents)), at.limit
        assert at.own == (at.limit == own)
        if at.own:
            assert (rate.hits, rate.incidents) == (at.hits, at.incidents)


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.name)
def test_rates_are_what_a_plain_replay_finds(log: Path) -> None:
    """Hits, incidents, their severities and the loudest subjects of every shipped rule, on the sample logs."""
    plain = Pipeline(POLICY, Reading())
    for events in saved_events(open_saved([log]), plain):
        plain.observe(events)
    found = rates(open_saved([log]), Pipeline(POLICY, Reading()), shipped())
    assert found.events == sum(plain.engine.counts.values())
    incidents = list(plain.fold)
    assert incidents or log.name == "quiet-day.jsonl"
    for rate in found.rates():
        own = [incident for incident in incidents if incident.rule.id == rate.rule.id]
        assert rate.hits == sum(incident.count for incident in own), rate.rule.id
        assert rate.incidents == len(own)
        assert rate.by_severity == Counter(incident.severity for incident in own)
        assert rate.per_hour == pytest.approx(rate.hits / found.hours)
        by_subject = Counter[Any]()
        for incident in own:
            by_subject[incident.subject] += incident.count
        assert [hits for _, hits in rate.loudest] == sorted(by_subject.values(), reverse=True)[:5]
        assert all(by_subject[subject] == hits for subject, hits in rate.loudest)


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.name)
def test_what_is_proposed_is_a_rule_file_that_spares_the_hits_that_it_promises(log: Path) -> None:
    found = rates(open_saved([log]), Pipeline(POLICY, Reading()), shipped()).rates()
    spared = {rate.rule.id: rate.quieter.hits for rate in found if rate.quieter is not None}
    quieter = []
    for rate in found:
        each = rate.rule
        if rate.quieter is not None:
            tuning = parse_rule("\n".join(rate.quieter.lines).encode(), "tune.yaml")
            assert isinstance(tuning, Tuning) and tuning.rule == each.id
            each = tuned(each, tuning)
        quieter.append(each)
    again = rates(open_saved([log]), Pipeline(POLICY, Reading()), RuleSet(tuple(quieter)))
    for before, after in zip(found, again.rates(), strict=True):
        assert after.hits == before.hits - spared.get(before.rule.id, 0), before.rule.id


def test_calls_with_a_limit_of_their_own_fire_at_that_one_whatever_the_rule_has() -> None:
    each = replace(rule(limit=30), thresholds=(THRESHOLD,))
    rate = rate_of(each, [call(second / 2, tool="ab"[second % 2]) for second in range(12)])
    assert [(at.hits, at.incidents) for at in rate.limits if at.limit >= 30] == [(4, 1)] * 5
    assert (rate.hits, rate.incidents) == (4, 1)


def test_what_is_critical_is_never_proposed_to_be_hushed() -> None:
    found = rates(
        open_saved([SAMPLES / "demo-incident.jsonl"]), Pipeline(POLICY, Reading()), shipped()
    ).rates()
    critical = [rate for rate in found if Severity.CRITICAL in rate.by_severity]
    assert critical
    assert [rate.quieter for rate in critical] == [None] * len(critical)


@pytest.mark.parametrize("key", ["*", "k?", "*bot", "k" * 300])
def test_nobody_gets_everybody_excepted_by_the_name_that_they_choose(key: str) -> None:
    rate = rate_of(rule(), [call(second, key_id=key) for second in range(9)])
    assert rate.hits > 0
    assert rate.quieter is None


def test_ids_that_are_hostile_are_written_so_that_they_stand_for_themselves() -> None:
    key = "k: [x]\n\x1b[31m - \u202e'\""
    rate = rate_of(rule(), [call(second, key_id=key) for second in range(9)])
    assert rate.quieter is not None
    text = "\n".join(rate.quieter.lines)
    assert text.isascii() and text.replace("\n", "").isprintable()
    tuning = parse_rule(text.encode(), "tune.yaml")
    assert isinstance(tuning, Tuning)
    (threshold,) = tuning.limits.thresholds
    (event,) = read([call(0, key_id=key)])
    (other,) = read([call(0)])
    assert (threshold.fields.match(event, None), threshold.fields.match(other, None)) == (True, False)


def test_a_session_is_quieted_by_who_is_behind_it_since_it_never_comes_again() -> None:
    each = replace(rule(), group_by=(("session",),))
    lines = [call(second, session_id=session) for session in "st" for second in range(9)]
    behind = rate_of(each, [line | {"client_id": "bot"} for line in lines]).quieter
    assert behind is not None
    assert (behind.hits, behind.lines[2:5]) == (8, ("- fields:", "    key: k", "  gt: 9"))
    alone = rate_of(each, [line | {"key_id": None} for line in lines]).quieter
    assert alone is not None
    assert (alone.hits, alone.lines[3]) == (4, "    session: s")


def test_a_caller_above_every_limit_gets_an_exception_in_place_of_a_threshold() -> None:
    rate = rate_of(rule(), [call(number / 100) for number in range(1_500)])
    assert rate.quieter is not None
    assert rate.quieter.lines[1] == "exceptions:"
    tuning = parse_rule("\n".join(rate.quieter.lines).encode(), "tune.yaml")
    assert isinstance(tuning, Tuning)
    (exception,) = tuning.exceptions
    assert exception.until is not None
    assert iso(exception.until) == "2027-02-19T00:00:00.000000Z", (
        "90 days after the last hit, that day included"
    )


def test_hits_per_hour_go_by_the_hours_in_which_something_was_logged() -> None:
    """A night without calls, or one record from the far future, makes no rule look quiet."""
    lines = [call(second) for second in range(9)] + [call(5 * 3_600), call(3_000 * 86_400)]
    assert rate_of(rule(), lines).per_hour == pytest.approx(4 / 3)


def test_a_running_monitor_can_count_without_lower_limits() -> None:
    """Then it knows nothing of limits below a rule's own, and does not tell of them."""
    rules, policy = RuleSet((rule(limit=30),)), Policy()
    counted, engine = Rates(rules, policy.alerts), Engine(policy, rules)
    events = read([call(second / 2) for second in range(50)])
    counted.add(events, engine.observe(events))
    (rate,) = counted.rates()
    assert [(at.limit, at.hits) for at in rate.limits] == [(30, 20), (60, 0), (100, 0), (300, 0), (600, 0)]


def test_what_stands_before_a_broken_place_counts_and_the_break_is_told(tmp_path: Path) -> None:
    lines = b"".join(json.dumps(call(second)).encode() + b"\n" for second in range(20_000))
    whole = gzip.compress(lines)
    path = tmp_path / "audit.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    found = rates(open_saved([path]), Pipeline(Policy(), Reading()), RuleSet((rule(),)))
    assert isinstance(found.broken, SourceError)
    assert 0 < found.events < 20_000
    assert found.rates()[0].hits > 0


def test_callers_of_hits_at_the_same_place_of_two_logs_are_told_apart() -> None:
    rules, policy = RuleSet((shipped().by_id["shell-execute"],)), Policy()
    counted, engine = Rates(rules, policy.alerts), Engine(policy, rules)
    line = {"timestamp": START, "status": "success", "key_id": "k"}
    events = read([line | {"tool": "bash"}] * 2, "a.jsonl") + read(
        [line | {"tool": "shell_execute"}], "b.jsonl"
    )
    counted.add(events, engine.observe(events))
    (rate,) = counted.rates()
    assert rate.quieter is not None
    assert rate.quieter.lines[4:7] == ("    tool:", "    - bash", "    - shell_execute")
    assert rate.quieter.hits == 3


def test_a_later_smaller_burst_takes_nothing_from_the_incident_of_the_day() -> None:
    rate = rate_of(rule(), [call(second) for second in (*range(12), *range(1_000, 1_006))])
    assert [(at.limit, at.hits, at.incidents) for at in rate.limits[:2]] == [(5, 8, 1), (10, 2, 1)]


def test_what_was_not_enforced_is_no_field_of_an_exception() -> None:
    """An own rule may call a gap something less than critical."""
    policy = parse_policy(b"version: 1\ntools: {t: {enabled: false}}\n", None)
    each = replace(shipped().by_id["enforcement-gap"], id="gap", level=Severity.LOW)
    counted, engine = Rates(RuleSet((each,)), policy.alerts), Engine(policy, RuleSet((each,)))
    events = read([call(0, tool="t")])
    counted.add(events, engine.observe(events))
    (rate,) = counted.rates()
    assert rate.quieter is not None
    assert isinstance(parse_rule("\n".join(rate.quieter.lines).encode(), "tune.yaml"), Tuning)
