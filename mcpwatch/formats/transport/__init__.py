"""What a line travelled in: syslog, the journal and containers put their own header around a record.

A table of unwrappers, each of which knows one transport and looks only at lines that begin as its lines do. What an
unwrapper says beside the record (when, on which host, by which program) stands in where the record says nothing.
"""

from __future__ import annotations

from typing import Final

from mcpwatch.formats.transport.colours import without_colours
from mcpwatch.formats.transport.containers import compose, docker, kubectl, kubernetes, timed
from mcpwatch.formats.transport.fragments import Fragments
from mcpwatch.formats.transport.journal import journal
from mcpwatch.formats.transport.syslog import syslog_3164, syslog_5424
from mcpwatch.formats.transport.unwrapped import BOM, Transport, Unwrapped

__all__ = ["MAX_LEVELS", "TRANSPORTS", "Fragments", "Transport", "Unwrapped", "bare", "unwrap"]

MAX_LEVELS: Final = 3
"""How many transports may lie around one record: syslog in the journal in a relay is the most that is met."""

_BLANKS: Final = b" \t\r\n\x0b\x0c\0"
_DIGITS: Final = b"0123456789"
_NAMES: Final = _DIGITS + b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

TRANSPORTS: Final = (
    Transport("journal", b"{", journal),
    Transport("docker", b"{", docker),
    Transport("syslog 5424", b"<", syslog_5424),
    Transport("kubernetes", _DIGITS, kubernetes),
    Transport("timestamps", _DIGITS, timed),
    Transport("syslog 3164", b"<JFMASOND" + _DIGITS, syslog_3164),
    Transport("kubectl", b"[", kubectl),
    Transport("compose", _NAMES, compose),
)
"""What is unwrapped, in the order in which it is tried."""

_BY_FIRST_BYTE: Final[dict[int, tuple[Transport, ...]]] = {
    byte: tuple(transport for transport in TRANSPORTS if byte in transport.begins)
    for byte in set(b"".join(transport.begins for transport in TRANSPORTS))
}


def bare(line: bytes) -> bytes:
    r"""A line without what may lie around a record: NULs of a truncation, a byte order mark, blanks, colours."""
    if b"\x1b" in line:
        line = without_colours(line)
    return line.lstrip(b"\0").removeprefix(BOM).strip(_BLANKS)


def unwrap(line: bytes, written_ns: int | None = None) -> tuple[str, Unwrapped] | None:
    """Take one transport off a line; None for a line without one.

    What travels in pieces (`Unwrapped.stream` is not None) is put together by `Fragments.join`.

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
