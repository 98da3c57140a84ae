"""The real console on a real pseudo-terminal: what it writes."""

from __future__ import annotations

import os
import signal

import pytest

from tests.terminal.console_pty import console


def test_an_idle_console_writes_nothing() -> None:
    """Once it has settled, not a byte goes to the terminal while nothing changes."""
    with console("idle") as terminal:
        terminal.settle()
        assert terminal.read(3.0) == b""


def test_four_changed_rows_cost_little(capsys: pytest.CaptureFixture[str]) -> None:
    """Only what changed is sent."""
    with console("rows") as terminal:
        terminal.settle()
        os.kill(terminal.pid, signal.SIGUSR1)
        sent = b""
        for _ in range(20):  # a busy machine takes its time
            sent += terminal.read(0.5)
            if sent:
                break
        sent += terminal.read(1.5)
        with capsys.disabled():
            print(f"\nfour changed rows at 120x40: {len(sent)} bytes")
        assert 0 < len(sent) < 2_000, (terminal.ended(0.1), terminal.status, terminal.output[-300:])
