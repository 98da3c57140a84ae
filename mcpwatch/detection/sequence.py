"""A window for steps that come one after the other: a secret is read, then data is sent out.

An event of step k fires if, once it is inserted, there are events of all other steps around it, in the order of
the steps, and the first and the last of them are less than W apart. Of two events at the same time the one that was
logged first is the earlier. No event is two steps of one sequence, unless the rule says that it may be.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import Final

from mcpwatch.detection.reference import NEVER
from mcpwatch.detection.windows import MAX_TIMES

_ORDER_BITS: Final = 48
"""An event is held as one number: its time, and behind that its place in the log."""


class SequenceWindow:
    """Times of one subject's events, step by step.

    Args:
        steps: How many there are.
        width: W, in nanoseconds.
        keep: How long a time is kept, W and the allowed lateness, in nanoseconds.
        in_one: One event may be several steps.
    """

    __slots__ = ("freed", "in_one", "keep", "newest", "times", "width")

    def __init__(self, steps: int, width: int, keep: int, *, in_one: bool = False) -> None:
        self.width, self.keep = width, keep
        self.in_one = in_one
        self.freed = False
        self.newest = NEVER
        self.times: list[list[int]] = [[] for _ in range(steps)]

    def add(self, time_ns: int, step: int, order: int) -> int:
        """Insert an event of a step (from 0); the number of steps if it completes them, else 0.

        `order` is the event's number in the order of the log, by which it is known again in another step.
        """
        self.newest = max(self.newest, time_ns)
        event = time_ns << _ORDER_BITS | order
        own = self.times[step]
        if not own or event > own[-1]:
            own.append(event)
        else:
            insort(own, event)
        if len(own) > 2 * MAX_TIMES:
            del own[:-MAX_TIMES]
        if step and not self.times[step - 1]:
            return 0  # the usual case: nothing came before it
        first = last = event
        up_to, beyond = (bisect_right, bisect_left) if self.in_one else (bisect_left, bisect_right)
        # the latest beginning before it and the earliest end behind it are the closest together
        for before in reversed(self.times[:step]):
            at = up_to(before, first)
            if not at:
                return 0
            first = before[at - 1]
        for after in self.times[step + 1 :]:
            at = beyond(after, last)
            if at == len(after):
                return 0
            last = after[at]
        return len(self.times) if (last >> _ORDER_BITS) - (first >> _ORDER_BITS) < self.width else 0

    def is_needed(self, now_ns: int) -> bool:
        """Whether an event from `now_ns` on could still meet what is held; forgets what it could not."""
        for times in self.times:
            del times[: bisect_left(times, (now_ns - self.keep + 1) << _ORDER_BITS)]
        return any(self.times)

    def set_limits(self, steps: int, width: int, keep: int) -> None:
        """Take over other limits."""
        self.width, self.keep = width, keep
