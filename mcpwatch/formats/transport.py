"""What a line travelled in: syslog and the journal put their own header around a record.

A table of unwrappers, each of which knows one transport and looks only at lines that begin as its lines do. What an
unwrapper says beside the record (when, on which host, by which program) stands in where the record says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import orjson

from mcpwatch.times import DAY, SECOND, iso, parse_rfc3339

MAX_LEVELS: Final = 3
"""How many transports may lie around one record: syslog in the journal in a relay is the most that is met."""


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A line without its transport.

    Attributes:
        text: What was inside.
        time: When the transport took it, RFC 3339; without a zone where the transport writes none.
        host: On which machine.
        program: By which program or unit.
        others: What else was inside, of a transport that can hold several records: those before `text`.
        lack: Why there is nothing inside; empty where there is.
    """

    text: bytes
    time: str | None = None
    host: str | None = None
    program: str | None = None
    others: tuple[bytes, ...] = ()
    lack: str = ""

    @property
    def server(self) -> str | None:
        """What tells its writer from others that travel the same way: host and program."""
        return "/".join(filter(None, (self.host, self.program))) or None


Unwrapper = Callable[[bytes, int | None], Unwrapped | None]
"""Takes a line and the moment (ns) it was surely written before, which tells the year of a time without one; gives
None for a line of another kind. Never raises."""


class Transport(NamedTuple):
    """One row of the table: its name as it is counted, the bytes that its lines begin with, and its unwrapper."""

    name: str
    begins: bytes
    unwrap: Unwrapper


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
    rb'(?: (?P<host>[^\s"{}\[\]]{0,254}[^\s"{}\[\]:]))?'
    rb' (?P<program>[^\s"{}\[\]:]{1,128})(?:\[[^\s\]]{0,64}\])?: ?(?P<text>.*)',
    re.DOTALL,
)
_MONTHS: Final = {name: number for number, name in enumerate(
    (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"), 1
)}  # fmt: skip
_BOM: Final = b"\xef\xbb\xbf"
_BLANKS: Final = b" \t\r\n\x0b\x0c\0"
_COOKIE: Final = re.compile(rb" *@cee: ?")  # marks JSON in syslog for rsyslog's and syslog-ng's parsers
_JOURNAL_TIME: Final = b'"__REALTIME_TIMESTAMP"'
# journald(8) takes no other names, so that a record of somebody else's, with a key MESSAGE in it, is never one of its
_JOURNAL_FIELD: Final = re.compile(r"[A-Z0-9_]{1,64}", re.ASCII)


def _syslog_5424(line: bytes, written_ns: int | None) -> Unwrapped | None:
    found = _SYSLOG_5424.fullmatch(line)
    if found is None:
        return None
    time, host, program = (_said(found[name]) for name in ("time", "host", "program"))
    return Unwrapped(_message(found["text"] or b""), time, host, program)


def _syslog_3164(line: bytes, written_ns: int | None) -> Unwrapped | None:
    found = _SYSLOG_3164.fullmatch(line)
    if found is None:
        return None
    time = _said(found["time"])
    if time is None:
        time = _with_year(_MONTHS[found["month"]], int(found["day"]), found["clock"].decode(), written_ns)
    return Unwrapped(_message(found["text"]), time, _said(found["host"]), _said(found["program"]))


def _journal(line: bytes, written_ns: int | None) -> Unwrapped | None:
    """An entry as `journalctl -o json` writes it (systemd's JOURNAL_EXPORT_FORMATS)."""
    if _JOURNAL_TIME not in line:
        return None
    try:
        entry = orjson.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or "MESSAGE" not in entry or not all(map(_JOURNAL_FIELD.fullmatch, entry)):
        return None
    stamp = entry.get("__REALTIME_TIMESTAMP")
    if not isinstance(stamp, str) or not stamp.isascii() or not stamp.isdigit():
        return None
    time = _moment(int(stamp) * 1_000) if len(stamp) < 19 else None
    host, unit = _field(entry.get("_HOSTNAME")), _field(entry.get("_SYSTEMD_UNIT"))
    program = unit.removesuffix(".service") if unit else _field(entry.get("SYSLOG_IDENTIFIER"))
    message = entry["MESSAGE"]
    if message is None:
        return Unwrapped(b"", lack="journal entry without its message: write it out with journalctl --all")
    several = isinstance(message, list) and any(not isinstance(item, int) for item in message)
    texts = [text for item in (message if several else [message]) if (text := _bytes(item)) is not None]
    if not texts:
        return Unwrapped(b"", lack="journal entry whose message is no text")
    return Unwrapped(texts[-1], time, host, program, tuple(texts[:-1]))


def _bytes(value: Any) -> bytes | None:
    """A field of the journal: text, or a list of bytes where it is none."""
    if isinstance(value, str):
        return value.encode()
    try:
        return bytes(value) if isinstance(value, list) else None
    except (ValueError, TypeError):
        return None


def _field(value: Any) -> str | None:
    """A field of the journal as text; of several values the last."""
    if isinstance(value, list) and value and not isinstance(value[-1], int):
        value = value[-1]
    text = _bytes(value)
    return text.decode("utf-8", "backslashreplace") if text else None


def _said(value: bytes | None) -> str | None:
    return None if value is None or value == b"-" else value.decode("utf-8", "backslashreplace")


def _message(text: bytes) -> bytes:
    text = text.removeprefix(_BOM)
    found = _COOKIE.match(text)
    return text[found.end() :] if found is not None else text


def _moment(time_ns: int) -> str | None:
    try:
        return iso(time_ns)
    except (OverflowError, ValueError, OSError):
        return None


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


TRANSPORTS: Final = (
    Transport("journal", b"{", _journal),
    Transport("syslog 5424", b"<", _syslog_5424),
    Transport("syslog 3164", b"<JFMASOND0123456789", _syslog_3164),
)
"""What is unwrapped, in the order in which it is tried."""

_BY_FIRST_BYTE: Final[dict[int, tuple[Transport, ...]]] = {
    byte: tuple(transport for transport in TRANSPORTS if byte in transport.begins)
    for byte in set(b"".join(transport.begins for transport in TRANSPORTS))
}


def bare(line: bytes) -> bytes:
    """A line without what may lie around a record: NULs of a truncation, a byte order mark, blanks, a `\\r`."""
    return line.lstrip(b"\0").removeprefix(_BOM).strip(_BLANKS)


def unwrap(line: bytes, written_ns: int | None = None) -> tuple[str, Unwrapped] | None:
    """Take one transport off a line; None for a line without one.

    Args:
        line: A `bare` one.
        written_ns: A moment before which the line was surely written, ns since the epoch: now when live, when the
            file was last written in a replay. Old syslog times have no year.

    Returns:
        The transport's name, and what was inside.
    """
    for transport in _BY_FIRST_BYTE.get(line[0], ()) if line else ():
        found = transport.unwrap(line, written_ns)
        if found is not None:
            return transport.name, found
    return None
