"""Times and durations: integer nanoseconds since the epoch, UTC, everywhere."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Final

SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,18}))?)?\s?"
    r"([Zz]|UTC|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII,
)
_DURATION: Final = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
# What datetime can print in any zone: a day less at both ends, and one more where it looks back for clock changes.
_MIN_NS: Final = (date.min.toordinal() + 2 - _EPOCH_ORDINAL) * DAY
_MAX_NS: Final = (date.max.toordinal() - _EPOCH_ORDINAL) * DAY
_MAX_DURATION: Final = 36_500 * DAY


def parse_rfc3339(text: str) -> tuple[int, bool] | None:
    """Read an RFC 3339 time, also with a space for `T`, a comma for the point, or no zone.

    Returns:
        (nanoseconds since the epoch, whether it had no zone and UTC was assumed), or None if it is no time or
        within two days of the years 0 or 10000. A leap second is the first second of the next minute.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    seconds = int(second or 0)
    if int(hour) > 23 or int(minute) > 59 or seconds > 60:  # 60: a leap second
        return None
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _EPOCH_ORDINAL
    except ValueError:
        return None
    nanoseconds = int((fraction or "").ljust(9, "0")[:9]) if fraction else 0
    total = ((days * 24 + int(hour)) * 60 + int(minute)) * 60 + seconds
    if zone and zone not in "Zz" and zone != "UTC":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        if int(digits[:2]) > 23 or int(digits[2:]) > 59:
            return None
        shift = int(digits[:2]) * 3600 + int(digits[2:]) * 60
        total += -shift if zone[0] == "+" else shift
    value = total * SECOND + nanoseconds
    return (value, zone is None) if _MIN_NS <= value <= _MAX_NS else None


def parse_epoch(number: int | float) -> int | None:
    """Read an epoch number: below 1e11 seconds, below 1e14 ms, below 1e17 us, else ns (docs/log-schema.md).

    Returns:
        Nanoseconds since the epoch, or None for booleans, negative numbers, NaN and years past 9999.
    """
    if isinstance(number, bool) or not 0 <= number < 1e20:
        return None
    for limit, scale in ((1e11, SECOND), (1e14, 1_000_000), (1e17, 1_000)):
        if number < limit:
            whole = int(number)
            # the fraction apart: a float has no room for nanoseconds beside seconds
            value = whole * scale + (round((number - whole) * scale) if number != whole else 0)
            return value if value <= _MAX_NS else None
    value = int(number)
    return value if value <= _MAX_NS else None


def parse_time(value: object) -> tuple[int, bool] | None:
    """Read any timestamp of the log schema: RFC 3339 text, a number, or a number as text."""
    if isinstance(value, str):
        text = value.strip()
        found = parse_rfc3339(text)
        if found is not None:
            return found
        if text.isascii() and len(text) <= 24 and text.replace(".", "", 1).isdigit():
            number = parse_epoch(float(text) if "." in text else int(text))
            return None if number is None else (number, False)
        return None
    if isinstance(value, int | float):
        number = parse_epoch(value)
        return None if number is None else (number, False)
    return None


def parse_duration(text: str) -> int:
    """Read `90s`, `5m`, `1h30m`, `24h`, `2d` into nanoseconds.

    Raises:
        ValueError: The text is no such duration, it is zero, or above 36,500 days.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration: write for example 90s, 5m, 1h30m or 2d")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = days * DAY + hours * HOUR + minutes * MINUTE + seconds * SECOND
    if total == 0:
        raise ValueError(f"{text!r} is no time at all: durations must be above zero")
    if total > _MAX_DURATION:
        raise ValueError(f"{text!r} is too long: durations are at most 36500d")
    return total


def format_duration(ns: int) -> str:
    """Write nanoseconds as the two largest of days, hours, minutes, seconds: `1h 30m`, `4m 5s`, `14 s`, `0.4 s`."""
    if ns < 10 * SECOND:
        return f"{ns / SECOND:.1f} s"
    rest = ns // SECOND
    if rest < 60:
        return f"{rest} s"
    parts = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        if rest >= size:
            parts.append(f"{rest // size}{unit}")
            rest %= size
    return " ".join(parts[:2])


def iso(ns: int) -> str:
    """Write UTC with microseconds and `Z`: `2026-11-20T08:00:05.000000Z`."""
    moment = datetime.fromtimestamp(ns // SECOND, UTC)
    # not strftime: its %Y writes the year 800 in three digits
    return f"{moment.replace(tzinfo=None).isoformat()}.{ns % SECOND // 1000:06d}Z"


def utc_midnight(day: date) -> int:
    """The start of a UTC day, ns."""
    return (day.toordinal() - _EPOCH_ORDINAL) * DAY


def utc_day(ns: int) -> str:
    """The UTC day of a moment, `YYYY-MM-DD`."""
    return date.fromordinal(_EPOCH_ORDINAL + ns // DAY).isoformat()


def clock_time(ns: int, *, local: bool = False, millis: bool = False) -> str:
    """The time of day, `03:14:07`, with `.201` if asked, in UTC or in this machine's zone."""
    moment = datetime.fromtimestamp(ns // SECOND, None if local else UTC)
    return f"{moment:%H:%M:%S}" + (f".{ns % SECOND // 1_000_000:03d}" if millis else "")
