"""The fold: hits in, incidents out. The same hits give the same incidents, in whatever pieces they come."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

from mcpwatch.detection.hit import Hit, Severity, Subject
from mcpwatch.detection.rule import RuleSet
from mcpwatch.detection.rulefile import shipped
from mcpwatch.incidents.incident import Incident, quiet_after
from mcpwatch.incidents.spill import Name, Spill
from mcpwatch.policy.model import Alerts
from mcpwatch.text import SafeText, safe
from mcpwatch.times import DAY

HELD_AT_MOST: Final = 10_000
"""Incidents held in memory; about 2 KB each, and 8 KB when full of evidence."""

ChangeKind = Literal["opened", "count", "severity", "quiet", "final"]


class Change(NamedTuple):
    """What happened to an incident, worth telling, and the incident as it was at that moment."""

    kind: ChangeKind
    incident: Incident


class Fold:
    """The incidents so far, of hits of the shipped rules where no others are given.

    Whoever makes up a new id for every call makes a new incident with every call. So only the worst are held in
    memory, of equals the newest; the others are spilled to a temporary file, and are found there when they are hit
    again, or asked for. Nothing that is asked of the fold depends on where an incident is.

    Attributes:
        out_of_sight: Incidents that are counted, and of which nothing else is known any more: the file could not be
            written. One that is hit again is counted anew.
    """

    def __init__(
        self, alerts: Alerts, rules: RuleSet | None = None, held_at_most: int = HELD_AT_MOST
    ) -> None:
        self.out_of_sight = 0
        self._held_at_most = held_at_most
        self._held: dict[tuple[str, Subject, int], Incident] = {}
        self._ids: dict[str, Incident] = {}
        self._spill = Spill()
        self._counts: Counter[Severity] = Counter()
        self._quiet: dict[str, int] = {}
        self.set_limits(alerts, shipped() if rules is None else rules)

    def set_limits(self, alerts: Alerts, rules: RuleSet) -> None:
        """Take over other limits and rules. An incident keeps the rule that opened it."""
        self.alerts = alerts
        self.rules = rules
        self._by_id = rules.by_id
        self._quiet |= {rule.id: quiet_after(rule, alerts) for rule in rules}

    def add(self, hits: Iterable[Hit]) -> list[Change]:
        """Fold in hits; what is worth telling: opened, counts of 10, 100, 1000, …, a higher severity.

        An amendment changes the outcome and the severity of a hit that was folded in before, and no count.
        """
        changes: list[Change] = []
        held, counts = self._held, self._counts
        for hit in hits:
            key = (hit.rule, hit.subject, hit.time_ns // DAY)
            incident = held.get(key)
            if incident is None:
                self._make_room()
                incident = held[key] = self._known_or_opened(hit)
                self._ids[incident.id] = incident
            severity = incident.severity
            if hit.amends is None:
                incident.add(hit, self._quiet[hit.rule])
                if incident.count == 1:
                    counts[severity] += 1
                    changes.append(Change("opened", incident.copy()))
            elif incident.count:
                incident.amend(hit)
            else:
                self._drop(key, incident)
                continue
            if incident.severity != severity:
                counts[severity] -= 1
                counts[incident.severity] += 1
                if incident.severity > severity:
                    changes.append(Change("severity", incident.copy()))
            if hit.amends is None and incident.count in _MILESTONES:
                changes.append(Change("count", incident.copy()))
        return changes

    def _drop(self, key: tuple[str, Subject, int], incident: Incident) -> None:
        """Forget an incident that was not opened: the hit that is amended was folded in elsewhere, or is lost."""
        del self._held[key], self._ids[incident.id]

    def _known_or_opened(self, hit: Hit) -> Incident:
        opened = Incident.opened(hit, self._by_id[hit.rule])
        return self._spill.find(opened.id) or opened if self._spill else opened

    def _make_room(self) -> None:
        """Spill the least of those that are held, a quarter of them, when there are as many as may be."""
        if len(self._held) < self._held_at_most:
            return
        order = sorted(self._held.items(), key=lambda item: _badness(item[1]))
        least = dict(order[-(self._held_at_most // 4 or 1) :])
        if not self._spill.put(list(least.values())):
            self.out_of_sight += len(least)
        for key, incident in least.items():
            del self._held[key], self._ids[incident.id]

    def settle(self, now_ns: int) -> list[Change]:
        """Incidents that have become quiet by `now_ns`, each told once an episode; after a stop not all at once."""
        quiet = [each for each in self._held.values() if each.active and self.is_quiet(each, now_ns)]
        spilled = self._spill.settle(lambda rule: now_ns - self._quiet[rule.id])
        quiet += [each for each in spilled if each.id not in self._ids]
        for incident in quiet:
            incident.active = False
        return [Change("quiet", incident) for incident in quiet]

    def is_quiet(self, incident: Incident, now_ns: int) -> bool:
        """Whether it has been without a hit for its quiet time."""
        return now_ns - incident.last_ns > self._quiet[incident.rule.id]

    def __iter__(self) -> Iterator[Incident]:
        """The incidents by first hit, then id."""
        spilled = (incident for incident in self._spill if incident.id not in self._ids)
        return heapq.merge(sorted(self._held.values(), key=_order), spilled, key=_order)

    def __len__(self) -> int:
        """How many incidents there are."""
        return self._counts.total()

    def by_severity(self) -> dict[Severity, int]:
        """How many incidents there are of each severity, the worst first."""
        return {severity: self._counts[severity] for severity in sorted(Severity, reverse=True)}

    def find(self, incident_id: str) -> Incident | None:
        """An incident by its id."""
        return self._ids.get(incident_id) or self._spill.find(incident_id)

    def worst(self, count: int) -> list[Incident]:
        """The worst incidents, of equals the newest first; at most three quarters of as many as are held."""
        # whatever is spilled is less than that many of those which stay
        return heapq.nsmallest(count, self._held.values(), key=_badness)

    def related(self, incident: Incident, count: int) -> list[Incident]:
        """The worst of the other incidents whose subject shares a name with that of this one."""
        names = frozenset(pair for pair in incident.subject if pair[0] != "gap")
        found = {each.id: each for each in self._held.values() if not names.isdisjoint(each.subject)}
        # one more: the incident itself is among them
        found |= {
            each.id: each
            for each in self._spill.named(names, count + 1 + len(found))
            if each.id not in self._ids and not names.isdisjoint(each.subject)
        }
        found.pop(incident.id, None)
        return heapq.nsmallest(count, found.values(), key=_badness)

    def worst_of(self, names: frozenset[Name]) -> dict[Name, Severity]:
        """The severity of the worst incident of each of some names, where there is any."""
        found: dict[Name, Severity] = {}
        for name in names if self._spill else ():
            severity = self._spill.worst(name)
            if severity is not None:
                found[name] = severity
        for incident in self._held.values():
            for name in incident.subject:
                if name in names:
                    found[name] = max(incident.severity, found.get(name, Severity.LOW))
        return found

    @property
    def notice(self) -> SafeText | None:
        """What there is to say when not every incident can be shown."""
        if self._spill.problem is None:
            return None
        return safe(
            f"too many incidents for the memory, and the file for the others fails: {self.out_of_sight:,} are "
            f"counted but can't be shown ({self._spill.problem}): make room, or name another folder with TMPDIR",
            300,
        )


def _order(incident: Incident) -> tuple[int, str]:
    return incident.first_ns, incident.id


def _badness(incident: Incident) -> tuple[int, int, str]:
    return -incident.severity, -incident.last_ns, incident.id


_MILESTONES: Final = frozenset(10**power for power in range(1, 13))
