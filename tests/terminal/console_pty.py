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

import pyte

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
            for name in ("NO_COLOR", "TEXTUAL_THEME", "TEXTUAL_DRIVER", "TEXTUAL", "COLUMNS", "LINES"):
                if name not in (env or {}):
                    environment.pop(name, None)
            os.execve(command[0], command, environment)
        self.resize(*size)
        self.output = b""
        self.keys = 0
        """Bytes of keys that were sent."""
        self.status: int | None = None

    def resize(self, width: int, height: int) -> None:
        """Make the window another size; the console is told by SIGWINCH."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def picture(self, size: tuple[int, int], since: int = 0) -> list[str]:
        """The rows on the screen, as far as they were drawn since some byte of the output."""
        screen = pyte.Screen(*size)
        pyte.ByteStream(screen).feed(self.output[since:])
        return list(screen.display)

    def wait_shown(self, text: str, size: tuple[int, int] = (120, 40), since: int = 0) -> str:
        """Read until a text is on the screen, as far as it was drawn since; the screen then."""
        end = time.monotonic() + 40
        while text not in (shown := "\n".join(self.picture(size, since))):
            assert time.monotonic() < end, f"{text!r} did not come; on the screen is\n{shown}"
            self.read(0.1)
        return shown

    def read(self, seconds: float) -> bytes:
        """All that comes within a time; with 0, what is there now."""
        end = time.monotonic() + seconds
        new = b""
        while (left := end - time.monotonic()) > 0 or not seconds:
            if select.select([self.fd], [], [], max(left, 0))[0]:
                try:
                    data = os.read(self.fd, 65_536)
                except OSError:
                    break
                if not data:
                    break
                new += data
            elif not seconds:
                break
        self.output += new
        return new

    def read_until(self, text: bytes, seconds: float = 40.0) -> None:
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
        left = keys
        os.set_blocking(self.fd, False)
        while left and not self.ended(0):
            _, ready, _ = select.select([], [self.fd], [], 0.05)
            try:
                left = left[os.write(self.fd, left[:1024]) if ready else 0 :]
            except BlockingIOError:
                pass
            except OSError:
                return
            if left:
                self.read(0.0)
        self.keys += len(keys)
        self.read(pause)

    def ended(self, seconds: float) -> bool:
        """Whether the console ends within a time."""
        end = time.monotonic() + seconds
        while self.status is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.status = status
            elif time.monotonic() >= end:
                break
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
