"""What the end of a call changes about what its beginning was found to be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from weakref import WeakKeyDictionary

from mcpwatch.detection.case import Case, Check, Found
from mcpwatch.detection.hit import Hit
from mcpwatch.event import AuditEvent, OwnLines


class Began(NamedTuple):
    """A call that began.

    Attributes:
        order: Its number in the order of events; 0 where it is in no window.
        identified_ns: When a caller was last named in its source.
        hits: Those that it made.
    """

    order: int
    identified_ns: int
    hits: tuple[Hit, ...] = ()


class Beginnings:
    """Calls that began and have not ended, as long as anybody else holds them."""

    def __init__(self) -> None:
        self._began: WeakKeyDictionary[OwnLines, Began] = WeakKeyDictionary()

    def add(self, start: AuditEvent, began: Began) -> None:
        """Remember a call."""
        self._began[start.origin] = began

    def take(self, start: AuditEvent) -> Began | None:
        """What is known of a call that ends."""
        return self._began.pop(start.origin, None)


def findings(checks: Iterable[Check], case: Case) -> dict[tuple[str, str | None], Found]:
    """What checks find in a case: the first of each name and gap, as a rule fires once on an event."""
    found: dict[tuple[str, str | None], Found] = {}
    for check in checks:
        for each in check(case):
            found.setdefault((each.check, each.gap), each)
    return found


def amended(made: Iterable[Hit], now: Iterable[Hit], outcome: str) -> list[Hit]:
    """The hits that the end of a call makes.

    Args:
        made: Those that its beginning made,
        now: and those that it makes with its final outcome, but for windows that it has entered before.
        outcome: The final outcome.
    """
    before = {(hit.rule, hit.subject): hit for hit in made}
    hits = []
    for hit in now:
        was = before.pop((hit.rule, hit.subject), None)
        if was is None:
            hits.append(hit._replace(ended=True))
        elif (hit.outcome, hit.severity, hit.reason) != (was.outcome, was.severity, was.reason):
            hits.append(hit._replace(peak=max(hit.peak, was.peak), ended=True, amends=was.severity))
    stay = (was for was in before.values() if was.outcome != outcome)
    return hits + [was._replace(outcome=outcome, ended=True, amends=was.severity) for was in stay]
