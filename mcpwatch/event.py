"""The audit event: what every log line, whatever its format, becomes.

`AuditEvent` is at once the wire type of the native schema (`mcpwatch.audit/1`, docs/log-schema.md) and the
one shape that policy, detection and console see. A reader of `mcpwatch.formats` fills it and normalises it:
after that `event` is one of `KINDS`, `status` one of `OUTCOMES`, absent values are None, and `time_ns` is set
when the record had a readable time.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, ClassVar, Final, Protocol

import msgspec

KINDS: Final = frozenset({"tool_call", "request", "auth", "session_start", "session_end"})
"""What a record can be. `request` is any MCP request that is not a tool call."""

REQUEST_KINDS: Final = frozenset({"tool_call", "request"})
"""The kinds that are MCP requests, which per-key limits count."""

OUTCOMES: Final = frozenset(
    {"success", "error", "denied", "unauthenticated", "rate_limited", "timeout", "unknown"}
)
"""How a call ended. `unauthenticated` is HTTP 401 or a failed login, `denied` is 403 or a missing scope."""

REFUSALS: Final = frozenset({"denied", "unauthenticated"})
"""Outcomes by which a server says no to the caller. `rate_limited` is not one: it proves nothing about a key."""


class Flag(IntFlag):
    """What the reader had to assume about a record."""

    NAIVE_TIME = 1
    """The timestamp had no zone and was read as UTC."""
    INFERRED_TIME = 2
    """There was no readable timestamp: live, the arrival time stands in for it."""
    FUTURE_TIME = 4
    """Live only: more than 60 s ahead of this machine's clock."""
    UNTERMINATED = 8
    """The last line of a saved file, without a newline."""
    DUPLICATE_KEYS = 16
    """The record names its tool, outcome or key twice; JSON parsers keep the last, each reader its own."""
    PAIRED_BY_ORDER = 32
    """Its end was told by order alone: the log names no calls, and the oldest one open was taken to be meant."""


TIME_FLAGS: Final = Flag.NAIVE_TIME | Flag.INFERRED_TIME | Flag.FUTURE_TIME
"""What was assumed about the time of a record."""


class Auth(msgspec.Struct, gc=False):
    """How the caller was authenticated, as the server saw it."""

    method: str | None = None
    subject: str | None = None
    issued_at: str | int | float | None = None
    expires_at: str | int | float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who made a call, with absent spellings resolved. A reader makes one object for each, and keeps it."""

    key: str | None
    client: str | None
    session: str | None
    source_ip: str | None
    subject: str | None
    method: str | None
    """How the caller was authenticated."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """What kind of event it is. A reader makes one object for each, and keeps it."""

    kind: str
    tool: str | None
    status: str


NOBODY: Final = Caller(None, None, None, None, None, None)
UNKNOWN: Final = Shape("request", None, "unknown")


class Origin(Protocol):
    """Where records come from: a run of raw lines of one log."""

    @property
    def source(self) -> str:
        """Short name of the log."""

    @property
    def lines(self) -> list[bytes]:
        """The raw lines."""

    def line_at(self, index: int) -> int | None:
        """Number of a line in the log, from 1; None when reading began in the middle of it."""

    def offset_at(self, index: int) -> int:
        """Byte offset of a line in the log."""


class _Nowhere:
    source = ""
    lines: ClassVar[list[bytes]] = [b""]

    def line_at(self, index: int) -> int | None:
        return None

    def offset_at(self, index: int) -> int:
        return 0


NOWHERE: Final[Origin] = _Nowhere()
"""The origin of events that were made and not read."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class OwnLines:
    """The origin of a call that is logged in two lines: they are held by themselves, and not what stood around them.

    Each start and each `CallEnd` has one of its own.

    Attributes:
        source: Short name of the log.
        lines: The raw line of the start, then that of the end.
        places: Their line numbers and byte offsets.
    """

    source: str
    lines: list[bytes]
    places: tuple[tuple[int | None, int], ...]

    @classmethod
    def of(cls, event: AuditEvent) -> OwnLines:
        """The line of an event that was read."""
        return cls(event.source, [event.origin.lines[event.index]], ((event.line, event.offset),))

    def __add__(self, end: OwnLines) -> OwnLines:
        """A start's line and that of its end."""
        return OwnLines(self.source, [*self.lines, *end.lines], (*self.places, *end.places))

    def line_at(self, index: int) -> int | None:
        """Number of a line in the log, from 1; None when reading began in the middle of it."""
        return self.places[index][0]

    def offset_at(self, index: int) -> int:
        """Byte offset of a line in the log."""
        return self.places[index][1]


# What the reader sets has no name in the schema: nobody can write a log line that sets it.
_UNSPEAKABLE: Final = secrets.token_hex(8)
_SET_BY_READER: Final = ("time_ns", "flags", "origin", "index", "caller", "shape")


class AuditEvent(
    msgspec.Struct,
    gc=False,
    rename={name: f"{name}-{_UNSPEAKABLE}" for name in _SET_BY_READER},
):
    """One audited happening on an MCP server.

    The first block holds the fields of the native schema; the second is set by the reader.

    Attributes:
        duration_ms: Execution time in milliseconds.
        key_id: The name of the credential, never the credential itself.
        definition_sha256: Hash of the tool's definition, as the server offers it.
        sequence: Number of the record in its log; each is one more than that of the record before.
        hash, prev_hash: Hash of the record and of the one before: a chain that shows what was taken out.
        time_ns: When it happened, nanoseconds since the epoch, UTC. None when unreadable (replay only).
        flags: What the reader had to assume, `Flag`s.
        origin: The lines that it was read from, and
        index: its line among them.
        caller: Who made it, and
        shape: what kind of event it is, each the same object for equal ones of one reader.
    """

    timestamp: str | int | float | None = None
    event: str | None = None
    tool: str | None = None
    params: dict[str, Any] | None = None
    status: str | None = None
    error: str | None = None
    duration_ms: float | None = None
    key_id: str | None = None
    client_id: str | None = None
    session_id: str | None = None
    source_ip: str | None = None
    scopes: list[str] | None = None
    auth: Auth | None = None
    server: str | None = None
    call_id: str | None = None
    definition_sha256: str | None = None
    sequence: int | None = None
    hash: str | None = None
    prev_hash: str | None = None

    time_ns: int | None = None
    flags: int = 0
    origin: Any = NOWHERE
    index: int = 0
    caller: Any = NOBODY
    shape: Any = UNKNOWN

    @property
    def subject(self) -> str | None:
        """The authenticated subject (JWT `sub`, OAuth user), if any."""
        return self.auth.subject if self.auth is not None else None

    @property
    def source(self) -> str:
        """Short name of the log that it came from."""
        return str(self.origin.source)

    @property
    def line(self) -> int | None:
        """Line number from 1, or None when reading began in the middle of the file."""
        line: int | None = self.origin.line_at(self.index)
        return line

    @property
    def offset(self) -> int:
        """Byte offset of the line in its file."""
        offset: int = self.origin.offset_at(self.index)
        return offset


class CallEnd(AuditEvent, gc=False):
    """A call whose start was given before, with all that is known of it now that it has ended.

    It is no further event, but says how that of the start came out: its fields are those of the start and what the
    end adds; its time, its caller and its place are those of the start. Only `sequence`, `hash` and `prev_hash` are
    the end's own, because every line of a numbered log has its number.

    Attributes:
        start: The event of the start, outcome `unknown` until `apply`.
        before: Its shape as it was given.
        logged_ns: The time of the end's line, ns; None where it has no readable one.
        uncounted: The start was read by somebody else, who only wanted to know what came before.
    """

    start: Any = None
    before: Any = UNKNOWN
    logged_ns: int | None = None
    uncounted: bool = False

    @property
    def end_line(self) -> int | None:
        """Number of the end's line, from 1, or None when reading began in the middle of the file."""
        line: int | None = self.origin.line_at(1)
        return line

    @property
    def end_offset(self) -> int:
        """Byte offset of the end's line in its file."""
        offset: int = self.origin.offset_at(1)
        return offset

    def apply(self) -> None:
        """Write the outcome into the start's event, so that whoever shows that later shows how it ended.

        To be called when everybody has judged: they compare with what the start said.
        """
        start: AuditEvent = self.start
        for name in AMENDED:
            setattr(start, name, getattr(self, name))


def logged_at(event: AuditEvent) -> int | None:
    """The time at which an event stands in its log, ns: that of its line, which for a call's end is the end's own."""
    return event.logged_ns if isinstance(event, CallEnd) else event.time_ns


def is_open(event: AuditEvent) -> bool:
    """Whether an event is the beginning of a call of which nobody knows yet how it ended, or whether it ever will."""
    return isinstance(event.origin, OwnLines) and len(event.origin.lines) == 1


AMENDED: Final = (
    "event", "tool", "params", "status", "error", "duration_ms", "scopes", "server", "call_id", "definition_sha256",
    "flags", "origin", "shape",
)  # fmt: skip
"""What the end of a call may say, or say anew."""
