"""Manners towards the terminal: nothing unprintable reaches it, and the console leaves when it must."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

SMALL: Final = (80, 24)
"""Columns and rows from which on everything has its place."""
GRACE_S: Final = 2.0
"""How long a console that was told to leave may take before it is ended."""
_POLL_MS: Final = 500
_RESTORE: Final = (
    b"\x1b[?2004l\x1b[?7h\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[<u\x1b[?1049l\x1b[?25h\x1b[?1004l"
)


def printable(text: str) -> str:
    """Take out what a terminal could obey; what had a width keeps it as `?`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "?" * cell_len(char) for char in text)


class PrintableOnly(LineFilter):
    """The second wall: whatever a widget draws, only printable characters leave for the terminal."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Filter one line."""
        return [
            segment if segment.text.isprintable() else Segment(printable(segment.text), segment.style)
            for segment in segments
        ]


def usable_terminal() -> str | None:
    """Why a console can't be drawn here, or None when it can."""
    if not sys.__stdin__ or not sys.__stdout__ or not sys.__stdin__.isatty() or not sys.__stdout__.isatty():
        return "the console needs a terminal for input and output: use --plain or --json in a pipe"
    if os.environ.get("TERM", "") in ("", "dumb"):
        return "TERM names no terminal that can be drawn on: use --plain, or set TERM"
    return None


class Leaver:
    """Ends the console on SIGTERM and SIGHUP, and when the terminal is gone, even one that is stuck.

    A thread waits for these, because the event loop may itself be waiting for a terminal that takes nothing.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        """Args: leave: asks the app to exit; called from another thread, once."""
        self._leave = leave
        self._asked = threading.Event()
        self._done = threading.Event()
        self._before: dict[int, object] = {}
        self._attributes = termios.tcgetattr(0) if os.isatty(0) else None
        self._thread = threading.Thread(target=self._watch, name="mcpwatch-leaver", daemon=True)

    def start(self) -> None:
        """Begin to watch; from the main thread."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._on_signal)
        self._thread.start()

    def stop(self) -> None:
        """The console has left: give the signals back."""
        self._done.set()
        self._asked.set()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._asked.set()

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(0, select.POLLHUP | select.POLLERR)
        while not self._asked.wait(_POLL_MS / 1000):
            if any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0)):
                break
        if self._done.is_set():
            return
        self._leave()
        if not self._done.wait(GRACE_S):
            self._force()

    def _force(self) -> None:
        # the terminal takes nothing: give back its modes without waiting for it, and go
        try:
            os.set_blocking(1, False)
            os.write(1, _RESTORE)
            if self._attributes is not None:
                termios.tcsetattr(0, termios.TCSANOW, self._attributes)
        except (OSError, termios.error):
            pass
        os._exit(0)
