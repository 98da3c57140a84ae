"""The fold: hits in, incidents out. The same hits give the same incidents, in whatever pieces they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

from mcpwatch.detection.hit import Hit, Severity, Subject
from mcpwatch.detection.rule import RuleSet
from mcpwatch.detection.rulefile import shipped
from mcpwatch.incidents.incident import Incident, quiet_after
from mcpwatch.policy.model import Alerts
from mcpwatch.times import DAY

ChangeKind = Literal["opened", "count", "severity", "quiet", "final"]


class Change(NamedTuple):
    """What happened to an incident, worth telling, and the incident as it was at that moment."""

    kind: ChangeKind
    incident: Incident


class Fold:
    """The incidents so far, of hits of the shipped rules where no others are given.

    Attributes:
        incidents: By id.
    """

    def __init__(self, alerts: Alerts, rules: RuleSet | None = None) -> None:
        self.incidents: dict[str, Incident] = {}
        self._by_subject: dict[tuple[str, Subject, int], Incident] = {}
        self._active: dict[str, Incident] = {}
        self._quiet: dict[str, int] = {}
        self.set_limits(alerts, shipped() if rules is None else rules)

    def set_limits(self, alerts: Alerts, rules: RuleSet) -> None:
        """Take over other limits and rules. An incident keeps the rule that opened it."""
        self.alerts = alerts
        self.rules = rules
        self._by_id = rules.by_id
        self._quiet |= {rule.id: quiet_after(rule, alerts) for rule in rules}

    def add(self, hits: Iterable[Hit]) -> list[Change]:
        """Fold in hits; what is worth telling: opened, counts of 10, 100, 1000, …, a higher severity."""
        changes: list[Change] = []
        opened: Incident | None
        known = self._by_subject
        for hit in hits:
            key = (hit.rule, hit.subject, hit.time_ns // DAY)
            incident = known.get(key)
            opened = None
            if incident is None:
                opened = incident = known[key] = Incident.opened(hit, self._by_id[hit.rule])
                self.incidents[incident.id] = incident
            severity, last = incident.severity, incident.last_ns
            incident.add(hit, self._quiet[hit.rule])
            if incident.last_ns > last or incident.count == 1:
                self._active[incident.id] = incident
            if opened is not None:
                changes.append(Change("opened", incident.copy()))
            if incident.severity > severity:
                changes.append(Change("severity", incident.copy()))
            if incident.count in _MILESTONES:
                changes.append(Change("count", incident.copy()))
        return changes

    def settle(self, now_ns: int) -> list[Change]:
        """The incidents that have become quiet by `now_ns`, each told once an episode."""
        quiet = [incident for incident in self._active.values() if self.is_quiet(incident, now_ns)]
        for incident in quiet:
            del self._active[incident.id]
        return [Change("quiet", incident) for incident in quiet]

    def is_quiet(self, incident: Incident, now_ns: int) -> bool:
        """Whether it has been without a hit for its quiet time."""
        return now_ns - incident.last_ns > self._quiet[incident.rule.id]

    def __iter__(self) -> Iterator[Incident]:
        """The incidents by first hit, then id."""
        return iter(sorted(self.incidents.values(), key=lambda incident: (incident.first_ns, incident.id)))

    def by_severity(self) -> dict[Severity, int]:
        """How many incidents there are of each severity, the worst first."""
        counts = dict.fromkeys(sorted(Severity, reverse=True), 0)
        for incident in self.incidents.values():
            counts[incident.severity] += 1
        return counts


_MILESTONES: Final = frozenset(10**power for power in range(1, 13))
