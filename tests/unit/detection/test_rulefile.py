"""Rule files: what they say is what the rule is, and what can't be is an error with file, line and fix."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch import data
from mcpwatch.detection import rulefile
from mcpwatch.detection.hit import Severity
from mcpwatch.detection.rule import CHECK_NAMES, Condition, Correlation, Limit, Rule, RuleError
from mcpwatch.detection.rulecases import MAX_EVENTS
from mcpwatch.detection.tuning import Tuning
from mcpwatch.event import AuditEvent
from mcpwatch.policy.model import Alerts
from mcpwatch.times import DAY, MINUTE, SECOND, parse_rfc3339, utc_midnight

HEAD = "title: T\nid: own\nlevel: low\ndescription: D\n"
COUNT = HEAD + "correlation:\n  type: event_count\n  match: kind:tool_call\n  timespan: 60s\n"
COUNT += "  condition: {gt: 5}\n"

FULL = """\
title: Too many builds
id: own-builds
level: high
description: >-
  Somebody builds
  and builds.
falsepositives: [releases]
tags: [owasp-mcp:02, owasp-agentic:ASI10, attack:T1059.004, "atlas:AML.T0051.001"]
references: ["https://example.org/builds"]
author: alice
group-by: [[key, client], known_key, [session]]
correlation:
  type: event_count
  match: 'tool:build_* tier:high'
  check: shell-execute
  timespan: 10m
  condition: {gte: 7}
  same: [tool, params]
  once-per: call
  unit: builds
exceptions:
  - {fields: {client: ci-bot, tool: [run_tests, "build_*"]}, author: alice, reason: "nightly", expires: 2026-12-31}
thresholds:
  - fields: {client: "ci-*"}
    gte: 60
    author: bob
    reason: |
      a farm
      of them
runbook: [Look., "Ask: who?", Stop it.]
tests:
  - name: seven at once
    kind: positive
    policy: |
      version: 1
    events:
      - {at: 1.5, repeat: 7, every: 0.000000001, tool: build_x}
    fires: [7]
    level: high
"""


def own(text: str) -> Rule:
    found = rulefile.parse(text.encode(), "own.yaml")
    assert isinstance(found, Rule)
    return found


def test_every_key_of_the_form_arrives_in_the_rule() -> None:
    rule = own(FULL)
    assert (rule.id, rule.title, rule.level) == ("own-builds", "Too many builds", Severity.HIGH)
    assert rule.description == "Somebody builds and builds."
    assert rule.tags == ("owasp-mcp:02", "owasp-agentic:ASI10", "attack:T1059.004", "atlas:AML.T0051.001")
    assert (rule.falsepositives, rule.references) == (("releases",), ("https://example.org/builds",))
    assert (rule.author, rule.shipped, rule.place) == ("alice", False, "own.yaml")
    assert rule.group_by == (("key", "client"), ("known_key",), ("session",))
    assert rule.condition == Condition()
    assert rule.runbook == ("Look.", "Ask: who?", "Stop it.")
    counted = rule.correlation
    assert counted is not None
    assert counted == Correlation(
        "event_count", counted.events, Limit(10 * MINUTE), "gte", Limit(7),
        same=("tool", "params"), once_per_call=True, unit="builds",
    )  # fmt: skip
    assert [(str(row.match), row.check) for row in counted.events] == [
        ("tool:build_* tier:high", "shell-execute")
    ]
    (exception,) = rule.exceptions
    assert (exception.author, exception.reason, exception.place) == ("alice", "nightly", "own.yaml:22")
    assert exception.until == utc_midnight(date(2027, 1, 1))
    (threshold,) = rule.thresholds
    assert (threshold.limit, threshold.author, threshold.reason) == (60, "bob", "a farm of them")
    assert threshold.place == "own.yaml:24"
    (case,) = rule.tests
    assert (case.name, case.kind, case.level, case.fires) == (
        "seven at once",
        "positive",
        Severity.HIGH,
        (7,),
    )
    assert (case.policy, len(case.lines), case.place) == ("version: 1\n", 7, "own.yaml:32")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "value_count\n  match: kind:auth\n  field: key\n  condition: {gte: 2}",
            Correlation(
                "value_count", (), Limit(MINUTE), "gte", Limit(2), fields=("key",), unit="values of key"
            ),
        ),
        (
            "value_count\n  check: sensitive-read\n  field: [key, network]\n  condition: {gt: alerts.auth_failures}",
            Correlation(
                "value_count", (), Limit(MINUTE), "gt", Limit(setting="auth_failures"),
                fields=("key", "network"), unit="values of key or network",
            ),
        ),
        (
            "temporal_ordered\n  steps: [{check: sensitive-read}, {match: tool:send, check: shell-execute}]",
            Correlation("temporal_ordered", (), Limit(MINUTE)),
        ),
    ],
)  # fmt: skip
def test_each_type_of_correlation_is_read(kind: str, expected: Correlation) -> None:
    found = own(f"{HEAD}correlation:\n  timespan: 60s\n  type: {kind}\n").correlation
    assert found is not None
    events, rest = found.events, {name: getattr(found, name) for name in found.__slots__ if name != "events"}
    assert rest == {name: getattr(expected, name) for name in rest}
    assert len(events) == (2 if found.type == "temporal_ordered" else 1)
    assert all(event != Condition() for event in events)


def test_a_stateless_rule_can_be_a_match_a_check_or_both() -> None:
    assert own(HEAD + "match: tool:x\n").condition.check is None
    assert own(HEAD + "check: key-stale\nsettings: {age: 2d}\n").settings == {"age": 2 * DAY}
    assert own(HEAD + "check: token-lifetime\nsettings: {leeway: 0}\n").settings == {"leeway": 0}
    both = own(HEAD + "check: shell-execute\nmatch: tool:x\n").condition
    assert str(both.match) == "tool:x"
    assert both.check == "shell-execute"


EXCEPTION = "exceptions:\n  - {fields: {%s}, author: a, reason: r}\n"
THRESHOLD = "thresholds:\n  - {fields: {%s}, gt: 9, author: a, reason: r}\n"
CASES = "match: tool:x\ntests:\n"
CASE = HEAD + CASES + "  - {name: a, kind: %s, events: [%s]%s}\n"

ERRORS = [
    ("title: T\nid: own\n", "own.yaml:1: the file has no 'description'"),
    ("description: T\nid: own\n", "own.yaml:1: the file has no 'title'"),
    ("title: T\ndescription: own\n", "own.yaml:1: the file has no 'id'"),
    (HEAD.replace("own", "Own"), "own.yaml:2: id 'Own' must be small letters"),
    (HEAD.replace("own", "key-rate") + "match: tool:x\n", "own.yaml:2: rule 'key-rate' comes with mcpwatch: tune"),
    (HEAD.replace("low", "urgent"), "own.yaml:3: level must be critical or high"),
    (HEAD.replace("level: low\n", "") + "match: tool:x\n", "own.yaml:2: the rule has no 'level'"),
    (COUNT.replace("level: low\n", ""), "own.yaml:2: the rule has no 'level'"),
    (HEAD, "own.yaml:2: the rule has no 'match', 'check' or 'correlation'"),
    (COUNT + "match: tool:x\n", "own.yaml:10: 'match' beside a correlation"),
    (HEAD + "macth: tool:x\n", "own.yaml:5: unknown key 'macth'; did you mean 'match'?"),
    (HEAD + "match: tol:x\n", "own.yaml:5: match: unknown field 'tol' at 1; did you mean 'tool'?"),
    (HEAD + "match: ' '\n", "own.yaml:5: match must be a filter that names something"),
    (HEAD + "match: 'tool:/rm.*/'\n", "own.yaml:5: match: '/rm.*/': there are no regular expressions"),
    (HEAD + "match: 'tool:/a(b|c)/'\n", "own.yaml:5: match: there are no regular expressions"),
    (HEAD + "match: 'param:\"/(a+)+$/\"'\n", "there are no regular expressions"),
    (HEAD + "match: 'tool:bash|sh'\n", "'bash|sh': there are no regular expressions"),
    (HEAD + "match: 'tool:bash.*'\n", "'bash.*': there are no regular expressions"),
    (HEAD + "match: 'ip:10.0.0.0/8'\n", "networks are not read: write 10.* or 10.1.2.*"),
    (HEAD + "match: 'path:/.*[.]env/'\n", "there are no regular expressions"),
    (HEAD + "match: 'tool|re: rm.*'\n", "own.yaml:5: match: there are no regular expressions and no modifiers"),
    (HEAD + "match: 'kind:auth -tool|contains:x'\n", "there are no regular expressions and no modifiers"),
    (HEAD + "check: shell-exec\n", "own.yaml:5: check is no check: 'shell-exec'; did you mean 'shell-execute'?"),
    (HEAD + "check: key-stale\nsettings: {aeg: 1d}\n", "own.yaml:6: rule 'own' has no setting 'aeg'; it has age"),
    (HEAD + "check: path-outside\nsettings: {age: 1d}\n", "has no setting 'age'; it has none"),
    (HEAD + "check: key-stale\nsettings: {age: 30}\n", "own.yaml:6: settings.age must be a duration"),
    (HEAD + "check: key-stale\nsettings: {age: 0}\n", "own.yaml:6: settings.age must be a duration"),
    (HEAD + "match: 'param:/(a+)+$/'\n", "own.yaml:5: match: there are no regular expressions"),
    (HEAD + "check: key-stale\nsettings: {age: -1}\n", "own.yaml:6: settings.age must be a duration"),
    (HEAD + "match: tool:x\ntags: [owasp-mcp:11]\n", "own.yaml:6: tags[0] is no tag: 'owasp-mcp:11'; write"),
    (HEAD + "match: tool:x\ntags:\n  - attack:1059\n", "own.yaml:7: tags[0] is no tag"),
    (HEAD + "match: tool:x\ntags: [attack:T1059.0041]\n", "tags[0] is no tag"),
    (HEAD + "match: tool:x\ntags: [misp:1]\n", "write it like owasp-mcp:02 or owasp-agentic:ASI02 or"),
    (HEAD + "match: tool:x\ngroup-by: [sesion]\n", "group-by[0] is no identity: 'sesion'; did you mean 'session'?"),
    (HEAD + "match: tool:x\ngroup-by: [[key, key]]\n", "group-by[0] must be one or more different"),
    (HEAD + "match: tool:x\ngroup-by: []\n", "own.yaml:6: group-by must be principal, or a list"),
    (HEAD + "match: tool:x\ntitle: again\n", "own.yaml:6: duplicate key 'title'"),
    (HEAD.replace("T\n", '"a\\e[2J"\n') + "match: tool:x\n", "own.yaml:1: title must be text of 1 to 120 printable"),
    (HEAD + "match: tool:x\nrunbook: [1, 2, 3, 4, 5, 6, 7]\n", "own.yaml:6: runbook must be a list of one to six"),
    # correlations
    (COUNT.replace("gt: 5", "gt: 0"), "own.yaml:9: correlation.condition.gt must be a whole number from 1 to 1000"),
    (COUNT.replace("gt: 5", "gt: -5"), "must be a whole number from 1 to 1000"),
    (COUNT.replace("gt: 5", "gt: 1001"), "must be a whole number from 1 to 1000"),
    (COUNT.replace("gt: 5", "gt: "), "must be a whole number from 1 to 1000"),
    (COUNT.replace("gt: 5", "gt: 5, gte: 6"), "own.yaml:9: correlation.condition must be {gt: 5} or {gte: 5}"),
    (COUNT.replace("{gt: 5}", "{}"), "correlation.condition must be {gt: 5} or {gte: 5}"),
    (COUNT.replace("gt: 5", "gt: alerts.auth_failure"), "did you mean 'alerts.auth_failures'?"),
    (COUNT.replace("gt: 5", "gt: alerts.auth_failures_within"), "is no limit of the policy"),
    (COUNT.replace("60s", "alerts.auth_failures"), "did you mean 'alerts.auth_failures_within'?"),
    (COUNT.replace("60s", "0s"), "own.yaml:8: correlation.timespan must be a duration"),
    (COUNT.replace("60s", "-5m"), "own.yaml:8: correlation.timespan must be a duration"),
    (COUNT.replace("60s", ""), "own.yaml:8: correlation.timespan must be text"),
    (COUNT.replace("60s", "1d1s"), "own.yaml:8: correlation.timespan must be at most 1d"),
    (COUNT.replace("  timespan: 60s\n", ""), "correlation has no 'timespan'"),
    (COUNT.replace("  match: kind:tool_call\n", ""), "own.yaml:6: correlation has no 'match'"),
    (COUNT.replace("event_count", "event_cuont"), "own.yaml:6: correlation.type is no correlation: 'event_cuont'"),
    (COUNT.replace("event_count", "value_count"), "correlation of type value_count has no 'field'"),
    (COUNT + "  field: key\n", "own.yaml:10: correlation of type event_count takes no 'field'"),
    (COUNT.replace("event_count", "value_count") + "  field: server\n", "is no field that can be counted: 'server'"),
    (COUNT + "  same: [session]\n", "is no field that can be compared: 'session'"),
    (COUNT + "  once-per: key\n", "correlation.once-per must be call"),
    (COUNT + "  in-one: call\n", "takes no 'in-one'"),
    (COUNT.replace("event_count", "temporal_ordered"), "correlation of type temporal_ordered has no 'steps'"),
    (COUNT + "  steps: [{match: tool:x}]\n", "own.yaml:10: correlation.steps must be a list of 2 to 5 steps"),
    (COUNT + "  steps: [{match: tool:x}, {}]\n", "correlation.steps[1] must be {match: …}, {check: …} or both"),
    # exceptions and thresholds
    (COUNT + EXCEPTION % "", "own.yaml:11: exceptions[0].fields must be a mapping that names something"),
    (COUNT + EXCEPTION % "client: '*'", "own.yaml:11: exceptions[0].fields is every event"),
    (COUNT + EXCEPTION % "client: [a, '**'], tier: [low, medium, high]", "exceptions[0].fields is every event"),
    (COUNT + EXCEPTION % "cleint: a", "unknown key 'cleint' in exceptions[0].fields; did you mean 'client'?"),
    (COUNT + EXCEPTION % "client: []", "exceptions[0].fields.client is empty"),
    (COUNT + EXCEPTION % "client: 'a b*'", "write ? for the blanks"),
    (COUNT + EXCEPTION % "status: fine", "own.yaml:11: exceptions[0].fields.status: unknown status 'fine'"),
    (COUNT + EXCEPTION % "client: a" + "  - {fields: {client_id: A}, author: b, reason: r}", "same events as line"),
    (COUNT + "exceptions: [{fields: {client: a}, reason: r}]\n", "exceptions[0] has no 'author'"),
    (COUNT + "exceptions: [{fields: {client: a}, author: r}]\n", "exceptions[0] has no 'reason'"),
    (COUNT + EXCEPTION.replace("reason: r", "reason: r, expires: soon") % "client: a", "must be a day such as"),
    (COUNT + THRESHOLD % "param: a", "own.yaml:11: thresholds[0].fields can't use 'param': a limit is for a caller"),
    (COUNT + THRESHOLD % "source: a", "can't use 'source'"),
    (COUNT + (THRESHOLD % "client: a").replace("9", "-1"), "thresholds[0].gt must be a whole number from 1"),
    (COUNT + (THRESHOLD % "client: a").replace("gt: 9", "gte: 9"), "thresholds of rule 'own' are written with gt"),
    (COUNT + (THRESHOLD % "client: a").replace("gt: 9, ", ""), "thresholds[0] needs one of gt and gte"),
    (
        COUNT + THRESHOLD % "client: [a, b], key: k"
        + "  - {fields: {key: k, client: [b, a]}, gt: 8, author: b, reason: r}",
        "own.yaml:12: thresholds[1] names the same events as line 11",
    ),
    (
        COUNT + THRESHOLD % "client: a" + "  - {fields: {key: k}, gte: 8, author: b, reason: r}",
        "own.yaml:12: thresholds[1] says gte and others say gt",
    ),
    (HEAD + "match: tool:x\n" + THRESHOLD % "client: a", "own.yaml:7: rule 'own' counts nothing"),
    # tests
    (CASE % ("edge", "x", ", fires: [2]"), "own.yaml:7: tests[0].fires names event 2, and"),
    (CASE % ("edge", "x", ", fires: [0]"), "must be a whole number from 1"),
    (CASE % ("edge", "x, y", ", fires: [2, 1]"), "numbers of events in their order"),
    (CASE % ("edge", "x", ""), "tests[0] has no 'fires'"),
    (CASE % ("edge", "", ", fires: []"), "tests[0].events must be a list of at least one"),
    (CASE % ("positive", "x", ", fires: []"), "is positive and fires on nothing"),
    (CASE % ("negative", "x", ", fires: all"), "is negative and fires"),
    (CASE % ("sharp", "x", ", fires: []"), "tests[0].kind must be positive or"),
    (CASE % ("edge, policy: 'version: 2'", "x", ", fires: []"), "tests[0].policy can't be used: policy:1: "),
    (CASE % ("edge", "{at: 1.0000000001}", ", fires: []"), "events[0].at must be a number of seconds"),
    (CASE % ("edge", "{at: 1, every: 1}", ", fires: []"), "'every' without 'at' and 'repeat'"),
    (CASE % ("edge", "{at: 1, timestamp: 1}", ", fires: []"), "has 'at' and 'timestamp'"),
    (
        CASE % ("edge", f"x, {{repeat: {MAX_EVENTS}}}", ", fires: []"),
        f"own.yaml:7: tests[0].events are more than {MAX_EVENTS}",
    ),
    (HEAD + CASES + 2 * "  - {name: a, kind: edge, events: [x], fires: []}\n", "own.yaml:8: tests[1] has the name"),
    # tunings
    ("tune: key-rate\n", "own.yaml:1: tunes nothing"),
    ("tune: key-rate\nenabled: false\n", "own.yaml:1: `enabled: false` without a reason"),
    ("tune: key-rate\nlevel: low\n", "own.yaml:2: unknown key 'level'"),
    ("", 'own.yaml:1: empty: a rule starts with "title: …"'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), ERRORS, ids=[message[:60] for _, message in ERRORS])
def test_what_can_not_be_is_an_error_with_file_line_and_what_to_do(text: str, message: str) -> None:
    with pytest.raises(RuleError) as error:
        rulefile.parse(text.encode(), "own.yaml")
    assert message in str(error.value)
    assert str(error.value).startswith("own.yaml:")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "match",
    [
        "path:/etc/",
        "path:/data/a/ tool:x",
        'param:"a/b/c"',
        "source:/var/log/a.jsonl",
        "/etc/",
        "server:/mcp",
    ],
)
def test_paths_are_not_taken_for_regular_expressions(match: str) -> None:
    assert own(f"{HEAD}match: '{match}'\n").condition.match is not None


def test_limits_are_accepted_up_to_their_ends() -> None:
    rule = own(COUNT.replace("gt: 5", "gt: 1000").replace("60s", "24h"))
    assert rule.correlation is not None
    assert (rule.correlation.limit.value, rule.correlation.timespan.value) == (1000, DAY)
    assert own(COUNT.replace("gt: 5", "gte: 1")).correlation is not None


def excepted(fields: str) -> Rule:
    return own(COUNT + EXCEPTION % fields)


NAMES = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(value=NAMES, other=NAMES)
def test_an_exception_without_patterns_is_about_exactly_the_named_value(value: str, other: str) -> None:
    """Whatever characters a client's name has, its exception can't be widened by them."""
    quoted = json.dumps(value)
    if set(value) & set("*?"):
        return
    rule = excepted(f"client: {quoted}")
    (exception,) = rule.exceptions
    assert exception.fields.match(AuditEvent(client_id=value), None)
    same = other.casefold() == value.casefold()
    assert exception.fields.match(AuditEvent(client_id=other), None) is same


def test_the_fields_of_an_exception_must_all_fit_and_one_value_of_a_list_is_enough() -> None:
    (exception,) = excepted('client: ci-bot, tool: [run_tests, "build_*"]').exceptions
    fits = exception.fields.match
    assert fits(AuditEvent(client_id="ci-bot", tool="run_tests"), "low")
    assert fits(AuditEvent(client_id="ci-bot", tool="build_all"), "low")
    assert not fits(AuditEvent(client_id="ci-bot", tool="deploy"), "low")
    assert not fits(AuditEvent(client_id="ci-bot2", tool="run_tests"), "low")


def test_an_exception_without_expiry_holds_for_good() -> None:
    (exception,) = excepted("client: a").exceptions
    assert exception.until is None


def lines(events: str) -> list[bytes]:
    text = f"{HEAD}{CASES}  - name: a\n    kind: edge\n    fires: []\n    events:\n{events}"
    return list(own(text).tests[0].lines)


def test_times_of_events_are_exact_to_the_nanosecond() -> None:
    made = lines(
        "      - {at: 1.5, repeat: 3, every: 12.000000001, tool: x}\n      - {at: 86399.999999999}\n"
    )
    stamps = [json.loads(line)["timestamp"] for line in made]
    begin = parse_rfc3339("2026-11-20T08:00:00Z")
    assert begin is not None
    offsets = [found[0] - begin[0] for found in map(parse_rfc3339, stamps) if found is not None]
    step = 12 * SECOND + 1
    assert offsets == [1_500_000_000 + number * step for number in range(3)] + [86_400 * SECOND - 1]


def test_an_event_is_the_json_that_it_looks_like() -> None:
    (made,) = lines(
        "      - {tool: x, key_id: 0007, call_id: '12', n: 12, f: -1.5, t: true, y: yes, z: null,"
        " params: {a: [1, {b: ''}], c: 'true'}}\n"
    )
    assert json.loads(made) == {
        "tool": "x", "key_id": "0007", "call_id": "12", "n": 12, "f": -1.5, "t": True, "y": "yes", "z": None,
        "params": {"a": [1, {"b": ""}], "c": "true"},
    }  # fmt: skip


def test_a_raw_line_stands_as_it_is() -> None:
    made = lines('      - \'{"tool": "x"\'\n      - |\n        no json é\n')
    assert made == [b'{"tool": "x"', "no json é".encode()]


def test_all_is_every_event_of_a_case() -> None:
    rule = own(HEAD + CASES + "  - {name: a, kind: positive, events: [x, {repeat: 3}], fires: all}\n")
    assert rule.tests[0].fires == (1, 2, 3, 4)


def test_a_file_that_starts_with_tune_is_a_tuning() -> None:
    text = (
        "tune: key-stale\nenabled: off\nreason: none here\nsettings: {age: 10d}\n" + EXCEPTION % "client: a"
    )
    found = rulefile.parse(text.encode(), "t.yaml")
    assert isinstance(found, Tuning)
    assert (found.rule, found.enabled, found.reason) == ("key-stale", False, "none here")
    assert (found.settings, len(found.exceptions)) == ({"age": 10 * DAY}, 1)


# What comes with mcpwatch.

FOLDER = data.shipped("rules")
LEVELS = {
    "critical": "enforcement-gap unauthenticated-success",
    "high": "shell-execute auth-lockout secret-in-params audit-gap exfil-sequence credential-spray"
    " destructive-burst tool-changed",
    "medium": "session-rate session-churn key-rate audit-missing key-unknown tool-disabled tool-unlisted"
    " scope-missing tool-enumeration session-shared runaway-loop hostile-text",
    "low": "revoked-attempt key-stale",
    None: "path-outside domain-unexpected policy-tampering token-lifetime",
}
LIMITS = {
    "auth-lockout": ("gte", "auth_failures", "auth_failures_within"),
    "session-rate": ("gt", "session_calls_per_minute", MINUTE),
    "session-churn": ("gt", "session_calls_per_minute", MINUTE),
    "key-rate": ("gt", "key_requests_per_minute", MINUTE),
    "credential-spray": ("gte", 5, 10 * MINUTE),
    "tool-enumeration": ("gt", 5, 5 * MINUTE),
    "destructive-burst": ("gt", 10, MINUTE),
    "session-shared": ("gte", 2, 10 * MINUTE),
    "runaway-loop": ("gt", 20, 5 * MINUTE),
    "exfil-sequence": ("gt", 0, 10 * MINUTE),
}
BY_SESSION = (("session",), ("key", "client"), ("key",), ("source_ip", "client"), ("source_ip",))


def test_the_folder_holds_the_shipped_rules_and_nothing_else_in_the_order_of_the_table() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(
        f"{name}.yaml" for name in rulefile.SHIPPED
    )
    assert [rule.id for rule in rulefile.shipped()] == list(rulefile.SHIPPED)
    assert all(rule.shipped and not rule.tests for rule in rulefile.shipped())
    assert rulefile.shipped() is rulefile.shipped()


@pytest.mark.parametrize("rule", rulefile.shipped().rules, ids=lambda rule: rule.id)
def test_a_shipped_rule_says_what_somebody_woken_by_it_needs(rule: Rule) -> None:
    assert 3 <= len(rule.runbook) <= 6
    assert rule.falsepositives
    assert any(tag.startswith("owasp-mcp:") for tag in rule.tags)
    assert any(tag.startswith("owasp-agentic:") for tag in rule.tags)
    assert len(rule.description) > 40
    label = rule.level.label if rule.level is not None else None
    assert rule.id in LEVELS[label].split()


@pytest.mark.parametrize("rule", rulefile.shipped().rules, ids=lambda rule: rule.id)
def test_tests_are_the_last_key_of_a_shipped_file(rule: Rule) -> None:
    """What is left out by not reading them is them and nothing else, and they are good."""
    whole = rulefile.with_tests(rule)
    assert [name for name in Rule.__slots__ if getattr(whole, name) != getattr(rule, name)] in ([], ["tests"])


def test_the_cases_of_a_shipped_rule_are_read_only_when_they_are_wanted() -> None:
    text = (FOLDER / "key-rate.yaml").read_bytes().partition(b"\ntests:")[0]
    broken = text + b"\ntests: {not: [a, list"
    rule = rulefile.parse(broken, "r", shipped=True, tests=False)
    assert isinstance(rule, Rule)
    assert rule.id == "key-rate"
    with pytest.raises(RuleError):
        rulefile.parse(broken, "r", shipped=True)
    good = text + b"\ntests: [{name: a, kind: edge, events: [x], fires: []}]\n"
    whole = rulefile.parse(good, "r", shipped=True)
    assert isinstance(whole, Rule)
    assert len(whole.tests) == 1


def test_shipped_rules_count_to_the_documented_limits() -> None:
    found = {
        rule.id: (
            rule.correlation.op,
            rule.correlation.limit.setting or rule.correlation.limit.value,
            rule.correlation.timespan.setting or rule.correlation.timespan.value,
        )
        for rule in rulefile.shipped()
        if rule.correlation is not None
    }
    assert found == LIMITS
    assert rulefile.shipped().by_id["auth-lockout"].limit(Alerts()).startswith("3 or more failures in 5")


def test_every_check_but_the_first_step_of_a_sequence_is_a_rule_of_its_own() -> None:
    stateless = {rule.id: rule.condition.check for rule in rulefile.shipped() if rule.correlation is None}
    assert all(name == check for name, check in stateless.items())
    assert set(CHECK_NAMES) == {*stateless, "sensitive-read"}


def test_shipped_rules_group_by_whom_they_are_about() -> None:
    rules = rulefile.shipped().by_id
    assert rules["session-rate"].group_by == rules["runaway-loop"].group_by == BY_SESSION
    assert rules["session-churn"].group_by == (("key", "client"), ("source_ip",))
    assert rules["auth-lockout"].group_by == (("known_key", "source_ip"), ("source_ip",))
    assert rules["key-rate"].group_by == (("key",),)
    assert rules["credential-spray"].group_by == (("source_ip",),)
    assert rules["session-shared"].group_by == (("session",),)
    assert rules["exfil-sequence"].group_by[0] == ("key",)


def call(tool: str | None, status: str = "success", param: str = "", event: str = "tool_call") -> AuditEvent:
    return AuditEvent(event=event, tool=tool, status=status, params={"p": param} if param else None)


ENTERS = [
    ("auth-lockout", call(None, "unauthenticated", event="request"), True),
    ("auth-lockout", call(None, "denied", event="auth"), True),
    ("auth-lockout", call(None, "error", event="auth"), True),
    ("auth-lockout", call("x", "denied"), False),
    ("auth-lockout", call(None, "success", event="auth"), False),
    ("credential-spray", call(None, "denied", event="auth"), True),
    ("credential-spray", call("x", "denied"), False),
    ("session-rate", call("x", "denied"), True),
    ("session-rate", call(None, event="request"), False),
    ("key-rate", call(None, event="request"), True),
    ("key-rate", call(None, event="session_start"), False),
    ("tool-enumeration", call("x", "error"), True),
    ("tool-enumeration", call("x", "success"), False),
    ("destructive-burst", call("file_delete"), True),
    ("destructive-burst", call("Delete_Row", "unknown"), True),
    ("destructive-burst", call("file_delete", "denied"), False),
    ("destructive-burst", call("drop_index"), True),
    ("destructive-burst", call("dropbox_list"), False),
    ("destructive-burst", call("run_query", param="DROP TABLE users"), True),
    ("destructive-burst", call("run_query", param="select 1"), False),
    ("destructive-burst", call("file_write", param="drop table users"), False),
    ("destructive-burst", call("shell_execute", param="rm -rf /"), True),
    ("destructive-burst", call("shell_execute", param="ls -r"), False),
    ("exfil-sequence", call("http_request"), True),
    ("exfil-sequence", call("send_email", "unknown"), True),
    ("exfil-sequence", call("http_request", "denied"), False),
    ("exfil-sequence", call("postgres_query"), False),
    ("exfil-sequence", call("post_message"), True),
    ("exfil-sequence", call("file_read"), False),
]


@pytest.mark.parametrize(("rule", "event", "enters"), ENTERS)
def test_what_enters_a_shipped_correlation(rule: str, event: AuditEvent, enters: bool) -> None:
    correlation = rulefile.shipped().by_id[rule].correlation
    assert correlation is not None
    condition = correlation.events[-1].match
    assert condition is not None
    assert condition.match(event, "low") is enters


# Whatever the bytes.


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_rule_or_a_rule_error(data: bytes) -> None:
    try:
        rulefile.parse(data, "any.yaml")
    except RuleError as error:
        assert str(error).startswith("any.yaml")


VALUES = [
    "",
    "~",
    "[]",
    "{}",
    "-1",
    "[a, a]",
    "[[]]",
    "{a: {}}",
    "*x",
    "'\\'",
    '"\\u202e"',
    "[{}]",
    "9" * 400,
]


@given(line=st.integers(0, FULL.count("\n") - 1), value=st.sampled_from(VALUES) | st.text(max_size=20))
@settings(max_examples=300)
def test_any_change_of_one_value_is_a_rule_or_a_rule_error(line: int, value: str) -> None:
    text = FULL.split("\n")
    key, colon, _ = text[line].partition(": ")
    text[line] = f"{key}{colon}{value}" if colon else value
    try:
        found = rulefile.parse("\n".join(text).encode("utf-8", "surrogatepass"), "any.yaml")
    except RuleError as error:
        assert str(error).startswith("any.yaml")
    else:
        assert isinstance(found, Rule)


def test_a_missing_file_of_the_installation_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcpwatch.data.shipped", lambda kind: tmp_path / kind)
    rulefile.shipped.cache_clear()
    try:
        with pytest.raises(RuleError, match=r"enforcement-gap\.yaml: no such file: install mcpwatch again"):
            rulefile.shipped()
    finally:
        rulefile.shipped.cache_clear()
