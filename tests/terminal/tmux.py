"""A terminal that people use: the program in a tmux of its own, seen as text and driven by keys."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MCPWATCH = Path(sys.executable).with_name("mcpwatch")
PATIENCE = 25.0
"""Seconds after which something that was to appear never will."""

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")


class Tmux:
    """One window of a tmux server that nobody else talks to."""

    def __init__(self, folder: Path, size: tuple[int, int]) -> None:
        self.folder = folder
        (folder / "home").mkdir(exist_ok=True)
        self._socket = str(folder / "tmux.sock")
        keep = {name: os.environ[name] for name in ("PATH", "TZ", "PYTHONPATH") if name in os.environ}
        self._env = keep | {"HOME": str(folder / "home"), "LANG": "C.UTF-8", "SHELL": "/bin/sh"}
        (folder / "tmux.conf").write_text(
            "set -s set-clipboard on\nset -g allow-rename on\nset -s escape-time 5\n"
        )
        shell = f"cd {shlex.quote(str(folder))}; PS1='$ ' exec /bin/sh"
        self.tmux(
            "-f",
            str(folder / "tmux.conf"),
            "new-session",
            "-d",
            "-x",
            str(size[0]),
            "-y",
            str(size[1]),
            shell,
        )
        self.wait(lambda: "$" in self.screen(), "a shell")

    def tmux(self, *args: str) -> str:
        """Run a tmux command; what it prints."""
        command = ["tmux", "-S", self._socket, *args]
        done = subprocess.run(
            command, env=self._env, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        return done.stdout

    def screen(self) -> str:
        """The text on the screen."""
        return self.tmux("capture-pane", "-p")

    def run(self, *command: object) -> None:
        """Type a command of the shell; `mcpwatch` is the one under test."""
        words = [str(MCPWATCH) if word == "mcpwatch" else str(word) for word in command]
        line = " ".join(word if word in ("|", "&") else shlex.quote(word) for word in words)
        self.tmux("send-keys", "-l", line + "; echo left=$?")
        self.tmux("send-keys", "Enter")

    def press(self, *keys: str, then: str | None = None) -> str:
        """Press keys by tmux's names; waits for a text, if one is named. Returns the screen."""
        for key in keys:
            self.tmux("send-keys", key)
            if key == "Escape":
                time.sleep(0.3)  # a key right behind it would be Alt and that key
        if then is not None:
            return self.wait_for(then)
        time.sleep(0.3)
        return self.screen()

    def type(self, text: str) -> None:
        """Type a text as it is."""
        self.tmux("send-keys", "-l", text)

    def wait_for(self, text: str) -> str:
        """Wait until a text is on the screen; the screen then."""
        self.wait(lambda: text in self.screen(), text)
        return self.screen()

    def wait(self, true: Callable[[], object], what: str) -> None:
        """Wait for something; fails with what is on the screen when it never comes."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, f"waited in vain for {what!r}; on the screen is\n{self.screen()}"
            time.sleep(0.1)

    def resize(self, width: int, height: int) -> None:
        """Make the window another size."""
        self.tmux("resize-window", "-x", str(width), "-y", str(height))

    def left(self, code: int) -> None:
        """Wait until the program is gone: the shell is back, with a cursor, without colours, echoing."""
        self.wait_for(f"left={code}")
        state = self.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}")
        assert state.split() == ["0", "1", "0"]
        self.type("echo still-$((40+2))")
        self.wait_for("echo still-$((40+2))")
        self.press("Enter", then="still-42")


@contextmanager
def terminal(folder: Path, size: tuple[int, int]) -> Iterator[Tmux]:
    """A fresh terminal with a shell in it."""
    found = Tmux(folder, size)
    try:
        yield found
    finally:
        found.tmux("kill-server")
