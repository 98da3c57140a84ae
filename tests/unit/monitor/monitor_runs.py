"""Monitors and players on real files, driven by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from mcpwatch.detection.rulefiles import RuleFiles
from mcpwatch.incidents.incident import Incident
from mcpwatch.monitor.monitor import Monitor, Settings
from mcpwatch.monitor.pipeline import Pipeline, Reading, saved_events
from mcpwatch.monitor.player import ReplayPlayer
from mcpwatch.policy.file import PolicyFile
from mcpwatch.snapshot import Counters, ReplayRow, Snapshot
from mcpwatch.sources.live import LiveSet
from mcpwatch.sources.saved import open_saved
from mcpwatch.times import SECOND, iso, utc_day

NOW = 1_795_341_600 * SECOND
"""2026-11-22T10:00:00Z."""
POLICY = """\
version: 1
tools:
  file_read: {allowed_paths: [/app/data/]}
  shell_execute: {enabled: true}
alerts: {enforcement_grace: 2s}
keys:
  k1: {client: bot, owner: payments, scopes: [read]}
  k2: {scopes: [read]}
revoked: []
"""


def call(at_ns: int | None, **fields: object) -> bytes:
    """A line of a log: an allowed call by k1, unless told otherwise."""
    record: dict[str, object] = {
        "tool": "file_read", "params": {"path": "/app/data/a"}, "status": "success", "duration_ms": 2,
        "key_id": "k1", "client_id": "bot", "session_id": "s1", "source_ip": "203.0.113.9",
    }  # fmt: skip
    if at_ns is not None:
        record["timestamp"] = iso(at_ns)
    kept = {name: value for name, value in (record | fields).items() if value is not None}
    return json.dumps(kept).encode() + b"\n"


@dataclass
class Room:
    """A monitor that follows a log, on a clock that is moved by hand."""

    folder: Path
    policy: str | None = POLICY
    read_only: bool = False
    reveal: bool = False
    rules: Path | None = None
    now: int = NOW
    log: Path = field(init=False)
    policy_path: Path = field(init=False)

    _looks: int = 0

    def __post_init__(self) -> None:
        self.log, self.policy_path = self.folder / "audit.jsonl", self.folder / "policy.yaml"
        self.log.touch()
        if self.policy is not None:
            self.policy_path.write_text(self.policy)
        file = PolicyFile(self.policy_path if self.policy is not None else None)
        settings = Settings(self.folder / "state", read_only=self.read_only, reveal=self.reveal)
        rules = RuleFiles(self.rules, lambda: date.fromisoformat(utc_day(self.now)))
        self.monitor = Monitor(file, Reading(), settings, lambda: self.now, rules)
        self.sources = LiveSet([str(self.log)])

    def write(self, *pieces: bytes) -> Snapshot:
        """Append to the log, let the monitor read it, and look."""
        with self.log.open("ab") as log:
            log.write(b"".join(pieces))
        return self.look()

    def look(self) -> Snapshot:
        """Let the monitor read what is there; what it shows then."""
        monitor = self.monitor
        monitor.check_policy()
        monitor.check_rules()
        while True:
            with monitor.lock:
                self._looks += SECOND  # a file is looked at only now and then
                delivered = self.sources.tick(self._looks)
                monitor.take(delivered, self.now)
                monitor.note_sources(self.sources.statuses)
            if not delivered:
                break
        monitor.publish()
        return monitor.snapshot()

    def after(self, seconds: float) -> int:
        """Move the clock."""
        self.now += round(seconds * SECOND)
        return self.now


def add_up(count: Counters) -> bool:
    """Whether the counters account for every line."""
    parts = count.understood + count.not_understood + count.blank + count.repeated + count.joined + count.held
    return count.lines == parts


class Deck:
    """A player whose turns are taken by hand, so that nothing depends on a clock or a thread."""

    def __init__(self, paths: list[Path], policy: Path | None, reading: Reading | None = None) -> None:
        settings = Settings(Path("/nonexistent"), read_only=True)
        self.monitor = Monitor(PolicyFile(policy), reading or Reading(), settings, lambda: NOW)
        self.player = ReplayPlayer(self.monitor, paths)
        self.player._restart(0)

    def turn(self) -> Snapshot:
        """What one round of the player's loop does."""
        self.player._obey()
        self.player._advance()
        self.player._publish()
        return self.monitor.snapshot()

    def until_paused(self) -> Snapshot:
        """Rounds until nothing is played any more."""
        self.turn()
        while self.replay.playing:
            self.turn()
        return self.monitor.snapshot()

    def play_to_the_end(self) -> Snapshot:
        """As fast as it goes, from here."""
        self.player.set_speed(float("inf"))
        if not self.replay.playing:
            self.player.toggle()
        return self.until_paused()

    @property
    def replay(self) -> ReplayRow:
        """Where it stands."""
        found = self.monitor.snapshot().replay
        assert found is not None
        return found

    @property
    def position(self) -> int:
        """Events before the cursor."""
        return self.player._position

    def found(self) -> dict[str, tuple[object, ...]]:
        """All that is known of every incident."""
        return everything(list(self.monitor.pipeline.fold))


def everything(incidents: list[Incident]) -> dict[str, tuple[object, ...]]:
    """All that makes an incident, by id."""
    return {
        i.id: (i.count, i.severity, i.first_ns, i.last_ns, i.peak, dict(i.outcomes), i.evidence, i.episodes)
        for i in incidents
    }


def headless(paths: list[Path], policy: Path | None, reading: Reading | None = None) -> Pipeline:
    """The pipeline after a replay without a console."""
    pipeline = Pipeline(PolicyFile(policy).policy, reading or Reading())
    for events in saved_events(open_saved(paths), pipeline):
        pipeline.observe(events)
    return pipeline
