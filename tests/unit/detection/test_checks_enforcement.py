"""Revocations and lockouts: what breaks them, what proves them, and what says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from mcpwatch.detection.enforcement import DisabledTool, Enforcement
from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Hit
from mcpwatch.policy.model import Lockout, Policy, PrincipalKind, Revocation, ToolPolicy
from mcpwatch.times import SECOND
from tests.oracle import read, stamp

NS = 1_795_132_800 * SECOND
GRACE = 10 * SECOND
WHO = {"key": "key_id", "client": "client_id", "session": "session_id", "subject": "user"}
TOOLS = {
    "echo": ToolPolicy(),
    "file_read": ToolPolicy(allowed_paths=("/app/data/",), require_scope="read"),
    "old_tool": ToolPolicy(enabled=False, since=NS),
}


def call(after_ns: int, status: str = "success", **fields: Any) -> dict[str, Any]:
    return {"timestamp": stamp(NS + after_ns), "tool": "echo", "status": status, "params": {}} | fields


def run(policy: Policy, *records: dict[str, Any]) -> tuple[list[Hit], list[Enforcement]]:
    """The hits, and what was proved; successes within the grace prove nothing and are left out here."""
    engine = Engine(policy)
    hits = engine.observe(read(records))
    return hits, [seen for seen in engine.enforcement if not seen.early]


def revoked(kind: PrincipalKind = "key", until: int | None = None, at: int = NS) -> Revocation:
    return Revocation(kind, "bad", at, until=until)


def locked(key: str | None = None, source_ip: str | None = None, at: int = NS) -> Lockout:
    return Lockout(key, source_ip, at, NS + 300 * SECOND)


def policy_with(*entries: Revocation | Lockout) -> Policy:
    return Policy(
        tools=TOOLS,
        deny_unlisted=True,
        revoked=tuple(entry for entry in entries if isinstance(entry, Revocation)),
        lockouts=tuple(entry for entry in entries if isinstance(entry, Lockout)),
    )


@pytest.mark.parametrize("kind", ["key", "client", "session", "subject"])
@pytest.mark.parametrize(
    ("after_ns", "expected"),
    [(-1, False), (0, False), (GRACE, False), (GRACE + 1, True), (10**15, True)],
    ids=["before", "at once", "exactly the grace", "a nanosecond more", "much later"],
)
def test_a_success_of_a_revoked_principal_after_the_grace_is_a_gap(
    kind: PrincipalKind, after_ns: int, expected: bool
) -> None:
    entry = revoked(kind)
    hits, enforcement = run(policy_with(entry), call(after_ns, **{WHO[kind]: "bad"}))
    gap = [("enforcement-gap", ((kind, "bad"), ("gap", "revoked")))]
    assert [(hit.rule, hit.subject) for hit in hits] == gap * expected
    assert enforcement == [Enforcement(entry, NS + after_ns, refused=False)] * expected


@pytest.mark.parametrize(
    ("after_ns", "expected"), [(60 * SECOND - 1, ["enforcement-gap"]), (60 * SECOND, [])], ids=["in", "out"]
)
def test_a_revocation_ends_at_its_until(after_ns: int, expected: list[str]) -> None:
    policy = policy_with(revoked(until=NS + 60 * SECOND))
    hits, _ = run(policy, call(after_ns, key_id="bad"))
    assert [hit.rule for hit in hits] == expected


@pytest.mark.parametrize(
    ("entry", "fields", "expected"),
    [
        pytest.param(locked(key="bad"), {"key_id": "bad"}, True, id="key"),
        pytest.param(locked(source_ip="192.0.2.1"), {"source_ip": "192.0.2.1"}, True, id="address"),
        pytest.param(
            locked(source_ip="192.0.2.1"), {"source_ip": "192.0.2.1:5004"}, True, id="address with a port"
        ),
        pytest.param(
            locked("bad", "192.0.2.1"), {"key_id": "bad", "source_ip": "192.0.2.1"}, True, id="both"
        ),
        pytest.param(
            locked("bad", "192.0.2.1"), {"key_id": "bad", "source_ip": "192.0.2.2"}, False, id="other address"
        ),
        pytest.param(locked("bad", "192.0.2.1"), {"source_ip": "192.0.2.1"}, False, id="other key"),
    ],
)
@pytest.mark.parametrize(
    ("after_ns", "held"),
    [(-1, False), (GRACE, False), (GRACE + 1, True), (300 * SECOND - 1, True), (300 * SECOND, False)],
)
def test_a_success_of_whoever_is_locked_is_a_gap_until_the_lock_ends(
    entry: Lockout, fields: dict[str, str], expected: bool, after_ns: int, held: bool
) -> None:
    hits, enforcement = run(policy_with(entry), call(after_ns, **fields))
    gaps = [hit for hit in hits if hit.rule == "enforcement-gap"]
    assert [hit.subject[-1] for hit in gaps] == [("gap", "locked")] * (expected and held)
    assert enforcement == [Enforcement(entry, NS + after_ns, refused=False)] * (expected and held)


ALLOWED = {"tool": "file_read", "params": {"path": "/app/data/a"}, "scopes": ["read"]}


@pytest.mark.parametrize(
    ("status", "fields", "proves"),
    [
        pytest.param("unauthenticated", {}, True, id="401"),
        pytest.param("unauthenticated", {"tool": "unlisted"}, True, id="401 whatever was called"),
        pytest.param("denied", {}, True, id="denied"),
        pytest.param("denied", ALLOWED, True, id="denied, else allowed"),
        pytest.param("denied", {"tool": None, "event": "request"}, True, id="denied, no tool"),
        pytest.param("denied", ALLOWED | {"scopes": []}, False, id="denied for its scope"),
        pytest.param("denied", ALLOWED | {"scopes": None}, False, id="denied, scopes not known"),
        pytest.param("denied", ALLOWED | {"params": {"path": "/etc/x"}}, False, id="denied for its path"),
        pytest.param("denied", ALLOWED | {"params": None}, False, id="denied, path not known"),
        pytest.param("denied", {"tool": "old_tool"}, False, id="denied, tool disabled"),
        pytest.param("denied", {"tool": "unlisted"}, False, id="denied, tool unlisted"),
        *(
            pytest.param(status, {}, False, id=status)
            for status in ("rate_limited", "error", "timeout", "unknown")
        ),
    ],
)
@pytest.mark.parametrize("entry", [revoked(), locked(key="bad")], ids=["revoked", "locked"])
def test_what_proves_that_a_restriction_bites(
    entry: Revocation | Lockout, status: str, fields: dict[str, Any], proves: bool
) -> None:
    _, enforcement = run(policy_with(entry), call(SECOND, status, key_id="bad", **fields))
    assert enforcement == [Enforcement(entry, NS + SECOND, refused=True)] * proves


@pytest.mark.parametrize(
    ("status", "after_ns", "expected"),
    [
        ("denied", 0, 1),
        ("unauthenticated", 0, 1),
        ("denied", -1, 0),
        ("success", 1, 0),
        *((status, 1, 0) for status in ("rate_limited", "error", "timeout", "unknown")),
    ],
)
def test_a_revoked_attempt_is_a_refusal_from_the_revocation_on(
    status: str, after_ns: int, expected: int
) -> None:
    hits, _ = run(policy_with(revoked()), call(after_ns, status, key_id="bad"))
    assert [(hit.rule, hit.severity.label) for hit in hits] == [("revoked-attempt", "low")] * expected


def test_a_locked_attempt_is_no_revoked_attempt() -> None:
    hits, _ = run(policy_with(locked(key="bad")), call(SECOND, "denied", key_id="bad"))
    assert hits == []


def test_a_success_disproves_every_entry_it_gets_past_and_is_one_hit() -> None:
    entries = (revoked(), revoked("session"), revoked("client", at=NS + GRACE))
    success = call(GRACE + 1, key_id="bad", session_id="bad", client_id="bad")
    hits, enforcement = run(policy_with(*entries), success)
    assert [hit.rule for hit in hits] == ["enforcement-gap"]
    assert [(item.restriction, item.refused) for item in enforcement] == [
        (entry, False) for entry in entries[:2]
    ]


def test_a_lock_in_its_grace_hides_no_older_one() -> None:
    """The lock of the key is new and may not be known yet, the one of its address is old and ignored."""
    new, old = locked(key="bad", at=NS), locked(source_ip="192.0.2.1", at=NS - 60 * SECOND)
    hits, enforcement = run(policy_with(new, old), call(SECOND, key_id="bad", source_ip="192.0.2.1"))
    assert [hit.subject for hit in hits] == [(("key", "bad"), ("gap", "locked"))]
    assert [item.restriction for item in enforcement] == [old]


def test_an_entry_that_has_ended_hides_no_newer_one() -> None:
    ended, newer = revoked(until=NS + 1, at=NS - GRACE), revoked(at=NS + 2)
    hits, enforcement = run(policy_with(ended, newer), call(SECOND, "unauthenticated", key_id="bad"))
    assert [hit.rule for hit in hits] == ["revoked-attempt"]
    assert [item.restriction for item in enforcement] == [newer]


def test_closing_a_session_is_no_use_of_it() -> None:
    policy = policy_with(revoked("session"), locked(key="bad"))
    end = call(GRACE + 1, event="session_end", tool=None, session_id="bad", key_id="bad")
    assert run(policy, end) == ([], [])


@pytest.mark.parametrize(
    ("after_ns", "status", "fields", "expected"),
    [
        pytest.param(SECOND, "denied", {}, [True], id="denied proves it"),
        pytest.param(-1, "denied", {}, [], id="before it was disabled"),
        pytest.param(GRACE, "success", {}, [], id="success in the grace"),
        pytest.param(GRACE + 1, "success", {}, [False], id="success disproves it"),
        pytest.param(SECOND, "unauthenticated", {}, [], id="401 says nothing of the tool"),
        pytest.param(SECOND, "error", {}, [], id="error"),
    ],
)
def test_what_a_call_of_a_disabled_tool_shows(
    after_ns: int, status: str, fields: dict[str, Any], expected: list[bool]
) -> None:
    _, enforcement = run(policy_with(), call(after_ns, status, tool="old_tool", key_id="k", **fields))
    assert enforcement == [
        Enforcement(DisabledTool("old_tool", NS), NS + after_ns, refused) for refused in expected
    ]


@pytest.mark.parametrize("entry", [revoked(), locked(key="bad")], ids=["revoked", "locked"])
def test_a_restricted_caller_who_is_denied_says_nothing_of_the_tool(entry: Revocation | Lockout) -> None:
    _, enforcement = run(policy_with(entry), call(SECOND, "denied", tool="old_tool", key_id="bad"))
    assert enforcement == []


def test_a_restriction_that_has_ended_leaves_the_tool_to_be_proved() -> None:
    policy = policy_with(revoked(until=NS + 1))
    _, enforcement = run(policy, call(SECOND, "denied", tool="old_tool", key_id="bad"))
    assert [item.restriction for item in enforcement] == [DisabledTool("old_tool", NS)]


def test_gaps_of_different_kinds_are_apart() -> None:
    """ "The revoked key still works" is an incident of its own."""
    hits, _ = run(policy_with(revoked()), call(GRACE + 1, tool="old_tool", key_id="bad"))
    gaps = {hit.subject for hit in hits if hit.rule == "enforcement-gap"}
    assert gaps == {(("key", "bad"), ("gap", "tool")), (("key", "bad"), ("gap", "revoked"))}
