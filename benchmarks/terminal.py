"""Counts the bytes that the console sends to a terminal of 120x40."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time
from pathlib import Path

import orjson

from mcpwatch.times import iso

SESSIONS = 8


class Console:
    """`mcpwatch tail` on a terminal of its own."""

    def __init__(self, mcpwatch: str, log: Path) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "HOME": str(log.parent)}
            os.execv(mcpwatch, [mcpwatch, "tail", str(log)])
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))

    def listen(self, seconds: float) -> int:
        """How many bytes come in that time."""
        end, count = time.monotonic() + seconds, 0
        while (left := end - time.monotonic()) > 0:
            if select.select([self.terminal], [], [], left)[0]:
                try:
                    count += len(os.read(self.terminal, 1 << 16))
                except OSError:  # how Linux says that the program has gone
                    break
        return count

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self.terminal, keys.encode())

    def close(self) -> None:
        """Leave as a user does."""
        self.press("q")
        self.listen(1)
        os.close(self.terminal)
        os.waitpid(self.pid, 0)


def _append(log: Path, sessions: int) -> None:
    with log.open("ab") as out:
        for session in range(sessions):
            record = {
                "timestamp": iso(time.time_ns()), "tool": "calculator", "params": {"expression": "1 + 1"},
                "status": "success", "duration_ms": 1, "session_id": f"s-{session}", "key_id": f"key_{session:04d}",
            }  # fmt: skip
            out.write(orjson.dumps(record) + b"\n")


def idle(mcpwatch: str, folder: Path) -> int:
    """Bytes in five seconds in which nothing happens, over a minute after the last record."""
    log = folder / "idle.jsonl"
    log.write_bytes(b"")
    console = Console(mcpwatch, log)
    try:
        console.listen(6)
        return console.listen(5)
    finally:
        console.close()


def four_rows(mcpwatch: str, folder: Path) -> int:
    """Bytes in the second after four records of four of the eight sessions on screen, the pane zoomed."""
    log = folder / "rows.jsonl"
    log.write_bytes(b"")
    _append(log, SESSIONS)
    console = Console(mcpwatch, log)
    try:
        console.listen(4)
        console.press("1")
        console.press("z")
        console.listen(3)
        _append(log, 4)
        return console.listen(1)
    finally:
        console.close()
