"""The engine: events in, hits out. It keeps nothing but windows (and of numbered logs the newest number), reads no
clock, and never resets.

So a hit depends only on the events of the last W before it (W: the longest window and the allowed lateness) and on
the policy; live, replay and any start in the middle give the same hits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from mcpwatch.credentials import PROCESS_KEY
from mcpwatch.detection.amend import Began, Beginnings, amended, findings
from mcpwatch.detection.applicable import for_caller, for_shape
from mcpwatch.detection.asking import AskingFeed, Door
from mcpwatch.detection.book import Book
from mcpwatch.detection.callerchecks import IDENTIFIED_WITHIN
from mcpwatch.detection.calls import Call, call_of
from mcpwatch.detection.case import Case, Found, What, Who
from mcpwatch.detection.chain import broken_chain
from mcpwatch.detection.distinct import DistinctCount
from mcpwatch.detection.enforcement import Enforcement
from mcpwatch.detection.feeds import CountFeed, Feed, Feeder, Feeds, ValueFeed, door_of, enter
from mcpwatch.detection.hit import Hit, Severity, Subject
from mcpwatch.detection.principal import subject_of
from mcpwatch.detection.reference import LATE_RUN, NEVER, ReferenceTime
from mcpwatch.detection.rule import RuleSet
from mcpwatch.detection.rulefile import shipped
from mcpwatch.event import AuditEvent, CallEnd, Caller, Origin, OwnLines, Shape
from mcpwatch.policy.judge import Judge
from mcpwatch.policy.model import Policy, Tier
from mcpwatch.policy.resources import judge_of_resources

SWEEP_EVERY: Final = 65_536
"""Events between two sweeps of idle windows."""

_MAX_SHAPES: Final = 4_096
_MAX_MET: Final = 32_768


class Engine:
    """Judges events one after the other, by the shipped rules where no others are given.

    `logs` are the paths of the watched logs, which no tool has to change.

    Attributes:
        judge: The policy's verdicts.
        late: Events that came too late for any window.
        rules, book: What it judges by.
        fingerprint_key: Key of the fingerprints by which secrets are told apart.
        enforcement: What was seen of restrictions biting or not, since it was last taken.
        ended: Calls that ended in the last run of events.
        sessions, keys: How many different ones there were.
    """

    def __init__(self, policy: Policy, rules: RuleSet | None = None, logs: tuple[str, ...] = ()) -> None:
        self.late = 0
        self.enforcement: list[Enforcement] = []
        self.ended: list[CallEnd] = []
        self.sessions = DistinctCount()
        self.keys = DistinctCount()
        self._feeder = Feeder()
        self._references: dict[str, ReferenceTime] = {}
        self._counts: Counter[tuple[str, Tier | None, str]] = Counter()
        self._learnt: dict[Shape, _Learnt] = {}
        self._met: dict[Caller, _Met] = {}
        self._observed = 0
        self._until_sweep = SWEEP_EVERY
        self._fresh: set[str] = set()
        self._broken: dict[int, tuple[AuditEvent, Found]] = {}
        """Of the last run of events those that don't fit to the record before, which can't be asked again."""
        self._fired: AuditEvent | None = None
        self._fired_from = 0
        self._beginnings = Beginnings()
        self.policy = policy
        self._logs = logs
        self.fingerprint_key = PROCESS_KEY
        self.set_rules(shipped() if rules is None else rules)

    def set_policy(self, policy: Policy) -> None:
        """Judge by another policy from here on. Windows stay: they hold times, not verdicts."""
        self.policy = policy
        self.set_rules(self.rules)

    def set_rules(self, rules: RuleSet) -> None:
        """Judge by other rules from here on. Windows of rules that count the same as before stay."""
        self._forget_shapes()
        self._met.clear()
        self.rules = rules
        self.book = Book(rules)
        self.judge = Judge(self.policy, self._logs)
        self._resources = judge_of_resources(self.policy)
        self._lateness = self.policy.alerts.allowed_lateness
        self._feeder.set_rules(self.book, self.policy.alerts)

    @property
    def evictions(self) -> Counter[str]:
        """Windows dropped because a rule had too many subjects, by rule id."""
        return self._feeder.pools.evictions

    @property
    def counts(self) -> Counter[tuple[str, Tier | None, str]]:
        """How many events of each (kind, tier, status) there were; the tier is None where there is no tool."""
        return +self._totals()

    def _totals(self) -> Counter[tuple[str, Tier | None, str]]:
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
            self._counted(event.shape).count -= 1
            if isinstance(event, CallEnd):
                self._counted(event.before).count += 1

    @property
    def warm_up(self) -> int:
        """How far before a starting point the engine must begin to read to give the same hits from there on, ns.

        The longest look back of any rule, and the lateness four times: the event, the reference time and the sampled
        place in the log may each be that late, and a call may have begun so long before its end.
        """
        alerts = self.policy.alerts
        spans = [IDENTIFIED_WITHIN]
        for rule in self.rules:
            counting = rule.correlation
            if counting is not None:
                width = counting.timespan.of(alerts)
                # whether the oldest call that counts was logged before depends on as much again
                spans.append(2 * width + self._lateness if counting.once_per_call else width)
        return max(spans) + 4 * self._lateness

    def observe(self, events: Iterable[AuditEvent]) -> list[Hit]:
        """Judge events in the order in which their sources have them; the hits, in the same order.

        A `CallEnd` is no event but makes an earlier one what it is now known to be: see `_amend`.
        """
        hits: list[Hit] = []
        self._broken = {}
        self._fired = None
        self.ended = []
        met, learnt, lateness = self._met, self._learnt, self._lateness
        origin: Origin | None = None
        source = ReferenceTime()
        reference = previous = identified = NEVER
        late_run = seen = begun = 0
        in_time = False
        start: AuditEvent | None = None
        for event in events:
            seen += 1
            # calls that are logged in two lines have origins of their own
            if event.origin is not origin:
                source.time, source.previous, source.late_run = reference, previous, late_run
                source.identified = identified
                if start is not None:
                    order = self._observed + seen - 1 if in_time else 0
                    self._beginnings.add(start, Began(order, identified, tuple(hits[begun:])))
                    start = None
                if isinstance(event, CallEnd):
                    hits += self._amend(event, self._observed + seen)
                    self.ended.append(event)
                    continue
                origin = event.origin
                assert origin is not None
                source = self._reference(origin.source)
                reference, previous, late_run = source.time, source.previous, source.late_run
                identified = source.identified
                if isinstance(origin, OwnLines):
                    start, begun = event, len(hits)
            try:
                caller, kind = met[event.caller], learnt[event.shape]
            except KeyError:
                caller = met.get(event.caller) or self._meet(event.caller)
                kind = learnt.get(event.shape) or self._learn(event.shape)
            kind.count += 1
            time = event.time_ns
            in_time = False
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
                    in_time = True
                    call: Call | None = None
                    uncalled = event.call_id is None
                    counts, values, asking = caller.feeds.get(kind.profile) or self._feeds(caller, kind)
                    # The usual case of each window's `add` is written out: a call would cost as much again.
                    for times, back, width, feed in counts:
                        if uncalled and time >= times[-1]:
                            times.append(time)
                            if time - times[back] >= width:
                                continue
                            peak = feed.window.fullest(time)
                        else:
                            if call is None and feed.window.by_call:
                                call = call_of(event)
                            peak = feed.window.add(time, call, feed.need)
                        if peak:
                            self._fire(feed, event, peak, hits)
                    for value in values:
                        window, stretch = value.window, value.stretch
                        if stretch[1] >= time >= window.newest and not window.crowded:
                            window.newest = time
                            stretch[1] = time + window.width
                            continue
                        peak = window.add(time, value.value, value.need)
                        value.stretch = window.stretch(value.value)
                        if peak:
                            self._fire(value, event, peak, hits)
                    for asked in asking:
                        peak = asked.enter(event, time, self._observed + seen)
                        if peak:
                            self._fire(asked, event, peak, hits)
                    if caller.identified:
                        identified = time
                suspect = kind.guard(event)
                if suspect or time >= caller.wakes:
                    source.time, source.previous, source.identified = reference, previous, identified
                    order = self._observed + seen if in_time else 0
                    self._check(event, caller, kind, source, order, hits, bool(suspect))
            else:
                source.time, source.previous, source.identified = reference, previous, identified
                self._check(event, caller, kind, source, 0, hits)
            if event.sequence is not None or event.prev_hash is not None or event.hash is not None:
                self._check_chain(event, caller, kind, source, self._observed + seen if in_time else 0, hits)
        source.time, source.previous, source.late_run = reference, previous, late_run
        source.identified = identified
        if start is not None:
            order = self._observed + seen if in_time else 0
            self._beginnings.add(start, Began(order, identified, tuple(hits[begun:])))
        self._observed += seen
        self._until_sweep -= seen
        if self._until_sweep <= 0 or self._feeder.pools.grown:
            self._sweep()
        return hits

    def _amend(self, call: CallEnd, order: int) -> list[Hit]:
        """Judge a call anew that has ended, at the time when it began; the hits (see `Hit`).

        Counts go from the beginning's kind of event to the end's. No window is entered twice; what only the end's
        kind enters (failed logins, say) is entered at the time of the beginning, if that is in time still.
        """
        self._counted(call.before).count -= 1
        kind = self._counted(call.shape)
        kind.count += 1
        before = self._counted(call.before)
        caller = self._met.get(call.caller) or self._meet(call.caller)
        source = self._reference(call.source)
        began = self._beginnings.take(call.start) or Began(order, source.identified)
        case = self._case(call, caller.who, kind.what, source, self.enforcement)
        was = self._case(call.start, caller.who, before.what, source, [])
        case.identified_ns = was.identified_ns = began.identified_ns
        then = findings((*before.what.checks, *caller.who.checks), was)
        now = findings((*kind.what.checks, *caller.who.checks), case)
        hits: list[Hit] = []
        self._fired = None
        time = call.time_ns
        if time is not None and began.order and time >= source.time - self._lateness:
            ways = self._ways(caller, before, then.values())
            entered: set[Door | None] = {None, *(door_of(feed, call.start, time) for feed in ways)}
            for feed in self._ways(caller, kind, now.values()):
                door = door_of(feed, call, time)
                if door not in entered:
                    entered.add(door)
                    peak = enter(feed, call, time, began.order)
                    if peak:
                        self._fire(feed, call, peak, hits)
        for found in now.values():
            self._take(found, case, hits)
        hits = amended(began.hits, hits, kind.what.status)
        if call.sequence is not None or call.prev_hash is not None or call.hash is not None:
            chained: list[Hit] = []
            self._check_chain(call, caller, kind, source, 0, chained)
            hits += [hit._replace(line=call.end_line, offset=call.end_offset, ended=True) for hit in chained]
        return hits

    def _ways(self, caller: _Met, kind: _Learnt, found: Iterable[Found]) -> list[Feed]:
        """All windows that an event of a caller and kind may enter, those too that count what was found in it."""
        feeds = (caller.feeds.get(kind.profile) or self._feeds(caller, kind)).all()
        for each in found:
            if each.check in self.book.entries_by_check:
                feeds += self._feeder.feeds_of_check(each.check, kind.what, caller.who.identity)
        return feeds

    def _counted(self, shape: Shape) -> _Learnt:
        return self._learnt.get(shape) or self._learn(shape)

    def what(self, event: AuditEvent) -> What:
        """What is known of this kind of event: its tier, its tool's judge."""
        return self._counted(event.shape).what

    def who(self, event: AuditEvent) -> Who:
        """What is known of the caller of an event."""
        return (self._met.get(event.caller) or self._meet(event.caller)).who

    def found(self, event: AuditEvent) -> list[Found]:
        """What the checks find in an event of the last run observed, whether or not a rule stands on it."""
        case = self.case(event)
        found = [found for check in (*case.what.checks, *case.who.checks) for found in check(case)]
        known, broken = self._broken.get(id(event), (None, None))
        return [*found, broken] if broken is not None and known is event else found

    def case(self, event: AuditEvent) -> Case:
        """An event that was observed, as the checks see it."""
        return self._case(event, self.who(event), self.what(event), self._reference(event.source), [])

    def _case(
        self, event: AuditEvent, who: Who, what: What, source: ReferenceTime, enforcement: list[Enforcement]
    ) -> Case:
        time = event.time_ns if event.time_ns is not None else source.best_guess
        return Case(
            event,
            who,
            what,
            time,
            source.identified,
            self.policy,
            self.judge,
            enforcement,
            self.fingerprint_key,
        )

    def _check(
        self,
        event: AuditEvent,
        caller: _Met,
        kind: _Learnt,
        source: ReferenceTime,
        order: int,
        hits: list[Hit],
        suspect: bool = True,
    ) -> None:
        """Run the checks that can fire.

        Args:
            order: The event's number; 0 where it is in no window.
            suspect: Whether the guard let it through to the checks of its kind.
        """
        case = self._case(event, caller.who, kind.what, source, self.enforcement)
        seen: set[tuple[str, str | None]] = set()
        for checks in (case.what.checks if suspect else (), case.who.checks):
            for check in checks:
                for found in check(case):
                    if (found.check, found.gap) not in seen:  # a rule fires once on an event
                        seen.add((found.check, found.gap))
                        self._take(found, case, hits)
                        self._feed(found, case, order, hits)

    def _feed(self, found: Found, case: Case, order: int, hits: list[Hit]) -> None:
        """Let an event into the windows of the rules that count what a check found in it."""
        if order and found.check in self.book.entries_by_check:
            for feed in self._feeder.feeds_of_check(found.check, case.what, case.who.identity):
                peak = feed.enter(case.event, case.time_ns, order)
                if peak:
                    self._fire(feed, case.event, peak, hits)

    def _fire(
        self, feed: CountFeed | ValueFeed | AskingFeed, event: AuditEvent, peak: int, hits: list[Hit]
    ) -> None:
        """Make a hit of a rule with a correlation: one on an event, in however many windows or steps it fires."""
        if event is not self._fired:
            self._fired, self._fired_from = event, len(hits)
        for at in range(self._fired_from, len(hits)):
            hit = hits[at]
            if hit.rule == feed.rule.id and hit.subject == feed.subject:
                hits[at] = hit._replace(peak=max(hit.peak, peak))
                return
        hits.append(_window_hit(feed, event, peak))

    def _take(self, found: Found, case: Case, hits: list[Hit]) -> None:
        """Make hits of what a check found: one of each rule that stands on it."""
        event, who, tier = case.event, case.who, case.what.tier
        for rule in self.book.by_check.get(found.check, ()):
            match = rule.condition.match
            if (match is not None and not match.match(event, tier)) or (
                rule.exceptions and self.book.excepted(rule, event, tier, case.time_ns)
            ):
                continue
            subject: Subject | None = () if found.nobody else subject_of(rule.group_by, who.identity)
            if subject is None:
                continue
            if found.gap is not None:
                subject = (*subject, ("gap", found.gap))
            severity = found.severity if rule.level is None else rule.level
            hits.append(
                Hit(rule.id, subject, case.time_ns, severity, event.status or "", found.reason, 0, event.source,
                    event.line, event.offset)
            )  # fmt: skip

    def _check_chain(
        self,
        event: AuditEvent,
        caller: _Met,
        kind: _Learnt,
        source: ReferenceTime,
        order: int,
        hits: list[Hit],
    ) -> None:
        found = broken_chain(event, source)
        if found is not None:
            self._broken[id(event)] = (event, found)
            case = self._case(event, caller.who, kind.what, source, self.enforcement)
            self._take(found, case, hits)
            self._feed(found, case, order, hits)

    def _meet(self, caller: Caller) -> _Met:
        """Work out everything about a caller that was not seen lately."""
        if len(self._met) >= _MAX_MET:
            for oldest in list(islice(self._met, _MAX_MET // 2)):
                del self._met[oldest]
        if caller.session is not None:
            self.sessions.add(caller.session)
        if caller.key is not None:
            self.keys.add(caller.key)
        met = self._met[caller] = _Met(for_caller(caller, self.judge, self.policy, self.book))
        return met

    def _learn(self, shape: Shape) -> _Learnt:
        """Work out everything about a kind of event that was not seen lately."""
        if len(self._learnt) >= _MAX_SHAPES:
            self._forget_shapes()
        judge = self.judge.for_tool(shape.tool) if shape.tool is not None else None
        if judge is None and shape.kind == "request":
            judge = self._resources
        what = for_shape(shape, judge, self.policy, self.book)
        learnt = self._learnt[shape] = _Learnt(what, self._feeder.profile(what))
        return learnt

    def _forget_shapes(self) -> None:
        self._counts = self._totals()
        self._learnt.clear()

    def _feeds(self, caller: _Met, kind: _Learnt) -> Feeds:
        """The windows that an event of this caller and kind enters; made where they are missing."""
        if self._feeder.pools.full:
            self._sweep()  # not between two windows of one caller: it would free the first, still empty, one
        found = caller.feeds[kind.profile] = self._feeder.feeds(
            kind.what, kind.profile, caller.who.identity, caller.feeds.values()
        )
        return found

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
        self._feeder.pools.sweep(now)
        idle = [caller for caller, met in self._met.items() if not met.let_go()]
        for caller in idle:
            del self._met[caller]  # it is met anew when it comes again


def _never(_: AuditEvent) -> object:
    return False


def _window_hit(feed: CountFeed | ValueFeed | AskingFeed, event: AuditEvent, peak: int) -> Hit:
    severity = feed.rule.level or Severity.MEDIUM
    time, status = event.time_ns or 0, event.status or "unknown"
    return Hit(
        feed.rule.id,
        feed.subject,
        time,
        severity,
        status,
        "",
        peak,
        event.source,
        event.line,
        event.offset,
        feed.limit,
    )


class _Learnt:
    """A kind of event, and how many of it there were."""

    __slots__ = ("count", "guard", "profile", "what")

    def __init__(self, what: What, profile: int) -> None:
        self.what = what
        self.profile = profile
        self.guard = what.guard or _never
        self.count = 0


class _Met:
    """A caller, and the windows that their events enter."""

    __slots__ = ("feeds", "identified", "wakes", "who")

    def __init__(self, who: Who) -> None:
        self.who = who
        self.wakes = who.wakes
        self.identified = who.identified
        self.feeds: dict[int, Feeds] = {}

    def let_go(self) -> bool:
        """Forget the ways into windows that are in no pool any more; whether any way is left."""
        for profile, feeds in list(self.feeds.items()):
            if any(feed.window.freed for feed in feeds.all()):
                del self.feeds[profile]
        return bool(self.feeds)
