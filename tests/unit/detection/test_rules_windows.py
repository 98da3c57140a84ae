"""The rules that count: what they count, whom they group by, and where exactly they begin to fire."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Hit, Severity, Subject
from mcpwatch.detection.rulefile import shipped
from mcpwatch.policy.model import Key, Policy
from tests.oracle import read

START = 1_795_132_800
POLICY = Policy(keys=MappingProxyType({"k1": Key("k1")}))
CORE = {
    "session-rate", "session-churn", "key-rate", "shell-execute", "path-outside", "domain-unexpected",
    "auth-lockout", "tool-disabled", "tool-unlisted", "scope-missing", "audit-missing", "revoked-attempt",
    "enforcement-gap", "unauthenticated-success", "key-unknown",
}  # fmt: skip


BY_ID = shipped().by_id


def hits_of(records: list[dict[str, Any]], rule: str, policy: Policy = POLICY) -> list[Hit]:
    return [hit for hit in Engine(policy).observe(read(records)) if hit.rule == rule]


def at(*seconds: float, **fields: Any) -> list[dict[str, Any]]:
    """A record for each second. Sessions and the like may be a pattern with the number of the record in it."""
    return [
        {"timestamp": START + second, "tool": "echo", "status": "success"}
        | {name: value.format(number) if isinstance(value, str) else value for name, value in fields.items()}
        for number, second in enumerate(seconds)
    ]


def evenly(count: int, step: float) -> list[float]:
    return [number * step for number in range(count)]


def test_the_table_holds_exactly_the_core_rules_with_their_severities() -> None:
    assert BY_ID.keys() > CORE
    critical = {"enforcement-gap", "unauthenticated-success"}
    high, low = {"shell-execute", "auth-lockout"}, {"revoked-attempt"}
    by_outcome = {"path-outside", "domain-unexpected"}
    for rule in shipped().only(*CORE):
        expected = (
            None if rule.id in by_outcome
            else Severity.CRITICAL if rule.id in critical
            else Severity.HIGH if rule.id in high
            else Severity.LOW if rule.id in low
            else Severity.MEDIUM
        )  # fmt: skip
        assert rule.level is expected, rule.id
        assert 3 <= len(rule.runbook) <= 6, rule.id
    counting = {rule.id for rule in shipped().only(*CORE) if rule.correlation is not None}
    assert counting == {"session-rate", "session-churn", "key-rate", "auth-lockout"}


@pytest.mark.parametrize(
    ("rule", "records", "peaks"),
    [
        pytest.param("session-rate", at(*evenly(5, 0.1), session_id="s"), [], id="5 calls"),
        pytest.param("session-rate", at(*evenly(8, 1), session_id="s"), [6, 7, 8], id="8 calls, 3 hits"),
        pytest.param("session-rate", at(*evenly(5, 1), 60, session_id="s"), [], id="6th at 60 s"),
        pytest.param("session-rate", at(*evenly(5, 1), 59.999999, session_id="s"), [6], id="6th before 60 s"),
        pytest.param("session-rate", at(*evenly(9, 1), session_id="s{}"), [], id="sessions apart"),
        pytest.param("session-churn", at(*evenly(5, 1), session_id="s{}", source_ip="i"), [], id="5 sessions"),
        pytest.param(
            "session-churn", at(*evenly(7, 1), session_id="s{}", source_ip="i"), [6, 7], id="6 sessions"
        ),
        pytest.param(
            "session-churn", at(*evenly(5, 1), 60, session_id="s{}", source_ip="i"), [], id="6th session at 60 s"
        ),
        pytest.param(
            "session-churn", at(*evenly(5, 1), 59.999999, session_id="s{}", source_ip="i"), [6],
            id="6th session before 60 s",
        ),
        pytest.param("session-churn", at(*evenly(50, 1), session_id="s", source_ip="i"), [], id="one session"),
        pytest.param("key-rate", at(*evenly(100, 0.1), key_id="k1"), [], id="100 requests"),
        pytest.param("key-rate", at(*evenly(101, 0.1), key_id="k1"), [101], id="101 requests"),
        pytest.param("key-rate", at(*evenly(100, 0.1), 60, key_id="k1"), [], id="101st at 60 s"),
        pytest.param("key-rate", at(*evenly(100, 0.1), 59.999999, key_id="k1"), [101], id="101st before 60 s"),
        pytest.param(
            "auth-lockout", at(0, 150, 300, source_ip="i", status="unauthenticated"), [], id="3rd at 300 s"
        ),
        pytest.param(
            "auth-lockout", at(0, 150, 299.999999, 299.9999995, source_ip="i", status="unauthenticated"), [3, 4],
            id="3rd before 300 s",
        ),
    ],
)  # fmt: skip
def test_exactly_the_limit(rule: str, records: list[dict[str, Any]], peaks: list[int]) -> None:
    hits = hits_of(records, rule)
    assert [hit.peak for hit in hits] == peaks
    assert {hit.severity for hit in hits} <= {BY_ID[rule].level}


@pytest.mark.parametrize(
    ("rule", "fields", "count", "subject"),
    [
        pytest.param("session-rate", {"session_id": "s", "key_id": "k", "client_id": "c", "source_ip": "i"}, 6,
                     (("session", "s"),), id="session first"),
        pytest.param("session-rate", {"key_id": "k", "client_id": "c", "source_ip": "i"}, 6,
                     (("key", "k"), ("client", "c")), id="key and client"),
        pytest.param("session-rate", {"key_id": "k", "source_ip": "i"}, 6, (("key", "k"),), id="key alone"),
        pytest.param("session-rate", {"client_id": "c", "source_ip": "i"}, 6,
                     (("source_ip", "i"), ("client", "c")), id="address and client"),
        pytest.param("session-rate", {"source_ip": "i"}, 6, (("source_ip", "i"),), id="address alone"),
        pytest.param("session-rate", {"client_id": "c"}, 6, None, id="a client's name alone is nobody"),
        pytest.param("session-rate", {}, 6, None, id="nobody"),
        pytest.param("session-churn", {"session_id": "s{}", "key_id": "k", "client_id": "c", "source_ip": "i"}, 6,
                     (("key", "k"), ("client", "c")), id="churn of key and client"),
        pytest.param("session-churn", {"session_id": "s{}", "key_id": "k", "source_ip": "i"}, 6,
                     (("source_ip", "i"),), id="churn without client: the address"),
        pytest.param("session-churn", {"session_id": "s{}", "key_id": "k"}, 6, None, id="churn of nobody"),
        pytest.param("session-churn", {"source_ip": "i"}, 6, None, id="no sessions, no churn"),
        pytest.param("key-rate", {"key_id": "k", "source_ip": "i{}"}, 101, (("key", "k"),), id="key"),
        pytest.param("key-rate", {"source_ip": "i"}, 101, None, id="no key"),
        pytest.param("auth-lockout", {"key_id": "k1", "source_ip": "i", "status": "unauthenticated"}, 3,
                     (("key", "k1"), ("source_ip", "i")), id="known key and address"),
        pytest.param("auth-lockout", {"key_id": "guess{}", "source_ip": "i", "status": "unauthenticated"}, 3,
                     (("source_ip", "i"),), id="a fresh wrong key each time"),
        pytest.param("auth-lockout", {"key_id": "k1", "source_ip": "i{}", "status": "unauthenticated"}, 3, None,
                     id="a key guessed at from everywhere is not locked"),
        pytest.param("auth-lockout", {"key_id": "k1", "status": "unauthenticated"}, 3, None,
                     id="a known key without address"),
        pytest.param("auth-lockout", {"session_id": "s", "status": "unauthenticated"}, 3, None, id="nobody fails"),
    ],
)  # fmt: skip
def test_whom_a_rule_groups_by(
    rule: str, fields: dict[str, Any], count: int, subject: Subject | None
) -> None:
    hits = hits_of(at(*evenly(count, 0.1), **fields), rule)
    assert [hit.subject for hit in hits] == ([] if subject is None else [subject])


@pytest.mark.parametrize(
    ("rule", "fields", "counted"),
    [
        ("session-rate", {"event": "tool_call"}, True),
        ("session-rate", {"event": "request", "tool": None}, False),
        ("session-rate", {"event": "auth", "tool": None}, False),
        *(
            ("session-rate", {"status": status}, True)
            for status in ("error", "denied", "unauthenticated", "?")
        ),
        ("key-rate", {"event": "request", "tool": None}, True),
        ("key-rate", {"event": "auth", "tool": None}, False),
        ("key-rate", {"event": "session_start", "tool": None}, False),
        ("auth-lockout", {"status": "unauthenticated"}, True),
        ("auth-lockout", {"status": 401}, True),
        ("auth-lockout", {"status": 403}, False),
        ("auth-lockout", {"status": "denied"}, False),
        ("auth-lockout", {"event": "auth", "status": "error"}, True),
        ("auth-lockout", {"event": "auth", "status": "denied"}, True),
        ("auth-lockout", {"event": "auth", "status": "success"}, False),
        ("auth-lockout", {"event": "login_failed", "status": None}, True),
    ],
)
def test_what_a_rule_counts(rule: str, fields: dict[str, Any], counted: bool) -> None:
    need = {"session-rate": 6, "key-rate": 101, "auth-lockout": 3}[rule]
    who = {"session_id": "s", "key_id": "k1", "source_ip": "i"}
    assert len(hits_of(at(*evenly(need, 0.1), **who, **fields), rule)) == counted


def test_a_success_between_failures_resets_nothing() -> None:
    failed = at(0, 1, 2, source_ip="i", status="unauthenticated")
    fine = at(1.5, source_ip="i", event="auth")
    assert len(hits_of([*failed[:2], *fine, failed[2]], "auth-lockout")) == 1


def test_a_call_logged_at_its_start_and_end_is_one_call_of_a_session() -> None:
    twice = [
        record for call in range(5)
        for record in at(call, call + 0.5, session_id="s", call_id=f"c{call}")
    ]  # fmt: skip
    assert hits_of(twice, "session-rate") == []
    assert [hit.peak for hit in hits_of([*twice, *at(6, session_id="s")], "session-rate")] == [6]


def test_a_call_logged_by_two_sources_is_one_call_of_a_session() -> None:
    engine = Engine(POLICY)
    calls = at(*evenly(5, 1), session_id="s", call_id="c{}")
    assert engine.observe(read(calls, "server.jsonl")) == []
    assert engine.observe(read(calls, "gateway.jsonl")) == []


def test_a_repeated_call_id_hides_no_failed_login_and_no_request() -> None:
    """A client may choose the id: it merges the tool calls of a session, nothing else."""
    assert len(hits_of(at(0, 1, 2, source_ip="i", status=401, call_id="c"), "auth-lockout")) == 1
    assert len(hits_of(at(*evenly(101, 0.1), key_id="k1", call_id="c"), "key-rate")) == 1


@pytest.mark.parametrize("absent", ["-", "", "unknown", "anonymous", "null", None])
def test_absent_ids_pool_nothing(absent: str | None) -> None:
    who = dict.fromkeys(("session_id", "key_id", "client_id", "source_ip", "call_id"), absent)
    assert Engine(POLICY).observe(read(at(*evenly(200, 0.1), **who, status="unauthenticated"))) == []
    assert len(hits_of(at(*evenly(6, 1), **(who | {"session_id": "s"})), "session-rate")) == 1


def test_two_identical_lines_are_two_events() -> None:
    assert len(hits_of(at(0, 0, 0, 0, 0, 0, session_id="s"), "session-rate")) == 1
