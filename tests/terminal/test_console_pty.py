"""The real console on a real pseudo-terminal: what it writes, and how it leaves."""

from __future__ import annotations

import os
import re
import signal
import termios

import pytest

from tests.functional.console_feed import MARKER
from tests.terminal.console_pty import Terminal, console

# What a Textual app itself writes: SGR, cursor moves, modes, keyboard protocol, mode queries, and line ends between
# the rows of a full repaint.
OWN = re.compile(
    r"\x1b\[[0-9;]*m|\x1b\[\d+;\d+H|\x1b\[\?\d+[hl]|\x1b\[[<>][0-9]*u|\x1b\[\?\d+\$p"
    r"|\r\n"
)


def foreign(output: bytes) -> set[str]:
    """Everything unprintable that is not one of Textual's own sequences."""
    rest = OWN.sub("", output.decode("utf-8", "surrogateescape"))
    return {rest[max(0, at - 8) : at + 12] for at, char in enumerate(rest) if not char.isprintable()}


def walk(terminal: Terminal) -> None:
    """Visit every pane and every screen, select, open, filter, zoom and ask for a change."""
    for keys in (b"1", b"2", b"3", b"4", b"5", b"\x1b[A", b"z", b"z"):
        terminal.send(keys)
    for pane in (b"1", b"3", b"5"):
        for keys in (pane, b"\r", b"\x1b[6~"):
            terminal.send(keys)
        terminal.send(b"r", 0.5)
        terminal.send(b"leaked\x1b[B", 0.3)
        terminal.send(b"\x1b", 0.25)
        terminal.send(b"\x1b", 0.25)
    for screen in (b"p", b"s", b"?"):
        terminal.send(screen)
        terminal.send(b"\x1b[6~")
        terminal.send(b"\x1b", 0.25)
    for keys in (b"o", b"/", b"too\x1b[C", b"\r", b"\\", b"T", b":", b"sess", b"\x1b", b"t", b"f", b"f"):
        terminal.send(keys, 0.25 if keys in (b":", b"\x1b") else 0.1)


@pytest.mark.parametrize("mode", ["hostile", "raw"])
def test_no_text_of_a_log_reaches_the_terminal_as_a_control(mode: str) -> None:
    """Escape sequences in a log stay visible text; with the first wall left out, the second one holds."""
    with console(mode) as terminal:
        terminal.read(1.0)
        walk(terminal)
        assert MARKER.encode() in terminal.output, "the payloads were not drawn at all"
        assert foreign(terminal.output) == set()
        terminal.send(b"q", 0.1)
        assert terminal.ended(5)


def test_an_idle_console_writes_nothing() -> None:
    """Once it has settled, not a byte goes to the terminal while nothing changes."""
    with console("idle") as terminal:
        terminal.settle()
        assert terminal.read(3.0) == b""


@pytest.mark.alone
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_the_terminal_restored(number: signal.Signals) -> None:
    """SIGTERM and SIGHUP give the main screen, the cursor and the modes back."""
    with console("busy", (80, 24)) as terminal:
        terminal.read(0.5)
        os.kill(terminal.pid, number)
        assert terminal.ended(5)
        assert terminal.status is not None and os.waitstatus_to_exitcode(terminal.status) == 0
        tail = terminal.output[-400:]
        assert b"\x1b[?1049l" in tail and b"\x1b[?25h" in tail and b"\x1b[?2004l" in terminal.output[-600:]
        assert termios.tcgetattr(terminal.fd)[3] & termios.ECHO


@pytest.mark.parametrize("mode", ["busy", "ignore-hup"])
def test_it_leaves_when_the_terminal_is_gone(mode: str) -> None:
    """A dropped connection ends the console, also where SIGHUP is ignored."""
    with console(mode, (80, 24)) as terminal:
        terminal.read(0.5)
        terminal.hang_up()
        assert terminal.ended(6)
