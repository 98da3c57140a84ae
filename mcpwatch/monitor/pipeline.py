"""From raw lines to incidents: one reader a source, one engine, one fold. Live and replay run the same."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mcpwatch.credentials import PROCESS_KEY
from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Hit
from mcpwatch.detection.rule import RuleSet
from mcpwatch.event import AuditEvent, CallEnd, logged_at
from mcpwatch.formats.mapping import Mapping
from mcpwatch.formats.pairing import Pairing
from mcpwatch.formats.reader import Reader
from mcpwatch.incidents.fold import Change, Fold
from mcpwatch.monitor.repeats import Repeats
from mcpwatch.policy.model import Policy, Tier
from mcpwatch.sources.block import Block, SourceError
from mcpwatch.sources.saved import SavedLog
from mcpwatch.text import SafeText
from mcpwatch.times import iso

NO_POLICY: Final = SafeText(
    "no policy: nothing is restricted; make one with `mcpwatch policy init --from LOG`"
)
"""The notice of a run on the built-in policy."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How logs are read.

    Attributes:
        logs: Paths of the logs, which no tool has to change.
        fingerprint_key: Key of the fingerprints by which secrets are told apart.
        from_ns, to_ns: Only what happened at from <= time < to counts; what lies before only warms windows up.
    """

    mappings: Sequence[Mapping] = ()
    format_name: str = "auto"
    coverage: bool = True
    from_ns: int | None = None
    to_ns: int | None = None
    logs: tuple[str, ...] = ()
    fingerprint_key: bytes = PROCESS_KEY


@dataclass(slots=True)
class Batch:
    """What came of a run of events.

    Attributes:
        events: In order; a `CallEnd` among them is no further event.
        ended: The calls that ended.
    """

    events: list[AuditEvent] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    ended: list[CallEnd] = field(default_factory=list)

    def settle(self) -> None:
        """Write the outcomes of calls that ended into their events: the last thing, when everybody has looked."""
        for call in self.ended:
            call.apply()


class Pipeline:
    """Readers, engine and fold of one run.

    Attributes:
        first_ns, last_ns: Earliest and latest event time so far.
    """

    def __init__(self, policy: Policy, reading: Reading, rules: RuleSet | None = None) -> None:
        self.reading = reading
        self.readers: dict[str, Reader] = {}
        self.engine = Engine(policy, rules, reading.logs)
        self.engine.fingerprint_key = reading.fingerprint_key
        self.fold = Fold(policy.alerts, rules)
        self._repeats = Repeats()
        self._goes_on = False
        self.first_ns: int | None = None
        self.last_ns: int | None = None

    def reader(self, source: str) -> Reader:
        """The reader of a source. Raises FormatError when the format asked for does not exist."""
        reader = self.readers.get(source)
        if reader is None:
            reader = self.readers[source] = self.scratch_reader(source)
        return reader

    def expect(self, sources: Iterable[str]) -> None:
        """Be ready for sources: whether a call is logged by two is known only from when on both are."""
        for source in sources:
            if source not in self.readers:
                self.reader(source)

    def scratch_reader(self, source: str) -> Reader:
        """A reader whose counters count for nothing: for looking around in a log."""
        reading = self.reading
        reader = Reader(
            source, mappings=reading.mappings, format_name=reading.format_name, coverage=reading.coverage
        )
        reader.pairing = Pairing(self.engine.policy.alerts.allowed_lateness)
        return reader

    def go_on(self, source: str, pairing: Pairing) -> None:
        """Read on in a source where calls are open, which began in front of what counts."""
        self.reader(source).pairing = pairing
        self._goes_on = True

    def set_policy(self, policy: Policy) -> None:
        """Judge by another policy from here on."""
        self.engine.set_policy(policy)
        self.fold.set_limits(policy.alerts, self.engine.rules)

    def set_rules(self, rules: RuleSet) -> None:
        """Judge by other rules from here on."""
        self.engine.set_rules(rules)
        self.fold.set_limits(self.engine.policy.alerts, rules)

    def take(self, block: Block, arrived_ns: int | None = None) -> Batch:
        """Read a block and judge its events."""
        return self.observe(self.reader(block.source).read(block, arrived_ns))

    def observe(self, events: list[AuditEvent]) -> Batch:
        """Judge events that were read. Whoever has done with the batch settles it."""
        return self.judge(self.without_repeats(events))

    def without_repeats(self, events: list[AuditEvent]) -> list[AuditEvent]:
        """The events but for those of calls that another source has logged."""
        if len(self.readers) < 2:
            return events
        return self._repeats.without(events, self.readers, self.engine.policy.alerts.allowed_lateness)

    def judge(self, events: list[AuditEvent]) -> Batch:
        """Judge events that are no repeats."""
        if self._goes_on:
            events = self._after_start(events)
        if self.reading.to_ns is not None or self.reading.from_ns is not None:
            events = self._within(events)
        if not events:
            return Batch()
        self._span(events)
        hits = self.engine.observe(events)
        return Batch(events, hits, self.fold.add(hits) if hits else [], self.engine.ended)

    def _after_start(self, events: list[AuditEvent]) -> list[AuditEvent]:
        """Leave out the ends of calls that began before the start: they only bring the windows up to date."""
        warm = [event for event in events if isinstance(event, CallEnd) and event.uncounted]
        if not warm:
            return events
        self.engine.warm(warm)
        return [event for event in events if not (isinstance(event, CallEnd) and event.uncounted)]

    def _within(self, events: list[AuditEvent]) -> list[AuditEvent]:
        """Warm up on what lies before the span asked for, and leave out what lies behind it."""
        start, end = self.reading.from_ns, self.reading.to_ns
        if end is not None:
            events = [event for event in events if event.time_ns is None or event.time_ns < end]
        if start is None:
            return events
        since = start - self.engine.warm_up
        counted: list[AuditEvent] = []
        warm: list[AuditEvent] = []
        for event in events:
            time = event.time_ns
            if time is None or time >= start:
                counted.append(event)
            elif time >= since:
                warm.append(event)
        if warm:
            self.engine.warm(warm)
        return counted

    def _span(self, events: list[AuditEvent]) -> None:
        times = [time for event in events if (time := event.time_ns) is not None]
        if times:
            first, last = min(times), max(times)
            self.first_ns = first if self.first_ns is None else min(first, self.first_ns)
            self.last_ns = last if self.last_ns is None else max(last, self.last_ns)

    def totals(self) -> Counter[str]:
        """The counters of all sources, summed."""
        totals: Counter[str] = Counter()
        for reader in self.readers.values():
            totals.update(
                lines=reader.lines,
                understood=reader.understood,
                not_understood=reader.not_understood,
                blank=reader.blank,
                repeated=reader.repeated,
                joined=reader.joined,
                events=reader.events,
            )
        return totals

    def summary(self, held: int = 0) -> dict[str, Any]:
        """The summary record; `held` lines are unfinished last ones, live only."""
        totals, engine = self.totals(), self.engine
        tiers: Counter[Tier | None] = Counter()
        outcomes: Counter[str] = Counter()
        for (kind, tier, status), count in engine.counts.items():
            outcomes[status] += count
            if kind == "tool_call":
                tiers[tier] += count
        record: dict[str, Any] = {
            "type": "summary",
            "lines": totals["lines"] + held,
            "understood": totals["understood"],
            "not_understood": totals["not_understood"],
            "blank": totals["blank"],
            "repeated": totals["repeated"],
            "joined": totals["joined"],
            "held": held,
            "events": sum(outcomes.values()),
            "late": engine.late,
            "tool_calls": sum(tiers.values()),
            "tiers": {tier.value: tiers[tier] for tier in Tier},
            "outcomes": dict(sorted(outcomes.items())),
            "sessions": len(engine.sessions),
            "keys": len(engine.keys),
            "first_event": iso(self.first_ns) if self.first_ns is not None else None,
            "last_event": iso(self.last_ns) if self.last_ns is not None else None,
            "incidents": {severity.label: count for severity, count in self.fold.by_severity().items()},
        }
        if engine.sessions.estimated:
            record["sessions_estimated"] = True
        if self.fold.out_of_sight:
            record["incidents_out_of_sight"] = self.fold.out_of_sight
        if engine.evictions:
            record["evictions"] = dict(engine.evictions)
        return record


def saved_events(
    logs: Sequence[SavedLog],
    pipeline: Pipeline,
    before_block: Callable[[int, int | None], None] | None = None,
) -> Iterator[list[AuditEvent]]:
    """The events of saved logs as one timeline: by time, then order of the logs, then line.

    A record without a time stands where the record before it stands, and the end of a call where its line does.
    Raises SourceError at the end where a log is broken, when all that can be read of all of them has been given.
    `before_block` is told offset and line of every block before it is read, where there is only one log.
    """
    if len(logs) == 1:
        reader = pipeline.reader(logs[0].name)
        for block in logs[0].blocks():
            if before_block is not None:
                before_block(block.offset, block.line)
            yield reader.read(block)
        return
    broken: list[SourceError] = []
    streams = [_keyed(number, log, pipeline.reader(log.name), broken) for number, log in enumerate(logs)]
    batch: list[AuditEvent] = []
    for _, _, event in heapq.merge(*streams, key=lambda item: item[:2]):
        batch.append(event)
        if len(batch) >= 1_000:
            yield batch
            batch = []
    yield batch
    if broken:
        raise broken[0] if len(broken) == 1 else SourceError("; ".join(map(str, broken)))


def _keyed(
    number: int, log: SavedLog, reader: Reader, broken: list[SourceError]
) -> Iterable[tuple[int, int, AuditEvent]]:
    time = 0
    try:
        for block in log.blocks():
            for event in reader.read(block):
                at = logged_at(event)
                if at is not None:
                    time = at
                yield time, number, event
    except SourceError as error:
        broken.append(error)  # the other logs go on
