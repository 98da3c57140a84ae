"""One call that two sources log, a gateway and the server behind it: it counts once.

A call is known again by its id. Ids are the word of whoever wrote them, often the caller: so a record is a repeat
only if it says nothing that the first one did not, and of each record there is one repeat in each other source at
most. Whoever reuses an id hides nothing by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from mcpwatch.detection.calls import digest_of, hides_something
from mcpwatch.event import AuditEvent, Caller, OwnLines, is_open
from mcpwatch.formats.reader import Reader

SHORTEST_ID: Final = 16
"""Characters from which on an id is taken for unique: JSON-RPC counts from 1."""
MAX_CALLS: Final = 50_000
"""Calls remembered at once, and half as many when there are more."""

_WHO: Final = ("key", "subject", "client", "session")


class _Call:
    """A call as the first source logged it.

    Attributes:
        said: What must be the same in a repeat.
        others: Sources that have repeated it.
    """

    __slots__ = ("caller", "others", "said", "source", "time_ns")

    def __init__(self, event: AuditEvent, said: tuple[object, ...] | None, source: str) -> None:
        self.source, self.said, self.time_ns = source, said, event.time_ns
        self.caller: Caller = event.caller
        self.others: tuple[str, ...] = ()


class Repeats:
    """Recognises the calls that a further source logs."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}
        """By the hash of the id: ids may be long."""

    def without(
        self, events: list[AuditEvent], readers: Mapping[str, Reader], lateness_ns: int
    ) -> list[AuditEvent]:
        """The events that are no repeats. The others are taken off what their readers have counted as understood.

        Args:
            lateness_ns: How far apart the times of two records of a call may be, ns.
        """
        repeated = [
            place
            for place, event in enumerate(events)
            if event.call_id is not None
            and len(event.call_id) >= SHORTEST_ID
            and self._is_repeat(event, lateness_ns)
        ]
        if not repeated:
            return events
        for place in repeated:
            reader = readers.get(events[place].source)
            if reader is not None:
                reader.events -= 1
                if _has_a_line_of_its_own(events, place):
                    reader.understood -= 1
                    reader.repeated += 1
        dropped = set(repeated)
        return [event for place, event in enumerate(events) if place not in dropped]

    def _is_repeat(self, event: AuditEvent, lateness_ns: int) -> bool:
        name, source = hash(event.call_id), event.source
        known = self._calls.get(name)
        time = event.time_ns
        if known is None or known.source == source or not _near(known.time_ns, time, lateness_ns):
            self._remember(name, _Call(event, _said(event), source))
            return False
        # what is logged in two lines is not over when it begins, and a numbered record has its place in a chain
        two_lines = isinstance(event.origin, OwnLines)
        numbered = event.sequence is not None or event.hash is not None or event.prev_hash is not None
        if two_lines or numbered or source in known.others or known.said is None:
            return False
        if known.said != _said(event) or not _names_nobody_else(event.caller, known.caller):
            return False
        known.others += (source,)
        return True

    def _remember(self, name: int, call: _Call) -> None:
        if len(self._calls) >= MAX_CALLS:
            for oldest in list(self._calls)[: MAX_CALLS // 2]:
                del self._calls[oldest]
        self._calls[name] = call


def _said(event: AuditEvent) -> tuple[object, ...] | None:
    """What a record says of a call; None where it is not known whether another says the same."""
    if hides_something(event.params) or is_open(event):
        return None
    digest = digest_of(event.params) if event.params is not None else None
    if digest is None and event.params is not None:
        return None
    return event.event, event.tool, event.status, digest


def _near(one: int | None, other: int | None, lateness_ns: int) -> bool:
    return one is not None and other is not None and abs(one - other) <= lateness_ns


def _names_nobody_else(caller: Caller, known: Caller) -> bool:
    """Whether a record names nobody that the first does not. Behind a gateway the address is the gateway's."""
    named = all(getattr(caller, name) in (None, getattr(known, name)) for name in _WHO)
    return named and (caller.source_ip is None or known.source_ip is not None)


def _has_a_line_of_its_own(events: Sequence[AuditEvent], place: int) -> bool:
    line = (events[place].origin, events[place].index)
    beside = (*events[max(place - 1, 0) : place], *events[place + 1 : place + 2])
    return all((event.origin, event.index) != line for event in beside)
