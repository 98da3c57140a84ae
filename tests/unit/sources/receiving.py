"""A listening source in a test: its address, what it delivered, and a wait for what it should do."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mcpwatch.sources.address import parse_address
from mcpwatch.sources.block import Block, Gap
from mcpwatch.sources.follow import Follower
from mcpwatch.sources.listen import Listening, ListenSource
from mcpwatch.sources.protocol import Limits, TlsFiles

PATIENCE = 20.0


class Receiving:
    """Ticks a source and keeps what comes."""

    def __init__(self, source: ListenSource) -> None:
        self.source = source
        self.lines: list[bytes] = []
        self.gaps: list[Gap] = []

    def tick(self) -> None:
        for item in self.source.tick(time.time_ns()):
            if isinstance(item, Block):
                self.lines += item.lines
            else:
                self.gaps.append(item)

    def wait_for(self, true: Callable[[], object], what: str) -> None:
        """Tick until something has come about."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, (
                f"waited in vain for {what}: {self.lines[-3:]} {self.gaps} {self.status}"
            )
            self.tick()
            time.sleep(0.01)

    def wait_for_lines(self, count: int) -> list[bytes]:
        self.wait_for(lambda: len(self.lines) >= count, f"{count} lines")
        return self.lines

    def wait_for_gap(self, words: str) -> Gap:
        """The first gap whose reason has some words in it."""
        self.wait_for(lambda: any(words in gap.reason for gap in self.gaps), f"a gap: {words}")
        return next(gap for gap in self.gaps if words in gap.reason)

    @property
    def status(self) -> str:
        found = self.source.status
        return f"{found.state} {found.note} {found.senders}"


@contextmanager
def receiving(
    spec: str, folder: Path, limits: Limits | None = None, tls: TlsFiles | None = None
) -> Iterator[Receiving]:
    """Receive on an address, with the spool below a folder."""
    listening = Listening(folder / "state/spool", tls, limits or Limits())
    source = ListenSource(parse_address(spec), listening, lambda path, name: Follower(path, name))
    try:
        yield Receiving(source)
    finally:
        source.close()


def connect(path: Path) -> socket.socket:
    """A connection to a unix socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    return connection


def free_port(kind: int = socket.SOCK_STREAM, host: str = "127.0.0.1") -> int:
    """A port that is free now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def is_closed(connection: socket.socket) -> bool:
    """Whether the other end has closed a connection, waiting a while for it."""
    connection.settimeout(PATIENCE)
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
