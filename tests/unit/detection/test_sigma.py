"""Rules as Sigma rules: pySigma reads them, and they mean what the rules mean."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sigma.collection import SigmaCollection
from sigma.conditions import (
    ConditionAND,
    ConditionFieldEqualsValueExpression,
    ConditionNOT,
    ConditionOR,
)
from sigma.correlations import SigmaCorrelationRule
from sigma.plugins import InstalledSigmaPlugins
from sigma.rule import SigmaRule
from sigma.types import (
    SigmaCasedString,
    SigmaCompareExpression,
    SigmaExists,
    SigmaNumber,
    SigmaString,
    SpecialChars,
)
from sigma.validation import SigmaValidator

from mcpwatch.detection import sigma
from mcpwatch.detection.hit import Severity
from mcpwatch.detection.principal import Identity, subject_of
from mcpwatch.detection.rule import Condition, Correlation, Limit, Rule, RuleException, Threshold
from mcpwatch.detection.rulefile import parse as parse_rule
from mcpwatch.detection.rulefile import shipped
from mcpwatch.event import AuditEvent
from mcpwatch.filter import FIELDS, parse
from mcpwatch.incidents.export import event_record
from mcpwatch.policy.model import Alerts, Key, Policy
from mcpwatch.text import safe
from mcpwatch.times import HOUR, MINUTE, SECOND
from tests.oracle import read

TOOL_A = (Condition(match=parse("tool:a")),)
POLICY = Policy(keys=MappingProxyType({"k1": Key("k1")}))
RULE = Rule("mine", "My rule", Severity.LOW, "What it means.", place=safe("rules/mine.yaml"))


def exported(rule: Rule, policy: Policy = POLICY, now_ns: int = 0) -> SigmaCollection:
    """The Sigma rules as pySigma reads them, with what they refer to."""
    found = SigmaCollection.from_yaml(sigma.write(sigma.documents(rule, policy, now_ns)))
    found.resolve_rule_references()
    return found


def detections(found: SigmaCollection) -> list[SigmaRule]:
    return [rule for rule in found.rules if isinstance(rule, SigmaRule)]


def correlations(found: SigmaCollection) -> list[SigmaCorrelationRule]:
    return [rule for rule in found.rules if isinstance(rule, SigmaCorrelationRule)]


def referred(correlation: SigmaCorrelationRule) -> list[SigmaRule]:
    """The rules of the events that a correlation is over."""
    assert correlation.rules is not None
    return [each.rule for each in correlation.rules if isinstance(each.rule, SigmaRule)]


def strings(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def document(event: AuditEvent, tier: str | None) -> dict[str, list[Any]]:
    """An event line as another system has it: its fields under the names that Sigma rules use."""
    record = event_record(event, tier, reveal=True)
    made: dict[str, list[Any]] = {}
    for name, key in sigma.FIELDS.values():
        value = record.get(key)
        if value is not None:
            made[name] = strings(value) if key == "params" else value if isinstance(value, list) else [value]
    return made


def equals(value: object, found: object) -> bool:
    """Whether a value of an event is what a Sigma rule says."""
    if isinstance(value, SigmaNumber):
        return found == value.number
    if isinstance(value, SigmaCompareExpression):
        number = value.number.number
        assert isinstance(found, int | float)
        compared = {
            "LT": found < number,
            "LTE": found <= number,
            "GT": found > number,
            "GTE": found >= number,
        }
        return compared[value.op.name]
    assert isinstance(value, SigmaString)
    if not isinstance(found, str):
        return False
    cased = isinstance(value, SigmaCasedString)
    wild = {SpecialChars.WILDCARD_MULTI: ".*", SpecialChars.WILDCARD_SINGLE: "."}
    pattern = ""
    for part in value.s:
        if isinstance(part, SpecialChars):
            pattern += wild[part]
        else:
            assert isinstance(part, str)
            pattern += re.escape(part if cased else part.casefold())
    return re.fullmatch(pattern, found if cased else found.casefold(), re.DOTALL) is not None


def holds(condition: object, event: dict[str, list[Any]]) -> bool:
    """Whether the condition of a Sigma rule holds for an event, by Sigma's specification."""
    if isinstance(condition, ConditionAND):
        return all(holds(part, event) for part in condition.args)
    if isinstance(condition, ConditionOR):
        return any(holds(part, event) for part in condition.args)
    if isinstance(condition, ConditionNOT):
        return not holds(condition.args[0], event)
    assert isinstance(condition, ConditionFieldEqualsValueExpression)
    if isinstance(condition.value, SigmaExists):
        return (condition.field in event) == condition.value.exists
    return any(equals(condition.value, found) for found in event.get(condition.field, []))


def fires(rule: SigmaRule, event: AuditEvent, tier: str | None = None) -> bool:
    (condition,) = rule.detection.parsed_condition
    return holds(condition.parsed, document(event, tier))


def test_every_shipped_rule_is_read_by_pysigma_and_has_nothing_that_its_validators_mind() -> None:
    """But the validators of tags, which fetch lists from the network."""
    text = "".join(sigma.write(sigma.documents(rule, POLICY, 0)) for rule in shipped())
    assert text.isascii()
    found = SigmaCollection.from_yaml(text)
    found.resolve_rule_references()
    assert found.errors == []
    validators: Any = InstalledSigmaPlugins.autodiscover().validators.values()
    chosen = {each for each in validators if not each.__module__.endswith(".tags")}
    assert len(chosen) > 15
    rules: Any = iter(found.rules)
    assert SigmaValidator(chosen).validate_rules(rules) == []
    for rule in shipped():
        assert len([each for each in found.rules if each.title.split(":")[0] == rule.title]) >= 1, rule.id


def test_ids_are_the_same_in_every_export_and_of_no_other_rule() -> None:
    ids = [each["id"] for rule in shipped() for each in sigma.documents(rule, POLICY, 0)]
    assert ids == [each["id"] for rule in shipped() for each in sigma.documents(rule, POLICY, HOUR)]
    assert len(set(ids)) == len(ids)
    assert {uuid.UUID(each).version for each in ids} == {5}
    (single,) = sigma.documents(shipped().by_id["shell-execute"], POLICY, 0)
    assert single["id"] == "5195c7b8-a799-5fc5-bb67-09bfed57df02", "whoever imported it before replaces it"


TERMS = (
    "tool:shell_exec", "tool:SHELL*", "tool:*exec", "tool:*ell_*", "tool:s?ell_*c", "tool:*", 'tool:"s*"',
    "tool!=list", "tool:a\\b", "tool:*\\*", "tool:\\*x", 'tool:"\\*x"', "tier>=medium", "tier<medium", "tier<low",
    "tier!=high", "tier:low",
    "status:denied", "-status:success", "kind:auth", "key:*", "client:?", 'session:"?"', "ip:10.*", "subject:*@x",
    "server:files", "call:c1", "path:/etc", 'path:"*"', "url:https://", 'param:"rm -rf"', "param:*", "error:time",
    "duration>=100ms", "duration:1s", "duration!=1s", "duration<2s", "duration>0.5s", "duration<=100",
    "source:a.jsonl", "shell", '"rm -r"', '"*"',
)  # fmt: skip
VALUES: dict[str, tuple[Any, ...]] = {
    "tool": ("shell_exec", "SHELL_x", "my_exec_1", "list", "a\\b", "s*", "\\*x", "\\yx", None),
    "event": ("tool_call", "auth", "request"),
    "status": ("success", "denied", "error"),
    "key_id": ("k1", "K1", "k2", None),
    "client_id": ("c", "cc", None),
    "session_id": ("s", "?", None),
    "source_ip": ("10.0.0.1", "192.0.2.1", None),
    "server": ("files", None),
    "call_id": ("c1", None),
    "error": ("Timeout of shell", None),
    "duration_ms": (100, 1000, 500.5, None),
    "params": (
        {"path": "/etc/x"},
        {"a": [{"b": "RM -RF /"}, 7]},
        {"u": "https://x", "p": "*"},
        None,
    ),
    "auth": ({"subject": "me@x"}, None),
}
PLAIN = {"tool": "list", "event": "tool_call", "status": "success", "params": {"p": "x"}, "duration_ms": 7}
EVENTS = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in VALUES.items()}).map(
    lambda record: read([{"timestamp": 1_795_132_800} | record])[0]
)
FILTERS = st.recursive(
    st.sampled_from(TERMS),
    lambda inner: st.one_of(
        inner.map(lambda part: f"-({part})"),
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: "(" + " ".join(parts) + ")"),
        st.lists(inner, min_size=2, max_size=4).map(lambda parts: "(" + " or ".join(parts) + ")"),
    ),
    max_leaves=8,
)


@given(
    text=FILTERS,
    events=st.lists(EVENTS, min_size=1, max_size=5),
    tier=st.sampled_from((None, "low", "medium", "high")),
)
@settings(max_examples=150, deadline=None)
def test_a_filter_and_its_export_let_the_same_events_through(
    text: str, events: list[AuditEvent], tier: str | None
) -> None:
    wanted = parse(text)
    (rule,) = detections(exported(replace(RULE, condition=Condition(match=wanted))))
    for event in events:
        assert fires(rule, event, tier) == wanted.match(event, tier), (text, rule.detection.to_dict())


@pytest.mark.parametrize("text", TERMS)
def test_a_term_and_its_export_hold_for_the_same_values(text: str) -> None:
    """Wildcards, backslashes, case, what is absent: value by value."""
    wanted = parse(text)
    (rule,) = detections(exported(replace(RULE, condition=Condition(match=wanted))))
    for name, values in VALUES.items():
        for event in read([{"timestamp": 1, **PLAIN, name: value} for value in values]):
            for tier in (None, "low", "medium", "high"):
                assert fires(rule, event, tier) == wanted.match(event, tier), (name, event, tier)


def test_every_field_of_the_language_has_a_name_in_sigma_but_the_time() -> None:
    assert FIELDS.keys() - sigma.FIELDS.keys() == {"time"}
    for name, row in FIELDS.items():
        for alias in row.aliases:
            assert "." not in alias or alias == sigma.FIELDS[name][0], (
                "OpenTelemetry's name, where there is one"
            )


CALLERS = read(
    {"timestamp": 1, "tool": "t", "status": "success", "key_id": key, "client_id": client, "session_id": session,
     "source_ip": address, "auth": {"subject": subject}}
    for key in VALUES["key_id"] for client in ("c", None) for session in ("s", None)
    for address in ("10.0.0.1", None) for subject in ("me@x", None)
)  # fmt: skip
"""One of each kind that can be."""


@pytest.mark.parametrize("keys", [{"k1"}, set()], ids=str)
@pytest.mark.parametrize(
    "grouping", sorted({rule.group_by for rule in shipped() if rule.correlation is not None}), ids=str
)
def test_an_event_counts_for_the_subject_that_the_rule_gives_it_and_for_no_other(
    grouping: tuple[tuple[str, ...], ...], keys: set[str]
) -> None:
    policy = Policy(keys=MappingProxyType({key: Key(key) for key in keys}))
    counting = Correlation("event_count", (Condition(match=parse("kind:*")),), Limit(MINUTE), limit=Limit(5))
    found = correlations(exported(replace(RULE, group_by=grouping, correlation=counting), policy))
    for event in CALLERS:
        caller, ids = event.caller, document(event, None)
        identity: Identity = {
            "key": caller.key, "known_key": caller.key if caller.key in keys else None, "client": caller.client,
            "session": caller.session, "subject": caller.subject, "source_ip": caller.source_ip,
        }  # fmt: skip
        subject = subject_of(grouping, identity)
        groups = []
        for correlation in found:
            (rule,) = referred(correlation)
            if fires(rule, event):
                groups.append([ids[name] for name in correlation.group_by or ()])
        assert groups == ([] if subject is None else [[[value] for _, value in subject]])


@pytest.mark.parametrize("rule_id", [rule.id for rule in shipped() if rule.correlation is not None])
def test_a_correlation_says_what_the_rule_says(rule_id: str) -> None:
    rule = shipped().by_id[rule_id]
    counting, alerts = rule.correlation, Alerts()
    assert counting is not None
    found = correlations(exported(rule))
    assert len(found) == len(rule.group_by) * max(1, len(counting.fields))
    for each in found:
        assert each.type.name.lower() == counting.type
        assert each.timespan.seconds * SECOND == counting.timespan.of(alerts)
        assert len(each.rules or ()) == len(counting.events)
        assert str(each.level) == (rule.level.label if rule.level is not None else "None")
        condition: Any = each.condition
        if counting.type != "temporal_ordered":
            assert (condition.op.name.lower(), condition.count) == (counting.op, counting.limit.of(alerts))
    counted = {name for each in found if (name := getattr(each.condition, "fieldref", None)) is not None}
    assert len(counted) == len(counting.fields)


def test_steps_stand_in_their_order() -> None:
    first, second = referred(correlations(exported(shipped().by_id["exfil-sequence"]))[0])
    (event,) = read([{"timestamp": 1, "tool": "http_post", "status": "success", "key_id": "k"}])
    assert (fires(first, event), fires(second, event)) == (False, True)
    assert "mcpwatch.check: sensitive-read" in yaml.safe_dump(first.detection.to_dict())


def test_limits_are_those_of_the_policy() -> None:
    strict = Policy(alerts=Alerts(session_calls_per_minute=2))
    for each in correlations(exported(shipped().by_id["session-rate"], strict)):
        assert each.condition.to_dict() == {"gt": 2}


def test_events_that_are_alike_are_grouped_by_what_they_are_alike_in() -> None:
    for each in correlations(exported(shipped().by_id["runaway-loop"])):
        assert (each.group_by or [])[-2:] == ["gen_ai.tool.name", "gen_ai.tool.call.arguments"]


def test_a_check_becomes_a_field_and_the_description_says_who_writes_it() -> None:
    (found,) = sigma.documents(shipped().by_id["path-outside"], POLICY, 0)
    assert found["detection"] == {"check": {"mcpwatch.check": "path-outside"}, "condition": "check"}
    assert "mcpwatch tail --json --events" in found["description"]
    assert "level" not in found
    assert "depends on the call" in found["description"]
    assert found["tags"] == ["owasp-mcp.02", "owasp-agentic.asi02", "attack.t1083", "attack.t1005"]


def exception(text: str, until: int | None) -> RuleException:
    return RuleException(parse(text), "alice", "known", until, safe("rules/mine.yaml:9"))


def test_an_exception_in_force_is_part_of_the_rule_and_one_that_is_over_is_not() -> None:
    rule = replace(
        RULE,
        condition=Condition(match=parse("tool:a or server:s")),
        exceptions=(exception("client:c (tool:a or tool:x)", 2 * HOUR), exception("client:cc", None)),
    )
    calls = read(
        {"timestamp": 1, "tool": tool, "server": "s", "client_id": client}
        for client in ("c", "cc")
        for tool in "ab"
    )
    (early,), (late,) = detections(exported(rule, now_ns=HOUR)), detections(exported(rule, now_ns=2 * HOUR))
    assert [fires(early, call) for call in calls] == [False, True, False, False]
    assert [fires(late, call) for call in calls] == [True, True, False, False]
    assert "alice holds until 1970-01-01T02:00:00" in (early.description or "")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"condition": Condition(match=parse("tool:a -time>=08:30"))}, "nothing about the time"),
        (
            {"correlation": Correlation("event_count", TOOL_A, Limit(MINUTE + 1), limit=Limit(1))},
            "whole seconds",
        ),
        (
            {
                "correlation": Correlation("event_count", TOOL_A, Limit(MINUTE), limit=Limit(1)),
                "thresholds": (Threshold(parse("client:c"), 60, "a", "b", safe("")),),
            },
            "thresholds",
        ),
    ],
)  # fmt: skip
def test_what_sigma_cannot_say_is_refused_with_the_place(changes: dict[str, Any], said: str) -> None:
    """And never exported as something that means less."""
    with pytest.raises(sigma.SigmaError, match=f"^rules/mine.yaml: rule 'mine': .*{said}"):
        sigma.documents(replace(RULE, **changes), POLICY, 0)


def test_texts_of_own_rules_come_through_as_they_are() -> None:
    source = (
        "title: 'Yes: no # \"x\" {a}'\nid: own\nlevel: low\nauthor: 'José: *me'\n"
        "description: '- 日本 & !tag'\nreferences: ['https://x/?a=b: c']\nmatch: 'tool:0007 client:yes'\n"
    )
    rule = parse_rule(source.encode(), "own.yaml")
    assert isinstance(rule, Rule)
    text = sigma.write(sigma.documents(rule, POLICY, 0))
    assert text.isascii()
    (found,) = yaml.safe_load_all(text)
    assert [found["title"], found["author"], found["description"], found["references"]] == [
        rule.title, rule.author, rule.description, list(rule.references)
    ]  # fmt: skip
    assert found["status"] == "experimental"
    assert found["detection"]["tool"] == {"gen_ai.tool.name": "0007"}
    assert found["detection"]["client"] == {"mcpwatch.client_id": "yes"}
