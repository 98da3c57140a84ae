"""Saved logs under two policies at once: which decisions, verdicts and incidents would be others.

A log tells what was asked and how it ended under the policy of its time. What a refused call would have done, or
what a caller would have done next had a call been refused, it does not tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeVar

from mcpwatch.detection.case import What, Who
from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Severity
from mcpwatch.detection.rule import RuleSet
from mcpwatch.event import REFUSALS, REQUEST_KINDS, AuditEvent, CallEnd, Caller, Shape
from mcpwatch.incidents.fold import Fold
from mcpwatch.incidents.incident import Incident
from mcpwatch.monitor.pipeline import Pipeline, Reading, saved_events
from mcpwatch.policy.decide import Decision, decide
from mcpwatch.policy.model import Policy, Tier
from mcpwatch.policy.verdict import Finding
from mcpwatch.sources.block import SourceError
from mcpwatch.sources.saved import SavedLog
from mcpwatch.text import SafeText, safe

EXAMPLES: Final = 3
"""Records that are named for each change, the first ones."""

MAX_KINDS: Final = 1_000
"""Different changes of one sort that are told apart: names of tools are what somebody wrote into a log."""

_MAX_PAIRS: Final = 65_536
FINE: Final = "fine"
"""The verdict where there is nothing to say."""

_Kind = TypeVar("_Kind")

How = Literal["appears", "vanishes", "changes"]


@dataclass(frozen=True, slots=True)
class Example:
    """A record whose judgement changes.

    Attributes:
        who: Key, else subject, client, session, address.
    """

    source: SafeText
    line: int | None
    offset: int
    time_ns: int | None
    who: SafeText
    outcome: str


@dataclass(slots=True)
class Change:
    """Records that change in the same way.

    Attributes:
        outcomes: How they ended, in the log.
        examples: The first of them.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many there are."""
        return self.outcomes.total()

    def add(self, event: AuditEvent) -> None:
        """Take in one more."""
        self.outcomes[event.status or "unknown"] += 1
        if len(self.examples) < EXAMPLES:
            caller: Caller = event.caller
            who = caller.key or caller.subject or caller.client or caller.session or caller.source_ip
            self.examples.append(
                Example(safe(event.source, 200), event.line, event.offset, event.time_ns, safe(who or "-", 60),
                        event.status or "unknown")
            )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DecisionKind:
    """A way in which what an enforcing server answers changes.

    Attributes:
        allowed: What it answers under the new policy.
        tool: None for requests that call none.
        reason: Why it refuses, under the policy that does.
    """

    allowed: bool
    tool: SafeText | None
    reason: SafeText


@dataclass(frozen=True, slots=True)
class VerdictKind:
    """A way in which a verdict on paths, URLs or scopes changes.

    Attributes:
        old, new: The worst verdict of the aspect, or `FINE`.
        reason: Of the new verdict; of the old one where the new one is fine.
    """

    tool: SafeText
    aspect: str
    old: str
    new: str
    reason: SafeText


@dataclass(frozen=True, slots=True)
class IncidentChange:
    """An incident that only one policy brings, or that has another count or severity."""

    how: How
    old: Incident | None
    new: Incident | None

    @property
    def either(self) -> Incident:
        """The incident, as it is under the new policy if it is there."""
        found = self.new or self.old
        assert found is not None
        return found


@dataclass(frozen=True, slots=True)
class Side:
    """What one of the policies says of the logs.

    Attributes:
        refused: Requests that an enforcing server refuses.
        tiers: Tool calls by tier.
        incidents: By severity, the worst first.
    """

    policy: Policy
    refused: int
    tiers: dict[Tier, int]
    incidents: dict[Severity, int]


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What would be different.

    Attributes:
        requests: Tool calls and other requests in the logs,
        refused_in_log: and how many of them the servers refused.
        decisions, verdicts: Changes by their kind, the most frequent first.
        more: Records whose change is of none of the first `MAX_KINDS` kinds.
        incidents: The worst first.
        unread: Logs of which nothing was understood.
        broken: Why reading ended too soon, if it did.
    """

    old: Side
    new: Side
    events: int
    requests: int
    refused_in_log: int
    decisions: dict[DecisionKind, Change]
    verdicts: dict[VerdictKind, Change]
    more: int
    incidents: list[IncidentChange]
    unread: tuple[SafeText, ...]
    broken: SourceError | None

    @property
    def differs(self) -> bool:
        """Whether anything would change."""
        return bool(self.decisions or self.verdicts or self.incidents)

    @property
    def worst_new(self) -> Severity | None:
        """The highest severity of incidents that the new policy brings, or to which it raises some."""
        raised = (
            change.new.severity
            for change in self.incidents
            if change.new is not None and (change.old is None or change.new.severity > change.old.severity)
        )
        return max(raised, default=None)


def compare(logs: Sequence[SavedLog], old: Policy, new: Policy, rules: RuleSet, how: Reading,
            after_events: Callable[[], None] = lambda: None) -> WhatIf:  # fmt: skip
    """Judge saved logs by two policies, with the same rules, in one reading.

    Args:
        after_events: Called now and then while reading.
    """
    ours, theirs = Pipeline(old, how, rules), Pipeline(new, how, rules)
    differences = _Differences(ours.engine, theirs.engine)
    broken = None
    try:
        for events in saved_events(logs, ours):
            events = ours.without_repeats(events)
            # the outcome of a call is written into its event when both have judged it
            ours.judge(events)
            batch = theirs.judge(events)
            for pipeline in (ours, theirs):
                pipeline.engine.enforcement.clear()
            differences.take(events)
            batch.settle()
            after_events()
    except SourceError as error:
        broken = error  # what comes before the broken byte counts
    readers = ours.readers.items()
    return WhatIf(
        old=_side(ours, differences.refused[0]),
        new=_side(theirs, differences.refused[1]),
        events=ours.engine.counts.total(),
        requests=differences.requests,
        refused_in_log=differences.refused_in_log,
        decisions=_by_count(differences.decisions),
        verdicts=_by_count(differences.verdicts),
        more=differences.more,
        incidents=_incident_changes(ours.fold, theirs.fold),
        unread=tuple(
            safe(name, 200) for name, reader in readers if reader.not_understood and not reader.understood
        ),
        broken=broken,
    )


def _side(pipeline: Pipeline, refused: int) -> Side:
    tiers = dict.fromkeys(Tier, 0)
    for (_, tier, _), count in pipeline.engine.counts.items():
        if tier is not None:
            tiers[tier] += count
    return Side(pipeline.engine.policy, refused, tiers, pipeline.fold.by_severity())


def _by_count(changes: dict[_Kind, Change]) -> dict[_Kind, Change]:
    return dict(sorted(changes.items(), key=lambda item: -item[1].count))


def _incident_changes(old: Fold, new: Fold) -> list[IncidentChange]:
    found: list[IncidentChange] = []
    for after in new:
        before = old.find(after.id)
        if before is None:
            found.append(IncidentChange("appears", None, after))
        elif (before.count, before.severity) != (after.count, after.severity):
            found.append(IncidentChange("changes", before, after))
    found += [IncidentChange("vanishes", before, None) for before in old if new.find(before.id) is None]
    order = ("appears", "changes", "vanishes")
    return sorted(
        found,
        key=lambda each: (-each.either.severity, order.index(each.how), each.either.first_ns, each.either.id),
    )


class _Differences:
    """What is judged differently, record by record.

    Attributes:
        refused: Requests that each of the two policies refuses.
    """

    def __init__(self, old: Engine, new: Engine) -> None:
        self._old, self._new = old, new
        self.requests = self.refused_in_log = self.more = 0
        self.refused = [0, 0]
        self.decisions: dict[DecisionKind, Change] = {}
        self.verdicts: dict[VerdictKind, Change] = {}
        self._alike: dict[tuple[Caller, Shape], bool] = {}

    def take(self, events: Iterable[AuditEvent]) -> None:
        """Compare what the policies say of events that both engines have seen."""
        for event in events:
            shape: Shape = event.shape
            request = shape.kind in REQUEST_KINDS
            if isinstance(event, CallEnd):
                self.refused_in_log += request and shape.status in REFUSALS
                continue  # what policies say of a call does not hang on its outcome
            if request:
                self.requests += 1
                self.refused_in_log += shape.status in REFUSALS
            alike = self._is_alike(event)
            if alike and not request:
                continue
            decided = self._decide(self._old, event) if request else None
            if alike:
                refuses = decided is not None and not decided.allowed
                self.refused[0] += refuses
                self.refused[1] += refuses
                continue
            self._compare_verdicts(event)
            if decided is not None:
                self._compare_decisions(event, decided, self._decide(self._new, event))

    def _is_alike(self, event: AuditEvent) -> bool:
        """Whether the two policies say the same of all events of this caller and kind, whatever is in them."""
        pair = (event.caller, event.shape)
        found = self._alike.get(pair)
        if found is None:
            if len(self._alike) >= _MAX_PAIRS:
                self._alike.clear()
            ours, theirs = (
                _said(each.policy, each.who(event), each.what(event)) for each in (self._old, self._new)
            )
            found = self._alike[pair] = ours == theirs
        return found

    def _decide(self, engine: Engine, event: AuditEvent) -> Decision:
        caller: Caller = event.caller
        time_ns = event.time_ns
        return decide(
            engine.judge, key=caller.key, client=caller.client, session=caller.session, subject=caller.subject,
            source_ip=caller.source_ip, tool=event.tool if event.event == "tool_call" else None,
            params=event.params, scopes=event.scopes,
            at_ns=time_ns if time_ns is not None else engine.case(event).time_ns,
        )  # fmt: skip

    def _compare_decisions(self, event: AuditEvent, old: Decision, new: Decision) -> None:
        self.refused[0] += not old.allowed
        self.refused[1] += not new.allowed
        if old.allowed == new.allowed:
            return
        tool = safe(event.tool, 80) if event.tool is not None and event.event == "tool_call" else None
        kind = DecisionKind(new.allowed, tool, safe(new.reason or old.reason, 300))
        self._add(self.decisions, kind, event)

    def _compare_verdicts(self, event: AuditEvent) -> None:
        ours, theirs = _worst(self._old, event), _worst(self._new, event)
        for aspect in sorted(ours.keys() | theirs.keys()):
            old, new = ours.get(aspect), theirs.get(aspect)
            before = old.verdict.value if old is not None else FINE
            after = new.verdict.value if new is not None else FINE
            if before == after:
                continue
            said = new or old
            assert said is not None
            name = event.tool or "resources/read"
            kind = VerdictKind(safe(name, 80), aspect, before, after, safe(said.reason, 300))
            self._add(self.verdicts, kind, event)

    def _add(self, changes: dict[_Kind, Change], kind: _Kind, event: AuditEvent) -> None:
        change = changes.get(kind)
        if change is None:
            if len(changes) >= MAX_KINDS:
                self.more += 1
                return
            change = changes[kind] = Change()
        change.add(event)


def _said(policy: Policy, who: Who, what: What) -> tuple[object, ...]:
    """All of a policy that decides about a caller and a kind of event."""
    judge = what.judge
    key = policy.keys.get(who.identity["key"] or "")
    return (
        [(each.at, each.until) for each in who.revocations],
        [(each.at, each.until) for each in who.lockouts],
        key.scopes if key is not None else None,
        judge.policy if judge is not None else None,
        judge is None or judge.listed or policy.deny_unlisted,
    )


def _worst(engine: Engine, event: AuditEvent) -> dict[str, Finding]:
    """What is not fine about an event: the worst finding of each aspect."""
    judge = engine.what(event).judge
    if judge is None:
        return {}
    found: dict[str, Finding] = {}
    for finding in judge.findings(event.params):
        found.setdefault(finding.aspect, finding)
    if event.event == "tool_call":
        scopes = event.scopes
        if scopes is None:
            key = engine.policy.keys.get(event.caller.key or "")
            scopes = list(key.scopes) if key is not None and key.scopes is not None else None
        scope = judge.scope(scopes)
        if not scope.fine:
            found["scope"] = scope
    return found
