"""The console as tail, replay and demo start it, on a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from tests.functional.program import MCPWATCH, PATIENCE, SAMPLES, Home


class Screen:
    """A terminal of 80x24 with a command in it."""

    def __init__(self, home: Home, *args: object, stdin: int | None = None) -> None:
        self.fd, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = home.environment() | {"TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [MCPWATCH, *map(str, args)],
            stdin=inside if stdin is None else stdin,
            stdout=inside,
            stderr=inside,
            cwd=home.folder,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0),
        )
        os.close(inside)
        self.output = b""

    def read_until(self, text: bytes) -> None:
        end = time.monotonic() + PATIENCE
        while text not in self.output:
            assert time.monotonic() < end, f"{text!r} did not come; the end was {self.output[-500:]!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                self.output += os.read(self.fd, 65_536)

    def leave(self) -> int:
        """Press q, and read on until it is gone; the exit code."""
        os.write(self.fd, b"q")
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < end, "q did not end it"
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.output += os.read(self.fd, 65_536)
                except OSError:
                    break
        assert b"Traceback" not in self.output
        return self.process.wait(PATIENCE)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        ["replay", SAMPLES / "demo-incident.jsonl", "--policy", SAMPLES / "policy.yaml"],
        ["tail", SAMPLES / "demo-incident.jsonl", "--policy", SAMPLES / "policy.yaml", "--since", "365d"],
    ],
    ids=["replay", "tail"],
)
def test_on_a_terminal_the_console_is_drawn_and_q_leaves_it(home: Home, command: list[object]) -> None:
    home.configure('low-bandwidth = true\nevents = true\n[keys]\nhelp = "f1"\n')
    screen = Screen(home, *command)
    screen.read_until(b"key_0007")
    assert screen.leave() == 0


def test_a_pipe_is_followed_while_the_terminal_gives_the_keys(home: Home) -> None:
    read, write = os.pipe()
    screen = Screen(home, "tail", "-", "--policy", SAMPLES / "policy.yaml", stdin=read)
    os.close(read)
    os.write(write, (SAMPLES / "demo-incident.jsonl").read_bytes()[:50_000])
    screen.read_until(b"key_0001")
    assert screen.leave() == 0
    os.close(write)


def test_what_the_console_can_t_do_is_said_before_the_screen_is_taken(home: Home) -> None:
    screen = Screen(home, "tail", SAMPLES / "demo-incident.jsonl", "--events")
    screen.read_until(b"--events goes with --plain or --json")
    assert screen.process.wait(PATIENCE) == 2
    assert b"\x1b" not in screen.output
