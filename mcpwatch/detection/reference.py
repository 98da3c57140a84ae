"""The reference time of a source: how far its log has come, by its own records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

LATE_RUN: Final = 10
"""So many late records in a row, and the reference starts anew: the log really has gone back."""

NEVER: Final = -(1 << 70)
"""Before every time, that of a record from the year 1 too."""


class Link(NamedTuple):
    """What the next record of a chain has to fit: number and hash of the one before."""

    sequence: int | None
    hash: str | None


@dataclass(slots=True)
class ReferenceTime:
    """The largest "smaller of two consecutive record times" so far, so that one line from 2099 moves nothing.

    The engine's loop keeps it up to date; between two runs of records of the source it stands here.

    Attributes:
        time: The reference, ns; NEVER until there were two records.
        previous: Time of the record before, ns; NEVER if there was none.
        late_run: How many records in a row were late.
        identified: When a caller was last named in this source, ns; NEVER if none was.
        chains: The newest numbered or chained record of each server that writes to this source.
    """

    time: int = NEVER
    previous: int = NEVER
    late_run: int = 0
    identified: int = NEVER
    chains: dict[str | None, Link] = field(default_factory=dict)

    @property
    def best_guess(self) -> int:
        """A time for a record that has none: the reference, else the record before, else the epoch."""
        return next((time for time in (self.time, self.previous) if time != NEVER), 0)
