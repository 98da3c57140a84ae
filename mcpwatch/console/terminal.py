"""Manners towards the terminal: the console asks whether there is one, and leaves when it must."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

SMALL: Final = (80, 24)
"""Columns and rows from which on everything has its place."""
SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
"""Signals that the console leaves on, as if by its own key. Ctrl-C and ctrl-backslash are keys while it is drawn."""
GRACE_S: Final = 2.0
"""How long a console that was told to leave may take before it is ended."""
GONE_S: Final = 1.0
"""The same where the terminal is gone, and nothing can be drawn any more."""
_POLL_S: Final = 0.25
_RESTORE: Final = (
    b"\x1b[?2004l\x1b[?7h\x1b[?1000l\x1b[?1003l\x1b[?1015l\x1b[?1006l\x1b[?1016l\x1b[?2048l\x1b[?2026l\x1b[0m"
    b"\x1b[<u\x1b[?1049l\x1b[?25h\x1b[?1004l"
)


def usable_terminal() -> str | None:
    """Why a console can't be drawn here, or None when it can."""
    if not sys.__stdin__ or not sys.__stdout__ or not sys.__stdin__.isatty() or not sys.__stdout__.isatty():
        return "the console needs a terminal for input and output: use --plain or --json in a pipe"
    if os.environ.get("TERM", "") in ("", "dumb"):
        return "TERM names no terminal that can be drawn on: use --plain, or set TERM"
    return None


class Leaver:
    """Ends the console on signals, and when the terminal is gone, even one that is stuck.

    A thread waits for these, because the event loop may itself be waiting for a terminal that takes nothing.
    """

    def __init__(self, leave: Callable[[], None]) -> None:
        """Args: leave: asks the app to exit; called from another thread, again and again until `stop`."""
        self._leave = leave
        self._asked = threading.Event()
        self._done = threading.Event()
        self._before: dict[int, object] = {}
        self._attributes = termios.tcgetattr(0) if os.isatty(0) else None
        self._thread = threading.Thread(target=self._watch, name="mcpwatch-leaver", daemon=True)

    def start(self) -> None:
        """Begin to watch; from the main thread."""
        for number in SIGNALS:
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
        grace = GRACE_S
        while not self._asked.wait(_POLL_S):
            if any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0)):
                grace = GONE_S
                break
        end = time.monotonic() + grace
        while not self._done.is_set():
            if time.monotonic() > end:
                self._force()
            # it may only just be starting, and have nobody to hear it yet
            self._leave()
            self._done.wait(_POLL_S)

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
