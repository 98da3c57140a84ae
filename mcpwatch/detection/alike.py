"""A window that counts only events that are alike: the same call again and again.

One window serves all subjects of a rule. Nearly all calls differ from nearly all others, so that a window for each
subject would hold little but single times, scattered over memory, and cost several times as much.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from mcpwatch.detection.calls import Call, logged_before
from mcpwatch.detection.reference import NEVER
from mcpwatch.detection.windows import MAX_TIMES, fullest_around, oldest_call

MAX_HELD: Final = 262_144
"""Kinds of calls held at once; beyond that the least recent go."""


class AlikeWindow:
    """Times of events, by a number that is the same for events that are alike.

    Args:
        need: How many events alike in one window fire (1 to `MAX_TIMES`).
        width: W, in nanoseconds.
        keep: How long a time is kept, W and the allowed lateness, in nanoseconds.

    Attributes:
        times: Number -> time, or the times in order where there are several.
        calls: Number of a call -> time, for those that are counted once.
        forgotten: How many that had come more than once were dropped, because there were too many kinds: one that
            came once is no loop, and a busy server has no end of those.
    """

    __slots__ = ("calls", "forgotten", "freed", "keep", "need", "newest", "times", "width")

    def __init__(self, need: int, width: int, keep: int) -> None:
        self.need, self.width, self.keep = need, width, keep
        self.freed = False
        self.newest = NEVER
        self.times: dict[int, int | list[int]] = {}
        self.calls: dict[int, int] = {}
        self.forgotten = 0

    def add(self, time_ns: int, alike: int, need: int = 0) -> int:
        """Insert an event; how many alike the fullest window around it holds if that fires, else 0."""
        if time_ns > self.newest:
            self.newest = time_ns
        need = need or self.need
        held = self.times.get(alike)
        if held is None:
            self.times[alike] = time_ns
            if len(self.times) > MAX_HELD:
                self._forget()
            return 1 if need == 1 else 0
        if isinstance(held, int):
            held = self.times[alike] = [held]
        at = bisect_right(held, time_ns)
        held.insert(at, time_ns)
        peak = fullest_around(held, at, self.width, need) if len(held) >= need else 0
        if len(held) > 2 * MAX_TIMES:
            if held[-1] - time_ns > self.keep:  # times of the future must push out nothing of today
                del held[max(at + 1, 2 * MAX_TIMES) :]
            else:
                del held[:-MAX_TIMES]
        return peak

    def logged_before(self, time_ns: int, call: Call) -> bool:
        """Whether a call was logged less than `keep` away; takes note of it."""
        again = logged_before(self.calls, call, time_ns, self.keep)
        if len(self.calls) > MAX_HELD:
            newest = sorted(self.calls.items(), key=lambda item: item[1])[-MAX_HELD // 2 :]
            self.calls = dict(newest)
        return again

    def is_needed(self, now_ns: int) -> bool:
        """Whether an event from `now_ns` on could still meet what is held; forgets what it could not."""
        oldest = now_ns - self.keep
        self.times = {
            alike: held
            for alike, held in self.times.items()
            if (held if isinstance(held, int) else held[-1]) > oldest
        }
        for held in self.times.values():
            if isinstance(held, list):
                del held[: bisect_right(held, oldest)]
        oldest = oldest_call(now_ns, self.width, self.keep)
        self.calls = {call: time for call, time in self.calls.items() if time > oldest}
        return bool(self.times or self.calls)

    def set_limits(self, need: int, width: int, keep: int) -> None:
        """Take over other limits."""
        self.need, self.width, self.keep = need, width, keep

    def _forget(self) -> None:
        """Keep the newer half."""
        by_age = sorted(
            self.times.items(), key=lambda item: item[1] if isinstance(item[1], int) else item[1][-1]
        )
        self.forgotten += sum(isinstance(held, list) for _, held in by_age[: -MAX_HELD // 2])
        self.times = dict(by_age[-MAX_HELD // 2 :])
