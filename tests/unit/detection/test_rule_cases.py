"""The cases in the files of the shipped rules hold, and what runs them notices when one does not."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.detection.hit import Severity
from mcpwatch.detection.rule import Case, CaseKind, Rule, RuleError
from mcpwatch.detection.rulefile import SHIPPED, parse, shipped, with_tests
from mcpwatch.detection.trial import KINDS, LOG_PATH, POLICY_PATH, Outcome, failures, missing_kinds, run
from mcpwatch.event import OUTCOMES
from mcpwatch.text import SafeText, safe
from tests.mutate_rules import survivors

RULES = {rule_id: with_tests(shipped().by_id[rule_id]) for rule_id in SHIPPED}
SIX_CALLS = tuple(
    f'{{"timestamp": "2026-11-20T08:00:0{second}Z", "tool": "query", "session_id": "s-1"}}'.encode()
    for second in range(6)
)


def case(
    lines: tuple[bytes, ...],
    fires: tuple[int, ...],
    *,
    policy: str | None = None,
    level: Severity | None = None,
    kind: CaseKind = "positive",
) -> Case:
    return Case("a case", kind, policy, lines, fires, level, SafeText("own.yaml:7"))


def tried(rule_id: str, *cases: Case) -> list[SafeText]:
    return failures(replace(RULES[rule_id], tests=cases))


@pytest.mark.parametrize("rule_id", SHIPPED)
def test_every_case_of_a_shipped_rule_holds(rule_id: str) -> None:
    assert failures(RULES[rule_id]) == []


@pytest.mark.parametrize("rule_id", SHIPPED)
def test_a_shipped_rule_has_a_positive_a_negative_an_edge_and_an_evasion_case(rule_id: str) -> None:
    assert missing_kinds(RULES[rule_id]) == ()


@pytest.mark.parametrize("rule_id", SHIPPED)
def test_the_cases_of_a_shipped_rule_say_how_bad_it_is(rule_id: str) -> None:
    assert any(case.level is not None for case in RULES[rule_id].tests)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rule_without_cases_of_one_kind_is_noticed(kind: CaseKind) -> None:
    rule = RULES["session-rate"]
    left = tuple(case for case in rule.tests if case.kind != kind)
    assert missing_kinds(replace(rule, tests=left)) == (kind,)


@pytest.mark.parametrize("rule_id", ["session-rate", "key-stale"])
def test_every_small_change_of_a_rule_makes_a_case_fail(rule_id: str) -> None:
    number, unnoticed = survivors(RULES[rule_id])
    assert number >= 7
    assert unnoticed == []


def test_a_change_that_no_case_notices_survives() -> None:
    rule = RULES["key-unknown"]
    harmless = replace(rule, tests=tuple(replace(case, level=None) for case in rule.tests))
    _, unnoticed = survivors(harmless)
    assert unnoticed == ["level low", "level high", "level critical"]


@pytest.mark.parametrize(
    ("fires", "said"),
    [
        ((), "expected it to fire on no line, and it fired on line 6"),
        ((5,), "expected it to fire on line 5, and it fired on line 6"),
        ((5, 6), "expected it to fire on lines 5, 6, and it fired on line 6"),
    ],
)
def test_a_wrong_fires_is_one_line_with_place_expectation_and_what_happened(
    fires: tuple[int, ...], said: str
) -> None:
    assert tried("session-rate", case(SIX_CALLS, fires)) == [
        f"own.yaml:7: session-rate: case 'a case' {said}"
    ]


def test_a_case_that_holds_says_nothing() -> None:
    assert tried("session-rate", case(SIX_CALLS, (6,), level=Severity.MEDIUM)) == []


def test_a_wrong_level_is_noticed_and_so_is_a_level_where_nothing_fires() -> None:
    wrong = case(SIX_CALLS, (6,), level=Severity.HIGH)
    nothing = case(SIX_CALLS[:5], (), level=Severity.HIGH)
    assert tried("session-rate", wrong, nothing) == [
        "own.yaml:7: session-rate: case 'a case' expected level high, and it was medium",
        "own.yaml:7: session-rate: case 'a case' expected level high, and it was nothing",
    ]


@pytest.mark.parametrize(
    "policy", ["", "version: 2", "tools: [", "version: 1\nalerts: {auth_failurs: 3}", "\ud800"]
)
def test_a_policy_that_cannot_be_read_fails_the_case_and_raises_nothing(policy: str) -> None:
    (line,) = tried("session-rate", case(SIX_CALLS, (6,), policy=policy))
    assert line.startswith("own.yaml:7: session-rate: case 'a case' its policy can't be used: ")


def test_a_line_that_cannot_be_read_fails_the_case_even_where_nothing_had_to_fire() -> None:
    (line,) = tried("session-rate", case((SIX_CALLS[0], b'{"timestamp": '), ()))
    assert line == "own.yaml:7: session-rate: case 'a case' line 2 can't be read: not JSON"


def test_only_the_hits_of_the_rule_itself_count() -> None:
    shell = b'{"timestamp": "2026-11-20T08:00:00Z", "tool": "bash", "auth": {"method": "none"}, "session_id": "s"}'
    assert run(RULES["shell-execute"], case((shell,), ())) == Outcome((1,), Severity.HIGH)
    assert run(RULES["unauthenticated-success"], case((shell,), ())) == Outcome()


def test_a_case_is_judged_by_its_own_policy_and_by_the_built_in_one_without() -> None:
    raised = case(SIX_CALLS, (), policy="version: 1\nalerts: {session_calls_per_minute: 6}")
    assert tried("session-rate", raised) == []
    assert tried("session-rate", replace(raised, policy=None)) != []


def test_policy_and_log_of_a_case_have_places_that_can_be_tampered_with() -> None:
    call = (
        '{"timestamp": "2026-11-20T08:00:00Z", "tool": "write_file", "params": {"path": "%s"}, "key_id": "k"}'
    )
    places = (POLICY_PATH, LOG_PATH, "/etc/mcpwatch/readme.md")
    lines = tuple((call % place).encode() for place in places)
    assert run(RULES["policy-tampering"], case(lines, (), policy="version: 1")).fired == (1, 2)


def test_an_own_rule_is_tried_as_it_stands() -> None:
    found = parse(
        b"title: t\nid: own\nlevel: low\ndescription: d\nmatch: 'tool:query'\n"
        b"tests:\n  - {name: a, kind: positive, events: [{tool: query, key_id: k}, {tool: ls}], fires: [1]}\n"
        b"  - {name: b, kind: negative, events: [{tool: query, key_id: k}], fires: []}\n",
        "own.yaml",
    )
    assert isinstance(found, Rule)
    assert failures(found) == [
        "own.yaml:8: own: case 'b' expected it to fire on no line, and it fired on line 1"
    ]


def test_a_positive_case_that_fires_on_nothing_is_no_case() -> None:
    with pytest.raises(RuleError, match=r"own\.yaml:7: .*positive and fires on nothing"):
        parse(
            b"title: t\nid: own\nlevel: low\ndescription: d\nmatch: 'tool:query'\n"
            b"tests:\n  - {name: a, kind: positive, events: [{tool: query}], fires: []}\n",
            "own.yaml",
        )


def test_many_lines_are_cut_short_in_the_message() -> None:
    calls = tuple(line for line in SIX_CALLS for _ in range(10))
    (line,) = tried("session-rate", case(calls, ()))
    assert line.endswith("lines 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17 and 43 more")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("pqxyz"), inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": JSON,
        "tool": st.sampled_from(["query", "bash", "write_file", "calculator"]) | JSON,
        "params": st.dictionaries(st.sampled_from(["path", "url", "x", "owner"]), JSON, max_size=3) | JSON,
        "status": st.sampled_from(sorted(OUTCOMES)) | JSON,
        "key_id": JSON,
        "session_id": JSON,
        "auth": JSON,
        "sequence": JSON,
    },
)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(SHIPPED),
    st.lists(st.binary(max_size=60) | EVENTS.map(lambda event: json.dumps(event).encode()), max_size=8),
)
def test_whatever_stands_in_a_case_running_it_raises_nothing(rule_id: str, lines: list[bytes]) -> None:
    outcome = run(RULES[rule_id], case(tuple(lines), ()))
    assert all(1 <= number <= len(lines) for number in outcome.fired)
    assert (outcome.level is None) == (outcome.fired == ())
    assert all(problem == safe(problem) for problem in outcome.problems)
