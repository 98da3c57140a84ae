"""Syslog: RFC 5424, and RFC 3164 as it is really written."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from mcpwatch.formats.transport.unwrapped import BOM, Unwrapped
from mcpwatch.times import DAY, SECOND, parse_rfc3339

# RFC 5424, 6: <PRI>1 TIME HOST PROGRAM PROCESS KIND [structured data] text; `-` is nothing
_SYSLOG_5424: Final = re.compile(
    rb"<\d{1,3}>[1-9]\d{0,2} (?P<time>[^ ]{1,64}) (?P<host>[^ ]{1,255}) (?P<program>[^ ]{1,128})"
    rb" [^ ]{1,128} [^ ]{1,128} "
    rb'(?:-|(?:\[[^ =\]"]{1,128}(?: [^ =\]"]{1,128}="(?:[^"\\\]]|\\.)*")*\])+)(?: (?P<text>.*))?',
    re.DOTALL,
)
# RFC 3164 as it is really written: with or without <PRI>, with the old time or an RFC 3339 one (rsyslog's files),
# with or without a host (sockets of the machine itself)
_SYSLOG_3164: Final = re.compile(
    rb"(?:<\d{1,3}>)?"
    rb"(?:(?P<month>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) (?P<day>[ \d]\d) "
    rb"(?P<clock>\d\d:\d\d:\d\d(?:\.\d{1,9})?)"
    rb"|(?P<time>\d{4}-\d\d-\d\dT[\d:.]{5,24}(?:Z|[+-]\d\d:?\d\d)))"
    rb"(?: (?!(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL) )"  # a program's own line is no syslog
    rb'(?P<host>[^\s"{}\[\]]{0,254}[^\s"{}\[\]:]))?'
    rb' (?P<program>[^\s"{}\[\]:]{1,128})(?:\[[^\s\]]{0,64}\])?: ?(?P<text>.*)',
    re.DOTALL,
)
_MONTHS: Final = {name: number for number, name in enumerate(
    (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"), 1
)}  # fmt: skip
_COOKIE: Final = re.compile(rb" *@cee: ?")  # marks JSON in syslog for rsyslog's and syslog-ng's parsers


def syslog_5424(line: bytes, written_ns: int | None) -> Unwrapped | None:
    """A message of today's syslog."""
    found = _SYSLOG_5424.fullmatch(line)
    if found is None:
        return None
    time, host, program = (_said(found[name]) for name in ("time", "host", "program"))
    return Unwrapped(_message(found["text"] or b""), time, host, program)


def syslog_3164(line: bytes, written_ns: int | None) -> Unwrapped | None:
    """A message of the old syslog, or a line of a file that a syslog server wrote."""
    found = _SYSLOG_3164.fullmatch(line)
    if found is None:
        return None
    time = _said(found["time"])
    if time is None:
        time = _with_year(_MONTHS[found["month"]], int(found["day"]), found["clock"].decode(), written_ns)
    return Unwrapped(_message(found["text"]), time, _said(found["host"]), _said(found["program"]))


def _said(value: bytes | None) -> str | None:
    return None if value is None or value == b"-" else value.decode("utf-8", "backslashreplace")


def _message(text: bytes) -> bytes:
    text = text.removeprefix(BOM)
    found = _COOKIE.match(text)
    return text[found.end() :] if found is not None else text


def _with_year(month: int, day: int, clock: str, written_ns: int | None) -> str | None:
    """A time without a year: the last one that is at most a day after it was surely written. None: nobody knows."""
    if written_ns is None:
        return None
    latest = written_ns + DAY
    try:
        year = datetime.fromtimestamp(latest // SECOND, UTC).year
    except (OverflowError, ValueError, OSError):
        return None
    # a leap day may lie eight years back
    for back in range(9):
        time = f"{year - back:04d}-{month:02d}-{day:02d}T{clock}"
        found = parse_rfc3339(time)
        if found is not None and found[0] <= latest:
            return time
    return None
