"""What judging one call may cost, whatever its caller puts into it.

A line of a log holds a hundred thousand values, or as many spellings of a path as fit into a megabyte. Each is looked
at, but not each in every way: what is left over once the effort is spent is ambiguous, never allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_VALUES: Final = 10_000
"""Values of one call that are looked at."""
MAX_READINGS: Final = 1_024
"""Other readings of paths and URLs of one call, each of up to 256 characters; a longer one counts as several."""

_CHARACTERS: Final = 256


@dataclass(slots=True)
class Effort:
    """What is left for the values of one call.

    Attributes:
        values: How many more are looked at.
        readings: How many more other readings of odd ones are tried.
    """

    values: int = MAX_VALUES
    readings: int = MAX_READINGS

    def read(self, length: int, times: int = 1) -> bool:
        """Spend the effort of some readings of a text of that length; False if there is none left."""
        if self.readings <= 0:
            return False
        self.readings -= times * (1 + length // _CHARACTERS)
        return True
