"""How often rules fire on a log, how often they would at other limits, and what would quiet the loudest caller.

One run is enough for every limit: whatever the limit, an event's `peak` is the number of events in the fullest
window around it, and the event fires where that reaches what the limit needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import yaml

from mcpwatch.detection.hit import Hit, Severity, Subject
from mcpwatch.detection.rule import Limit, Rule, RuleSet
from mcpwatch.event import AuditEvent, CallEnd, Caller
from mcpwatch.monitor.pipeline import Pipeline, saved_events
from mcpwatch.policy.load import MAX_COUNT
from mcpwatch.policy.model import Alerts
from mcpwatch.sources.block import SourceError
from mcpwatch.sources.saved import SavedLog
from mcpwatch.text import SafeText, safe
from mcpwatch.times import DAY, HOUR, utc_day

LIMITS: Final = (5, 10, 30, 60, 100, 300, 600)
"""Limits that rules which count are tried at, besides their own."""

LOUDEST: Final = 5
"""Subjects that are named."""

_EXCEPTION_DAYS: Final = 90
_MAX_TOOLS: Final = 10
_MAX_VALUE: Final = 200
_MAX_HOURS: Final = 100_000
_MAX_CALLERS: Final = 10_000
_LASTING: Final = ("key", "subject", "client")
_FIELD_OF: Final = {"source_ip": "ip"}  # else a kind of subject is called as its field in filters

Fields = tuple[tuple[str, str], ...]
"""Names of filter fields, and the values that tell a caller."""


@dataclass(frozen=True, slots=True)
class AtLimit:
    """What a rule finds at a limit.

    Attributes:
        own: It is the limit that the rule has.
    """

    limit: int
    hits: int
    incidents: int
    own: bool


@dataclass(frozen=True, slots=True)
class Quieter:
    """What would quiet the loudest caller of a rule.

    Attributes:
        hits: How many of the rule's hits there would not be.
        lines: A rule file that tunes the rule; its author and reason are still to be written.
    """

    hits: int
    lines: tuple[SafeText, ...]


@dataclass(frozen=True, slots=True)
class Rate:
    """How often a rule fires.

    Attributes:
        limit: Its limit in words.
        by_severity: Its incidents by severity, the worst first.
        per_hour: Hits for each hour of the clock in which anything was logged.
        limits: What it would find at other limits, in rising order; empty for rules that don't count.
        loudest: Subjects with most hits, and how many.
        quieter: None where nothing fired, where it would hide something critical, or where ids can't be written.
    """

    rule: Rule
    limit: str
    hits: int
    incidents: int
    by_severity: Mapping[Severity, int]
    per_hour: float
    limits: tuple[AtLimit, ...]
    loudest: tuple[tuple[Subject, int], ...]
    quieter: Quieter | None


def counts(rule: Rule) -> bool:
    """Whether it fires above a limit."""
    return rule.correlation is not None and rule.correlation.type != "temporal_ordered"


def lowered(rules: RuleSet, alerts: Alerts) -> RuleSet:
    """The rules, those that count with the lowest limit that they are tried at: what to judge by to try them all."""

    def low(rule: Rule) -> Rule:
        counting = rule.correlation
        if counting is None or not counts(rule):
            return rule
        lowest = Limit(min(counting.limit.of(alerts), *LIMITS))
        return replace(rule, correlation=replace(counting, limit=lowest))

    return replace(rules, rules=tuple(map(low, rules)))


@dataclass(slots=True)
class _Incident:
    """Hits of one rule on one subject on one day.

    Attributes:
        hits: Those at the limit that the rule has.
        peak: The highest of those that go by the rule's limit.
        fixed: There is one that goes by a limit that was set for such events.
        severities: Of its hits.
    """

    hits: int = 0
    peak: int = 0
    fixed: bool = False
    severities: Counter[Severity] = field(default_factory=Counter)

    @property
    def severity(self) -> Severity:
        """The highest of its hits."""
        return max(+self.severities, default=Severity.LOW)


@dataclass(slots=True)
class _Noise:
    """Hits that one caller makes a rule have.

    Attributes:
        tools: How many of them are calls of which tool; of no more than one tool too many.
    """

    hits: int = 0
    peak: int = 0
    severity: Severity = Severity.LOW
    tools: Counter[str] = field(default_factory=Counter)


class _Tally:
    """The hits of one rule.

    Args:
        lowest: The limit by which its hits are judged, which may be lower than its own.
    """

    def __init__(self, rule: Rule, alerts: Alerts, lowest: int) -> None:
        self.rule = rule
        self.limit = rule.limit(alerts)
        self._incidents: dict[tuple[Subject, int], _Incident] = {}
        self._peaks: Counter[int] = Counter()
        self._fixed = 0
        self._noise: dict[Fields, _Noise] = {}
        self._counting = rule.correlation if counts(rule) else None
        self._own = self._counting.limit.of(alerts) if self._counting is not None else 0
        self._tried = [limit for limit in sorted({self._own, *LIMITS}) if limit >= lowest]

    def add(self, hit: Hit, event: AuditEvent | None) -> None:
        """Count a hit on an event."""
        incident = self._incidents.setdefault((hit.subject, hit.time_ns // DAY), _Incident())
        if hit.amends is not None:
            if incident.severities[hit.amends]:
                incident.severities[hit.amends] -= 1
                incident.severities[hit.severity] += 1
            return
        if self._counting is None or hit.limit is not None:
            self._fixed += 1
            incident.fixed = True
        else:
            self._peaks[hit.peak] += 1
            incident.peak = max(incident.peak, hit.peak)
            if not self._fires(hit.peak, self._own):
                return
        incident.hits += 1
        incident.severities[hit.severity] += 1
        caller: Caller | None = event.caller if event is not None else None
        fields = _fields_of(hit.subject, caller)
        if fields not in self._noise and len(self._noise) >= _MAX_CALLERS:
            return
        noise = self._noise.setdefault(fields, _Noise())
        noise.hits += 1
        noise.peak = max(noise.peak, hit.peak)
        noise.severity = max(noise.severity, hit.severity)
        if event is not None and event.tool is not None and len(noise.tools) <= _MAX_TOOLS:
            noise.tools[event.tool] += 1

    def _fires(self, peak: int, limit: int) -> bool:
        return self._counting is not None and peak >= limit + (self._counting.op == "gt")

    def _at(self, limit: int) -> AtLimit:
        hits = sum(count for peak, count in self._peaks.items() if self._fires(peak, limit))
        incidents = sum(each.fixed or self._fires(each.peak, limit) for each in self._incidents.values())
        return AtLimit(limit, hits + self._fixed, incidents, limit == self._own)

    def rate(self, hours: int, last_ns: int | None) -> Rate:
        """What was counted."""
        fired = {key: each for key, each in self._incidents.items() if each.hits}
        subjects: Counter[Subject] = Counter()
        for (subject, _), each in fired.items():
            subjects[subject] += each.hits
        severities = Counter(each.severity for each in fired.values())
        hits = subjects.total()
        return Rate(
            rule=self.rule,
            limit=self.limit,
            hits=hits,
            incidents=len(fired),
            by_severity={
                each: severities[each] for each in sorted(Severity, reverse=True) if severities[each]
            },
            per_hour=hits / hours if hours else 0.0,
            limits=tuple(map(self._at, self._tried)) if self._counting is not None else (),
            # of subjects with as many hits always the same ones
            loudest=tuple(sorted(subjects.items(), key=lambda item: (-item[1], item[0]))[:LOUDEST]),
            quieter=self._quieter(last_ns),
        )

    def _quieter(self, last_ns: int | None) -> Quieter | None:
        if not self._noise:
            return None
        fields, noise = min(self._noise.items(), key=lambda item: (-item[1].hits, item[0]))
        if noise.severity is Severity.CRITICAL or not _can_be_written(fields):
            return None
        section, hits, row = "thresholds", noise.hits, self._threshold(fields, noise)
        if row is None:
            tools = sorted(noise.tools)
            if (
                not tools
                or len(tools) > _MAX_TOOLS
                or not _can_be_written([("tool", tool) for tool in tools])
            ):
                return None
            section, hits = "exceptions", noise.tools.total()
            row = {"fields": dict(fields) | {"tool": tools}}
            if last_ns is not None:
                row["expires"] = utc_day(last_ns + _EXCEPTION_DAYS * DAY)
        row |= {"author": "NAME", "reason": "WHY THIS IS NORMAL HERE"}
        text = yaml.safe_dump({"tune": self.rule.id, section: [row]}, sort_keys=False, width=100)
        return Quieter(hits, tuple(map(safe, text.splitlines())))

    def _threshold(self, fields: Fields, noise: _Noise) -> dict[str, Any] | None:
        """The limit that a caller stays below; None for rules that don't count, and where there is no such limit."""
        if self._counting is None:
            return None
        limit = noise.peak + (self._counting.op == "gte")
        return {"fields": dict(fields), self._counting.op: limit} if limit <= MAX_COUNT else None


def _fields_of(subject: Subject, caller: Caller | None) -> Fields:
    """What tells the caller: the subject itself, but what lasts in place of a session, which never comes again."""
    if len(subject) == 1 and subject[0][0] == "session" and caller is not None:
        ids = {"key": caller.key, "subject": caller.subject, "client": caller.client}
        for name in _LASTING:
            value = ids[name]
            if value is not None:
                return ((name, value),)
    return tuple((_FIELD_OF.get(kind, kind), value) for kind, value in subject if kind != "gap")


def _can_be_written(fields: Sequence[tuple[str, str]]) -> bool:
    """Whether there are fields, and their values stand for themselves: whoever is called `*` is not everybody."""
    return bool(fields) and not any(
        "*" in value or "?" in value or len(value) > _MAX_VALUE for _, value in fields
    )


class Rates:
    """Counts how often rules fire.

    Args:
        rules: The rules as they are.
        judged_by: What hits are made by where that is not `rules`: the same with lower limits (`lowered`).

    Attributes:
        events: How many there were.
        broken: Why a log could not be read to its end; what comes before that place counts.
    """

    def __init__(self, rules: RuleSet, alerts: Alerts, judged_by: RuleSet | None = None) -> None:
        self.events = 0
        self.broken: SourceError | None = None
        self._hours: set[int] = set()
        self._last: int | None = None
        self._tallies: dict[str, _Tally] = {}
        lowest = (judged_by or rules).by_id
        for rule in rules:
            counting = lowest[rule.id].correlation
            limit = counting.limit.of(alerts) if counting is not None else 0
            self._tallies[rule.id] = _Tally(rule, alerts, limit)

    @property
    def hours(self) -> int:
        """Hours of the clock in which anything was logged."""
        return len(self._hours)

    def add(self, events: Sequence[AuditEvent], hits: Iterable[Hit]) -> None:
        """Count the hits on a run of events."""
        self.events += sum(not isinstance(event, CallEnd) for event in events)
        for event in events:
            time = event.time_ns
            if time is not None:
                hour = time // HOUR
                if hour not in self._hours and len(self._hours) < _MAX_HOURS:
                    self._hours.add(hour)
        hits = list(hits)
        if not hits:
            return
        places = {(hit.source, hit.offset) for hit in hits}
        found = {place: event for event in events if (place := (event.source, event.offset)) in places}
        for hit in hits:
            self._last = hit.time_ns if self._last is None else max(self._last, hit.time_ns)
            tally = self._tallies.get(hit.rule)
            if tally is not None:
                tally.add(hit, found.get((hit.source, hit.offset)))

    def rates(self) -> tuple[Rate, ...]:
        """The rates of all rules, in the rules' order."""
        return tuple(tally.rate(self.hours, self._last) for tally in self._tallies.values())


def rates(
    logs: Sequence[SavedLog], pipeline: Pipeline, rules: RuleSet, tell: Callable[[], None] | None = None
) -> Rates:
    """How often rules fire on saved logs, at their own and at other limits.

    Args:
        pipeline: A fresh one; its engine is told what to judge by.
        tell: Called after every run of events, for a progress bar.
    """
    engine = pipeline.engine
    alerts = engine.policy.alerts
    judged_by = lowered(rules, alerts)
    engine.set_rules(judged_by)
    counted = Rates(rules, alerts, judged_by)
    try:
        for events in saved_events(logs, pipeline):
            events = pipeline.without_repeats(events)
            counted.add(events, engine.observe(events))
            engine.enforcement.clear()  # nobody asks here what was confirmed
            if tell is not None:
                tell()
    except SourceError as error:
        counted.broken = error
    return counted
