"""A pseudo-terminal with a console in it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = Path(__file__).with_name("console_program.py")


class Terminal:
    """The master side: reads all that the console writes, sends keys."""

    def __init__(
        self,
        command: list[str],
        size: tuple[int, int],
        *,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            if cwd is not None:
                os.chdir(cwd)
            environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(env or {})}
            for name in ("NO_COLOR", "TEXTUAL_THEME", "TEXTUAL_DRIVER", "TEXTUAL"):
                environment.pop(name, None)
            os.execve(command[0], command, environment)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.output = b""
        self.status: int | None = None

    def read(self, seconds: float) -> bytes:
        """All that comes within a time."""
        end = time.monotonic() + seconds
        new = b""
        while (left := end - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                try:
                    data = os.read(self.fd, 65_536)
                except OSError:
                    break
                if not data:
                    break
                new += data
        self.output += new
        return new

    def read_until(self, text: bytes, seconds: float = 15.0) -> None:
        """Read until something is there; fails when it does not come."""
        end = time.monotonic() + seconds
        start = max(0, len(self.output) - len(text))
        while text not in self.output[start:]:
            assert time.monotonic() < end, f"{text!r} did not come; the end was {self.output[-300:]!r}"
            self.read(0.05)

    def settle(self, quiet: float = 1.2, seconds: float = 15.0) -> None:
        """Read until nothing has come for a while."""
        end = time.monotonic() + seconds
        while not self.output and time.monotonic() < end:  # a busy machine takes its time to begin
            self.read(0.2)
        while self.read(quiet):
            assert time.monotonic() < end, "the console does not come to rest"

    def send(self, keys: bytes, pause: float = 0.1) -> None:
        """Press keys."""
        os.write(self.fd, keys)
        self.read(pause)

    def ended(self, seconds: float) -> bool:
        """Whether the console ends within a time."""
        end = time.monotonic() + seconds
        while self.status is None and time.monotonic() < end:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.status = status
            elif self.fd >= 0:
                self.read(0.05)
            else:
                time.sleep(0.05)
        return self.status is not None

    def hang_up(self) -> None:
        """The terminal goes away, as when a connection drops."""
        os.close(self.fd)
        self.fd = -1

    def close(self) -> None:
        """End the console, if it still runs."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self.fd >= 0:
            os.close(self.fd)


@contextmanager
def console(mode: str, size: tuple[int, int] = (120, 40)) -> Iterator[Terminal]:
    """A console on a pseudo-terminal, started and drawn."""
    terminal = Terminal([sys.executable, str(PROGRAM), mode], size)
    try:
        terminal.read_until(b"\x1b[?1049h")
        terminal.read_until(b"Events")
        yield terminal
    finally:
        terminal.close()
