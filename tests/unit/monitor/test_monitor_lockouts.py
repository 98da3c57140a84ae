"""Lockouts in the picture: advised, written, confirmed, over; and what the writer may never do to the monitor."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from mcpwatch.monitor.live import Live
from mcpwatch.monitor.lockouts import Lockouts
from mcpwatch.policy.file import PolicyFile
from mcpwatch.policy.model import Lockout
from mcpwatch.response.lockout import triggers
from mcpwatch.response.plan import ResponseError, Target
from mcpwatch.response.report import Report
from mcpwatch.snapshot import LockoutRow
from mcpwatch.times import MINUTE
from tests.unit.monitor.monitor_runs import NOW, POLICY, Room, call

ENFORCING = POLICY + "lockout: {enforce: true}\n"
TARGETS = (Target("key", "k1"), Target("source_ip", "203.0.113.9"))


def failures(at_ns: int, count: int = 3, **fields: object) -> bytes:
    refused = {"event": "auth", "tool": None, "params": None, "status": "unauthenticated", **fields}
    return b"".join(call(at_ns + number, **refused) for number in range(count))


class Watched:
    """A room with a live loop that is turned by hand."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.told: list[Report] = []
        self.live = Live(room.monitor, room.sources, report=self.told.extend)

    def write(self, lines: bytes = b"") -> list[str]:
        """Append to the log and turn until all is told; what was told."""
        with self.room.log.open("ab") as log:
            log.write(lines)
        self.told.clear()
        for _ in range(3):
            self.room._looks += 1
            self.live.tick()
            self.live._lockouts.close()
            self.room.now += 1_000_000_000  # a file is looked at only now and then
        self.room.monitor.publish()
        return [report.change for report in self.told]

    def lockout(self) -> LockoutRow:
        """Of the incident of failed logins."""
        alerts = self.room.monitor.snapshot().alerts
        detail = self.room.monitor.incident(next(row.id for row in alerts if row.rule == "auth-lockout"))
        assert detail is not None and detail.lockout is not None
        return detail.lockout

    @property
    def note(self) -> str:
        return next(row.note for row in self.room.monitor.snapshot().alerts if row.rule == "auth-lockout")

    @property
    def on_disk(self) -> tuple[Lockout, ...]:
        return PolicyFile(self.room.policy_path).policy.lockouts


def test_advice_has_the_command_in_the_incident_and_is_told_once(tmp_path: Path) -> None:
    watched = Watched(Room(tmp_path))
    assert watched.write(failures(NOW)) == ["advised"]
    (advice,) = watched.told
    assert (watched.lockout().state, watched.note) == ("advised", "advised; unauth")
    command = watched.lockout().command
    assert command is not None and command == advice.command
    assert command.startswith("mcpwatch lock --key k1 --ip 203.0.113.9 --reason 'auth-lockout INC-")
    assert command.endswith(f"--policy {watched.room.policy_path}")
    assert watched.write(failures(watched.room.now)) == []
    assert watched.on_disk == ()
    watched.room.after(300)
    assert watched.write(failures(watched.room.now)) == ["advised"], "it goes on: told anew"


def test_a_lockout_is_written_confirmed_and_over_everywhere(tmp_path: Path) -> None:
    room = Room(tmp_path, policy=ENFORCING)
    watched = Watched(room)
    assert watched.write(failures(NOW)) == ["written"]
    (entry,) = watched.on_disk
    assert (entry.at, entry.until) == ((NOW + 2) // 1_000 * 1_000, (NOW + 2 + 5 * MINUTE) // 1_000 * 1_000)
    assert (watched.lockout().state, watched.note) == ("written", "written; unauth")
    assert room.monitor.policy().lockouts[0][-1] == "written, no attempt since"
    assert room.monitor.snapshot().policy.lockouts == (TARGETS,)
    assert watched.write(call(room.now, status="unauthenticated")) == ["in_force"]
    assert watched.lockout().state == "confirmed"
    assert watched.note.startswith("confirmed")
    assert room.monitor.policy().lockouts[0][-1].startswith("confirmed after ")
    assert watched.write(call(room.now)) == ["not_in_force"]
    assert (watched.lockout().state, watched.note[:12]) == ("NOT IN FORCE", "NOT IN FORCE")
    room.after(300)
    assert watched.write() == ["ended"]
    assert watched.lockout().state == "over"
    assert room.monitor.policy().lockouts[0][-1] == "over"
    assert room.monitor.snapshot().policy.lockouts == ()
    assert watched.write(failures(room.now)) == ["written"]
    assert [found.until - found.at for found in watched.on_disk] == [5 * MINUTE, 15 * MINUTE]


def test_who_is_never_locked_out_is_said_with_the_reason(tmp_path: Path) -> None:
    watched = Watched(Room(tmp_path, policy=ENFORCING))
    assert watched.write(failures(NOW, source_ip="127.0.0.1")) == []
    assert watched.lockout().state is None
    assert "trusted proxy" in watched.lockout().detail
    assert any("trusted proxy" in notice for notice in watched.room.monitor.snapshot().notices)
    assert watched.on_disk == ()


def test_where_nothing_may_be_written_it_stays_advice_with_a_banner(tmp_path: Path) -> None:
    watched = Watched(Room(tmp_path, policy=ENFORCING, read_only=True))
    assert watched.write(failures(NOW)) == ["advised"]
    assert any("advised, not written: read-only" in n for n in watched.room.monitor.snapshot().notices)
    assert watched.on_disk == ()


def test_without_a_policy_file_there_is_no_command_to_advise(tmp_path: Path) -> None:
    watched = Watched(Room(tmp_path, policy=None))
    assert watched.write(failures(NOW, key_id=None)) == ["advised"]
    assert watched.told[0].command is None
    assert (watched.lockout().state, watched.lockout().command) == ("advised", None)
    assert "no policy file" in watched.lockout().detail


def test_an_unlock_and_its_undo_are_changes_like_the_others(tmp_path: Path) -> None:
    watched = Watched(Room(tmp_path, policy=ENFORCING))
    monitor = watched.room.monitor
    watched.write(failures(NOW))
    locked = watched.room.policy_path.read_bytes()
    plan = monitor.plan("unlock", TARGETS, "our own scanner")
    assert any(line.startswith("+  - {key:") for line in plan.diff)
    monitor.apply(plan)
    (ended,) = watched.on_disk
    assert ended.until == watched.room.now // 1_000 * 1_000
    assert watched.write() == ["ended"]
    assert watched.lockout().state == "over"
    monitor.apply(monitor.plan_undo())
    assert watched.room.policy_path.read_bytes() == locked
    assert watched.write() == []
    assert watched.lockout().state == "written"
    with pytest.raises(
        ResponseError, match=r"named as it was written: mcpwatch unlock --key k1 --ip 203\.0\.113\.9"
    ):
        monitor.plan("unlock", (Target("source_ip", "203.0.113.9"),), "x")


def test_the_monitor_goes_on_while_somebody_else_holds_the_policy(tmp_path: Path) -> None:
    """And what could not be written is advised, with a banner, and tried again."""
    room = Room(tmp_path, policy=ENFORCING)
    known, woken = room.monitor, threading.Event()
    lockouts = Lockouts(known, woken.set)
    with room.log.open("ab") as log:
        log.write(failures(NOW))
    hits = [
        hit
        for block in room.sources.tick(NOW)
        for hit in known.pipeline.take(block, NOW).hits  # type: ignore[arg-type]
    ]
    assert len(triggers(hits)) == 1
    with (tmp_path / ".policy.yaml.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert lockouts.take(hits, NOW) == []
        assert not woken.is_set(), "the call came back while the writer waits"
        assert woken.wait(20)
        assert [report.change for report in lockouts.take((), NOW)] == ["advised"]
        assert "somebody" in lockouts.notices[0]
        assert PolicyFile(room.policy_path).policy.lockouts == ()
    later = [hit._replace(time_ns=NOW + 31_000_000_000) for hit in hits]
    assert lockouts.take(later, NOW + 31_000_000_000) == []
    assert lockouts.close()
    assert len(PolicyFile(room.policy_path).policy.lockouts) == 1
    assert lockouts.notices == []


@pytest.mark.parametrize("many", [3])
def test_a_flood_is_handed_over_once_for_each_subject(tmp_path: Path, many: int) -> None:
    room = Room(tmp_path, policy=ENFORCING)
    watched = Watched(room)
    lines = b"".join(
        failures(NOW, 50, key_id=f"guess{n}", source_ip=f"203.0.113.{n}") for n in range(1, many + 1)
    )
    assert watched.write(lines) == ["written"] * many
    versions = list((tmp_path / "state" / "policy-versions").iterdir())
    assert len(versions) <= many


def test_a_failure_after_an_unlock_locks_out_again_live_as_after_a_restart(tmp_path: Path) -> None:
    """Only the policy decides: that a lockout was written a moment ago keeps nobody from the next one."""
    for name in ("live", "restarted"):
        (tmp_path / name).mkdir()
    watched = Watched(Room(tmp_path / "live", policy=ENFORCING))
    room = watched.room
    assert watched.write(failures(NOW)) == ["written"]
    room.monitor.apply(room.monitor.plan("unlock", TARGETS, "our own scanner"))
    unlocked, again = room.policy_path.read_text(), room.after(2)
    assert watched.write(failures(again, 1)) == ["ended", "written"]
    restarted = Watched(Room(tmp_path / "restarted", policy=unlocked, now=again))
    assert restarted.write(room.log.read_bytes())[-1] == "written"
    assert [entry.at // 1_000 for entry in watched.on_disk][1:] == [again // 1_000]
    assert watched.on_disk == restarted.on_disk
