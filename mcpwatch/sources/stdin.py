"""Reads a pipe: standard input, or any other descriptor that can be polled."""

from __future__ import annotations

import os
import select
from dataclasses import replace
from typing import Final

from mcpwatch.sources.block import Block
from mcpwatch.sources.follow import READ_LIMIT, Delivery, SourceStatus
from mcpwatch.sources.lines import LineCutter
from mcpwatch.text import safe

_PIECE: Final = 1 << 16


class PipeSource:
    """Lines that arrive on a descriptor. `tick` never waits; the source ends with the pipe.

    The descriptor is polled and not made non-blocking: that flag would also hit the shell, which shares it.
    """

    descriptors = 0
    """Descriptors that this source opened itself."""

    def __init__(self, fd: int, name: str = "stdin") -> None:
        """Read from `fd`, which stays the caller's to close."""
        self.more = False
        """Whether the last tick left data that could be read at once."""
        self._fd = fd
        self._cutter = LineCutter(name)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        self._read = 0
        self._status = SourceStatus(name, "-", "reading")

    @property
    def status(self) -> SourceStatus:
        """How it goes, as of the last tick."""
        return replace(self._status, offset=self._read, size=self._read, held=self._cutter.held)

    def tick(self, now_ns: int, budget: int = READ_LIMIT) -> Delivery:
        """Take what has arrived, at most `budget` bytes. At the end, an unfinished last line is delivered."""
        out: list[Block] = []
        self.more = False
        if self._status.state == "ended":
            return []
        while budget > 0:
            if not self._poll.poll(0):
                return [*out]
            try:
                data = os.read(self._fd, min(budget, _PIECE))
            except BlockingIOError:
                return [*out]
            except OSError as error:
                self._status = replace(self._status, note=safe(f"cannot be read: {error.strerror}"))
                data = b""
            if not data:
                out += self._cutter.finish()
                self._status = replace(self._status, state="ended")
                return [*out]
            self._read += len(data)
            budget -= len(data)
            self._status = replace(self._status, last_read_ns=now_ns)
            out += self._cutter.feed(data)
        self.more = True
        return [*out]

    def close(self) -> None:
        """Read no more."""
        self._status = replace(self._status, state="ended")
