"""Runs the real console on a fake feed, for the tests that need a terminal: `console_program.py MODE`."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mcpwatch.console import run_console
from mcpwatch.text import SafeText
from tests.functional.console_feed import HOSTILE, FakeFeed


class RawFeed(FakeFeed):
    """A feed whose maker forgot `safe`: what the second wall is for."""

    def text(self, plain: str) -> SafeText:
        """Raw text under a false name."""
        return cast(SafeText, self._random.choice(HOSTILE[:-1]) + plain)


def change_four_rows(feed: FakeFeed) -> None:
    """On SIGUSR1, change the rates and note of four sessions; nothing else moves."""

    def change(*_: object) -> None:
        feed.bump += 1
        feed.version += 1

    signal.signal(signal.SIGUSR1, change)
    # whoever runs the tests may have it blocked, and children inherit that
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})


def tick(feed: FakeFeed) -> None:
    """Let records come in all the time."""
    while True:
        time.sleep(0.1)
        feed.tick(3)


def main(mode: str) -> int:
    """Run the console in one of the modes."""
    if mode == "ignore-hup":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    feed = RawFeed() if mode == "raw" else FakeFeed(hostile=mode == "hostile")
    if mode == "rows":
        change_four_rows(feed)
    if mode in ("hostile", "raw", "busy"):
        threading.Thread(target=tick, args=(feed,), daemon=True).start()
    return run_console(feed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
