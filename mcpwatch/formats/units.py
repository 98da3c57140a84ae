"""How the times and durations of a log are meant: what they count, and in which zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, Literal

from mcpwatch.times import SECOND, parse_epoch, parse_time

TIME_UNITS: Final = {"s": SECOND, "ms": 1_000_000, "us": 1_000, "ns": 1}
DURATION_UNITS: Final = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3, "min": 6e4, "h": 3.6e6}


@dataclass(frozen=True, slots=True)
class Units:
    """How the times and durations of a log are meant.

    Attributes:
        time_ns: Nanoseconds in one of what its timestamps count; None: told by their size.
        zone: Of times that say none: a zone, or `local` for that of this machine; None is UTC, and flagged.
        duration_ms: Milliseconds in one of what its field `duration` counts.
    """

    time_ns: int | None = None
    zone: tzinfo | Literal["local"] | None = None
    duration_ms: float = 1.0

    @property
    def plain(self) -> bool:
        """Whether timestamps are read as those of any other log."""
        return self.time_ns is None and self.zone is None

    def time_of(self, value: Any) -> int | None:
        """A moment, ns since the epoch."""
        if self.time_ns is not None:
            number = _number(value)
            if number is not None:
                return _counted(number, self.time_ns)
        parsed = parse_time(value)
        if parsed is None:
            return None
        moment, naive = parsed
        return _from_zone(moment, self.zone) if naive and self.zone is not None else moment


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        text = value.strip()
        if not text.isascii() or len(text) > 24 or not text.replace(".", "", 1).isdigit():
            return None
        return float(text) if "." in text else int(text)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _counted(number: int | float, unit_ns: int) -> int | None:
    if not 0 <= number < 1e20:
        return None
    whole = int(number)
    moment = whole * unit_ns + (round((number - whole) * unit_ns) if number != whole else 0)
    # parse_epoch takes what is this large for nanoseconds, and knows the last of them
    return moment if moment < 10**17 else parse_epoch(moment)


def _from_zone(moment: int, zone: tzinfo | Literal["local"]) -> int | None:
    try:
        clock = datetime.fromtimestamp(moment // SECOND, UTC)
        there = clock.replace(tzinfo=None if zone == "local" else zone)
        return int(there.timestamp()) * SECOND + moment % SECOND
    except (OverflowError, ValueError, OSError):
        return None
