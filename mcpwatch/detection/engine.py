"""The engine: events in, hits out. It keeps nothing but windows, reads no clock, and never resets.

So a hit depends only on the events of the last W before it (W: the longest window and the allowed lateness) and on
the policy; live, replay and any start in the middle give the same hits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from mcpwatch.detection.checks import IDENTIFIED_WITHIN, Case, Enforcement, What, Who, for_caller, for_shape
from mcpwatch.detection.distinct import DistinctCount
from mcpwatch.detection.hit import Hit, Severity, Subject
from mcpwatch.detection.principal import subject_of
from mcpwatch.detection.reference import ReferenceTime
from mcpwatch.detection.rules import BY_ID, WINDOW_RULES, Rule
from mcpwatch.detection.windows import MAX_TIMES, CountWindow, DistinctWindow
from mcpwatch.event import AuditEvent, Caller, Shape
from mcpwatch.policy.judge import Judge
from mcpwatch.policy.model import Policy, Tier

MAX_SUBJECTS: Final = 50_000
"""Windows kept for each rule and kind of subject; beyond that the least recently used go, and that is counted."""

SWEEP_EVERY: Final = 65_536
"""Events between two sweeps of idle windows."""

_MAX_SHAPES: Final = 4_096

Window = CountWindow | DistinctWindow
Feed = tuple[Window, str, Rule, Subject]
"""What an event of some caller enters: the window, its session for windows of sessions, the rule, and the subject."""


class Engine:
    """Judges events one after the other.

    Attributes:
        judge: The policy's verdicts.
        late: Events that came too late for any window.
        evictions: Windows dropped because a rule had too many subjects, by rule id.
        enforcement: What was seen of restrictions biting or not, since it was last taken.
        sessions, keys: How many different ones there were.
    """

    def __init__(self, policy: Policy) -> None:
        self.late = 0
        self.evictions: Counter[str] = Counter()
        self.enforcement: list[Enforcement] = []
        self.sessions = DistinctCount()
        self.keys = DistinctCount()
        self._pools: dict[tuple[str, tuple[str, ...]], dict[Subject, Window]] = {}
        self._references: dict[str, ReferenceTime] = {}
        self._counts: Counter[tuple[str, Tier | None, str]] = Counter()
        self._learnt: dict[Shape, _Learnt] = {}
        self._met: dict[Caller, _Met] = {}
        self._until_sweep = SWEEP_EVERY
        self._fresh: set[str] = set()
        self.set_policy(policy)

    def set_policy(self, policy: Policy) -> None:
        """Judge by another policy from here on. Windows stay: they hold times, not verdicts."""
        self._forget_shapes()
        self._met.clear()
        self.policy = policy
        self.judge = Judge(policy)
        self._lateness = policy.alerts.allowed_lateness
        for (rule_id, _), pool in self._pools.items():
            need, width, keep = self._measures(BY_ID[rule_id])
            for window in pool.values():
                window.set_limits(need, width, keep)

    @property
    def counts(self) -> Counter[tuple[str, Tier | None, str]]:
        """How many events of each (kind, tier, status) there were; the tier is None where there is no tool."""
        total = self._counts.copy()
        for counted in self._learnt.values():
            what = counted.what
            total[what.kind, what.tier, what.status] += counted.count
        return total

    def forget_counts(self) -> None:
        """Count from zero: what came before only warmed the windows up."""
        for learnt in self._learnt.values():
            learnt.count = 0
        self._counts = Counter()
        self.late = 0
        self.enforcement = []
        self.sessions, self.keys = DistinctCount(), DistinctCount()
        self._met.clear()

    @property
    def warm_up(self) -> int:
        """How far before a starting point the engine must begin to read to give the same hits from there on, ns.

        The longest look back of any rule, and the lateness three times: the event, the reference time and the
        sampled place in the log may each be that late.
        """
        widths = [rule.window.width(self.policy.alerts) for rule in WINDOW_RULES if rule.window is not None]
        return max(*widths, IDENTIFIED_WITHIN) + 3 * self._lateness

    def observe(self, events: Iterable[AuditEvent]) -> list[Hit]:
        """Judge events in the order in which their sources have them; the hits, in the same order."""
        hits: list[Hit] = []
        met, learnt = self._met, self._learnt
        lateness = self._lateness
        origin, reference = None, ReferenceTime()
        seen = 0
        for event in events:
            seen += 1
            if event.origin is not origin:
                origin = event.origin
                reference = self._reference(origin.source)
                self._fresh.add(origin.source)
            caller = met.get(event.caller) or self._meet(event.caller)
            counted = learnt.get(event.shape) or self._learn(event.shape)
            counted.count += 1
            time = event.time_ns
            if time is not None:
                if reference.is_late(time, lateness):
                    self.late += 1
                else:
                    feeds = caller.feeds.get(counted.feeds)
                    if feeds is None:
                        feeds = self._feeds(caller, counted.feeds)
                    call_id = event.call_id
                    for window, session, rule, subject in feeds:
                        if isinstance(window, CountWindow):
                            if call_id is None and time >= window.times[-1]:
                                # the usual case of CountWindow.add, written out: a call costs as much again
                                window.times.append(time)
                                if time - window.times[-window.need] >= window.width:
                                    continue
                                peak = window.fullest(time)
                            else:
                                peak = window.add(time, call_id)
                        else:
                            peak = window.add(time, session)
                        if not peak:
                            continue
                        hits.append(
                            Hit(
                                rule.id,
                                subject,
                                time,
                                rule.severity or Severity.MEDIUM,
                                counted.what.status,
                                "",
                                peak,
                                origin.source,
                                event.line,
                                event.offset,
                            )
                        )
                    if caller.identified:
                        reference.identified = time
            if caller.checks or (counted.guard is not None and counted.guard(event)):
                self._check(event, caller, counted, reference, hits)
        self._until_sweep -= seen
        if self._until_sweep <= 0:
            self._sweep()
        return hits

    def what(self, event: AuditEvent) -> What:
        """What is known of this kind of event: its tier, its tool's judge."""
        return (self._learnt.get(event.shape) or self._learn(event.shape)).what

    def who(self, event: AuditEvent) -> Who:
        """What is known of the caller of an event."""
        return (self._met.get(event.caller) or self._meet(event.caller)).who

    def _check(
        self, event: AuditEvent, caller: _Met, counted: _Learnt, reference: ReferenceTime, hits: list[Hit]
    ) -> None:
        time = event.time_ns if event.time_ns is not None else reference.best_guess
        who = caller.who
        case = Case(
            event, who, counted.what, time, reference.identified, self.policy, self.judge, self.enforcement
        )
        for checks in (counted.what.checks, who.checks):
            for check in checks:
                for found in check(case):
                    subject = who.principal
                    if subject is not None:
                        if found.gap is not None:
                            subject = (*subject, ("gap", found.gap))
                        hits.append(
                            Hit(found.rule, subject, time, found.severity, event.status or "", found.reason, 0,
                                event.source, event.line, event.offset)
                        )  # fmt: skip

    def _meet(self, caller: Caller) -> _Met:
        """Work out everything about a caller that was not seen lately."""
        if len(self._met) >= MAX_SUBJECTS:
            self._met.clear()
        if caller.session is not None:
            self.sessions.add(caller.session)
        if caller.key is not None:
            self.keys.add(caller.key)
        met = self._met[caller] = _Met(for_caller(caller, self.judge, self.policy))
        return met

    def _learn(self, shape: Shape) -> _Learnt:
        """Work out everything about a kind of event that was not seen lately."""
        if len(self._learnt) >= _MAX_SHAPES:
            self._forget_shapes()
        judge = self.judge.for_tool(shape.tool) if shape.tool is not None else None
        learnt = self._learnt[shape] = _Learnt(for_shape(shape, judge, self.policy))
        return learnt

    def _forget_shapes(self) -> None:
        self._counts = self.counts
        self._learnt.clear()

    def _feeds(self, caller: _Met, kinds: frozenset[str]) -> tuple[Feed, ...]:
        """The windows that an event of this caller enters; made where they are missing."""
        if any(len(pool) >= MAX_SUBJECTS for pool in self._pools.values()):
            self._sweep()  # not between two windows of one caller: it would free the first, still empty, one
        feeds: list[Feed] = []
        identity = caller.who.identity
        for rule in WINDOW_RULES:
            counting = rule.window
            if counting is None or counting.counts not in kinds:
                continue
            subject = subject_of(rule.subject, identity)
            if subject is None:
                continue
            session = identity["session"] or ""
            if session or not counting.distinct:
                feeds.append((self._window(rule, subject), session, rule, subject))
        caller.feeds[kinds] = found = tuple(feeds)
        return found

    def _window(self, rule: Rule, subject: Subject) -> Window:
        kinds = tuple(kind for kind, _ in subject)
        pool = self._pools.setdefault((rule.id, kinds), {})
        window = pool.get(subject)
        if window is None:
            assert rule.window is not None
            need, width, keep = self._measures(rule)
            window = pool[subject] = (
                DistinctWindow(need, width, keep)
                if rule.window.distinct
                else CountWindow(need, width, keep, by_call=rule.window.by_call)
            )
        return window

    def _measures(self, rule: Rule) -> tuple[int, int, int]:
        assert rule.window is not None
        alerts = self.policy.alerts
        width = rule.window.width(alerts)
        return min(rule.window.need(alerts), MAX_TIMES), width, width + alerts.allowed_lateness

    def _reference(self, source: str) -> ReferenceTime:
        reference = self._references.get(source)
        if reference is None:
            reference = self._references[source] = ReferenceTime()
        return reference

    def _sweep(self) -> None:
        """Free windows that nothing can touch any more, then the least recently used of a pool that is full.

        "Now" is the earliest reference time of the sources that delivered since the last sweep: a source that
        is read from long ago must keep its windows.
        """
        self._until_sweep = SWEEP_EVERY
        references = [self._references[source].time for source in self._fresh]
        self._fresh = set()
        now = min((time for time in references if time is not None), default=None)
        for (rule_id, kinds), pool in self._pools.items():
            kept = pool
            if now is not None:
                kept = {who: window for who, window in pool.items() if window.is_needed(now)}
            if len(kept) >= MAX_SUBJECTS:
                by_use = sorted(kept, key=lambda who: kept[who].newest)
                drop = by_use[: len(kept) - MAX_SUBJECTS * 9 // 10]
                self.evictions[rule_id] += len(drop)
                for who in drop:
                    del kept[who]
            self._pools[rule_id, kinds] = kept
        # callers hold their windows: they are met anew, and then find the windows that were kept
        self._met.clear()


class _Learnt:
    """A kind of event, and how many of it there were."""

    __slots__ = ("count", "feeds", "guard", "what")

    def __init__(self, what: What) -> None:
        self.what = what
        self.feeds = what.feeds
        self.guard = what.guard
        self.count = 0


class _Met:
    """A caller, and the windows that their events enter."""

    __slots__ = ("checks", "feeds", "identified", "who")

    def __init__(self, who: Who) -> None:
        self.who = who
        self.checks = who.checks
        self.identified = who.identified
        self.feeds: dict[frozenset[str], tuple[Feed, ...]] = {}
