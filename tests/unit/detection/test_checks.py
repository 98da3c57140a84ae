"""The rules that judge each event by itself: tools, arguments, scopes, audit records, unknown callers."""

from __future__ import annotations

from typing import Any

import pytest

from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Severity
from mcpwatch.detection.rulefile import shipped
from mcpwatch.event import OUTCOMES
from mcpwatch.policy.model import Alerts, Key, Policy, ToolPolicy
from mcpwatch.times import SECOND
from tests.oracle import read, stamp

START = 1_795_132_800
NS = START * SECOND
CRITICAL, HIGH, MEDIUM, LOW = Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW
POLICY = Policy(
    tools={
        "file_read": ToolPolicy(allowed_paths=("/app/data/",), require_scope="read"),
        "move": ToolPolicy(allowed_paths=("/app/data/",), path_params=("source", "destination")),
        "http_request": ToolPolicy(allowed_domains=("api.openai.com",)),
        "file_write": ToolPolicy(allowed_paths=("/app/output/",), require_audit_log=True),
        "old_tool": ToolPolicy(enabled=False),
        "echo": ToolPolicy(),
    },
    deny_unlisted=True,
    keys={"reader": Key("reader", scopes=("read",)), "other": Key("other", scopes=())},
)


def record(tool: str | None = "echo", status: str = "success", **fields: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "timestamp": START,
        "tool": tool,
        "status": status,
        "key_id": "reader",
        "duration_ms": 1,
        "params": {},
    }
    return {name: value for name, value in (base | fields).items() if value is not None}


CORE = shipped().only(
    "enforcement-gap", "unauthenticated-success", "shell-execute", "path-outside", "domain-unexpected",
    "auth-lockout", "session-rate", "session-churn", "key-rate", "tool-disabled", "tool-unlisted", "scope-missing",
    "audit-missing", "key-unknown", "revoked-attempt",
)  # fmt: skip


def fired(*records: dict[str, Any], policy: Policy = POLICY) -> list[tuple[str, Severity]]:
    return [(hit.rule, hit.severity) for hit in Engine(policy, CORE).observe(read(records))]


def rules(*records: dict[str, Any], policy: Policy = POLICY) -> list[str]:
    return [rule for rule, _ in fired(*records, policy=policy)]


INSIDE = {"path": "/app/data/a.txt"}
OUTSIDE = {"path": "/etc/passwd"}
AMBIGUOUS = {"path": "/app/data/..%2f..%2fetc/passwd"}
BY_OUTCOME = {
    "violation": {
        "success": CRITICAL, "unknown": HIGH, "error": HIGH, "timeout": HIGH, "denied": MEDIUM,
        "unauthenticated": MEDIUM, "rate_limited": MEDIUM,
    },
    "ambiguous": dict.fromkeys(OUTCOMES, MEDIUM) | {"success": HIGH},
}  # fmt: skip


@pytest.mark.parametrize("outcome", sorted(OUTCOMES))
@pytest.mark.parametrize(
    ("rule", "tool", "params", "verdict"),
    [
        ("path-outside", "file_read", OUTSIDE, "violation"),
        ("path-outside", "file_read", AMBIGUOUS, "ambiguous"),
        ("domain-unexpected", "http_request", {"url": "https://evil.example/"}, "violation"),
        ("domain-unexpected", "http_request", {"url": "https:/api.openai.com"}, "ambiguous"),
    ],
)
def test_severity_of_paths_and_domains_is_by_outcome(
    rule: str, tool: str, params: dict[str, Any], verdict: str, outcome: str
) -> None:
    assert fired(record(tool, outcome, params=params)) == [(rule, BY_OUTCOME[verdict][outcome])]


@pytest.mark.parametrize("outcome", sorted(OUTCOMES))
def test_cloud_metadata_is_critical_whatever_came_of_it(outcome: str) -> None:
    params = {"url": "http://169.254.169.254/latest/meta-data/"}
    assert fired(record("http_request", outcome, params=params)) == [("domain-unexpected", CRITICAL)]


@pytest.mark.parametrize(
    ("tool", "params"),
    [
        ("file_read", INSIDE),
        ("file_read", {"path": "/app/data"}),
        ("http_request", {"url": "https://api.openai.com/v1"}),
        ("file_read", None),
        ("file_read", {"path": "[redacted]"}),
        ("echo", OUTSIDE),
    ],
)
def test_what_is_inside_unseen_or_not_restricted_fires_nothing(
    tool: str, params: dict[str, Any] | None
) -> None:
    assert fired(record(tool, params=params)) == []


def test_a_rule_fires_once_on_an_event_with_the_worst_of_it() -> None:
    """Two paths outside are one hit; a doubtful one beside a clear one doesn't lower it."""
    both = {"source": "/etc/shadow", "destination": "/etc/passwd"}
    assert fired(record("move", params=both)) == [("path-outside", CRITICAL)]
    mixed = {"source": AMBIGUOUS["path"], "destination": "/etc/passwd"}
    assert fired(record("move", params=mixed)) == [("path-outside", CRITICAL)]


@pytest.mark.parametrize("tool", ["shell_execute", "bash", "mcp__box__shell_execute", "Shell-Execute"])
@pytest.mark.parametrize("outcome", sorted(OUTCOMES))
def test_every_call_of_a_shell_is_reported_whatever_came_of_it(tool: str, outcome: str) -> None:
    policy = Policy(tools={tool: ToolPolicy()}, deny_unlisted=True)
    assert fired(record(tool, outcome), policy=policy) == [("shell-execute", HIGH)]


@pytest.mark.parametrize("kind", ["auth", "request", "session_start", "session_end"])
def test_a_record_that_only_names_a_tool_is_no_call_of_it(kind: str) -> None:
    assert fired(record("shell_execute", event=kind, params=None)) == []
    assert fired(record("file_read", event=kind, params=None)) == []


@pytest.mark.parametrize("kind", ["auth", "request", "session_start", "session_end"])
def test_what_a_record_of_another_kind_hands_to_a_tool_is_judged_all_the_same(kind: str) -> None:
    """One word in a record hides no path, URL or command."""
    assert fired(record("file_read", event=kind, params=OUTSIDE)) == [("path-outside", CRITICAL)]
    assert fired(record("file_read", event=kind, params=INSIDE)) == []
    evil = {"url": "https://evil.example/"}
    assert fired(record("http_request", event=kind, params=evil)) == [("domain-unexpected", CRITICAL)]
    assert fired(record("shell_execute", event=kind, params={"command": "id"})) == [("shell-execute", HIGH)]


def test_unlisted_tools_fire_only_where_they_are_denied() -> None:
    assert fired(record("new_tool", "denied")) == [("tool-unlisted", MEDIUM)]
    assert fired(record("new_tool")) == [("tool-unlisted", MEDIUM), ("enforcement-gap", CRITICAL)]
    assert fired(record("new_tool"), policy=Policy(tools=POLICY.tools)) == []
    assert fired(record("echo")) == []


@pytest.mark.parametrize(
    ("after_ns", "expected"),
    [
        (-1, []),
        (0, ["tool-disabled"]),
        (10 * SECOND, ["tool-disabled"]),
        (10 * SECOND + 1, ["tool-disabled", "enforcement-gap"]),
    ],
)
def test_a_disabled_tool_counts_from_since_and_its_gap_after_the_grace(
    after_ns: int, expected: list[str]
) -> None:
    policy = Policy(tools={"old_tool": ToolPolicy(enabled=False, since=NS)})
    assert rules(record("old_tool", timestamp=stamp(NS + after_ns)), policy=policy) == expected


def test_a_tool_disabled_by_hand_has_no_grace() -> None:
    assert rules(record("old_tool")) == ["tool-disabled", "enforcement-gap"]
    assert rules(record("old_tool", "denied")) == ["tool-disabled"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"scopes": ["read", "x"]}, [], id="has it"),
        pytest.param({"scopes": ["write"]}, ["scope-missing", "enforcement-gap"], id="lacks it"),
        pytest.param({"scopes": []}, ["scope-missing", "enforcement-gap"], id="has none"),
        pytest.param({"scopes": ["write"], "status": "denied"}, ["scope-missing"], id="lacks it, refused"),
        pytest.param({"scopes": ["read"], "key_id": "other"}, [], id="the record's scopes, not the policy's"),
        pytest.param({"key_id": "reader"}, [], id="the policy's where the record has none"),
        pytest.param({"key_id": "other"}, ["scope-missing", "enforcement-gap"], id="the policy says none"),
        pytest.param({"key_id": None, "subject": "eve"}, [], id="nobody knows: not judged"),
        pytest.param({"scopes": "-", "key_id": None, "user": "eve"}, [], id="scopes spelled as absent"),
    ],
)
def test_effective_scopes(fields: dict[str, Any], expected: list[str]) -> None:
    assert rules(record("file_read", **{"params": INSIDE} | fields)) == expected


@pytest.mark.parametrize("missing", ["duration_ms", "params", "status", "timestamp"])
def test_a_tool_that_must_be_audited_needs_every_field(missing: str) -> None:
    fine = record("file_write", params={"path": "/app/output/a"})
    assert fired(fine) == []
    assert fired({name: value for name, value in fine.items() if name != missing}) == [
        ("audit-missing", MEDIUM)
    ]
    assert rules({name: value for name, value in record("echo").items() if name != missing}) == []


def test_a_call_of_nobody_is_audited_under_its_address() -> None:
    lines = [record("file_write", key_id=None, source_ip="192.0.2.1", params={"path": "/app/output/a"})]
    (hit,) = Engine(POLICY).observe(read(lines))
    assert (hit.rule, hit.subject) == ("audit-missing", (("source_ip", "192.0.2.1"),))


def test_a_redacted_path_is_missing_only_where_audit_is_required() -> None:
    assert fired(record("file_write", params={"path": "[redacted]"})) == [("audit-missing", MEDIUM)]
    assert fired(record("file_read", params={"path": "[redacted]"})) == []


@pytest.mark.parametrize(
    ("status", "key", "keys", "expected"),
    [
        ("success", "stranger", POLICY.keys, ["key-unknown"]),
        ("denied", "stranger", POLICY.keys, []),
        ("success", "reader", POLICY.keys, []),
        ("success", "stranger", {}, []),
        ("success", None, POLICY.keys, []),
    ],
)
def test_key_unknown(status: str, key: str | None, keys: dict[str, Key], expected: list[str]) -> None:
    policy = Policy(keys=keys)
    assert rules(record(status=status, key_id=key, session_id="s"), policy=policy) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"auth": {"method": "none"}}, ["unauthenticated-success"]),
        ({"auth": {"method": "none"}, "key_id": None}, ["unauthenticated-success"]),
        ({"auth": {"method": "none"}, "status": "error"}, []),
        ({"auth": {"method": "none"}, "event": "session_start"}, []),
        ({"auth": {"method": "jwt"}}, []),
    ],
)
def test_a_success_that_says_it_was_not_authenticated(fields: dict[str, Any], expected: list[str]) -> None:
    assert rules(record(**{"session_id": "s"} | fields), policy=Policy()) == expected


@pytest.mark.parametrize("named", [{"key_id": "k"}, {"client_id": "c"}, {"user": "eve"}])
@pytest.mark.parametrize(
    ("after", "expected"), [(0, 1), (299.999, 1), (300, 0)], ids=["at once", "just in time", "too long ago"]
)
def test_a_success_of_nobody_on_a_source_that_names_its_callers(
    named: dict[str, str], after: float, expected: int
) -> None:
    nobody = {"timestamp": START + after, "tool": "echo", "status": "success", "source_ip": "192.0.2.1"}
    known = {"timestamp": START, "tool": "echo", "status": "denied"} | named
    hits = Engine(Policy()).observe(read([known, nobody, nobody | {"status": "denied"}]))
    assert [(hit.rule, hit.subject) for hit in hits] == [
        ("unauthenticated-success", (("source_ip", "192.0.2.1"),))
    ] * expected


def test_a_source_that_never_names_callers_is_not_blamed_for_another_that_does() -> None:
    engine = Engine(Policy())
    engine.observe(read([record()], "names.jsonl"))
    nobody = {"timestamp": START, "tool": "echo", "status": "success", "source_ip": "192.0.2.1"}
    assert engine.observe(read([nobody], "names-not.jsonl")) == []


@pytest.mark.parametrize(
    ("fields", "subject"),
    [
        ({"key_id": "k", "user": "u", "client_id": "c", "session_id": "s", "source_ip": "i"}, ("key", "k")),
        ({"user": "u", "client_id": "c", "session_id": "s", "source_ip": "i"}, ("subject", "u")),
        ({"client_id": "c", "session_id": "s", "source_ip": "i"}, ("client", "c")),
        ({"session_id": "s", "source_ip": "i"}, ("session", "s")),
        ({"source_ip": "i"}, ("source_ip", "i")),
        ({}, None),
    ],
)
def test_the_principal_and_nothing_without_one(
    fields: dict[str, str], subject: tuple[str, str] | None
) -> None:
    """Events of nobody are pooled in no incident, not even in one of what was not enforced."""
    call = {"timestamp": START, "tool": "unlisted", "status": "success"} | fields
    hits = Engine(Policy(deny_unlisted=True)).observe(read([call]))
    expected = [] if subject is None else [("tool-unlisted", (subject,)),
                                           ("enforcement-gap", (subject, ("gap", "tool")))]  # fmt: skip
    assert [(hit.rule, hit.subject) for hit in hits] == expected


def test_grace_is_the_policys() -> None:
    policy = Policy(
        tools={"old_tool": ToolPolicy(enabled=False, since=NS)}, alerts=Alerts(enforcement_grace=0)
    )
    late = record("old_tool", timestamp="2026-11-20T00:00:00.000000001Z")
    assert rules(late, policy=policy) == ["tool-disabled", "enforcement-gap"]
