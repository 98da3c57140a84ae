"""Exact sliding windows.

A window rule fires on event e if, once e is inserted, some half-open window (t-W, t] that contains e holds enough
events. Equivalently, with the times sorted, some run of `need` consecutive times that includes e spans less than
W. Firing resets nothing, so what a window says depends only on what happened in the W before.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from mcpwatch.detection.calls import Call, logged_before
from mcpwatch.detection.reference import NEVER

MAX_TIMES: Final = 1_024
"""Times kept a subject, and the cap of every count: what an attacker can make one subject cost."""

_MAX_CALLS: Final = 2 * MAX_TIMES
"""Each call is held by two numbers."""

_CROWD: Final = 64
"""So many values alive, and their number stands for a late event's fullest window, which may hold one or two more."""

_LOOK_BACK: Final = 16
"""Ended stretches that a further one is compared with."""


class CountWindow:
    """Times of one subject's events.

    Args:
        need: How many events in one window fire (1 to `MAX_TIMES`), at most: an event may have a lower limit.
        width: W, in nanoseconds.
        keep: How long a time is kept, W and the allowed lateness, in nanoseconds.
        by_call: Count a call once that is logged more than once.
    """

    __slots__ = ("by_call", "calls", "freed", "keep", "need", "times", "width")

    def __init__(self, need: int, width: int, keep: int, *, by_call: bool = False) -> None:
        self.need = need
        self.width = width
        self.keep = keep
        self.by_call = by_call
        self.freed = False
        self.times = [NEVER] * need
        self.calls: dict[int, int] | None = None

    def add(self, time_ns: int, call: Call | None = None, need: int = 0) -> int:
        """Insert an event; the number of events in the fullest window around it if that fires, else 0.

        `need` is this event's own, if it has one.

        A call seen less than `keep` away is logged again, when it ended or by a second log: it counts once.
        """
        if call is not None and self.by_call and self._logged_before(time_ns, call):
            return 0
        times = self.times
        need = need or self.need
        if time_ns < times[-1]:
            return self._insert_late(time_ns, need)
        times.append(time_ns)
        if time_ns - times[-need] < self.width:
            return self.fullest(time_ns)
        if len(times) > 3 * MAX_TIMES:
            self._trim()
        return 0

    def fullest(self, newest: int) -> int:
        """Events in the window that ends at the newest one, at most `MAX_TIMES`."""
        if len(self.times) > MAX_TIMES + self.need:
            self._trim()
        return min(len(self.times) - bisect_right(self.times, newest - self.width), MAX_TIMES)

    def is_needed(self, now_ns: int) -> bool:
        """Whether an event from `now_ns` on could still meet what is held; forgets what it could not."""
        old = bisect_right(self.times, now_ns - self.keep)
        oldest = oldest_call(now_ns, self.width, self.keep)
        if old == len(self.times) and not any(time > oldest for time in (self.calls or {}).values()):
            return False
        del self.times[self.need : max(self.need, old)]
        return True

    @property
    def newest(self) -> int:
        """The latest time held."""
        return self.times[-1]

    def set_limits(self, need: int, width: int, keep: int) -> None:
        """Take over other limits."""
        real = self.times[self.need :]
        self.times = [NEVER] * need + real
        self.need, self.width, self.keep = need, width, keep

    def _trim(self) -> None:
        """Keep `MAX_TIMES` times; the first `need` places always stand for "never"."""
        del self.times[self.need : len(self.times) - MAX_TIMES]

    def _insert_late(self, time_ns: int, need: int) -> int:
        times = self.times
        at = bisect_right(times, time_ns)
        times.insert(at, time_ns)
        if len(times) > MAX_TIMES + self.need:
            if times[-1] - time_ns > self.keep:  # times of the future must push out nothing of today
                del times[max(at + 1, self.need + MAX_TIMES) :]
            before = len(times)
            self._trim()
            at -= before - len(times)
            if at < self.need:
                return 0
        return fullest_around(times, at, self.width, need)

    def _logged_before(self, time_ns: int, call: Call) -> bool:
        if self.calls is None:  # most logs have no call ids, and there are many windows
            self.calls = {}
        again = logged_before(self.calls, call, time_ns, self.keep)
        if len(self.calls) > _MAX_CALLS:
            recent = sorted((time, each) for each, time in self.calls.items() if time > time_ns - self.keep)
            self.calls = {each: time for time, each in recent[-_MAX_CALLS // 2 :]}
        return again


def fullest_around(times: list[int], at: int, width: int, need: int) -> int:
    """Events in the fullest window that holds the one at that place of the sorted times, if that fires, else 0."""
    time_ns = times[at]
    # windows end at a time; those that contain e end in [e, e + W), and their beginnings only move forward
    start, stop = bisect_right(times, time_ns - width), bisect_right(times, time_ns + width - 1)
    if stop - start < need:
        return 0
    most = 0
    for end in range(at, stop):
        begins = times[end] - width
        while times[start] <= begins:
            start += 1
        if end - start >= most:
            most = end - start + 1
    return min(most, MAX_TIMES) if most >= need else 0


def oldest_call(now_ns: int, width: int, keep: int) -> int:
    """The time from which on an event could repeat a call, ns: it may be late, and its call was `keep` before it."""
    lateness = keep - width
    return now_ns - lateness - keep


class DistinctWindow:
    """Values (for example session ids) of one subject's events, by when they were present.

    A value is present at t if an event of it lies in (t-W, t]: from each event until W later. Overlapping
    stretches of a value are held as one, so that a flood of one value costs nothing and pushes no other out.
    """

    __slots__ = ("crowded", "freed", "keep", "late", "live", "need", "newest", "past", "width")

    def __init__(self, need: int, width: int, keep: int) -> None:
        self.need = need
        self.width = width
        self.keep = keep
        self.freed = False
        self.newest = self.late = NEVER
        self.live: dict[str, list[int]] = {}
        """Value -> [from, until] of its newest stretch; soonest to end first while `crowded`."""
        self.crowded = False
        """Whether there are enough values to fire. While not, an event of a live value only moves its `until`."""
        self.past: list[tuple[int, int, str]] = []
        """Ended stretches, (from, until, value), kept for late events."""

    def add(self, time_ns: int, value: str, need: int = 0) -> int:
        """Insert an event; how many distinct values the fullest window around it holds if that fires, else 0.

        `need` is this event's own, if it has one; never below that of the window.
        """
        need = need or self.need
        if time_ns < self.newest:
            return self._insert_late(time_ns, value, need)
        settled, self.newest = self.newest, time_ns
        live = self.live
        stretch = live.get(value)
        if stretch is None:
            live[value] = [time_ns, time_ns + self.width]
        else:
            if stretch[1] < time_ns:
                self.past.append((stretch[0], stretch[1], value))
                stretch[0] = time_ns
                if len(self.past) > 2 * MAX_TIMES:
                    self._end_before(time_ns, settled)
            stretch[1] = time_ns + self.width
            if self.crowded:
                # kept in order of their end
                del live[value]
                live[value] = stretch
        if len(live) < self.need:
            return 0
        self._end_before(time_ns, settled)
        return min(len(live), MAX_TIMES) if len(live) >= need else 0

    def stretch(self, value: str) -> list[int]:
        """The live stretch of a value, [from, until]; one that is over where there is none."""
        return self.live.get(value) or [NEVER, NEVER]

    def is_needed(self, now_ns: int) -> bool:
        """Whether an event from `now_ns` on could still meet what is held."""
        return self.newest > now_ns - self.keep

    def set_limits(self, need: int, width: int, keep: int) -> None:
        """Take over other limits. Stretches are as long as the width was, so another one begins anew."""
        if width != self.width:
            self.live.clear()
            self.past.clear()
            self.newest = NEVER
        self.need, self.width, self.keep = need, width, keep
        self._sort()
        self.crowded = len(self.live) >= need

    def _end_before(self, time_ns: int, settled: int) -> None:
        """Move what has ended out of `live`, and forget what no late event can touch.

        `settled` is the smaller of the newest two times: one event from the far future must not clear the past.
        """
        live, past = self.live, self.past
        if not self.crowded:
            self._sort()
        while live:
            value = next(iter(live))
            stretch = live[value]
            if stretch[1] > time_ns and len(live) <= MAX_TIMES:
                break
            del live[value]
            past.append((stretch[0], stretch[1], value))
            stretch[1] = NEVER  # whoever holds it must see that it is over
        self.crowded = len(live) >= self.need
        if len(past) > 64 and (len(past) > MAX_TIMES or past[0][1] <= settled - self.keep):
            oldest = settled - self.keep
            past[:] = [ended for ended in past if ended[1] > oldest][-MAX_TIMES // 2 :]

    def _sort(self) -> None:
        by_end = sorted(self.live.items(), key=lambda item: item[1][1])
        self.live.clear()
        self.live.update(by_end)

    def _insert_late(self, time_ns: int, value: str, need: int) -> int:
        end = time_ns + self.width
        stretch = self.live.get(value)
        if stretch is not None and time_ns <= stretch[1] and end >= stretch[0]:
            stretch[0], stretch[1] = min(stretch[0], time_ns), max(stretch[1], end)
        elif end > self.newest and (stretch is None or stretch[1] < time_ns):
            if stretch is None:
                self.live[value] = [time_ns, end]
            else:
                self.past.append((stretch[0], stretch[1], value))
                stretch[0], stretch[1] = time_ns, end
        else:
            self._add_past(time_ns, end, value)
        self.crowded = False
        if len(self.live) + len(self.past) < self.need:
            return 0
        # two late events in a row, as one of them may be from the future itself
        settled, self.late = min(time_ns, self.late), time_ns
        self._end_before(self.newest, settled)
        if len(self.live) >= max(_CROWD, need) and end > self.newest:
            # The window that ends at the newest event contains e and is full: it fires. Whoever sends hundreds of
            # sessions out of order must not make every event cost a sweep over all of them.
            return min(len(self.live), MAX_TIMES)
        return self._sweep(time_ns, end, need)

    def _add_past(self, begins: int, ends: int, value: str) -> None:
        """Take note of an ended stretch, as one with what it overlaps of the newest ones.

        After one event from the far future all others are late, and must not cost more and more.
        """
        past = self.past
        for at in range(len(past) - 1, max(len(past) - _LOOK_BACK, 0) - 1, -1):
            known = past[at]
            if known[2] == value and known[0] <= ends and begins <= known[1]:
                past[at] = (min(known[0], begins), max(known[1], ends), value)
                return
        past.append((begins, ends, value))

    def _sweep(self, time_ns: int, end: int, need: int) -> int:
        """The most values in a window that ends in [time_ns, end), if that fires: over what begins and ends there."""
        near = [ended for ended in self.past if ended[0] < end and ended[1] > time_ns]
        near += [
            (span[0], span[1], name)
            for name, span in self.live.items()
            if span[0] < end and span[1] > time_ns
        ]
        if len(near) < need:
            return 0
        steps = [(max(begins, time_ns), 1, name) for begins, _, name in near]
        steps += [(ends, -1, name) for _, ends, name in near]
        steps.sort()
        present: dict[str, int] = {}
        fullest = 0
        for when, change, name in steps:
            if when >= end:
                break
            present[name] = present.get(name, 0) + change
            if not present[name]:
                del present[name]
            fullest = max(fullest, len(present))
        return min(fullest, MAX_TIMES) if fullest >= need else 0
