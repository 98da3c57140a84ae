"""The monitor: takes what the sources deliver through every room, and answers the console.

One thread feeds it (`mcpwatch.monitor.live`, `mcpwatch.monitor.player`, or a test); the console asks from another.
A lock keeps the two apart, and nothing that holds it waits for a terminal, a disk or a network, but for the writing
of the policy file, which the operator asked for.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mcpwatch.detection.hit import Severity
from mcpwatch.event import AuditEvent
from mcpwatch.incidents.fold import Change
from mcpwatch.monitor import details
from mcpwatch.monitor.board import TIERS, Board, SessionStats, session_key
from mcpwatch.monitor.pipeline import NO_POLICY, Batch, Pipeline, Reading
from mcpwatch.monitor.rows import alert_row, event_row, session_label, short, targets_of
from mcpwatch.policy.file import PolicyFile
from mcpwatch.response.confirm import Confirmations
from mcpwatch.response.operator import Made, Operator
from mcpwatch.response.plan import Plan, Target, Verb
from mcpwatch.snapshot import (
    RATE_MINUTES,
    AlertRow,
    ChangeRow,
    Counters,
    EventRow,
    IncidentDetail,
    PolicyDetail,
    PolicyRow,
    RateRow,
    RecordDetail,
    ReplayRow,
    SessionDetail,
    SessionRow,
    Snapshot,
    SourceRow,
    TierRow,
)
from mcpwatch.sources.block import Block, Gap
from mcpwatch.sources.follow import SourceStatus
from mcpwatch.text import SafeText, safe
from mcpwatch.times import MINUTE, SECOND

SHOWN_SESSIONS: Final = 200
SHOWN_ALERTS: Final = 500
SHOWN_EVENTS: Final = 2_000
SHOWN_TOOLS: Final = 12
SHOWN_CHANGES: Final = 20


@dataclass(frozen=True, slots=True)
class Settings:
    """How a monitor runs.

    Attributes:
        reveal: Show parameters unredacted.
        notices: Banners that hold for the whole run.
    """

    state_dir: Path
    read_only: bool = False
    reveal: bool = False
    notices: tuple[SafeText, ...] = ()


class Monitor:
    """Everything that is known of the logs, and the answers to what the console asks (`snapshot.Feed`).

    Attributes:
        pipeline: Readers, engine and fold.
        board: What the panes count.
        lock: Held by whoever feeds the monitor, and by every answer.
        on_events: Shown every event as it comes, if set.
    """

    def __init__(
        self, policy_file: PolicyFile, reading: Reading, settings: Settings, clock: Callable[[], int]
    ) -> None:
        self.policy_file = policy_file
        self.settings = settings
        self.clock = clock
        self.lock = threading.RLock()
        self.operator = Operator(
            policy_file.path, state_dir=settings.state_dir, clock=clock, read_only=settings.read_only
        )
        self.gaps: Counter[str] = Counter()
        self.replay: ReplayRow | None = None
        self.on_events: Callable[[list[AuditEvent]], None] | None = None
        self._reading = reading
        self._statuses: Sequence[SourceStatus] = ()
        self._lag_s: float | None = None
        self._rows: dict[int, EventRow] = {}
        self.reset()
        self._snapshot = self._build(0)

    def reset(self) -> None:
        """Begin anew, as if nothing had been read."""
        self.pipeline = Pipeline(self.policy_file.policy, self._reading)
        self.board = Board()
        self.confirmations = Confirmations()
        self._rows = {}

    def take(self, delivered: Iterable[Block | Gap], arrived_ns: int | None = None) -> list[Change]:
        """Take in what the sources delivered; the changes of incidents that it made.

        `arrived_ns` is the clock, when live: what stands in for times that records lack.
        """
        changes: list[Change] = []
        for item in delivered:
            if isinstance(item, Gap):
                self.gaps[item.source] += 1
                continue
            changes += self.absorb(self.pipeline.take(item, arrived_ns), arrived_ns)
        return changes

    def absorb(self, batch: Batch, arrived_ns: int | None = None) -> list[Change]:
        """Take in events that were read and judged."""
        engine = self.pipeline.engine
        if engine.enforcement:
            self.confirmations.observe(engine.enforcement)
            engine.enforcement.clear()
        if batch.events:
            if self.on_events is not None:
                self.on_events(batch.events)
            now = arrived_ns if arrived_ns is not None else (self.pipeline.last_ns or 0)
            self.board.take(batch, engine, now)
            newest = batch.events[-1].time_ns
            if arrived_ns is not None and newest is not None:
                self._lag_s = round(max(arrived_ns - newest, 0) / SECOND, 1)
        return batch.changes

    def check_policy(self) -> bool:
        """Take over the policy file if it changed; whether it did."""
        if not self.policy_file.check():
            return False
        with self.lock:
            self.pipeline.set_policy(self.policy_file.policy)
        return True

    def note_sources(self, statuses: Sequence[SourceStatus]) -> None:
        """What the sources say of themselves."""
        self._statuses = statuses

    def publish(self) -> None:
        """Make a new snapshot; one that says the same as before keeps its version."""
        with self.lock:
            old = self._snapshot
            new = self._build(old.version)
            if new != replace(old, now_ns=new.now_ns):
                self._snapshot = replace(new, version=old.version + 1)

    # What the console asks: see snapshot.Feed.

    def snapshot(self) -> Snapshot:
        """The newest snapshot."""
        return self._snapshot

    def incident(self, incident_id: str) -> IncidentDetail | None:
        """An incident by id."""
        with self.lock:
            return details.incident_detail(self, incident_id)

    def session(self, ref: str) -> SessionDetail | None:
        """A session by the `ref` of its row."""
        with self.lock:
            return details.session_detail(self, ref)

    def record(self, seq: int) -> RecordDetail | None:
        """A record by the `seq` of its row, while it is kept."""
        with self.lock:
            return details.record_detail(self, seq)

    def policy(self) -> PolicyDetail:
        """The policy as it is now."""
        with self.lock:
            return details.policy_detail(self)

    def plan(self, verb: Verb, targets: tuple[Target, ...], reason: str) -> Plan:
        """Work out a change. Raises ResponseError."""
        with self.lock:
            impact = details.impact(self, targets)
            return self.operator.plan(verb, targets, reason, self.policy_file.policy, impact)

    def apply(self, plan: Plan) -> ChangeRow:
        """Write what was shown. Raises ResponseError; nothing is written then."""
        with self.lock:
            made = self.operator.apply(plan)
            self.operator.undid(plan)
            self.check_policy()
            self.publish()
            return self.change_row(made)

    def plan_undo(self) -> Plan:
        """The reverse of the newest change made here that is not undone yet. Raises ResponseError."""
        with self.lock:
            return self.operator.plan_undo()

    # Rows.

    @property
    def now_ns(self) -> int:
        """The time that "per minute" refers to."""
        return self.replay.at_ns if self.replay is not None else self.clock()

    def row_of(self, seq: int) -> EventRow | None:
        """The row of a record, made once."""
        row = self._rows.get(seq)
        if row is None:
            record = self.board.find(seq)
            if record is None:
                return None
            if len(self._rows) > 3 * SHOWN_EVENTS:
                self._rows.clear()
            row = self._rows[seq] = event_row(record)
        return row

    def change_row(self, made: Made) -> ChangeRow:
        """A change with what was seen of it in the log."""
        state, detail = details.force_of(self, made)
        return ChangeRow(made.what, made.at_ns, safe(made.by, 60), state, SafeText(detail))

    def alert_rows(self, limit: int) -> list[AlertRow]:
        """The incidents, worst first, then newest."""
        fold = self.pipeline.fold
        worst = sorted(fold.incidents.values(), key=lambda i: (-i.severity, -i.last_ns, i.id))
        newest = {
            (r.event.source, r.event.offset): r.event for r in self.board.newest(SHOWN_EVENTS) if r.worst
        }
        rows = []
        for incident in worst[:limit]:
            last = incident.evidence[-1]
            note = details.note_of(self, incident)
            quiet = fold.is_quiet(incident, self.now_ns)
            rows.append(alert_row(incident, note, quiet, newest.get((last.source, last.offset))))
        return rows

    def session_row(self, stats: SessionStats, worst: Severity | None) -> SessionRow:
        """A session with its rate."""
        trend = stats.trend(self.now_ns)
        high, medium, low = (stats.tiers[tier] for tier in TIERS)
        caller = stats.caller
        return SessionRow(
            ref="\0".join(part or "" for part in session_key(caller)),
            session=session_label(stats),
            key=short(caller.key),
            client=short(caller.client),
            per_minute=sum(trend),
            trend=trend,
            high=high,
            medium=medium,
            low=low,
            errors=stats.errors,
            calls=stats.calls,
            last_ns=stats.last_ns,
            worst=worst,
            targets=targets_of(caller),
        )

    def worst_of(self, caller_ids: dict[str, str | None]) -> Severity | None:
        """The worst incident of a caller."""
        return max(
            (self._worst_by_id[kind, name] for kind, name in caller_ids.items()
             if name is not None and (kind, name) in self._worst_by_id),
            default=None,
        )  # fmt: skip

    def _build(self, version: int) -> Snapshot:
        now = self.now_ns
        alerts = self.alert_rows(SHOWN_ALERTS)
        self._worst_by_id: dict[tuple[str, str], Severity] = {}
        for incident in self.pipeline.fold.incidents.values():
            for pair in incident.subject:
                self._worst_by_id[pair] = max(incident.severity, self._worst_by_id.get(pair, Severity.LOW))
        by_severity = self.pipeline.fold.by_severity()
        sessions = self._sessions(now)
        return Snapshot(
            version=version,
            now_ns=now,
            per_second=round(self.board.per_second(now), 1),
            lag_s=self._lag_s if self.replay is None else None,
            counters=self._counters(),
            sources=tuple(self._source_rows()),
            policy=self.policy_row(),
            severities=(
                by_severity[Severity.CRITICAL],
                by_severity[Severity.HIGH],
                by_severity[Severity.MEDIUM],
                by_severity[Severity.LOW],
            ),
            sessions=sessions,
            session_count=len(self.pipeline.engine.sessions),
            rates=self._rates(now),
            tiers=self._tiers(),
            alerts=tuple(alerts),
            alert_count=len(self.pipeline.fold.incidents),
            events=tuple(
                row for r in self.board.newest(SHOWN_EVENTS) if (row := self.row_of(r.seq)) is not None
            ),
            changes=tuple(self.change_row(made) for made in reversed(self.operator.made[-SHOWN_CHANGES:])),
            notices=self._notices(),
            replay=self.replay,
        )

    def policy_row(self) -> PolicyRow:
        """The policy in one line."""
        now, policy = self.now_ns, self.policy_file.policy
        off = self.operator.changes_off
        error = self.policy_file.error
        return PolicyRow(
            path=safe(self.policy_file.path) if self.policy_file.path is not None else None,
            error=safe(error, 300) if error is not None else None,
            revoked=sum(1 for entry in policy.revoked if entry.until is None or now < entry.until),
            locked=sum(1 for entry in policy.lockouts if entry.at <= now < entry.until),
            changes_off=safe(off, 300) if off is not None else None,
        )

    def _sessions(self, now: int) -> tuple[SessionRow, ...]:
        all_stats = self.board.sessions.values()
        busiest = sorted(all_stats, key=lambda s: (-sum(s.trend(now)), -s.last_ns))[: 2 * SHOWN_SESSIONS]
        rows: list[SessionRow] = []
        once: dict[tuple[str | None, str | None], list[SessionStats]] = {}
        for stats in busiest:
            caller = stats.caller
            if stats.calls == 1 and caller.session is not None and (caller.key or caller.client):
                once.setdefault((caller.key, caller.client), []).append(stats)
            else:
                rows.append(self._row_of(stats))
        rows += [
            self._row_of(group[0]) if len(group) == 1 else self._merged(group) for group in once.values()
        ]
        rows.sort(key=lambda row: (-row.per_minute, -row.last_ns))
        return tuple(rows[:SHOWN_SESSIONS])

    def _row_of(self, stats: SessionStats) -> SessionRow:
        caller = stats.caller
        ids = {"session": caller.session, "key": caller.key, "source_ip": caller.source_ip}
        return self.session_row(stats, self.worst_of(ids))

    def _merged(self, together: list[SessionStats]) -> SessionRow:
        """Sessions that were seen once, under their principal: servers that give every request its own id."""
        rows = [self._row_of(stats) for stats in together]
        first = rows[0]
        return replace(
            first,
            session=SafeText(f"({len(rows)} seen once)"),
            per_minute=sum(row.per_minute for row in rows),
            trend=tuple(map(sum, zip(*(row.trend for row in rows), strict=True))),
            high=sum(row.high for row in rows),
            medium=sum(row.medium for row in rows),
            low=sum(row.low for row in rows),
            errors=sum(row.errors for row in rows),
            calls=len(rows),
            last_ns=max(row.last_ns for row in rows),
            worst=max((row.worst for row in rows if row.worst is not None), default=None),
            targets=tuple(target for target in first.targets if target.kind != "session"),
        )

    def _rates(self, now: int) -> tuple[RateRow, ...]:
        minute = now // MINUTE
        rows = []
        for tier in TIERS:
            counts = tuple(
                self.board.minutes.get(n, {}).get(tier, 0)
                for n in range(minute - RATE_MINUTES + 1, minute + 1)
            )
            whole = sorted(counts[:-1])
            rows.append(RateRow(tier, counts, counts[-1], whole[len(whole) // 2]))
        return tuple(rows)

    def _tiers(self) -> tuple[TierRow, ...]:
        total = sum(self.board.tiers.values())
        return tuple(
            TierRow(
                tier,
                self.board.tiers[tier],
                round(self.board.tiers[tier] / total, 3) if total else 0.0,
                tuple((short(t), count) for t, count in self.board.tools[tier].most_common(SHOWN_TOOLS)),
            )
            for tier in TIERS
        )

    def _counters(self) -> Counters:
        totals = self.pipeline.totals()
        held = sum(1 for status in self._statuses if status.held)
        return Counters(
            lines=totals["lines"] + held,
            understood=totals["understood"],
            not_understood=totals["not_understood"],
            blank=totals["blank"],
            repeated=totals["repeated"],
            joined=totals["joined"],
            held=held,
            events=totals["events"],
            late=self.pipeline.engine.late,
            gaps=sum(self.gaps.values()),
        )

    def _source_rows(self) -> Iterable[SourceRow]:
        for status in self._statuses:
            reader = self.pipeline.readers.get(status.name)
            counters, name = Counters(), "none yet"
            coverage: tuple[tuple[str, int, int], ...] = ()
            if reader is not None:
                held = 1 if status.held else 0
                counters = Counters(
                    reader.lines + held, reader.understood, reader.not_understood, reader.blank, reader.repeated,
                    reader.joined, held, reader.events, 0, self.gaps[status.name],
                )  # fmt: skip
                coverage, name = reader.coverage, reader.format_name
            yield SourceRow(
                name=safe(status.name, 80),
                path=safe(status.path, 300),
                state=status.state,
                note=status.note,
                counters=counters,
                format=safe(name, 40),
                coverage=coverage,
                behind=status.behind,
                per_second=0.0,
            )

    def _notices(self) -> tuple[SafeText, ...]:
        found = list(self.settings.notices)
        if self.policy_file.path is None:
            found.append(NO_POLICY)
        if self.policy_file.error is not None:
            found.append(safe(f"policy not usable, the last good one stays: {self.policy_file.error}", 300))
        for rule, count in sorted(self.pipeline.engine.evictions.items()):
            found.append(
                SafeText(f"{rule}: {count} windows dropped, too many subjects: somebody may be hiding")
            )
        return tuple(found)
