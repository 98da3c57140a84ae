"""The monitor: takes what the sources deliver through every room, and answers the console.

One thread feeds it (`mcpwatch.monitor.live`, `mcpwatch.monitor.player`, or a test); the console asks from another.
A lock keeps the two apart, and nothing that holds it waits for a terminal, a disk or a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import date

from mcpwatch.detection.rulefiles import RuleFiles
from mcpwatch.event import AuditEvent, logged_at
from mcpwatch.incidents.fold import Change
from mcpwatch.monitor import details, excepting
from mcpwatch.monitor.known import Known, Settings
from mcpwatch.monitor.picture import change_row, picture
from mcpwatch.monitor.pipeline import Batch, Reading
from mcpwatch.policy.file import PolicyFile
from mcpwatch.response.exception import Choice, first_term
from mcpwatch.response.exceptionfile import ExceptionPlan
from mcpwatch.response.plan import Plan, Target, Verb
from mcpwatch.snapshot import (
    ChangeRow,
    ExceptionRow,
    IncidentDetail,
    PolicyDetail,
    RecordDetail,
    SessionDetail,
    Snapshot,
)
from mcpwatch.sources.block import Block, Gap
from mcpwatch.sources.follow import SourceStatus
from mcpwatch.text import redact_text, safe
from mcpwatch.times import SECOND, utc_day

__all__ = ["Monitor", "Settings"]


class Monitor(Known):
    """Feeds what is known of the logs, and answers what the console asks of it (`snapshot.Feed`).

    Attributes:
        on_events: Shown every event as it comes, if set.
    """

    def __init__(
        self,
        policy_file: PolicyFile,
        reading: Reading,
        settings: Settings,
        clock: Callable[[], int],
        rule_files: RuleFiles | None = None,
    ) -> None:
        super().__init__(policy_file, reading, settings, clock, rule_files)
        self.on_events: Callable[[list[AuditEvent]], None] | None = None
        self._snapshot = picture(self, 0)

    def take(self, delivered: Iterable[Block | Gap], arrived_ns: int | None = None) -> list[Change]:
        """Take in what the sources delivered; the changes of incidents that it made.

        `arrived_ns` is the clock, when live: what stands in for times that records lack.
        """
        changes: list[Change] = []
        for item in delivered:
            if isinstance(item, Gap):
                self.gaps.take(item, self.clock() if arrived_ns is None else arrived_ns)
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
            for seq in self.board.take(batch, engine, now):
                self.rows.pop(seq, None)
            self.tally.take(batch.events, batch.hits)
            newest = logged_at(batch.events[-1])
            if arrived_ns is not None and newest is not None:
                self.lag_s = round(max(arrived_ns - newest, 0) / SECOND, 1)
            batch.settle()
        return batch.changes

    def check_policy(self) -> bool:
        """Take over the policy file if it changed; whether it did."""
        if not self.policy_file.check():
            return False
        with self.lock:
            self.pipeline.set_policy(self.policy_file.policy)
        return True

    def check_rules(self) -> bool:
        """Take over the rule files if they changed; whether they did."""
        if self.rule_files is None or not self.rule_files.check():
            return False
        with self.lock:
            self.pipeline.set_rules(self.rule_files.rules)
        return True

    def fail(self, error: BaseException) -> None:
        """Say on screen that nothing is read any more: a console that stands still must not look calm."""
        with self.lock:
            self.failure = safe(f"{type(error).__name__}: {redact_text(str(error)[:4_096])}", 300)
            self.statuses = [replace(status, state="ended", note=self.failure) for status in self.statuses]
        self.publish()

    def note_sources(self, statuses: Sequence[SourceStatus]) -> None:
        """What the sources say of themselves."""
        self.statuses = statuses

    def publish(self) -> None:
        """Make a new snapshot; one that says the same as before keeps its version."""
        with self.lock:
            old = self._snapshot
            new = picture(self, old.version)
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
        # writing may wait for another writer and for the disk: the monitor goes on meanwhile
        made = self.operator.apply(plan)
        self.operator.undid(plan)
        with self.lock:
            self.check_policy()
            self.publish()
            return change_row(self, made)

    def plan_undo(self) -> Plan:
        """The reverse of the newest change made here that is not undone yet. Raises ResponseError."""
        return self.operator.plan_undo()

    def exceptions(self, incident_id: str) -> tuple[Choice, ...]:
        """What one could say to quiet the rule of an incident. Raises ResponseError: nothing, and why."""
        with self.lock:
            return excepting.offered(self, incident_id)

    def first_term(self, choice: Choice) -> str:
        """The limit or the last day that is proposed for a choice."""
        return first_term(choice, self._today())

    def plan_exception(self, incident_id: str, choice: Choice, reason: str, term: str) -> ExceptionPlan:
        """Work out an exception; `term` is its last day, or the limit. Raises ResponseError."""
        with self.lock:
            wanted = excepting.wanted(self, incident_id, choice, reason, term, self._today())
        return excepting.planned(self, wanted)

    def write_exception(self, plan: ExceptionPlan) -> ExceptionRow:
        """Write what was shown. Raises ResponseError; nothing is written then."""
        path = excepting.write(self, plan)
        if self.replay is None:
            self.check_rules()
            self.publish()
        return excepting.state(self, plan.rule, path, self._today())

    def _today(self) -> date:
        return date.fromisoformat(utc_day(self.clock()))
