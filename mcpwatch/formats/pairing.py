"""A call that is logged in two lines: one when it begins, one when it ends."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

from mcpwatch.event import TIME_FLAGS, AuditEvent, CallEnd, Flag, OwnLines, Shape
from mcpwatch.times import DAY, MINUTE

Phase = Literal["start", "end"]

MAX_OPEN: Final = 10_000
"""Calls that may be open at once, and calls that are over of which it is remembered that they were."""
MAX_BYTES: Final = 16 << 20
"""Most bytes of raw lines that open calls hold on to."""

NEAR_NS: Final = 25_000_000
"""How far a start may be from where its end and its duration put it: servers log a little before they time."""
APART_NS: Final = 6_000_000
"""How much further every other one must be at least, and ten times as far: logs write milliseconds."""
GHOST_NS: Final = 10 * MINUTE
"""For how long after its start the end of a call that was given up is still reckoned with, ns."""

_CACHED_SHAPES: Final = 4_096


@dataclass(slots=True, eq=False)
class _Open:
    """A start whose end has not come.

    Attributes:
        number: Of starts, in the order in which they came.
        name: What its end will be known by.
        counted: False where another reader gave its event.
    """

    number: int
    name: int
    event: AuditEvent
    size: int
    counted: bool = True


@dataclass(slots=True)
class _Over:
    """Calls of one name that are over.

    Attributes:
        given_up: How many ends may still come that add nothing,
        begun_ns: and when the newest of their calls began.
        ended: Outcome of the newest that ended, None if none did,
        ended_ns: and the time of its end.
    """

    tool: str | None
    given_up: int = 0
    begun_ns: int | None = None
    ended: str | None = None
    ended_ns: int | None = None


class Pairing:
    """Calls of one source that began and have not ended.

    An end is of a start if its time is at most the lateness away from the start's; where one of them has no time, the
    order of the lines is all there is. What becomes of a line depends on the lines before it and on nothing else.

    Where nothing names the call and several are open, the end is of the one that began as long before it as it says
    that it lasted. Where that does not tell, the outcome is withheld, from this call and from all others until none
    is open any more: who holds a slow call open must not give the outcome of one call to another. It is withheld as
    well where an id names a second call before the first one has ended.

    Bounded: at most `MAX_OPEN` calls and `MAX_BYTES`, the oldest are given up; and each that the log has left behind
    by twice the lateness is.

    Attributes:
        unended: Starts that were given up without an end so far.
        taken: Lines so far.

    Args:
        lateness_ns: How long after its start a call may end for that to count, ns.
    """

    def __init__(self, lateness_ns: int = 2 * MINUTE) -> None:
        self.unended = self.taken = 0
        self._lateness = lateness_ns
        self._number = self._bytes = 0
        self._previous: int | None = None
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._waiting: dict[int, list[_Open]] = {}
        self._mixed: set[int] = set()
        self._over: OrderedDict[int, _Over] = OrderedDict()
        self._shapes: dict[tuple[str, str | None, str], Shape] = {}

    @property
    def open(self) -> int:
        """How many calls have begun and not ended, as far as is known."""
        return len(self._open)

    def take(
        self, event: AuditEvent, phase: Phase, key: tuple[str | None, ...], *, by_order: bool
    ) -> AuditEvent | None:
        """Take a line of a call, as an event with everything that the reader sets.

        Args:
            key: What the start and the end of a call have in common.
            by_order: The key names no single call.

        Returns:
            For a start its event, with outcome `unknown`. For an end a `CallEnd`, where its start is known and in
            time, with outcome `unknown` if it cannot be told which call ended; the event itself, begun as long before
            as it lasted, where no start is known and it names a tool;
            None where it adds nothing.
        """
        # ids may be as long as a line, and are remembered when the call is over
        name = hash((by_order, key))
        logged = event.time_ns
        self.taken += 1
        if phase == "start":
            found: AuditEvent | None = self._start(event, name, by_order)
        else:
            found = self._end(event, name, by_order)
        self._expire(logged)
        return found

    def waits_for(self, start: AuditEvent) -> bool:
        """Whether the end of a call may still come."""
        return any(each.event is start for each in self._open.values())

    def handed_over(self) -> Pairing:
        """The same calls for another reader, that goes on from here; when they end they are `uncounted`."""
        other = Pairing(self._lateness)
        other._number, other._bytes, other._previous = self._number, self._bytes, self._previous
        for number, each in self._open.items():
            mine = _Open(number, each.name, copy.copy(each.event), each.size, counted=False)
            other._open[number] = mine
            other._waiting.setdefault(each.name, []).append(mine)
        other._mixed = set(self._mixed)
        other._over = OrderedDict((name, copy.copy(over)) for name, over in self._over.items())
        return other

    def _start(self, event: AuditEvent, name: int, by_order: bool) -> AuditEvent:
        if not by_order:
            self._name_anew(event, name)
        event.origin, event.index = OwnLines.of(event), 0
        self._set_shape(event, event.event, event.tool, "unknown")
        self._number += 1
        opened = _Open(self._number, name, event, len(event.origin.lines[0]))
        self._open[opened.number] = opened
        self._waiting.setdefault(name, []).append(opened)
        self._bytes += opened.size
        while len(self._open) > MAX_OPEN or (self._bytes > MAX_BYTES and len(self._open) > 1):
            self._give_up(next(iter(self._open.values())))
        return event

    def _name_anew(self, event: AuditEvent, name: int) -> None:
        """Give up the calls that an id has named before: JSON-RPC counts from 1 in every session.

        Ids are the caller's to choose: where one of them may still end, nothing tells its end from the new call's.
        """
        earlier, over = self._waiting.pop(name, ()), self._over.pop(name, None)
        begun = [each.event.time_ns for each in earlier]
        for each in earlier:
            self._drop(each)
            self.unended += 1
        if over is not None and over.given_up:
            begun.append(over.begun_ns)
        now = event.time_ns
        if any(at is None or now is None or abs(now - at) <= self._lateness for at in begun):
            self._mixed.add(name)

    def _end(self, event: AuditEvent, name: int, by_order: bool) -> AuditEvent | None:
        time = event.time_ns
        while waiting := self._waiting.get(name):
            opened = waiting[0]
            began = opened.event.time_ns
            apart = 0 if time is None or began is None else time - began
            if apart < -self._lateness:
                break
            if apart > self._lateness:
                self._give_up(opened)
                continue
            named = self._told_by_times(waiting, event) if by_order else None
            if by_order and named is None and (len(waiting) > 1 or self._has_ghost(name, time)):
                self._mixed.add(name)
            opened = named or opened
            told = named is not None or name not in self._mixed
            if not told:
                event.status, event.error, event.duration_ms = "unknown", None, None
            if not by_order:
                ended = event.status or "unknown"
                began = opened.event.time_ns
                self._remember(name, _Over(opened.event.tool, 0 if told else 1, began, ended, time))
            self._forget(opened)
            return self._joined(opened, event, by_order, told)
        over = self._over.get(name)
        if over is not None and self._adds_nothing(over, event):
            return None
        return self._alone(event)

    def _told_by_times(self, waiting: list[_Open], end: AuditEvent) -> _Open | None:
        """The call that began as long before an end as that says it lasted, if it is one and no other is as near."""
        if end.time_ns is None or end.duration_ms is None or end.flags & Flag.INFERRED_TIME:
            return None
        began = end.time_ns - round(end.duration_ms * 1_000_000)
        apart = sorted(
            (abs(each.event.time_ns - began), each.number, each)
            for each in waiting
            if each.event.time_ns is not None and not each.event.flags & Flag.INFERRED_TIME
        )
        if not apart or apart[0][0] > NEAR_NS:
            return None
        nearest = apart[0][0]
        alone = len(apart) == 1 or apart[1][0] > max(10 * nearest, nearest + APART_NS)
        return apart[0][2] if alone else None

    def _has_ghost(self, name: int, time_ns: int | None) -> bool:
        """Whether an end may be that of a call that was given up."""
        over = self._over.get(name)
        if over is None or not over.given_up:
            return False
        return over.begun_ns is None or time_ns is None or time_ns - over.begun_ns <= GHOST_NS

    def _adds_nothing(self, over: _Over, event: AuditEvent) -> bool:
        """Whether an end is that of a call which is over: who can choose ids must not hide a call behind another."""
        if event.tool is not None and event.tool != over.tool:
            return False
        if over.given_up:
            over.given_up -= 1
            return True
        time, ended = event.time_ns, over.ended_ns
        near = time is None or ended is None or abs(time - ended) <= self._lateness
        return near and over.ended == event.status

    def _alone(self, event: AuditEvent) -> AuditEvent | None:
        """An end whose start nobody saw, as an event."""
        if event.tool is None:
            return None
        lasted = event.duration_ms
        if event.time_ns is not None and lasted is not None and 0 < lasted * 1_000_000 <= DAY:
            event.time_ns -= round(lasted * 1_000_000)
        return event

    def _joined(self, opened: _Open, end: AuditEvent, by_order: bool, told: bool) -> CallEnd:
        start = opened.event
        names = start.tool is not None or end.tool is None
        lasted = end.duration_ms if end.duration_ms is not None else start.duration_ms
        known = told and not (start.flags | end.flags) & Flag.INFERRED_TIME
        if lasted is None and known and start.time_ns is not None and end.time_ns is not None:
            lasted = max(end.time_ns - start.time_ns, 0) / 1_000_000
        flags = start.flags | (end.flags & ~TIME_FLAGS)
        call = CallEnd(
            timestamp=start.timestamp,
            event=start.event if names else end.event,
            tool=start.tool if names else end.tool,
            params=start.params if start.params is not None else end.params,
            status=end.status,
            error=end.error if end.error is not None else start.error,
            duration_ms=lasted,
            key_id=start.key_id,
            client_id=start.client_id,
            session_id=start.session_id,
            source_ip=start.source_ip,
            scopes=start.scopes if start.scopes is not None else end.scopes,
            auth=start.auth,
            server=start.server if start.server is not None else end.server,
            call_id=start.call_id if start.call_id is not None else end.call_id,
            definition_sha256=start.definition_sha256 or end.definition_sha256,
            sequence=end.sequence,
            hash=end.hash,
            prev_hash=end.prev_hash,
            time_ns=start.time_ns,
            flags=flags | Flag.PAIRED_BY_ORDER if by_order else flags,
            origin=start.origin + OwnLines.of(end),
            index=0,
            caller=start.caller,
            start=start,
            before=start.shape,
            logged_ns=end.time_ns,
            uncounted=not opened.counted,
        )
        self._set_shape(call, call.event, call.tool, call.status or "unknown", end.shape)
        return call

    def _set_shape(
        self, event: AuditEvent, kind: str | None, tool: str | None, status: str, likely: Shape | None = None
    ) -> None:
        """Give an event the shape of that kind, tool and outcome: the one of `likely` or its own where that fits."""
        what = (kind or "request", tool, status)
        for shape in (likely, event.shape):
            if shape is not None and (shape.kind, shape.tool, shape.status) == what:
                break
        else:
            shape = self._shapes.get(what)
            if shape is None:
                if len(self._shapes) >= _CACHED_SHAPES:
                    self._shapes.clear()
                shape = self._shapes[what] = Shape(*what)
        event.shape, event.event, event.tool, event.status = shape, *what

    def _expire(self, time_ns: int | None) -> None:
        """Give up what the log has left behind. One line from the future moves nothing: of two the earlier counts."""
        if time_ns is None:
            return
        settled = time_ns if self._previous is None else min(time_ns, self._previous)
        self._previous = time_ns
        # an end may be late itself, by the lateness and no more
        oldest = settled - 2 * self._lateness
        while self._open:
            first = next(iter(self._open.values()))
            if first.event.time_ns is None or first.event.time_ns >= oldest:
                break
            self._give_up(first)

    def _give_up(self, opened: _Open) -> None:
        self._forget(opened)
        self.unended += 1
        over = self._over.get(opened.name) or _Over(opened.event.tool)
        over.given_up += 1
        over.begun_ns = opened.event.time_ns
        self._remember(opened.name, over)

    def _forget(self, opened: _Open) -> None:
        waiting = self._waiting[opened.name]
        waiting.remove(opened)
        if not waiting:
            del self._waiting[opened.name]
            self._mixed.discard(opened.name)
        self._drop(opened)

    def _drop(self, opened: _Open) -> None:
        del self._open[opened.number]
        self._bytes -= opened.size

    def _remember(self, name: int, over: _Over) -> None:
        self._over[name] = over
        self._over.move_to_end(name)
        if len(self._over) > MAX_OPEN:
            self._over.popitem(last=False)
