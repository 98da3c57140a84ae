"""What headless commands print of a hostile log, and that a forgotten `safe` would not show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.terminal.hostile import FIRST_WALL_DOWN, MARK, lay_out
from tests.terminal.tmux import MCPWATCH

STYLE = re.compile(r"\x1b\[[0-9;]*m|[\n\t]")


@pytest.mark.parametrize("walls", ["both", "second"])
@pytest.mark.parametrize("command", [
    ("replay", "{log}", "--policy", "{policy}", "--plain"),
    ("replay", "{log}", "--policy", "{policy}", "--plain", "--events"),
    ("replay", "{log}", "--policy", "{policy}", "--json", "--events"),
    ("inspect", "{log}"),
    ("policy", "lint", "--policy", "{policy}"),
], ids=["plain", "events", "json", "inspect", "lint"])  # fmt: skip
def test_nothing_that_a_terminal_obeys_is_printed(
    tmp_path: Path, command: tuple[str, ...], walls: str
) -> None:
    """By safe text, and, with the first wall down, by standard output itself."""
    log, policy = lay_out(tmp_path)
    program = [str(MCPWATCH)] if walls == "both" else [sys.executable, str(FIRST_WALL_DOWN)]
    words = [word.format(log=log, policy=policy) for word in command]
    done = subprocess.run(
        [*program, *words],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path / "home"), "MCPWATCH_TEST_WALLS": walls},
        capture_output=True,
        check=False,
        timeout=60,
    )
    out = done.stdout.decode("utf-8", "surrogateescape")
    assert done.returncode in (0, 1), done.stderr[-500:]
    assert MARK in out or command[0] == "policy"
    assert [piece for piece in STYLE.split(out) if not piece.isprintable()] == []
    if walls == "both":
        err = done.stderr.decode("utf-8", "surrogateescape")
        assert all(line.isprintable() for line in err.split("\n"))
