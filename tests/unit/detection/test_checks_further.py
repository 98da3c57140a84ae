"""Secrets, tampering, sensitive reads, hostile text, tokens, old keys, changed tools: what fires, how bad it is."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Hit, Severity
from mcpwatch.detection.rule import Rule, RuleSet
from mcpwatch.detection.rulefile import parse as parse_rule
from mcpwatch.detection.rulefile import shipped
from mcpwatch.event import KINDS, OUTCOMES
from mcpwatch.policy.model import Alerts, Key, Policy, ToolPolicy
from mcpwatch.times import DAY, MINUTE, SECOND, utc_midnight
from tests.oracle import read, stamp

START = 1_795_132_800
NS = START * SECOND
CRITICAL, HIGH, MEDIUM, LOW = Severity.CRITICAL, Severity.HIGH, Severity.MEDIUM, Severity.LOW
TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
OWN = "/srv/conf/rules-of-ours.yaml"


def call(tool: str | None = "note", status: str = "success", **fields: Any) -> dict[str, Any]:
    return {"timestamp": START, "tool": tool, "status": status, "key_id": "k"} | fields


def hits_of(rule: str, *records: dict[str, Any], policy: Policy | None = None) -> list[Hit]:
    return Engine(policy or Policy(), shipped().only(rule)).observe(read(records))


def severities(rule: str, *records: dict[str, Any], policy: Policy | None = None) -> list[Severity]:
    return [hit.severity for hit in hits_of(rule, *records, policy=policy)]


class TestSecrets:
    """A credential in the parameters of a call."""

    @pytest.mark.parametrize("status", sorted(OUTCOMES))
    @pytest.mark.parametrize(
        "params",
        [
            {"text": f"use {TOKEN} now"}, {"env": {"deep": [{"GITHUB": TOKEN}]}}, {TOKEN: 1},
            {"body": '{"token": "' + TOKEN + '"}'},
        ],
    )  # fmt: skip
    def test_one_hit_of_high_severity_whatever_came_of_the_call(
        self, params: dict[str, Any], status: str
    ) -> None:
        assert severities("secret-in-params", call("file_read", status, params=params)) == [HIGH]

    @pytest.mark.parametrize(
        "params",
        [None, {}, {"text": "AKIAIOSFODNN7EXAMPLE"}, {"text": "hello"},
         {"id": "8c2f7c0e-2f5b-4b5e-9d7e-0a1b2c3d4e5f"}],
    )  # fmt: skip
    def test_examples_and_ids_are_none(self, params: dict[str, Any] | None) -> None:
        assert hits_of("secret-in-params", call(params=params)) == []

    @pytest.mark.parametrize(("kind", "count"), [("request", 1), ("auth", 0), ("session_start", 0)])
    def test_other_requests_have_parameters_too(self, kind: str, count: int) -> None:
        """Reads of resources and prompts; logins and sessions have none."""
        record = call(event=kind, tool=None, params={"uri": "file:///app/a", "text": TOKEN})
        assert len(hits_of("secret-in-params", record)) == count

    def test_the_reason_never_holds_the_secret(self) -> None:
        """It says which kind, where, and how many more; not what."""
        params = {"a": TOKEN, "b": TOKEN, f"c{TOKEN}": TOKEN}
        (hit,) = hits_of("secret-in-params", call(params=params))
        assert "github-pat in a" in hit.reason and "more" in hit.reason
        assert TOKEN[4:16] not in hit.reason and TOKEN[16:36] not in hit.reason


TAMPERING = {"success": CRITICAL, "unknown": HIGH, "error": HIGH, "timeout": HIGH, "denied": MEDIUM,
    "unauthenticated": MEDIUM, "rate_limited": MEDIUM,
}  # fmt: skip


class TestTampering:
    """Writes to what decides about agents, hosts and the record itself."""

    @pytest.mark.parametrize(("status", "severity"), TAMPERING.items())
    def test_severity_is_by_outcome(self, status: str, severity: Severity) -> None:
        record = call("file_write", status, params={"path": "/home/ann/.bashrc", "content": "alias ls=rm"})
        assert severities("policy-tampering", record) == [severity]

    @pytest.mark.parametrize(
        ("tool", "params", "count"),
        [
            ("file_write", {"path": "/etc/cron.d/job"}, 1),
            ("shell_execute", {"command": "echo x >> ~/.ssh/authorized_keys"}, 1),
            ("file_read", {"path": "/home/ann/.bashrc"}, 0),
            ("file_write", {"path": "/home/ann/notes.txt"}, 0),
            ("file_write", None, 0),
            ("file_write", {"path": OWN}, 0),
        ],
    )
    def test_writes_of_some_files(self, tool: str, params: dict[str, Any] | None, count: int) -> None:
        assert len(hits_of("policy-tampering", call(tool, params=params))) == count

    @pytest.mark.parametrize(
        "path", [OWN, "/srv/conf/./rules-of-ours.yaml", "/srv/x/../conf/rules-of-ours.yaml"]
    )
    def test_the_policy_file_itself_is_one_of_them(self, path: str) -> None:
        policy = Policy(path=Path(OWN))
        assert severities("policy-tampering", call("file_write", params={"path": path}), policy=policy) == [
            CRITICAL
        ]
        assert hits_of("policy-tampering", call("file_read", params={"path": path}), policy=policy) == []

    def test_two_such_files_are_one_hit(self) -> None:
        record = call("move_file", params={"source": "/root/.bashrc", "destination": "/root/.profile"})
        assert severities("policy-tampering", record) == [CRITICAL]


READ: dict[str, Any] = {"tool": "file_read", "params": {"path": "/home/ann/.ssh/id_rsa"}}
SEND: dict[str, Any] = {"tool": "http_request", "params": {"url": "https://example.com/"}}


class TestExfiltration:
    """A sensitive read, then something that sends."""

    def hits(self, *records: dict[str, Any]) -> list[tuple[int | None, Severity, int]]:
        return [(hit.line, hit.severity, hit.peak) for hit in hits_of("exfil-sequence", *records)]

    @pytest.mark.parametrize(
        ("after", "count"), [(0, 1), (10 * MINUTE - 1, 1), (10 * MINUTE, 0), (-1, 0)],
        ids=["at once", "just within", "exactly ten minutes", "the other way round"],
    )  # fmt: skip
    def test_within_ten_minutes_in_this_order(self, after: int, count: int) -> None:
        sent = call(**SEND) | {"timestamp": stamp(NS + after)}
        assert self.hits(call(**READ), sent) == [(2, HIGH, 2)] * count

    @pytest.mark.parametrize("status", sorted(OUTCOMES))
    def test_both_must_have_worked_as_far_as_one_knows(self, status: str) -> None:
        worked = status in ("success", "unknown")
        assert len(self.hits(call(**READ) | {"status": status}, call(**SEND))) == worked
        assert len(self.hits(call(**READ), call(**SEND) | {"status": status})) == worked

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            pytest.param({"key_id": "other"}, {}, id="somebody else reads"),
            pytest.param({"params": {"path": "/app/data/a"}}, {}, id="nothing sensitive"),
            pytest.param({"tool": "file_write"}, {}, id="written, not read"),
            pytest.param({}, {"tool": "file_read"}, id="nothing is sent"),
            pytest.param({}, {"event": "request"}, id="no tool call"),
            pytest.param({"params": None}, {}, id="parameters unknown"),
            pytest.param({"timestamp": None}, {}, id="no time"),
        ],
    )
    def test_what_is_no_such_sequence(self, first: dict[str, Any], second: dict[str, Any]) -> None:
        assert self.hits(call(**READ) | first, call(**SEND) | second) == []

    def test_the_read_may_be_logged_later_than_the_call_that_sends(self) -> None:
        sent = call(**SEND) | {"timestamp": START + 1}
        assert self.hits(sent, call(**READ)) == [(2, HIGH, 2)]

    def test_one_call_may_read_and_send(self) -> None:
        both = call("http_post_file", params={"path": "/home/ann/.ssh/id_rsa"})
        assert self.hits(both) == [(1, HIGH, 2)]
        assert [line for line, *_ in self.hits(both, both)] == [1, 2]


class TestHostileText:
    """Text that is made to deceive, wherever it stands."""

    @pytest.mark.parametrize(
        "fields",
        [
            {"params": {"x": "a\u202eb"}}, {"params": {"a\u202eb": 1}}, {"params": {"x": [{"y": "\x1b[2J"}]}},
            {"tool": "ec\x1b[2Jho"}, {"error": "no \u202e"}, {"key_id": "k\x1b[2J"}, {"session_id": "s\u202e"},
            {"client_id": "c" + "\ufe01" * 9},
            {"user": "ann\U000e0041\U000e0042"}, {"client_id": "a\x00b"}, {"params": {"x": "\ud800"}},
        ],
    )  # fmt: skip
    def test_one_hit_wherever_it_stands(self, fields: dict[str, Any]) -> None:
        assert severities("hostile-text", call(params={}) | fields) == [MEDIUM]

    def test_one_hit_in_however_many_places(self) -> None:
        record = call("ec\x1b[2Jho", params={"x": "\u202e"}, error="\u202e", session_id="s\u202e")
        assert severities("hostile-text", record) == [MEDIUM]

    @pytest.mark.parametrize("kind", sorted(KINDS))
    def test_errors_ids_and_parameters_of_any_record_count(self, kind: str) -> None:
        assert len(hits_of("hostile-text", call(event=kind, error="\x1b]0;x\x07"))) == 1
        assert len(hits_of("hostile-text", call(event=kind, tool=None, params={"x": ["\x1b]0;x\x07"]}))) == 1
        assert len(hits_of("hostile-text", call(event=kind, session_id="\x1b]0;x\x07"))) == 1

    @pytest.mark.parametrize("text", ["", "plain", "שלום", "日本語", "👩‍👩‍👧", "a\tb\nc", "naïve"])
    def test_languages_are_not_hostile(self, text: str) -> None:
        fields = {"params": {text: text}, "error": text, "session_id": text}
        assert hits_of("hostile-text", call("tool") | fields) == []

    def test_the_reason_is_harmless(self) -> None:
        (hit,) = hits_of("hostile-text", call(params={"\x1b[2J": "x"}))
        assert hit.reason.isprintable() and "\x1b" not in hit.reason


def jwt(issued: object = None, expires: object = None, **fields: Any) -> dict[str, Any]:
    return call(auth={"method": "jwt", "subject": "ann", "issued_at": issued, "expires_at": expires}) | fields


class TestTokens:
    """JSON web tokens that live too long."""

    @pytest.mark.parametrize(
        ("issued", "expires", "severity"),
        [
            pytest.param(START - 60, START + 600, None, id="fine"),
            pytest.param(START, START + 900, None, id="exactly as long as allowed"),
            pytest.param(START, START + 900.001, LOW, id="a millisecond too long"),
            pytest.param(None, START + 960, None, id="issued nobody knows when, short"),
            pytest.param(None, START + 960.001, LOW, id="issued nobody knows when, still too long"),
            pytest.param(START + 9000, START + 9600, LOW, id="says that it is issued after its use"),
            pytest.param(START - 60, START - 60, None, id="expired within the leeway"),
            pytest.param(START - 999, stamp(NS - 60 * SECOND - 1), HIGH, id="expired a nanosecond more"),
            pytest.param(START - 60, None, MEDIUM, id="never expires"),
            pytest.param(None, None, LOW, id="the log tells neither"),
            pytest.param(START, "soon", MEDIUM, id="unreadable"),
            pytest.param(START, "9" * 5_000, MEDIUM, id="unreadable and long"),
            pytest.param("soon", START + 60, None, id="issued unreadable"),
            pytest.param(stamp(NS), stamp(NS + 900 * SECOND), None, id="as text"),
        ],
    )
    def test_what_its_times_say(self, issued: object, expires: object, severity: Severity | None) -> None:
        assert severities("token-lifetime", jwt(issued, expires)) == ([] if severity is None else [severity])

    @pytest.mark.parametrize(
        "fields",
        [*({"status": status} for status in sorted(OUTCOMES - {"success"})), {"event": "session_end"}],
    )
    def test_only_what_succeeded_was_accepted(self, fields: dict[str, Any]) -> None:
        assert hits_of("token-lifetime", jwt(START - 999, START - 900, **fields)) == []

    @pytest.mark.parametrize("method", ["api_key", "oauth", "none", None])
    def test_other_credentials_are_no_tokens(self, method: str | None) -> None:
        assert hits_of("token-lifetime", call(auth={"method": method})) == []

    def test_the_longest_lifetime_is_the_policys_and_the_leeway_the_rules(self) -> None:
        day_long = jwt(START, START + 86_400)
        assert hits_of("token-lifetime", day_long, policy=Policy(alerts=Alerts(token_lifetime=DAY))) == []
        expired = jwt(START - 600, START - 100)
        assert severities("token-lifetime", expired) == [HIGH]
        assert (
            Engine(Policy(), RuleSet((own("token-lifetime", "leeway: 100s"),))).observe(read([expired])) == []
        )


def own(check: str, setting: str, rule_id: str = "ours") -> Rule:
    text = (
        f"title: t\nid: {rule_id}\nlevel: critical\ndescription: d\ncheck: {check}\nsettings: {{{setting}}}\n"
    )
    found = parse_rule(text.encode(), "ours.yaml")
    assert isinstance(found, Rule)
    return found


class TestOldKeys:
    """Keys that should have been rotated."""

    POLICY = Policy(
        keys=MappingProxyType({"k": Key("k", created=date(2026, 1, 1)), "undated": Key("undated")})
    )
    DUE = utc_midnight(date(2026, 1, 1)) + 90 * DAY

    @pytest.mark.parametrize(("after", "count"), [(-1, 0), (0, 0), (1, 1), (400 * DAY, 1)])
    def test_a_key_is_stale_after_ninety_days(self, after: int, count: int) -> None:
        record = call() | {"timestamp": stamp(self.DUE + after)}
        assert severities("key-stale", record, policy=self.POLICY) == [LOW] * count

    @pytest.mark.parametrize("status", sorted(OUTCOMES))
    def test_whatever_came_of_the_call(self, status: str) -> None:
        record = call(status=status) | {"timestamp": stamp(self.DUE + DAY)}
        assert severities("key-stale", record, policy=self.POLICY) == [LOW]

    @pytest.mark.parametrize(
        "fields", [{"key_id": "undated"}, {"key_id": "new"}, {"key_id": None}, {"event": "session_end"}]
    )
    def test_what_has_no_age(self, fields: dict[str, Any]) -> None:
        record = call() | {"timestamp": stamp(self.DUE + DAY)} | fields
        assert hits_of("key-stale", record, policy=self.POLICY) == []

    def test_each_rule_has_an_age_of_its_own(self) -> None:
        rules = RuleSet((shipped().by_id["key-stale"], own("key-stale", "age: 30d")))
        ages = [29, 31, 91]
        records = [call() | {"timestamp": stamp(self.DUE + (days - 90) * DAY)} for days in ages]
        hits = Engine(self.POLICY, rules).observe(read(records))
        assert [(hit.rule, hit.line, hit.severity) for hit in hits] == [
            ("ours", 2, CRITICAL), ("key-stale", 3, LOW), ("ours", 3, CRITICAL),
        ]  # fmt: skip


class TestChangedTools:
    """A tool's definition that is not the one that was approved."""

    SHA = "ab" * 32
    POLICY = Policy(tools={"note": ToolPolicy(definition_sha256=SHA), "other": ToolPolicy()})

    @pytest.mark.parametrize(
        ("tool", "shown", "count"),
        [
            ("note", "cd" * 32, 1), ("note", "sha256:" + "cd" * 32, 1), ("note", "rubbish\x1b[2J", 1),
            ("note", SHA, 0), ("note", SHA.upper(), 0), ("note", "sha256:" + SHA, 0), ("note", None, 0),
            ("other", "cd" * 32, 0), ("unlisted", "cd" * 32, 0),
        ],
    )  # fmt: skip
    def test_only_another_hash_is_a_change(self, tool: str, shown: str | None, count: int) -> None:
        hits = hits_of("tool-changed", call(tool, definition_sha256=shown), policy=self.POLICY)
        assert [hit.severity for hit in hits] == [HIGH] * count
        assert all(hit.reason.isprintable() for hit in hits)

    @pytest.mark.parametrize("status", sorted(OUTCOMES))
    def test_whatever_came_of_the_call(self, status: str) -> None:
        record = call("note", status, definition_sha256="cd" * 32)
        assert severities("tool-changed", record, policy=self.POLICY) == [HIGH]


POLICY = Policy(
    tools={
        "file_read": ToolPolicy(allowed_paths=("/app/data/",), require_scope="read"),
        "file_write": ToolPolicy(allowed_paths=("/app/",), require_audit_log=True),
        "http_request": ToolPolicy(allowed_domains=("api.openai.com",)),
        "move": ToolPolicy(path_params=("source", "destination")),
        "note": ToolPolicy(definition_sha256="ab" * 32),
        "old_tool": ToolPolicy(enabled=False, since=NS),
    },
    keys=MappingProxyType({"k": Key("k", scopes=("read",), created=date(2026, 1, 1)), "x": Key("x")}),
    path=Path(OWN),
)
TEXTS = st.sampled_from(
    [
        "/app/data/x", "/app/output/x", "/etc/passwd", "/home/ann/.ssh/id_rsa", "/home/ann/.bashrc",
        "~/.aws/credentials", "/root/.netrc", "/run/secrets/db",
        OWN, "/srv/conf/%72ules-of-ours.yaml", "rules-of-ours.yaml", ".env", "..\\..\\.env",
        "%2eenv", "a\u202eb",
        "\ud800", "\x1b[2J", "", "plain words", TOKEN, f"Authorization: Bearer {TOKEN}", "AKIAIOSFODNN7EXAMPLE",
        "https://api.openai.com/v1", "https://evil.example/", "http://169.254.169.254/", "file:///root/.netrc",
        "cat /root/.ssh/id_rsa", "crontab -e", '{"path": "/root/.ssh/id_rsa"}', '["a\\u202eb"]',
        '{"token": "' + TOKEN + '"}', "[redacted]", "*** Update File: /root/.bashrc", "Ⅹ．ｅｎｖ",
    ]
)  # fmt: skip
VALUES = st.recursive(
    TEXTS | st.sampled_from([5, None, True, 1.5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
NAMES = (
    st.sampled_from(
        [
            "path",
            "url",
            "uri",
            "source",
            "command",
            "content",
            "query",
            "args",
            "patch",
            "owner",
            "repo",
            "env",
            "x\u202e",
        ]
    )
    | TEXTS
)
PARAMS = st.none() | st.dictionaries(NAMES, VALUES, max_size=4)
LINES = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": st.sampled_from([START, START + 1, "no time", "0800-01-01T00:00:00Z"]),
        "event": st.sampled_from(sorted(KINDS)),
        "tool": st.sampled_from(["file_read", "file_write", "edit_file", "http_request", "move", "note", "bash",
                                 "old_tool", "x\u202e"]),
        "params": PARAMS,
        "error": TEXTS,
        "status": st.sampled_from(["success", "success", *sorted(OUTCOMES), 200]),
        "duration_ms": st.sampled_from([1.5, None]),
        "scopes": st.sampled_from([[], ["read"]]),
        "key_id": st.sampled_from(["k", "x", "stranger"]),
        "session_id": st.sampled_from(["s", "s\x1b[2J"]),
        "source_ip": st.just("192.0.2.1"),
        "auth": st.sampled_from([{"method": "jwt"}, {"method": "jwt", "expires_at": START - 999},
                                 {"method": "none"}]),
        "definition_sha256": st.sampled_from(["ab" * 32, "cd" * 32]),
    },
)  # fmt: skip


def own_rules() -> RuleSet:
    """The shipped rules, and some that stand on nothing but a filter, or on a filter and a check."""
    bodies = [
        "match: 'param:r tool:*_*'",
        "match: 'tool:note'",
        "match: 'error:e'",
        "check: hostile-text\nmatch: 'key:k'",
        "check: sensitive-read",
    ]
    rules = []
    for number, body in enumerate(bodies):
        text = f"title: t\nid: own-{number}\nlevel: low\ndescription: d\n{body}\n"
        rule = parse_rule(text.encode(), "own.yaml")
        assert isinstance(rule, Rule)
        rules.append(rule)
    return RuleSet((*shipped().rules, *rules))


RULES = own_rules()


@settings(max_examples=400, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=3))
def test_no_guard_hides_a_finding(lines: list[dict[str, Any]]) -> None:
    """Checks are skipped where a quick look says that none can fire: all are run here, and say the same."""
    events = read(lines)
    quick = Engine(POLICY, RULES).observe(events)
    thorough = Engine(POLICY, RULES)
    for event in events:
        thorough.what(event)
        thorough.who(event)
    for learnt in thorough._learnt.values():
        learnt.guard = lambda _: True
    for met in thorough._met.values():
        met.wakes = -(1 << 80)
    assert [hit[:6] for hit in quick] == [hit[:6] for hit in thorough.observe(events)]


def test_the_random_lines_do_make_every_rule_fire() -> None:
    """Otherwise the test above would prove nothing."""
    seen: set[str] = set()

    @settings(max_examples=2_500, deadline=None, database=None, derandomize=True)
    @given(LINES)
    def collect(line: dict[str, Any]) -> None:
        seen.update(hit.rule for hit in Engine(POLICY, RULES).observe(read([line])))

    collect()
    assert seen >= {
        "secret-in-params", "policy-tampering", "hostile-text", "token-lifetime", "key-stale", "tool-changed",
        "shell-execute", "path-outside", "domain-unexpected", "audit-missing", "scope-missing", "tool-disabled",
        *(f"own-{number}" for number in range(5)),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["tool_call", "request", "auth"])
def test_a_record_that_says_something_twice_is_hostile_text_and_says_what(kind: str) -> None:
    """Other readers than this one may take the first; what is shown of it holds no secret and obeys nothing."""
    twice = '"status": "success", "status": "denied\\u001b[2J ghp_16C7e42F292c6912E7710c838347Ae178B4b"'
    line = (
        f'{{"timestamp": {START}, "event": "{kind}", "tool": "echo", "params": {{}}, {twice}, "key_id": "k"}}'
    )
    hits = [hit for hit in Engine(Policy()).observe(read([line])) if hit.rule == "hostile-text"]
    assert len(hits) == 1
    assert "says status twice: 'success' and 'denied" in hits[0].reason
    assert "\x1b" not in hits[0].reason and "16C7e42F" not in hits[0].reason
