"""The demo's story: an attacker comes in, is seen, loses the key, and is seen to have lost it.

With a console the clock is the wall's and the operator is you. Without one, fleet, monitor and operator share one
clock that is moved by hand, so that a minute passes in a moment and "in force after 0.4 s" is still true.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mcpwatch.demo.fleet import Fleet, write_policy
from mcpwatch.detection.hit import Severity
from mcpwatch.incidents.fold import Change
from mcpwatch.incidents.incident import Incident
from mcpwatch.monitor.live import Live, wall_clock
from mcpwatch.monitor.monitor import Monitor, Settings
from mcpwatch.monitor.pipeline import Pipeline, Reading, saved_events
from mcpwatch.policy.file import PolicyFile
from mcpwatch.response.plan import Target
from mcpwatch.snapshot import ChangeRow
from mcpwatch.sources.live import LiveSet
from mcpwatch.sources.saved import open_saved
from mcpwatch.text import safe
from mcpwatch.times import SECOND, clock_time, parse_rfc3339

THIEF: Final = "key_0007"
STARTS: Final = "2026-11-20T08:00:00Z"
REVOKED_AFTER: Final = 45 * SECOND
LASTS: Final = 75 * SECOND
STEP: Final = SECOND // 10
EXPECTED: Final = (
    "auth-lockout",
    "path-outside",
    "domain-unexpected",
    "shell-execute",
    "session-rate",
    "revoked-attempt",
)
_FLEET_TICK_S: Final = 0.05


@dataclass(slots=True)
class Stage:
    """Everything that a run of the demo needs, in one folder."""

    fleet: Fleet
    monitor: Monitor
    sources: LiveSet
    log: Path
    policy: Path


def set_up(
    folder: Path, *, seed: int, start_ns: int, clock: Callable[[], int], read_only: bool = False
) -> Stage:
    """Write the demo's policy into a folder and put fleet and monitor on top of it."""
    folder.mkdir(parents=True, exist_ok=True)
    log, policy = folder / "audit.jsonl", folder / "policy.yaml"
    write_policy(policy, start_ns)
    monitor = Monitor(PolicyFile(policy), Reading(), Settings(folder / "state", read_only=read_only), clock)
    fleet = Fleet(log, policy, seed=seed, start_ns=start_ns)
    return Stage(fleet, monitor, LiveSet([str(log)]), log, policy)


@contextlib.contextmanager
def at_work(folder: Path, *, seed: int, read_only: bool = False) -> Iterator[Stage]:
    """The fleet at work in real time, and the monitor following it, in threads of their own."""
    start = wall_clock()
    stage = set_up(folder, seed=seed, start_ns=start, clock=wall_clock, read_only=read_only)
    live = Live(stage.monitor, stage.sources)
    over = threading.Event()

    def work() -> None:
        while not over.wait(_FLEET_TICK_S):
            stage.fleet.step(wall_clock())

    threads = [threading.Thread(target=work, name="fleet"), threading.Thread(target=live.run, name="monitor")]
    for thread in threads:
        thread.daemon = True
        thread.start()
    try:
        yield stage
    finally:
        over.set()
        live.stop()
        for thread in threads:
            thread.join(5)


def tell(folder: Path, *, seed: int, say: Callable[[str], None]) -> bool:
    """Run the whole story on a clock of its own; whether it held."""
    found = parse_rfc3339(STARTS)
    assert found is not None
    start = now = found[0]
    stage = set_up(folder, seed=seed, start_ns=start, clock=lambda: now)
    monitor = stage.monitor
    live = Live(stage.monitor, stage.sources, lambda changes: _tell_changes(changes, say))
    began = time.monotonic()
    say(
        f"{clock_time(now)} three servers, six clients, one attacker with the stolen key {THIEF}; seed {seed}"
    )
    revoked: ChangeRow | None = None
    state = ""
    while now < start + LASTS:
        now += STEP
        stage.fleet.step(now)
        live.tick()
        if revoked is None and now >= start + REVOKED_AFTER:
            plan = monitor.plan(
                "revoke", (Target("key", THIEF),), "stolen: guessed keys, read /etc/passwd, ran a shell"
            )
            say(f"{clock_time(now)} the operator revokes {THIEF}; the policy file changes by this:")
            for line in plan.diff:
                say(f"    {line}")
            revoked = monitor.apply(plan)
        if revoked is not None:
            monitor.publish()
            change = monitor.snapshot().changes[0]
            if change.state != state:
                state = change.state
                say(f"{clock_time(now)} {change.what}: {state} {change.detail}")
    stage.sources.close()
    held = True
    for promise, kept in _promises(stage, state):
        say(f"{'ok    ' if kept else 'FAILED'} {promise}")
        held = held and kept
    verdict = "held" if held else "did NOT hold"
    say(f"{LASTS // SECOND} s of fleet in {time.monotonic() - began:.1f} s; the story {verdict}")
    return held


def _tell_changes(changes: list[Change], say: Callable[[str], None]) -> None:
    for kind, incident in changes:
        if kind in ("opened", "severity"):
            where = ", ".join(safe(value, 40) for _, value in incident.subject)
            say(
                f"{clock_time(incident.last_ns)} {incident.severity.label.upper():8} {incident.rule.title}: {where}"
                f" ({incident.id})"
            )


def _promises(stage: Stage, state: str) -> Iterator[tuple[str, bool]]:
    """What the demo promises, and whether it came true."""
    fold = stage.monitor.pipeline.fold
    by_rule: dict[str, list[Incident]] = {}
    for incident in fold:
        by_rule.setdefault(incident.rule.id, []).append(incident)
    for rule in EXPECTED:
        yield f"{rule} was raised", rule in by_rule
    worst = max((incident.severity for incident in fold), default=Severity.LOW)
    yield "the worst of it is critical", worst is Severity.CRITICAL
    yield "the revocation was seen to be in force", state == "in force"
    entry = stage.monitor.policy_file.policy.revoked[-1]
    later = [
        r
        for r in stage.monitor.board.records
        if r.event.caller.key == THIEF and r.time_ns > entry.at + SECOND
    ]
    yield "the attacker tried again", bool(later)
    yield "and every call was refused", all(r.event.status == "unauthenticated" for r in later)
    totals = stage.monitor.pipeline.totals()
    lines = stage.log.read_bytes().count(b"\n")
    yield f"all {lines} lines of the log are accounted for", totals["lines"] == lines == totals["understood"]
    replay = Pipeline(stage.monitor.policy_file.policy, Reading())
    for events in saved_events(open_saved([stage.log]), replay):
        replay.observe(events)
    same = {i.id: i.count for i in replay.fold} == {i.id: i.count for i in fold}
    yield f"a replay of the log finds the same {len(replay.fold)} incidents", same
