"""What a monitor knows: the rooms at work, and what the panes count."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mcpwatch.detection.rule import Rule
from mcpwatch.detection.rulefiles import RuleFiles
from mcpwatch.incidents.fold import Change
from mcpwatch.monitor.board import Board
from mcpwatch.monitor.gaps import Gaps
from mcpwatch.monitor.pipeline import Pipeline, Reading
from mcpwatch.monitor.silence import Hearing
from mcpwatch.monitor.tally import Tally
from mcpwatch.policy.file import PolicyFile
from mcpwatch.response.confirm import Confirmations
from mcpwatch.response.operator import Operator
from mcpwatch.snapshot import EventRow, ReplayRow
from mcpwatch.sources.follow import SourceStatus
from mcpwatch.text import SafeText


@dataclass(frozen=True, slots=True)
class Settings:
    """How a monitor runs.

    Attributes:
        reveal: Show parameters unredacted.
        enforce: Write lockouts, whether or not the policy asks for it.
        notices: Banners that hold for the whole run.
    """

    state_dir: Path
    read_only: bool = False
    reveal: bool = False
    enforce: bool = False
    notices: tuple[SafeText, ...] = ()


class Known:
    """Everything that is known of the logs, from which snapshots and details are made.

    Attributes:
        rule_files: The rules in use; None is the shipped ones.
        pipeline: Readers, engine and fold.
        board: What the panes count.
        tally: What the hits of the whole run were about; a replay that goes back counts no hit twice.
        confirmations: What was seen of the restrictions of the policy.
        lock: Held by whoever changes any of this, and by every answer.
        gaps: Every gap of the run.
        last_records: Own time of each source's newest record (live only).
        statuses: What the sources say of themselves.
        counted: Counters by source that stand in for those of the readers, which may have read ahead (replay).
        lag_s: Arrival time less event time of the newest record.
        rows: Rows of the newest records, made once each.
        untold: Changes of incidents from before the first tick, still to be told.
        failure: Why nothing is read any more, if the monitor's thread came to grief.
        lockout_notices: What there is to say of lockouts that are to be written (live only).
        watch_problem: Why nobody else can know of this run (live only).
        hearing: When each source delivered records (live only).
    """

    def __init__(
        self,
        policy_file: PolicyFile,
        reading: Reading,
        settings: Settings,
        clock: Callable[[], int],
        rule_files: RuleFiles | None = None,
    ) -> None:
        self.policy_file = policy_file
        self.rule_files = rule_files
        self.reading = reading
        self.settings = settings
        self.clock = clock
        self.lock = threading.RLock()
        self.operator = Operator(
            policy_file.path, state_dir=settings.state_dir, clock=clock, read_only=settings.read_only
        )
        self.gaps = Gaps()
        self.last_records: dict[str, int] = {}
        self.statuses: Sequence[SourceStatus] = ()
        self.counted: Mapping[str, Mapping[str, int]] | None = None
        self.lag_s: float | None = None
        self.replay: ReplayRow | None = None
        self.untold: list[Change] = []
        self.failure: SafeText | None = None
        self.lockout_notices: Callable[[], Sequence[SafeText]] = tuple
        self.watch_problem: SafeText | None = None
        self.hearing = Hearing()
        self.tally = Tally()
        self.reset()

    def reset(self) -> None:
        """Begin anew, as if nothing had been read."""
        rules = self.rule_files.rules if self.rule_files is not None else None
        self.pipeline = Pipeline(self.policy_file.policy, self.reading, rules)
        self.board = Board()
        self.confirmations = Confirmations()
        self.rows: dict[int, EventRow] = {}

    def rule_in_use(self, rule: Rule) -> Rule:
        """A rule of an incident as it is now: its file may have changed since, or be gone."""
        rules = self.rule_files.rules if self.rule_files is not None else self.pipeline.engine.rules
        return rules.by_id.get(rule.id, rule)

    @property
    def now_ns(self) -> int:
        """The time that "per minute" refers to."""
        return self.replay.at_ns if self.replay is not None else self.clock()
