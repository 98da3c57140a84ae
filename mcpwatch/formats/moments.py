"""Times as text logs write them, turned into RFC 3339."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_MONTHS: Final = {
    name: number for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}  # fmt: skip
_CLOCK: Final = r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_ZONE: Final = r"(?:[ ]?(?:Z|UTC|[+-]\d\d:?\d\d)(?![\w:]))?"
_ISO: Final = re.compile(rf"\d{{4}}-\d\d-\d\d[Tt ]{_CLOCK}{_ZONE}", re.ASCII)
# Go's log package and nginx
_SLASHES: Final = re.compile(rf"(\d{{4}})/(\d\d)/(\d\d) ({_CLOCK})({_ZONE})", re.ASCII)
# NCSA access logs: 22/Nov/2026:06:08:07 +0000
_NCSA: Final = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d{4})", re.ASCII)
# Rich's handler, which many Python servers log with, in the C and American locales: 07/20/25 19:42:07
_RICH: Final = re.compile(rf"(\d\d)/(\d\d)/(\d\d) ({_CLOCK})", re.ASCII)


class Moment(NamedTuple):
    """A time in a text: as RFC 3339 (without a zone where the text has none), and where it ends."""

    time: str
    end: int


def read_moment(text: str, at: int = 0) -> Moment | None:
    """The time that stands at this place of a text, in any of the spellings that logs use; None: there is none.

    That it is a day of the calendar is left to whoever reads the time.
    """
    fifth = text[at + 4 : at + 5]
    if fifth == "-":
        found = _ISO.match(text, at)
        return Moment(found.group(), found.end()) if found is not None else None
    if fifth == "/":
        found = _SLASHES.match(text, at)
        if found is None:
            return None
        year, month, day, clock, zone = found.groups()
        return Moment(f"{year}-{month}-{day}T{clock}{zone.strip()}", found.end())
    if text[at + 2 : at + 3] != "/":
        return None
    found = _NCSA.match(text, at)
    if found is not None:
        day, name, year, clock, zone = found.groups()
        month_number = _MONTHS.get(name)
        return Moment(f"{year}-{month_number:02d}-{day}T{clock}{zone}", found.end()) if month_number else None
    found = _RICH.match(text, at)
    if found is not None:
        month, day, year, clock = found.groups()
        return Moment(f"20{year}-{month}-{day}T{clock}", found.end())
    return None
