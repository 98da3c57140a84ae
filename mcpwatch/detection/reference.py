"""The reference time of a source: how far its log has come, by its own records."""

from __future__ import annotations

from typing import Final

LATE_RUN: Final = 10
"""So many late records in a row, and the reference starts anew: the log really has gone back."""


class ReferenceTime:
    """The largest "smaller of two consecutive record times" so far, so that one line from 2099 moves nothing.

    Attributes:
        time: The reference, ns; None until there were two records.
        identified: When a caller was last named in this source, ns.
    """

    __slots__ = ("_late_run", "_previous", "identified", "time")

    def __init__(self, previous: int | None = None) -> None:
        self.time: int | None = None
        self.identified: int | None = None
        self._previous = previous
        self._late_run = 0

    def is_late(self, time_ns: int, lateness: int) -> bool:
        """Take in the next record's time; whether it is more than `lateness` behind the reference."""
        previous = self._previous
        self._previous = time_ns
        if previous is None:
            return False
        smaller = time_ns if time_ns < previous else previous
        reference = self.time
        if reference is None or smaller > reference:
            self.time = reference = smaller
        if time_ns >= reference - lateness:
            self._late_run = 0
            return False
        self._late_run += 1
        if self._late_run >= LATE_RUN:
            self.time = None
            self._late_run = 0
        return True

    @property
    def best_guess(self) -> int:
        """A time for a record that has none: the reference, else the record before, else the epoch."""
        return self.time or self._previous or 0
