"""Changes through the monitor: planned, written as shown, seen to bite or not, taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcpwatch.policy.file import PolicyFile
from mcpwatch.policy.model import Policy
from mcpwatch.response.plan import Plan, ResponseError, Target
from mcpwatch.times import SECOND
from tests.unit.monitor.monitor_runs import NOW, Room, call

KEY = (Target("key", "k1"),)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def revoke(room: Room, reason: str = "leaked") -> Plan:
    return room.monitor.plan("revoke", KEY, reason)


def on_disk(room: Room) -> Policy:
    return PolicyFile(room.policy_path).policy


def newest(room: Room) -> tuple[str, str]:
    change = room.look().changes[0]
    return change.state, change.detail


def test_a_revocation_is_untested_then_in_force_and_every_later_success_takes_that_back(room: Room) -> None:
    room.write(call(NOW))
    room.monitor.apply(revoke(room))
    assert newest(room) == ("untested", "no attempt since")
    room.write(call(room.after(1)))
    assert newest(room)[0] == "untested", "a success within the grace proves nothing"
    for status in ("error", "timeout", "rate_limited", "unknown"):
        room.write(call(room.after(2), status=status))
    assert newest(room)[0] == "untested"
    room.write(call(room.after(1), status="unauthenticated"))
    assert newest(room) == ("in force", "after 10 s")
    room.write(call(room.after(5)))
    assert newest(room) == ("NOT IN FORCE", "success 15 s after the change")
    room.write(call(room.after(5), status="unauthenticated"))
    assert newest(room) == ("in force", "after 20 s")


def test_a_refusal_for_another_reason_does_not_prove_a_revocation(room: Room) -> None:
    """`denied` counts only on a call that the policy would otherwise allow."""
    room.monitor.apply(revoke(room))
    room.write(call(room.after(3), status="denied", params={"path": "/etc/passwd"}))
    assert newest(room)[0] == "untested"
    room.write(call(room.after(3), status="denied"))
    assert newest(room)[0] == "in force"


def test_a_lockout_and_a_disabled_tool_are_watched_as_well(room: Room) -> None:
    address = (Target("source_ip", "203.0.113.9"),)
    room.monitor.apply(room.monitor.plan("lock", address, "guessing"))
    room.monitor.apply(room.monitor.plan("disable", (Target("tool", "shell_execute"),), "not needed"))
    assert [change.state for change in room.look().changes] == ["untested", "written"]
    room.write(call(room.after(3), status="unauthenticated"))
    room.write(call(room.after(3), tool="shell_execute", key_id="k2", source_ip="198.51.100.7"))
    assert [change.state for change in room.look().changes] == ["NOT IN FORCE", "confirmed"]


def test_a_change_counts_from_the_moment_of_writing(room: Room) -> None:
    """The dialog may have been open for minutes: what came meanwhile was not yet forbidden."""
    plan = revoke(room)
    room.after(90)
    change = room.monitor.apply(plan)
    assert change.at_ns == room.now
    (entry,) = on_disk(room).revoked
    assert (entry.at, entry.reason) == (room.now, "leaked")


def test_a_lockout_keeps_its_length_when_it_is_written_later(room: Room) -> None:
    plan = room.monitor.plan("lock", (Target("source_ip", "203.0.113.9"),), "guessing")
    room.after(60)
    room.monitor.apply(plan)
    (entry,) = on_disk(room).lockouts
    assert (entry.at, entry.until - entry.at) == (room.now, 300 * SECOND)


def test_nothing_is_written_over_a_file_that_is_not_the_one_shown(room: Room) -> None:
    plan = revoke(room)
    changed = room.policy_path.read_bytes().replace(b"payments", b"finance")
    room.policy_path.write_bytes(changed)
    with pytest.raises(ResponseError, match=r"policy\.yaml"):
        room.monitor.apply(plan)
    assert room.policy_path.read_bytes() == changed
    assert room.look().changes == ()


def test_undo_restores_the_file_byte_for_byte_change_by_change(room: Room) -> None:
    monitor = room.monitor
    states = [room.policy_path.read_bytes()]
    for verb, target in (("revoke", KEY[0]), ("disable", Target("tool", "shell_execute"))):
        monitor.apply(monitor.plan(verb, (target,), "test"))  # type: ignore[arg-type]
        states.append(room.policy_path.read_bytes())
    assert len(set(states)) == 3
    monitor.apply(monitor.plan_undo())
    assert on_disk(room).tools["shell_execute"].enabled
    monitor.apply(monitor.plan_undo())
    assert on_disk(room).revoked == ()
    with pytest.raises(ResponseError, match="nothing to undo"):
        monitor.plan_undo()
    whats = [(change.what, change.detail) for change in room.look().changes]
    assert [detail for _, detail in whats] == ["", "", "taken back since", "taken back since"]


def test_the_undo_of_a_revocation_leaves_the_bytes_of_before(room: Room) -> None:
    before = room.policy_path.read_bytes()
    room.monitor.apply(revoke(room))
    assert room.policy_path.read_bytes() != before
    room.monitor.apply(room.monitor.plan_undo())
    assert room.policy_path.read_bytes() == before


def test_what_is_so_already_is_a_noop_and_no_change(room: Room) -> None:
    room.monitor.apply(revoke(room))
    before = room.policy_path.read_bytes()
    plan = revoke(room)
    assert plan.noop
    room.monitor.apply(plan)
    assert room.policy_path.read_bytes() == before
    assert len(room.look().changes) == 1


@pytest.mark.parametrize("kind", ["read-only", "no policy", "unwritable"])
def test_where_nothing_can_be_changed_the_reason_is_said(tmp_path: Path, kind: str) -> None:
    room = Room(tmp_path, policy=None if kind == "no policy" else Room.policy, read_only=kind == "read-only")
    if kind == "unwritable":
        room.policy_path.chmod(0o666)
    why = room.look().policy.changes_off
    assert why is not None
    assert {"read-only": "--read-only", "no policy": "policy init", "unwritable": "chmod o-w"}[kind] in why
    with pytest.raises(ResponseError):
        room.monitor.apply(revoke(room))
    if kind == "no policy":
        assert "no policy" in room.look().notices[0]


def test_a_broken_policy_file_is_said_and_the_last_good_one_judges_on(room: Room) -> None:
    good = room.policy_path.read_text()
    room.policy_path.write_text(good + "nonsense: 1\n")
    shown = room.look()
    assert shown.policy.error is not None and "nonsense" in shown.policy.error
    assert any("last good one" in notice for notice in shown.notices)
    assert room.write(call(NOW, params={"path": "/etc/passwd"})).alert_count == 1
    room.policy_path.write_text(good.replace("/app/data/", "/etc/"))
    shown = room.look()
    assert (shown.policy.error, shown.notices) == (None, ())
    room.write(call(NOW, params={"path": "/etc/shadow"}))
    (alert,) = room.look().alerts
    assert alert.count == 1, "the new policy allows it"


def test_the_plan_says_what_depends_on_it(room: Room) -> None:
    room.write(
        call(NOW - 3_700 * SECOND), *(call(NOW, session_id=f"s{n}") for n in range(3)), call(NOW, key_id="k9")
    )
    assert revoke(room).impact[:2] == (
        "key k1: 3 records in 3 sessions in the last hour", "owner payments, client bot",
    )  # fmt: skip
    stranger = room.monitor.plan("revoke", (Target("key", "k9"),), "who?").impact
    assert stranger[0].startswith("key k9: 1 record in 1 session ")
    assert stranger[1] == "this key is not in the policy's list of keys"


def test_targets_that_fit_no_verb_are_refused_with_a_reason(room: Room) -> None:
    for verb, target in (
        ("revoke", Target("tool", "bash")),
        ("lock", Target("client", "bot")),
        ("disable", KEY[0]),
    ):
        with pytest.raises(ResponseError):
            room.monitor.plan(verb, (target,), "test")  # type: ignore[arg-type]


def test_a_change_of_another_process_is_taken_over(room: Room) -> None:
    """And is watched like one made here, but is no change of this console."""
    other = Room(room.folder)
    other.monitor.apply(revoke(other))
    shown = room.look()
    assert (shown.policy.revoked, shown.changes) == (1, ())
    room.write(call(room.after(3), status="unauthenticated"))
    assert room.monitor.policy().revoked[0][-1] == "in force after 3.0 s"


def test_an_ended_lockout_is_no_reason_any_more(room: Room) -> None:
    """Notes and counts speak of what the policy holds against somebody now."""
    failures = [call(NOW + n, event="auth", tool=None, status="unauthenticated") for n in range(3)]
    room.write(*failures)
    target = (Target("key", "k1"), Target("source_ip", "203.0.113.9"))
    room.monitor.apply(room.monitor.plan("lock", target, "guessing"))
    assert room.look().policy.locked == 1
    (alert,) = room.look().alerts
    assert alert.note == "written; unauth"
    room.after(301)
    (alert,) = room.look().alerts
    assert (alert.note, room.look().policy.locked) == ("over; unauth", 0)
