"""The engine: events in, hits out. It keeps nothing but windows, reads no clock, and never resets.

So a hit depends only on the events of the last W before it (W: the longest window and the allowed lateness) and on
the policy; live, replay and any start in the middle give the same hits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from mcpwatch.detection.checks import IDENTIFIED_WITHIN, Case, Enforcement, What, Who, for_caller, for_shape
from mcpwatch.detection.distinct import DistinctCount
from mcpwatch.detection.hit import Hit, Severity, Subject
from mcpwatch.detection.principal import subject_of
from mcpwatch.detection.reference import LATE_RUN, NEVER, ReferenceTime
from mcpwatch.detection.rules import BY_ID, WINDOW_RULES, Rule
from mcpwatch.detection.windows import MAX_TIMES, CountWindow, DistinctWindow
from mcpwatch.event import AuditEvent, Caller, Origin, Shape
from mcpwatch.policy.judge import Judge
from mcpwatch.policy.model import Policy, Tier

MAX_SUBJECTS: Final = 50_000
"""Windows kept for each rule and kind of subject; beyond that the least recently used go, and that is counted."""

SWEEP_EVERY: Final = 65_536
"""Events between two sweeps of idle windows."""

_MAX_SHAPES: Final = 4_096

Window = CountWindow | DistinctWindow


class _CountFeed(NamedTuple):
    """A window of times that a caller's events enter."""

    window: CountWindow
    rule: Rule
    subject: Subject


class _SessionFeed:
    """A window of sessions that a caller's events enter, with the stretch of the caller's own session in it."""

    __slots__ = ("rule", "session", "stretch", "subject", "window")

    def __init__(self, window: DistinctWindow, session: str, rule: Rule, subject: Subject) -> None:
        self.window, self.session, self.rule, self.subject = window, session, rule, subject
        self.stretch = window.stretch(session)


Feeds = tuple[tuple[tuple[list[int], int, int, _CountFeed], ...], tuple[_SessionFeed, ...]]
"""Those of times, each with its times, minus its need, and its width at hand; and those of sessions."""


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

    def warm(self, events: Sequence[AuditEvent]) -> None:
        """Fill the windows with events that don't count themselves: what lies before a starting point."""
        late, enforcement, self.enforcement = self.late, self.enforcement, []
        self.observe(events)
        self.late, self.enforcement = late, enforcement
        for event in events:
            learnt = self._learnt.get(event.shape)
            if learnt is not None:
                learnt.count -= 1

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
        met, learnt, lateness = self._met, self._learnt, self._lateness
        origin: Origin | None = None
        source = ReferenceTime()
        reference = previous = identified = NEVER
        late_run = seen = 0
        for event in events:
            seen += 1
            if event.origin is not origin:
                source.time, source.previous, source.late_run = reference, previous, late_run
                source.identified = identified
                origin = event.origin
                assert origin is not None
                source = self._reference(origin.source)
                reference, previous, late_run = source.time, source.previous, source.late_run
                identified = source.identified
            try:
                caller, kind = met[event.caller], learnt[event.shape]
            except KeyError:
                caller = met.get(event.caller) or self._meet(event.caller)
                kind = learnt.get(event.shape) or self._learn(event.shape)
            kind.count += 1
            time = event.time_ns
            if time is not None:
                if time >= previous:
                    if previous > reference:
                        reference = previous
                elif time > reference:
                    reference = time
                previous = time
                if time < reference - lateness:
                    self.late += 1
                    late_run += 1
                    if late_run == LATE_RUN:
                        reference, late_run = NEVER, 0
                else:
                    late_run = 0
                    call_id = event.call_id
                    counts, sessions = caller.feeds.get(kind.feeds) or self._feeds(caller, kind.feeds)
                    # The usual case of each window's `add` is written out: a call would cost as much again.
                    for times, back, width, feed in counts:
                        if call_id is None and time >= times[-1]:
                            times.append(time)
                            if time - times[back] >= width:
                                continue
                            peak = feed.window.fullest(time)
                        else:
                            peak = feed.window.add(time, call_id)
                        if peak:
                            hits.append(_window_hit(feed.rule, feed.subject, event, peak))
                    for distinct in sessions:
                        window, stretch = distinct.window, distinct.stretch
                        if stretch[1] >= time >= window.newest and not window.crowded:
                            window.newest = time
                            stretch[1] = time + window.width
                            continue
                        peak = window.add(time, distinct.session)
                        distinct.stretch = window.stretch(distinct.session)
                        if peak:
                            hits.append(_window_hit(distinct.rule, distinct.subject, event, peak))
                    if caller.identified:
                        identified = time
            if caller.checks or kind.guard(event):
                source.time, source.previous, source.identified = reference, previous, identified
                self._check(event, caller, kind, source, hits)
        source.time, source.previous, source.late_run = reference, previous, late_run
        source.identified = identified
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
        self, event: AuditEvent, caller: _Met, counted: _Learnt, source: ReferenceTime, hits: list[Hit]
    ) -> None:
        time = event.time_ns if event.time_ns is not None else source.best_guess
        who = caller.who
        case = Case(
            event, who, counted.what, time, source.identified, self.policy, self.judge, self.enforcement
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

    def _feeds(self, caller: _Met, kinds: frozenset[str]) -> Feeds:
        """The windows that an event of this caller enters; made where they are missing."""
        if any(len(pool) >= MAX_SUBJECTS for pool in self._pools.values()):
            self._sweep()  # not between two windows of one caller: it would free the first, still empty, one
        counts: list[tuple[list[int], int, int, _CountFeed]] = []
        sessions: list[_SessionFeed] = []
        identity = caller.who.identity
        for rule in WINDOW_RULES:
            counting = rule.window
            if counting is None or counting.counts not in kinds:
                continue
            subject = subject_of(rule.subject, identity)
            if subject is None or (counting.distinct and identity["session"] is None):
                continue
            window = self._window(rule, subject)
            if isinstance(window, CountWindow):
                counts.append((window.times, -window.need, window.width, _CountFeed(window, rule, subject)))
            else:
                sessions.append(_SessionFeed(window, identity["session"] or "", rule, subject))
        caller.feeds[kinds] = found = (tuple(counts), tuple(sessions))
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
        self._fresh.add(source)
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
        now = min((time for time in references if time != NEVER), default=None)
        for (rule_id, kinds), pool in self._pools.items():
            kept = pool
            if now is not None:
                kept = {}
                for who, window in pool.items():
                    if window.is_needed(now):
                        kept[who] = window
                    else:
                        window.freed = True
            if len(kept) >= MAX_SUBJECTS:
                by_use = sorted(kept, key=lambda who: kept[who].newest)
                drop = by_use[: len(kept) - MAX_SUBJECTS * 3 // 4]
                self.evictions[rule_id] += len(drop)
                for who in drop:
                    kept.pop(who).freed = True
            self._pools[rule_id, kinds] = kept
        # a caller whose window is gone is met anew when it comes again
        gone = [caller for caller, met in self._met.items() if met.holds_freed()]
        for caller in gone:
            del self._met[caller]


def _never(_: AuditEvent) -> object:
    return False


def _window_hit(rule: Rule, subject: Subject, event: AuditEvent, peak: int) -> Hit:
    severity = rule.severity or Severity.MEDIUM
    time, status = event.time_ns or 0, event.status or "unknown"
    return Hit(rule.id, subject, time, severity, status, "", peak, event.source, event.line, event.offset)


class _Learnt:
    """A kind of event, and how many of it there were."""

    __slots__ = ("count", "feeds", "guard", "what")

    def __init__(self, what: What) -> None:
        self.what = what
        self.feeds = what.feeds
        self.guard = what.guard or _never
        self.count = 0


class _Met:
    """A caller, and the windows that their events enter."""

    __slots__ = ("checks", "feeds", "identified", "who")

    def __init__(self, who: Who) -> None:
        self.who = who
        self.checks = who.checks
        self.identified = who.identified
        self.feeds: dict[frozenset[str], Feeds] = {}

    def holds_freed(self) -> bool:
        """Whether a window that its events would enter is in no pool any more."""
        return any(
            any(feed.window.freed for *_, feed in counts) or any(feed.window.freed for feed in sessions)
            for counts, sessions in self.feeds.values()
        )
