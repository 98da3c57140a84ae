"""What the hits of a run were about: how often each rule fires, and what would quiet it.

Counted as the hits come, whatever became of their records since, and bounded: past the caps, counts are "at least".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from mcpwatch.detection.hit import Hit, Severity, Subject
from mcpwatch.detection.rule import Rule
from mcpwatch.event import AuditEvent
from mcpwatch.monitor.rates import LIMITS, counts
from mcpwatch.policy.model import Alerts
from mcpwatch.response.exception import Seen
from mcpwatch.snapshot import RuleRate
from mcpwatch.times import DAY, HOUR

MAX_CALLERS: Final = 1_000
"""Callers and tools of which the hits of a rule are told apart."""
MAX_SUBJECTS: Final = 10_000
"""Subjects and incidents of a rule that are counted."""
_MAX_HOURS: Final = 100_000
_MAX_ID: Final = 500


class _RuleTally:
    """The hits of one rule."""

    def __init__(self) -> None:
        self.hits = 0
        self.fixed = 0
        """Hits at a limit that was set for such events."""
        self.peaks: Counter[int] = Counter()
        self.incidents: set[int] = set()
        self.subjects: set[int] = set()
        self.seen: dict[tuple[Subject, tuple[str | None, ...]], tuple[Seen, Counter[int]]] = {}

    def add(self, hit: Hit, event: AuditEvent | None) -> None:
        """Count a hit on an event; of an amendment only what it makes worse or better."""
        if hit.amends is not None:
            known = self._seen_of(hit, event) if event is not None else None
            if known is not None:
                worse = (hit.severity is Severity.CRITICAL) - (hit.amends is Severity.CRITICAL)
                known[0].critical = max(known[0].critical + worse, 0)
            return
        self.hits += 1
        self.peaks[hit.peak] += 1
        self.fixed += hit.limit is not None
        if len(self.incidents) < MAX_SUBJECTS:
            self.incidents.add(hash((hit.subject, hit.time_ns // DAY)))
            self.subjects.add(hash(hit.subject))
        found = self._seen_of(hit, event) if event is not None else None
        if found is None:
            return
        seen, peaks = found
        seen.hits += 1
        seen.critical += hit.severity is Severity.CRITICAL
        peaks[hit.peak] += 1

    def _seen_of(self, hit: Hit, event: AuditEvent) -> tuple[Seen, Counter[int]] | None:
        """What is counted of a caller and a tool; None where that is too much."""
        caller = event.caller
        values = (caller.key, caller.client, caller.session, caller.subject, caller.source_ip, event.tool)
        key = (hit.subject, values)
        found = self.seen.get(key)
        if found is None:
            # an id that is longer fits into no rule file, and must not fill the memory
            if len(self.seen) >= MAX_CALLERS or any(len(value or "") > _MAX_ID for value in values):
                return None
            peaks: Counter[int] = Counter()
            found = self.seen[key] = (Seen(hit.subject, values, 0, 0, peaks), peaks)
        return found


class Tally:
    """Counts the hits of a run.

    Attributes:
        closed: All was counted: what is shown again from now on (replay) counts no more.
    """

    def __init__(self) -> None:
        self.closed = False
        self._hours: set[int] = set()
        self._rules: dict[str, _RuleTally] = {}

    def take(self, events: Sequence[AuditEvent], hits: Sequence[Hit]) -> None:
        """Count a run of events and the hits on them."""
        if self.closed:
            return
        hours = {time // HOUR for event in events if (time := event.time_ns) is not None}
        if len(self._hours) < _MAX_HOURS:
            self._hours |= hours
        if not hits:
            return
        places = {(hit.source, hit.offset) for hit in hits}
        found = {place: event for event in events if (place := (event.source, event.offset)) in places}
        for hit in hits:
            tally = self._rules.setdefault(hit.rule, _RuleTally())
            tally.add(hit, found.get((hit.source, hit.offset)))

    def hits(self, rule: str) -> int:
        """How many hits of a rule there were."""
        tally = self._rules.get(rule)
        return tally.hits if tally is not None else 0

    def seen(self, rule: str, subject: Subject | None = None) -> tuple[Seen, ...]:
        """The hits of a rule by caller and tool, as far as they are kept; of one subject, if one is named."""
        tally = self._rules.get(rule)
        kept = tally.seen.values() if tally is not None else ()
        return tuple(seen for seen, _ in kept if subject is None or seen.subject == subject)

    def rate(self, rule: Rule, alerts: Alerts) -> RuleRate | None:
        """How often a rule fires; None where it has not."""
        tally = self._rules.get(rule.id)
        if tally is None:
            return None
        count = rule.correlation if counts(rule) else None
        peak = max(tally.peaks)
        limits: list[tuple[int, int]] = []
        if count is not None:
            own = count.limit.of(alerts)
            for limit in (*(limit for limit in LIMITS if own < limit < peak), peak + (count.op == "gte")):
                need = limit + (count.op == "gt")
                limits.append((limit, sum(hits for at, hits in tally.peaks.items() if at >= need)))
        return RuleRate(
            hits=tally.hits,
            incidents=len(tally.incidents),
            subjects=len(tally.subjects),
            capped=len(tally.incidents) >= MAX_SUBJECTS,
            hours=len(self._hours),
            unit=count.unit if count is not None else "",
            peak=peak if count is not None else None,
            limits=tuple(limits),
        )
