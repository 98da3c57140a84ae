"""The whole program in the hands of a person: mcpwatch in a real terminal."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest

from mcpwatch.data import shipped
from tests.functional.program import attack_of_today
from tests.terminal.tmux import Tmux, needs_tmux, terminal

pytestmark = needs_tmux
SAMPLES = shipped("sample_logs")
POLICY = SAMPLES / "policy.yaml"


def code_on(screen: str) -> str:
    """The four letters that the dialog asks for."""
    found = re.search(r"type ([a-z]{4})\b", screen)
    assert found is not None, screen
    return found[1]


def confirm(tmux: Tmux) -> None:
    """Type the dialog's code and press enter."""
    tmux.type(code_on(tmux.screen()))
    tmux.press("Enter", then="written  re")


@pytest.mark.slow
def test_the_demo_can_be_won(tmp_path: Path) -> None:
    """In a small and in a large terminal, which run at the same time because the story takes its time."""
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    large.mkdir()
    with terminal(small, (80, 24)) as first, terminal(large, (120, 40)) as second:
        for tmux in (first, second):
            tmux.run("mcpwatch", "demo", "--keep", "demo")
        for tmux in (first, second):
            tmux.wait_for("CRIT")
            win(tmux)


def win(tmux: Tmux) -> None:
    """See the attacker, open the alert, revoke the key, see it bite, take it back, leave."""
    policy = tmux.folder / "demo/policy.yaml"
    before = policy.read_bytes()
    tmux.press("a")
    opened = tmux.press("Enter", then="Evidence")
    assert "CRIT" in opened and "key_0007" in opened
    tmux.press("r", then="What is written to the policy file")
    tmux.wait(lambda: '+  - {key: "key_0007"' in tmux.screen(), "the line that is added")
    tmux.wait(lambda: "of 3" in tmux.screen(), "the choice of targets")
    time.sleep(0.5)  # what is typed at once was meant for the screen below
    tmux.type("stolen")
    tmux.wait_for("stolen")
    tmux.wait(lambda: "type " in tmux.screen(), "the code")
    tmux.press("Tab")
    confirm(tmux)
    assert b"stolen" in policy.read_bytes()
    tmux.wait_for("in force after ")
    tmux.press("Escape", "Escape", "5", then="UNAUTH")
    shown = tmux.wait_for("UNAUTH")
    assert "revoke key key_0007: in force after " in shown
    assert "2 revoked" in shown
    assert not re.search(r"key_0007 .* ok ", shown.rpartition("UNAUTH")[2])
    tmux.press("u", then="undoes: revoke key key_0007")
    time.sleep(0.5)
    confirm(tmux)
    assert policy.read_bytes() == before
    tmux.press("Escape", then="taken back since")
    tmux.press("q")
    tmux.left(0)
    log = tmux.folder / "demo/audit.jsonl"
    assert log.read_bytes().count(b"\n") > 50


@pytest.mark.slow
def test_a_replay_is_gone_through_with_keys(tmp_path: Path) -> None:
    with terminal(tmp_path, (120, 40)) as tmux:
        tmux.run("mcpwatch", "replay", SAMPLES / "demo-incident.jsonl", "--policy", POLICY)
        assert "12 incidents" in tmux.wait_for("at the end of 1m 29s")
        tmux.wait_for("read 423")
        tmux.press("i", then="1 high")
        shown = tmux.wait_for("paused")
        assert "Alerts 1 open" in shown and "auth-lockout" in shown
        lines = [_read(shown)]
        for key in ("]", "]", "["):
            tmux.press(key)
            tmux.wait(lambda: _read(tmux.screen()) != lines[-1], "another record")
            lines.append(_read(tmux.screen()))
        assert lines == [lines[0], lines[0] + 1, lines[0] + 2, lines[0] + 1]
        tmux.press("i", then="2 open")
        tmux.press("I", then="1 open")
        tmux.press(".", then="60x")
        tmux.press(",", then="10x")
        tmux.press("Space", then="playing")
        tmux.wait(lambda: _read(tmux.screen()) > lines[-1] + 5, "the cursor to move")
        tmux.press("Space", then="paused")
        tmux.press("g", then="go to")
        tmux.type("03:15:00")
        tmux.press("Enter", then="2026-11-20 03:15:00")
        tmux.wait_for("in force")
        tmux.press("r", then="only on live logs")
        tmux.press("q")
        tmux.left(0)


def _read(screen: str) -> int:
    found = re.search(r"read ([\d,]+)", screen)
    assert found is not None, screen
    return int(found[1].replace(",", ""))


@pytest.mark.slow
def test_a_missing_log_is_waited_for_and_then_shown(tmp_path: Path) -> None:
    with terminal(tmp_path, (80, 24)) as tmux:
        tmux.run("mcpwatch", "tail", "missing.jsonl", "--policy", POLICY)
        shown = tmux.wait_for("Waiting for missing.jsonl to appear")
        assert "WAITING" in shown
        lines = attack_of_today()
        with (tmp_path / "missing.jsonl").open("ab", buffering=0) as log:
            log.write(b"".join(lines[:200]) + lines[200][:40])
            tmux.wait_for("LIVE")
            tmux.wait_for("read 201")
            log.write(lines[200][40:])
        tmux.wait_for("read 201")
        tmux.wait_for("CRIT")
        tmux.press("q")
        tmux.left(0)


def test_a_pipe_is_read_while_keys_come_from_the_terminal(tmp_path: Path) -> None:
    shutil.copy(SAMPLES / "demo-incident.jsonl", tmp_path / "log")
    with terminal(tmp_path, (120, 40)) as tmux:
        tmux.run("cat", "log", "|", "mcpwatch", "tail", "-", "--policy", POLICY)
        tmux.wait_for("read 423")
        assert "ENDED" in tmux.wait_for("Alerts 12 open")
        tmux.press("a", then="Alerts")
        tmux.press("Enter", then="Evidence")
        tmux.press("Escape", "q")
        tmux.left(0)


@pytest.mark.slow
def test_any_size_is_drawn_and_a_storm_of_sizes_survived(tmp_path: Path) -> None:
    """Down to a few cells; after it, the screen is as it was."""
    with terminal(tmp_path, (40, 10)) as tmux:
        tmux.run("mcpwatch", "replay", SAMPLES / "demo-incident.jsonl", "--policy", POLICY)
        tmux.wait_for("40x10: best from 80x24")
        tmux.press("1", then="s-535e53")
        tmux.press("Enter")
        tmux.press("Escape", "r", "Escape", "?", "Escape")
        for size in ((10, 3), (3, 2), (200, 60), (80, 24), (41, 7), (120, 40), (1, 1), (99, 33), (300, 5)):
            tmux.resize(*size)
            tmux.press("a")
        tmux.resize(120, 40)
        shown = tmux.wait_for("15 min ago")
        assert "Alerts 12 open" in shown and "best from" not in shown
        tmux.press("q")
        tmux.left(0)


@pytest.mark.slow
def test_sigterm_gives_the_terminal_back(tmp_path: Path) -> None:
    with terminal(tmp_path, (80, 24)) as tmux:
        (tmp_path / "a.jsonl").write_bytes(b"".join(attack_of_today()[:20]))
        tmux.run("mcpwatch", "tail", "a.jsonl", "--policy", POLICY)
        tmux.wait_for("LIVE")
        pid = tmux.tmux("display-message", "-p", "#{pane_pid}").strip()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert len(children) == 1
        tmux.tmux("run-shell", f"kill -TERM {children[0]}")
        tmux.left(0)
