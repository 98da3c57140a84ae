"""An incident: all hits of one rule on one subject on one UTC day."""

from __future__ import annotations

import base64
import hashlib
import json
from bisect import bisect_left, insort
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from mcpwatch.detection.hit import Hit, Severity, Subject
from mcpwatch.detection.rule import Rule
from mcpwatch.policy.model import Alerts
from mcpwatch.times import MINUTE, utc_day

EVIDENCE_HEAD: Final = 5
EVIDENCE_TAIL: Final = 20
KEPT_REASONS: Final = 8
"""First hits of each severity of which the reason is kept: as calls end, the first may get another severity."""
QUIET_AT_LEAST: Final = 10 * MINUTE
"""An incident is quiet after its rule's window without a hit, at least this long."""


class Evidence(NamedTuple):
    """Where a record stands that a hit rests on."""

    source: str
    line: int | None
    offset: int
    time_ns: int


Reason = tuple[int, str, int, str]
"""Of a hit: its time, source and byte offset, and why it was made."""


def incident_id(rule: str, subject: Subject, day: str) -> str:
    """`INC-` and 16 characters of base32(sha256([rule, subject, day])), the same wherever it is worked out.

    >>> incident_id("session-rate", (("session", "s1"),), "2026-11-20")
    'INC-5R3JIASZOBTCFJZK'
    """
    text = json.dumps([rule, dict(subject), day], sort_keys=True, separators=(",", ":"))
    return "INC-" + base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:16]


@dataclass(slots=True)
class Incident:
    """All hits of one rule on one subject on one UTC day, folded.

    Attributes:
        count: Number of hits, exact.
        peak: Events in the fullest window that holds a hit; 0 for stateless rules.
        outcomes: Hits by the outcome of their event.
        severities: Hits by severity: the highest is the incident's.
        reason: Why, of the earliest hit of the highest severity.
        reasons: Why, of the earliest hits of each severity.
        episodes: Stretches of hits, each more than the quiet time after the one before.
        set_limit: The limit that was set for such events, of the first hit, where it is not the rule's own.
        active: There was a hit since it was last told to be quiet.
        head, tail: The first and the last records that it rests on.
    """

    id: str
    rule: Rule
    subject: Subject
    day: str
    severity: Severity
    reason: str
    first_ns: int
    last_ns: int
    count: int = 0
    peak: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    severities: Counter[Severity] = field(default_factory=Counter)
    reasons: dict[Severity, list[Reason]] = field(default_factory=dict)
    episodes: int = 1
    set_limit: int | None = None
    active: bool = True
    head: list[Evidence] = field(default_factory=list)
    tail: list[Evidence] = field(default_factory=list)

    @classmethod
    def opened(cls, hit: Hit, rule: Rule) -> Incident:
        """The incident that a first hit opens; the hit itself is still to be added."""
        day = utc_day(hit.time_ns)
        return cls(
            id=incident_id(hit.rule, hit.subject, day),
            rule=rule,
            subject=hit.subject,
            day=day,
            severity=hit.severity,
            reason=hit.reason,
            first_ns=hit.time_ns,
            last_ns=hit.time_ns,
            set_limit=hit.limit,
        )

    def add(self, hit: Hit, quiet_ns: int) -> None:
        """Fold in one more hit."""
        time = hit.time_ns
        self.count += 1
        self.outcomes[hit.outcome] += 1
        self.severities[hit.severity] += 1
        if hit.severity > self.severity:
            self.severity = hit.severity
        if hit.reason:
            self._give_reason(hit)
        if time > self.last_ns:
            if time - self.last_ns > quiet_ns:
                self.episodes += 1
            self.last_ns = time
            self.active = True
        self.first_ns = min(self.first_ns, time)
        self.peak = max(self.peak, hit.peak)
        evidence = Evidence(hit.source, hit.line, hit.offset, time)
        if len(self.head) < EVIDENCE_HEAD:
            self.head.append(evidence)
        else:
            self.tail.append(evidence)
            if len(self.tail) > 2 * EVIDENCE_TAIL:
                del self.tail[:-EVIDENCE_TAIL]

    def amend(self, hit: Hit) -> None:
        """Give one of its hits, which had outcome `unknown`, the outcome and the severity that it has now."""
        was = hit.amends
        assert was is not None
        self.outcomes["unknown"] -= 1
        self.outcomes[hit.outcome] += 1
        self.outcomes = +self.outcomes
        self.severities[was] -= 1
        self.severities[hit.severity] += 1
        self.severities = +self.severities
        self.severity = max(self.severities)
        self.peak = max(self.peak, hit.peak)
        place = (hit.time_ns, hit.source, hit.offset)
        held = self.reasons.get(was, [])
        at = bisect_left(held, place, key=lambda reason: reason[:3])
        if at < len(held) and held[at][:3] == place:
            del held[at]
        self._give_reason(hit)

    def _give_reason(self, hit: Hit) -> None:
        held = self.reasons.setdefault(hit.severity, [])
        reason = (hit.time_ns, hit.source, hit.offset, hit.reason)
        if len(held) < KEPT_REASONS or reason < held[-1]:
            insort(held, reason)
            del held[KEPT_REASONS:]
        worst = self.reasons.get(self.severity)
        if worst:
            self.reason = worst[0][3]

    def copy(self) -> Incident:
        """The incident as it is now."""
        return replace(
            self,
            outcomes=self.outcomes.copy(),
            severities=self.severities.copy(),
            reasons={severity: held[:] for severity, held in self.reasons.items()},
            head=self.head[:],
            tail=self.tail[:],
        )

    @property
    def evidence(self) -> list[Evidence]:
        """The first 5 and the last 20 records."""
        return self.head + self.tail[-EVIDENCE_TAIL:]

    def limit(self, alerts: Alerts) -> str:
        """The limit in words."""
        counting = self.rule.correlation
        return self.rule.limit(alerts) if counting is None else counting.words(alerts, self.set_limit)

    def why(self, alerts: Alerts) -> str:
        """One clause that says why the rule fired."""
        counting = self.rule.correlation
        if counting is None:
            return self.reason
        if counting.type == "temporal_ordered":
            return f"the last of {self.limit(alerts)} was seen"
        return f"{self.peak} {counting.unit} within the window; the limit is {self.limit(alerts)}"


def quiet_after(rule: Rule, alerts: Alerts) -> int:
    """How long without a hit until an incident of the rule is quiet, ns."""
    width = rule.correlation.timespan.of(alerts) if rule.correlation is not None else 0
    return max(width, QUIET_AT_LEAST)
