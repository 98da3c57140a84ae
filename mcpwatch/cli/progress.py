"""How far a long reading of saved logs has come."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Final

from mcpwatch.sources.saved import SavedLog

EVERY_S: Final = 0.5


class ReadingProgress:
    """A bar on standard error, if that is a terminal."""

    def __init__(self, logs: Sequence[SavedLog]) -> None:
        self._logs = logs
        self._size = sum(log.size for log in logs)
        self._on = sys.stderr.isatty() and self._size > 0
        self._started = self._next = time.monotonic()
        self._shown = False

    def show(self) -> None:
        """Draw the bar, twice a second."""
        now = time.monotonic()
        if not self._on or now < self._next + EVERY_S:
            return
        self._next, self._shown = now, True
        done = sum(log.progress for log in self._logs) / self._size
        left = (now - self._started) * (1 - done) / done if done else 0
        bar = ("#" * int(done * 30)).ljust(30)
        print(f"\r[{bar}] {done:4.0%}  {left:4.0f} s left ", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave the line clean."""
        if self._shown:
            print("\r" + " " * 60 + "\r", end="", file=sys.stderr, flush=True)
