"""What a receiver and the process that started it say to each other: JSON lines on two pipes.

The configuration goes one way, reports the other, on a pipe that the receiver never waits for. A state holds totals,
so one that was left out because the reader was busy is made good by the next.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from mcpwatch.sources.spool import BACKLOG, KEPT, ROTATE_AT

Trouble = Literal["disk", "backlog", "kernel", "cut", "torn", "framing", "refused", "silent", "tls"]
"""What goes wrong with what arrives; `listen.TROUBLES` says what each means."""

MAX_LINE: Final = 1 << 16
"""Longest line that they say, in bytes."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files that TLS needs, PEM.

    Attributes:
        cert: Our certificate, and what is between it and its authority.
        key: Its private key, without a passphrase.
        client_ca: The authorities whose certificates senders may show.
    """

    cert: str
    key: str
    client_ca: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What senders may use up.

    Attributes:
        connections: Open at a time; further ones are refused.
        handshakes: TLS handshakes at a time; the oldest gives way, so that who has no certificate keeps nobody out.
        silence_s: Seconds for the handshake, and again for the first record.
        backlog: Bytes that wait for the disk.
        rotate_at: Size of the spool from which it is rotated, in bytes.
        kept: Rotated spools that are kept.
    """

    connections: int = 64
    handshakes: int = 64
    silence_s: float = 10.0
    backlog: int = BACKLOG
    rotate_at: int = ROTATE_AT
    kept: int = KEPT


@dataclass(frozen=True, slots=True)
class Config:
    """What to receive, and where to put it.

    Attributes:
        kind: `unix`, `tcp` or `udp`.
        spool: Path of the spool.
        owner: Process that the receiver works for.
    """

    kind: str
    path: str
    host: str
    port: int
    spool: str
    owner: int
    tls: TlsFiles | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(slots=True)
class Count:
    """How often a trouble came up, since the receiver was started.

    Attributes:
        times: How often.
        records: Records that it cost.
        bytes: Bytes of those.
        last: What there is to say of the last time: hostile text.
        going_on: Whether it goes on.
    """

    times: int = 0
    records: int = 0
    bytes: int = 0
    last: str = ""
    going_on: bool = False


@dataclass(slots=True)
class State:
    """How it goes with a receiver.

    Attributes:
        senders: Who is connected: `pid`, `uid`, `gid` of a unix socket, else `address` and `subject`.
        records: Records received.
        bytes: Bytes received.
        offset: Size of the spool.
        rotations: Times that the spool was rotated.
    """

    senders: list[dict[str, Any]] = field(default_factory=list)
    records: int = 0
    bytes: int = 0
    offset: int = 0
    rotations: int = 0
    troubles: dict[str, Count] = field(default_factory=dict)


class Reporter:
    """Writes reports to a pipe."""

    def __init__(self, fd: int) -> None:
        """Write to `fd`."""
        os.set_blocking(fd, False)
        self._fd = fd
        self._rest = b""
        self._last = b""

    def say(self, kind: str, **fields: object) -> None:
        """Write a report of its own."""
        self._send(json.dumps({"type": kind, **fields}).encode() + b"\n")

    def tell(self, state: State) -> None:
        """Write the state, unless it was told or the reader has not taken the one before."""
        if self._rest:
            self._send(b"")
        if not self._rest:
            line = json.dumps({"type": "state", **asdict(state)}).encode() + b"\n"
            if line != self._last and len(line) <= MAX_LINE:
                self._last = line
                self._send(line)

    def _send(self, line: bytes) -> None:
        self._rest += line
        with contextlib.suppress(OSError):  # full: later; closed: nobody listens, and the life line says so
            while self._rest:
                self._rest = self._rest[os.write(self._fd, self._rest) :]


def read_state(report: dict[str, Any]) -> State:
    """A state from its report."""
    troubles = {name: Count(**count) for name, count in report["troubles"].items()}
    return State(**{name: value for name, value in report.items() if name != "type"} | {"troubles": troubles})


def read_config(line: bytes) -> Config:
    """The configuration from its line. Raises ValueError, TypeError or KeyError."""
    values = json.loads(line)
    tls = TlsFiles(**values["tls"]) if values["tls"] is not None else None
    return Config(**values | {"limits": Limits(**values["limits"]), "tls": tls})
