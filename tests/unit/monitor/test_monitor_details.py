"""Alerts and what opens behind them: incidents, sessions, records, the policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcpwatch.detection.hit import Severity
from mcpwatch.incidents.incident import EVIDENCE_HEAD, EVIDENCE_TAIL
from mcpwatch.response.plan import Target
from mcpwatch.times import DAY, SECOND
from tests.unit.monitor.monitor_runs import NOW, POLICY, Room, call

SECRET = "sk-ant-REDACTED"


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def outside(at_ns: int, **fields: object) -> bytes:
    return call(at_ns, **({"params": {"path": "/etc/passwd"}} | fields))


def test_alerts_stand_worst_first_then_newest(room: Room) -> None:
    shown = room.write(
        outside(NOW, key_id="k1", status="denied"),
        outside(NOW + SECOND, key_id="k2", session_id="s2"),
        call(NOW + 2 * SECOND, key_id="k3", tool="shell_execute", session_id="s3"),
        call(NOW + 3 * SECOND, key_id="k4", tool="shell_execute", session_id="s4"),
    )
    found = [(alert.severity, alert.rule, alert.subject) for alert in shown.alerts]
    assert found[:4] == [
        (Severity.CRITICAL, "path-outside", "k2"),
        (Severity.HIGH, "shell-execute", "k4"),
        (Severity.HIGH, "shell-execute", "k3"),
        (Severity.MEDIUM, "key-unknown", "k4"),
    ]
    assert shown.severities == (1, 2, 3, 0) and shown.alert_count == 6


def test_the_note_of_an_alert_is_what_came_of_it_or_whether_the_revocation_bites(room: Room) -> None:
    (alert,) = room.write(outside(NOW, status="denied")).alerts
    assert alert.note == "denied"
    for status in ("success", "denied", "unauthenticated"):
        room.write(outside(NOW, status=status))
    assert room.look().alerts[0].note == "2 denied, 1 ok"
    room.monitor.apply(room.monitor.plan("revoke", (Target("key", "k1"),), "leaked"))
    assert room.look().alerts[0].note == "untested; 2 denied, 1 ok"
    room.write(call(room.after(3), status="unauthenticated"))
    notes = {alert.rule: alert.note for alert in room.look().alerts}
    assert (notes["path-outside"], notes["revoked-attempt"]) == (
        "in force; 2 denied, 1 ok",
        "in force; unauth",
    )
    room.write(call(room.after(3)))
    notes = {alert.rule: alert.note for alert in room.look().alerts}
    assert notes["path-outside"] == "NOT IN FORCE; 2 denied, 1 ok"
    assert notes["enforcement-gap"] == "NOT IN FORCE"
    room.write(call(room.after(3), status="unauthenticated"))
    assert {a.rule: a.note for a in room.look().alerts}["enforcement-gap"] == "in force"


def test_an_alert_names_what_can_be_done_about_its_newest_record(room: Room) -> None:
    (alert,) = room.write(outside(NOW)).alerts
    kinds = [(target.kind, target.id) for target in alert.targets]
    assert kinds == [
        ("key", "k1"), ("client", "bot"), ("session", "s1"), ("source_ip", "203.0.113.9"), ("tool", "file_read"),
    ]  # fmt: skip


def test_an_incident_tells_why_and_shows_its_evidence(room: Room) -> None:
    shown = room.write(*(outside(NOW + n) for n in range(40)))
    alert = next(a for a in shown.alerts if a.rule == "path-outside")
    detail = room.monitor.incident(alert.id)
    assert detail is not None
    assert detail.row == alert
    assert "outside /app/data/" in detail.why
    assert detail.outcomes == (("success", 40),)
    assert len(detail.evidence) == EVIDENCE_HEAD + EVIDENCE_TAIL
    assert len(detail.evidence) + detail.evidence_left_out == 40 == alert.count
    assert [(row.line, row.seq) for row in detail.evidence[:2]] == [(1, 1), (2, 2)]
    assert detail.evidence[-1].line == 40 and "/etc/passwd" in detail.evidence[-1].text
    record = room.monitor.record(detail.evidence[-1].seq or 0)
    assert record is not None and record.where.startswith("audit.jsonl: line 40, byte ")
    assert room.monitor.incident("INC-NOTHERE") is None


def test_the_other_incidents_of_a_principal_stand_worst_first(room: Room) -> None:
    room.write(
        call(NOW, tool="shell_execute"),
        outside(NOW + SECOND, status="denied"),
        outside(NOW + 2 * SECOND, key_id="k2"),
    )
    lock = (Target("key", "k1"), Target("source_ip", "203.0.113.9"))
    room.write(*(call(NOW + 3 * SECOND, event="auth", tool=None, status="unauthenticated") for _ in range(3)))
    alert = next(a for a in room.look().alerts if a.rule == "path-outside" and a.subject == "k1")
    detail = room.monitor.incident(alert.id)
    assert detail is not None
    assert [row.rule for row in detail.related] == ["auth-lockout", "shell-execute"]
    room.monitor.apply(room.monitor.plan("lock", lock, "guessing"))
    room.monitor.apply(room.monitor.plan("revoke", (Target("key", "k2"),), "leaked"))
    again = room.monitor.incident(alert.id)
    assert again is not None
    assert [change.what for change in again.changes] == [room.look().changes[1].what]


def test_a_change_about_an_address_is_no_change_about_everybody_without_a_key(room: Room) -> None:
    """A lockout of one address shows in its incidents, not in those of every other address."""
    for address in ("203.0.113.1", "203.0.113.2"):
        lines = (call(NOW, event="auth", tool=None, key_id=None, session_id=None, client_id=None,
                      status="unauthenticated", source_ip=address) for _ in range(3))  # fmt: skip
        room.write(*lines)
    room.monitor.apply(room.monitor.plan("lock", (Target("source_ip", "203.0.113.1"),), "guessing"))
    counts = {}
    for alert in room.look().alerts:
        detail = room.monitor.incident(alert.id)
        assert detail is not None
        counts[alert.subject] = len(detail.changes)
    assert counts == {"203.0.113.1": 1, "203.0.113.2": 0}


def test_a_session_opens_with_its_records_and_incidents(room: Room) -> None:
    shown = room.write(
        outside(NOW), call(NOW + SECOND), call(NOW + 2 * SECOND, session_id="s2", key_id="k2", client_id=None)
    )
    row = next(row for row in shown.sessions if row.session == "s1")
    detail = room.monitor.session(row.ref)
    assert detail is not None
    assert detail.row == row
    assert [event.seq for event in detail.timeline] == [1, 2]
    assert [alert.rule for alert in detail.alerts] == ["path-outside"]
    assert room.monitor.session("nobody") is None


@pytest.mark.parametrize("reveal", [False, True])
def test_a_record_is_redacted_unless_told_otherwise(tmp_path: Path, reveal: bool) -> None:
    """By name and by shape, in the row, the fields and the raw record."""
    room = Room(tmp_path, reveal=reveal)
    line = call(NOW, params={"path": f"/app/data/{SECRET}", "api_key": "hunter22"}, status="error",
                error=f"bad token {SECRET}")  # fmt: skip
    shown = room.write(line)
    assert SECRET not in shown.events[0].detail and "hunter22" not in shown.events[0].detail
    detail = room.monitor.record(1)
    assert detail is not None
    raw = "\n".join(detail.raw)
    assert (SECRET in raw, "hunter22" in raw) == (reveal, reveal)
    assert SECRET not in dict(detail.fields)["error"]
    assert dict(detail.fields)["tool"] == "file_read"
    assert ("path", "allowed") in [(aspect, verdict) for aspect, verdict, _ in detail.verdicts]


def test_a_record_says_what_had_to_be_assumed(room: Room) -> None:
    room.write(call(None, timestamp="2026-11-22 10:00:00"), call(None, timestamp="yesterday"))
    notes = []
    for seq in (1, 2):
        detail = room.monitor.record(seq)
        assert detail is not None
        notes.append([value for name, value in detail.fields if name == "note"])
    assert "read as UTC" in notes[0][0] and "arrival time" in notes[1][0]


def test_the_policy_shows_what_holds_and_whether_it_bites(room: Room) -> None:
    room.policy_path.write_text(
        POLICY.replace("{scopes: [read]}", "{scopes: [read], created: 2026-08-01}").replace(
            "revoked: []", 'revoked: [{key: k1, at: "2026-11-22T09:59:50Z"}]'
        )
        + 'lockouts: [{source_ip: 203.0.113.9, at: "2026-11-21T09:00:00Z", until: "2026-11-21T09:05:00Z"}]\n'
    )
    room.write(call(NOW))
    shown = room.monitor.policy()
    assert [row[:3] for row in shown.tools] == [
        ("file_read", "medium", "yes"), ("shell_execute", "high", "yes"),
    ]  # fmt: skip
    assert shown.keys[0][:4] == ("k1", "bot", "payments", "read")
    assert shown.keys[0][-1] == "2026-11-22T10:00:00Z" and shown.keys[1][-2:] == (
        "113 days, rotate",
        "not seen",
    )
    assert shown.revoked[0][-1] == "NOT IN FORCE, success 10 s after the change"
    assert shown.lockouts[0][-1] == "over"
    assert (shown.row.revoked, shown.row.locked) == (1, 0)


def test_an_incident_without_hits_for_long_is_quiet(room: Room) -> None:
    room.write(outside(NOW))
    assert not room.look().alerts[0].quiet
    room.after(601)
    assert room.look().alerts[0].quiet


def test_an_attack_past_midnight_is_an_incident_of_each_day(room: Room) -> None:
    midnight = NOW - NOW % DAY + DAY
    shown = room.write(outside(midnight - SECOND), outside(midnight))
    assert len({alert.id for alert in shown.alerts}) == 2
