"""Runs the real console on a fake feed, for the tests that need a terminal: `console_program.py MODE`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mcpwatch.console import run_console
from tests.functional.console_feed import FakeFeed


def change_four_rows(feed: FakeFeed) -> None:
    """On SIGUSR1, change the rates and note of four sessions; nothing else moves."""

    def change(*_: object) -> None:
        feed.bump += 1
        feed.version += 1

    signal.signal(signal.SIGUSR1, change)
    # whoever runs the tests may have it blocked, and children inherit that
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})


def main(mode: str) -> int:
    """Run the console in one of the modes."""
    feed = FakeFeed()
    if mode == "rows":
        change_four_rows(feed)
    return run_console(feed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
