"""What every unwrapper gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

BOM: Final = b"\xef\xbb\xbf"
"""A byte order mark: some syslog senders and Windows programs begin a text with one."""


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
        stream: Which output of the program it is, of a transport that cuts long lines into pieces; else None.
        more: It is a piece that goes on in a later line of its stream. None: perhaps; last words look alike.
    """

    text: bytes
    time: str | None = None
    host: str | None = None
    program: str | None = None
    others: tuple[bytes, ...] = ()
    lack: str = ""
    stream: str | None = None
    more: bool | None = False

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
