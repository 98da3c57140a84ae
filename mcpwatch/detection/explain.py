"""Why each rule fires on a record or doesn't: what the checks found, and how full the windows were.

Whether a rule fires is the engine's word and never worked out anew. How full a window is where that is not enough to
fire is a second engine's word, with the same rules at limits so low that every event that is counted fires.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import le, lt
from typing import Final, Literal, NamedTuple

from mcpwatch.detection.book import found_name
from mcpwatch.detection.case import Case
from mcpwatch.detection.engine import Engine
from mcpwatch.detection.hit import Hit, Severity, Subject
from mcpwatch.detection.principal import subject_of
from mcpwatch.detection.reference import NEVER
from mcpwatch.detection.rule import Condition, Correlation, Limit, Rule, RuleException, RuleSet, Threshold
from mcpwatch.detection.unfound import why_nothing
from mcpwatch.detection.windows import MAX_TIMES
from mcpwatch.event import AuditEvent
from mcpwatch.filter import AllOf, Filter
from mcpwatch.policy.model import Policy
from mcpwatch.text import SafeText, safe
from mcpwatch.times import format_duration, iso

State = Literal["fires", "does_not_fire", "not_concerned"]

_CHAIN: Final = "audit-gap"
_LOW: Final = Limit(1)


@dataclass(frozen=True, slots=True)
class Count:
    """How full a window is around the record.

    Attributes:
        field: What of which different values are counted; "" where events are.
        fill: Events or values in the fullest window that holds the record; more than `MAX_TIMES` are not counted.
        need: How many of them fire.
    """

    field: str
    fill: int
    need: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a sequence, as seen from the record.

    Attributes:
        condition: What it is, in words.
        here: The record is this step.
        time_ns, line: Of the event of this step that is nearest to the record in order; None if there is none.
    """

    condition: SafeText
    here: bool
    time_ns: int | None
    line: int | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What one rule says of a record.

    Attributes:
        reasons: Why, one clause each.
        subject: Whom it would be about; None where the record names nobody that the rule groups by.
        severity: Of its hits, the highest; None unless it fires.
        limit: The limit that holds for the record, in words; None for rules without a correlation.
        threshold: What set that limit, where it is not the rule's own.
        counts: The windows that the record entered,
        steps: or the sequence.
        exception: What excepts the record.
    """

    rule: Rule
    state: State
    reasons: tuple[SafeText, ...]
    subject: Subject | None = None
    severity: Severity | None = None
    limit: str | None = None
    threshold: Threshold | None = None
    counts: tuple[Count, ...] = ()
    steps: tuple[Step, ...] = ()
    exception: RuleException | None = None


class Explained(NamedTuple):
    """What the rules say of a record.

    Attributes:
        case: The record as the checks saw it.
        left_out: Why it is in no window; None where it may be in some.
        standings: Of every rule of the run, in their order.
    """

    case: Case
    left_out: SafeText | None
    hits: tuple[Hit, ...]
    standings: tuple[Standing, ...]


class _Name(NamedTuple):
    """What a rule of the second engine stands for: a step of a rule, and the field that it counts."""

    rule: str
    step: int = 0
    field: str = ""

    def __str__(self) -> str:
        return f"{self.rule} {self.step} {self.field}"


class _At(NamedTuple):
    """When an event was, in the order of sequences: of two at the same time the one logged first is the earlier."""

    time_ns: int
    offset: int
    line: int | None


@dataclass(slots=True)
class _Seen:
    """A record while it is explained.

    Attributes:
        found: Names of what the checks found in it.
        hits: By rule.
        counted: How full the windows are that it entered.
    """

    event: AuditEvent
    case: Case
    found: frozenset[str]
    hits: dict[str, list[Hit]]
    counted: dict[_Name, int]
    left_out: SafeText | None


class Explainer:
    """Explains one record of a log, once it was given everything before it.

    Attributes:
        engine: The engine whose word it is.

    Args:
        record: The record that will be explained.
        logs: Paths of the watched logs, which no tool has to change.
    """

    def __init__(
        self, policy: Policy, rules: RuleSet, record: AuditEvent, logs: tuple[str, ...] = ()
    ) -> None:
        self.engine = Engine(policy, rules, logs)
        self._low = {str(name): name for name, _ in _lowered(rules)}
        # a rule of its own: what this check finds depends on the record before, and can't be asked for again
        chain = Rule(_CHAIN, "", Severity.LOW, "", condition=Condition(check=_CHAIN))
        self._second = Engine(policy, RuleSet((*(rule for _, rule in _lowered(rules)), chain)), logs)
        chained = record.sequence is not None or record.prev_hash is not None or record.hash is not None
        self._from: int | None = None
        """From when on the second engine must see what happened; None if nothing matters."""
        if chained:
            self._from = NEVER
        elif record.time_ns is not None:
            self._from = record.time_ns - self._second.warm_up
        self._reached = False
        self._sequences = {
            rule.id for rule in rules if rule.correlation and rule.correlation.type == "temporal_ordered"
        }
        self._steps: dict[tuple[_Name, Subject], deque[_At]] = defaultdict(
            lambda: deque(maxlen=2 * MAX_TIMES)
        )

    def observe(self, events: Sequence[AuditEvent]) -> None:
        """Take what comes before the record, in the order of the log."""
        self.engine.observe(events)
        self.engine.enforcement.clear()
        since = self._from
        if since is None:
            return
        if not self._reached:
            later = (
                n for n, event in enumerate(events) if event.time_ns is not None and event.time_ns >= since
            )
            start = next(later, None)
            self._reached = start is not None
            events = events[start:] if start is not None else ()
        self._watch(events)

    def explain(self, event: AuditEvent) -> Explained:
        """Judge the record as the next of its log, and say why each rule fires on it or doesn't."""
        engine, late = self.engine, self.engine.late
        hits: dict[str, list[Hit]] = {}
        for hit in engine.observe([event]):
            hits.setdefault(hit.rule, []).append(hit)
        low = self._watch([event])
        found = {each.check for each in engine.found(event)}
        if any(hit.rule == _CHAIN for hit in low):
            found.add(_CHAIN)
        left_out = None
        if event.time_ns is None:
            left_out = SafeText("it has no readable time, so it is in no window")
        elif engine.late > late:
            lateness = format_duration(engine.policy.alerts.allowed_lateness)
            left_out = SafeText(f"it came more than {lateness} behind its log, so it is in no window")
        counted = {self._low[hit.rule]: hit.peak for hit in low if hit.rule in self._low}
        case = engine.case(event)
        seen = _Seen(event, case, frozenset(found), hits, counted, left_out)
        standings = tuple(self._standing(rule, seen) for rule in engine.rules)
        return Explained(case, left_out, tuple(hit for some in hits.values() for hit in some), standings)

    def _watch(self, events: Sequence[AuditEvent]) -> list[Hit]:
        """Let the second engine see events, and remember the steps of sequences."""
        hits = self._second.observe(events)
        self._second.enforcement.clear()
        for hit in hits:
            name = self._low.get(hit.rule)
            if hit.amends is None and name is not None and name.rule in self._sequences:
                self._steps[name, hit.subject].append(_At(hit.time_ns, hit.offset, hit.line))
        return hits

    def _standing(self, rule: Rule, seen: _Seen) -> Standing:
        if rule.correlation is not None:
            return self._correlated(rule, rule.correlation, seen)
        hits = seen.hits.get(rule.id, ())
        subject = subject_of(rule.group_by, seen.case.who.identity)
        if hits:
            reasons = tuple(dict.fromkeys(safe(hit.reason, 400) for hit in hits))
            return Standing(rule, "fires", reasons, hits[0].subject, max(hit.severity for hit in hits))
        met, concerned, reason = _met(rule, rule.condition, seen)
        if not met:
            return Standing(rule, "does_not_fire" if concerned else "not_concerned", (reason,), subject)
        exception = _exception(rule, seen)
        if exception is not None:
            return Standing(rule, "does_not_fire", (_excepted(exception),), subject, exception=exception)
        return Standing(rule, "not_concerned", (_nobody(rule),))

    def _correlated(self, rule: Rule, counting: Correlation, seen: _Seen) -> Standing:
        tier = seen.case.what.tier
        subject = subject_of(rule.group_by, seen.case.who.identity)
        tried = [_met(rule, condition, seen) for condition in counting.events]
        met = [number for number, (fits, _, _) in enumerate(tried) if fits]
        threshold = next((each for each in rule.thresholds if each.fields.match(seen.event, tier)), None)
        limit = counting.words(self.engine.policy.alerts, threshold.limit if threshold is not None else None)
        standing = Standing(rule, "not_concerned", (), subject, limit=limit, threshold=threshold)
        if not met:
            reason = tried[0][2] if len(tried) == 1 else safe(f"is none of its {len(tried)} steps")
            return replace(standing, reasons=(reason,))
        if subject is None:
            return replace(standing, reasons=(_nobody(rule),))
        standing = replace(standing, state="does_not_fire")
        exception = _exception(rule, seen)
        if exception is not None:
            return replace(standing, reasons=(_excepted(exception),), exception=exception)
        if seen.left_out is not None:
            return replace(standing, reasons=(seen.left_out,))
        hits = seen.hits.get(rule.id)
        if hits:
            standing = replace(standing, state="fires", severity=max(hit.severity for hit in hits))
        if counting.type == "temporal_ordered":
            return self._with_steps(standing, counting, met, seen)
        return self._with_counts(standing, counting, seen)

    def _with_counts(self, standing: Standing, counting: Correlation, seen: _Seen) -> Standing:
        rule, alerts = standing.rule, self.engine.policy.alerts
        need = counting.need(alerts, standing.threshold.limit if standing.threshold is not None else None)
        width = format_duration(counting.timespan.of(alerts))
        counts: list[Count] = []
        reasons: list[SafeText] = []
        for field in counting.fields or ("",):
            fill = seen.counted.get(_Name(rule.id, 0, field))
            if fill is None:
                reasons.append(_not_counted(field, counting, seen))
                continue
            if standing.state != "fires":
                fill = min(fill, need - 1)  # a crowd of late values is only counted roughly
            counts.append(Count(field, fill, need))
            what = f"different values of {field.replace('_', ' ')}" if field else counting.unit
            reasons.append(safe(f"{what} within {width}: {fill}; fires at {need}"))
        return replace(standing, counts=tuple(counts), reasons=tuple(reasons))

    def _with_steps(
        self, standing: Standing, counting: Correlation, met: Sequence[int], seen: _Seen
    ) -> Standing:
        """The sequence around the record; where it is several steps, as the one that completes it, else the last."""
        event, width = seen.event, counting.timespan.of(self.engine.policy.alerts)
        times = [
            sorted(self._steps.get((_Name(standing.rule.id, number), standing.subject or ()), ()))
            for number in range(len(counting.events))
        ]
        here = _At(seen.case.time_ns, event.offset, event.line)
        around = {step: _sequence(times, here, step, counting.in_one_call) for step in met}
        step = next((step for step, found in around.items() if _complete(found, width)), met[-1])
        steps = tuple(
            Step(
                _words(condition),
                number == step,
                at.time_ns if at is not None else None,
                at.line if at is not None else None,
            )
            for number, (condition, at) in enumerate(zip(counting.events, around[step], strict=True))
        )
        reasons = [_step_words(steps, number, step) for number in range(len(steps))]
        if None not in around[step] and not _complete(around[step], width):
            reasons.append(safe(f"they are not within {format_duration(width)}"))
        return replace(standing, steps=steps, reasons=tuple(reasons))


def _lowered(rules: RuleSet) -> list[tuple[_Name, Rule]]:
    """Rules that fire on each event that one of `rules` counts, or that is a step of it."""
    found = []
    for rule in rules:
        counting = rule.correlation
        for step, condition in enumerate(counting.events) if counting is not None else ():
            assert counting is not None
            for field in counting.fields or ("",):
                name = _Name(rule.id, step, field)
                low = replace(
                    counting, events=(condition,), fields=(field,) if field else (), op="gte", limit=_LOW
                )
                if counting.type == "temporal_ordered":
                    low = replace(low, type="event_count")
                found.append((name, replace(rule, id=str(name), correlation=low, thresholds=())))
    return found


def _met(rule: Rule, condition: Condition, seen: _Seen) -> tuple[bool, bool, SafeText]:
    """Whether the record meets a condition of a rule; whether that is about such records at all; why it doesn't."""
    check, match = condition.check, condition.match
    if check is not None and found_name(rule, check) not in seen.found:
        return False, *why_nothing(check, rule, seen.case)
    tier = seen.case.what.tier
    if match is not None and not match.match(seen.event, tier):
        return False, False, safe(f"does not match {_unmet(match, seen.event, tier)}", 120)
    return True, True, SafeText("")


def _exception(rule: Rule, seen: _Seen) -> RuleException | None:
    tier, time_ns = seen.case.what.tier, seen.case.time_ns
    holding = (each for each in rule.exceptions if each.until is None or time_ns < each.until)
    return next((each for each in holding if each.fields.match(seen.event, tier)), None)


def _not_counted(field: str, counting: Correlation, seen: _Seen) -> SafeText:
    """Why an event that is of the right kind is not counted."""
    event = seen.event
    if field:
        return safe(f"the record has no {'address' if field == 'network' else field.replace('_', ' ')}")
    if "params" in counting.same and event.params is None:
        return SafeText("no parameters in the log, so nobody knows whether calls are alike")
    if counting.once_per_call and event.call_id is not None:
        return safe(f"call {safe(event.call_id, 60)} was logged before, and counts once")
    if "params" in counting.same:
        return SafeText("the log withholds a part of the parameters, so nobody knows whether calls are alike")
    return SafeText(f"older than the newest {MAX_TIMES} that are counted")


def _sequence(times: Sequence[Sequence[_At]], here: _At, step: int, in_one: bool) -> list[_At | None]:
    """The events of each step that lie closest around one that is a step itself; none beyond a missing step."""
    precedes = le if in_one else lt
    found: list[_At | None] = [None] * len(times)
    found[step] = first = last = here
    for number in range(step - 1, -1, -1):
        before = max((at for at in times[number] if precedes(at[:2], first[:2])), default=None)
        if before is None:
            break
        found[number] = first = before
    for number in range(step + 1, len(times)):
        after = min((at for at in times[number] if precedes(last[:2], at[:2])), default=None)
        if after is None:
            break
        found[number] = last = after
    return found


def _complete(found: Sequence[_At | None], width: int) -> bool:
    first, last = found[0], found[-1]
    return None not in found and first is not None and last is not None and last[0] - first[0] < width


def _step_words(steps: Sequence[Step], number: int, here: int) -> SafeText:
    step, name = steps[number], f"step {number + 1} of {len(steps)}"
    if step.here:
        return safe(f"the record is {name}: {step.condition}")
    if step.time_ns is None:
        return safe(f"{name} was not seen {'before' if number < here else 'after'} it: {step.condition}")
    line = f", line {step.line}" if step.line is not None else ""
    return safe(f"{name} was at {iso(step.time_ns)}{line}: {step.condition}")


def _words(condition: Condition) -> SafeText:
    parts = (condition.check or "", str(condition.match) if condition.match is not None else "")
    return safe(" and ".join(filter(None, parts)), 80)


def _unmet(match: Filter, event: AuditEvent, tier: str | None) -> str:
    """The parts of a filter that do not hold."""
    parts = match.root.parts if isinstance(match.root, AllOf) else (match.root,)
    return str(AllOf(tuple(part for part in parts if not part.match(event, tier))))


def _excepted(exception: RuleException) -> SafeText:
    until = f" until {iso(exception.until)}" if exception.until is not None else ""
    who = f"{exception.author}: {exception.reason} ({exception.place})"
    return safe(f"excepted{until} ({exception.fields}) by {who}", 400)


def _nobody(rule: Rule) -> SafeText:
    names = ", ".join("+".join(names) for names in rule.group_by)
    return safe(f"the record names none of those that it groups by: {names}")
