"""The real program on a log that attacks whoever looks at it, on a pseudo-terminal and in tmux."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcpwatch.times import SECOND, iso
from tests.terminal.console_pty import Terminal
from tests.terminal.tmux import MCPWATCH, needs_tmux, terminal

PAYLOADS = (
    "[/x]", "[@click=app.quit]x[/]", "[red]", "\x1b]52;c;cHduZWQ=\x07", "\x1b]0;pwned\x07", "\x1b]2;pwned\x1b\\",
    "\x1bPtmux;\x1b\x1b]0;pwned\x07\x1b\\", "\x1b[2J", "\x1b[6n", "\x1b[c", "\x1b[?1049l", "\x1b[31m", "\x9b2J",
    "\x9d0;pwned\x9c", "\x90q\x9c", "\u202egnp.exe", "\u200b\u2066", "a\u0301\u0302\u0303\u0304\u0305\u0306", "\r\n",
    "\x7f\x08", "\ufeff", "\U000e0041", "\x0e", "\x07",
)  # fmt: skip
MARK = "MaRk"
"""Stands beside every payload, to see that it was drawn at all."""
# What the program itself writes: colours, cursor moves, modes, keyboard protocol, queries of modes, title off, and
# line ends between the rows of a full repaint.
OWN = re.compile(
    r"\x1b\[[0-9;]*m|\x1b\[\d+;\d+H|\x1b\[\?\d+[hl]|\x1b\[[<>=][0-9;]*u|\x1b\[\?\d+\$p|\x1b\[\d* ?[qA-D]|\r\n"
)


def poison(number: int) -> str:
    return f"{MARK}{PAYLOADS[number % len(PAYLOADS)]}{number}"


def hostile_lines(now: int) -> list[bytes]:
    """Records in the native format with a payload in every place that a caller can fill."""
    lines = []
    for n in range(4 * len(PAYLOADS)):
        p = poison(n)
        record = {
            "timestamp": iso(now - (200 - n) * SECOND), "tool": p if n % 2 else "file_read", "status": "success",
            "params": {p: p, "path": f"/etc/{p}", "url": f"http://{p}/", "nested": [{p: p}]}, "error": p,
            "session_id": p, "key_id": p if n % 3 else "k1", "client_id": p, "source_ip": p, "server": p,
            "call_id": p, "duration_ms": 3, "auth": {"method": "api_key", "subject": p}, "scopes": [p],
        }  # fmt: skip
        lines.append(json.dumps(record, ensure_ascii=n % 5 == 0).encode("utf-8", "surrogatepass") + b"\n")
        lines.append(f"not json {p}\n".encode())
    return lines


def lay_out(folder: Path) -> tuple[Path, Path]:
    """A log and a policy whose names are hostile, too."""
    log = folder / f"a{MARK}\x1b]0;pwned\x07\x1b[2J[@click=app.quit]x[_]\u202e.jsonl"
    policy_folder = folder / f"{MARK}\x1b]52;c;cHduZWQ=\x07[bold]"
    policy_folder.mkdir()
    policy = policy_folder / "policy.yaml"
    name = json.dumps(f"k{MARK}[/x]\x1b]0;pwned\x07")
    policy.write_text(
        "version: 1\ntools:\n  file_read: {allowed_paths: [/app/data/]}\n"
        f"keys:\n  k1: {{client: {name}, owner: {name}}}\n  {name}: {{}}\n"
        f"revoked:\n  - {{key: {name}, at: '2026-01-01T00:00:00Z', by: {name}, reason: {name}}}\n"
    )
    log.write_bytes(b"".join(hostile_lines(time.time_ns())))
    (folder / "home").mkdir()
    return log, policy


def foreign(output: bytes) -> set[str]:
    """Everything unprintable that is not one of the program's own sequences, with what is around it."""
    rest = OWN.sub("", output.decode("utf-8", "surrogateescape"))
    return {rest[max(0, at - 12) : at + 16] for at, char in enumerate(rest) if not char.isprintable()}


@contextmanager
def at_work(folder: Path, *args: str, size: tuple[int, int] = (120, 40)) -> Iterator[Terminal]:
    """The real program on a pseudo-terminal."""
    found = Terminal([str(MCPWATCH), *args], size, cwd=folder, env={"HOME": str(folder / "home")})
    try:
        found.read_until(b"\x1b[?1049h")
        found.read_until(b"Events")
        yield found
    finally:
        found.close()


def walk(found: Terminal, *, live: bool) -> None:
    """Every pane, drill-down, dialog and prompt."""
    for keys in (b"1", b"2", b"3", b"4", b"5", b"\x1b[A", b"z", b"z"):
        found.send(keys)
    for pane in (b"1", b"3", b"5"):
        for keys in (pane, b"\x1b[B", b"\r", b"\x1b[6~", b"\x1b[6~"):
            found.send(keys)
        for dialog in (b"r", b"l", b"d") if live else ():
            found.send(dialog, 0.5)
            found.send(b"leaked [/x]\x1b[B", 0.2)
            found.send(b"\x1b", 0.25)
        found.send(b"\x1b", 0.25)
    for screen in (b"p", b"s", b"?"):
        found.send(screen)
        found.send(b"\x1b[6~")
        found.send(b"\x1b", 0.25)
    for keys in (b"o", b"a", b"/", b"tool:Ma\x1b[C [/x]", b"\r", b"\x1b", b"/", b"client:MaRk", b"\r", b"\\", b"T",
                 b":", b"sess", b"\x1b", b"e", b"f", b"f"):  # fmt: skip
        found.send(keys, 0.25 if keys in (b":", b"\x1b") else 0.1)
    for keys in (b" ", b" ", b"i", b"I", b"]", b"[", b"g", b"+1m\r") if not live else ():
        found.send(keys)


@pytest.mark.parametrize("command", ["tail", "replay"])
def test_nothing_in_a_log_or_a_name_is_obeyed(tmp_path: Path, command: str) -> None:
    """No byte of theirs that a terminal could obey arrives, nothing crashes, and no action runs but the keys'."""
    log, policy = lay_out(tmp_path)
    before = policy.read_bytes()
    with at_work(tmp_path, command, str(log), "--policy", str(policy)) as found:
        found.read_until(MARK.encode())
        found.read(0.5)
        walk(found, live=command == "tail")
        if command == "tail":
            with log.open("ab") as file:
                file.write(b"".join(hostile_lines(time.time_ns())))
            found.read(1.0)
        assert found.status is None and not found.ended(0.2), "something but q ended it"
        assert found.output.count(MARK.encode()) > 100
        assert b"pwned" in found.output, "the payloads were not drawn at all"
        assert foreign(found.output) == set()
        found.send(b"\x1b", 0.3)
        found.send(b"\x1b", 0.3)
        found.send(b"q", 0.2)
        assert found.ended(10)
        assert found.status is not None and os.waitstatus_to_exitcode(found.status) == 0
        assert foreign(found.output) == set()
    assert policy.read_bytes() == before


@needs_tmux
def test_tmux_keeps_its_title_and_its_clipboard(tmp_path: Path) -> None:
    log, policy = lay_out(tmp_path)
    with terminal(tmp_path, (120, 40)) as tmux:
        tmux.tmux("set-buffer", "mine")
        names = tmux.tmux("display-message", "-p", "#{pane_title}|#{window_name}")
        tmux.run("mcpwatch", "tail", log, "--policy", policy)
        tmux.wait_for("Risk tiers")
        tmux.wait_for(MARK)
        for keys in (
            "1",
            "Enter",
            "Escape",
            "3",
            "Enter",
            "PageDown",
            "Escape",
            "5",
            "Up",
            "Enter",
            "y",
            "Escape",
        ):
            if keys != "y":
                tmux.press(keys)
        with log.open("ab") as file:
            file.write(b"".join(hostile_lines(time.time_ns())))
        time.sleep(1)
        title, _, window = tmux.tmux("display-message", "-p", "#{pane_title}|#{window_name}").partition("|")
        assert "pwned" not in title + window
        assert title == names.partition("|")[0]
        assert tmux.tmux("show-buffer") == "mine"
        tmux.press("q")
        tmux.left(0)


def test_an_idle_console_writes_nothing_and_a_change_little(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real log that rests: not a byte in three seconds. Four records: only the rows that changed."""
    (tmp_path / "home").mkdir()
    log = tmp_path / "a.jsonl"
    now = time.time_ns()

    def line(n: int, at: int) -> bytes:
        record = {"timestamp": iso(at), "tool": "file_read", "params": {"path": f"/app/{n}"}, "status": "success",
                  "key_id": f"k{n % 4}", "session_id": f"s{n % 4}", "duration_ms": 2}  # fmt: skip
        return json.dumps(record).encode() + b"\n"

    log.write_bytes(b"".join(line(n, now - 7200 * SECOND + n) for n in range(200)))
    with at_work(tmp_path, "tail", str(log), "--since", "1d") as found:
        found.read(6.0)  # the rate of the first seconds has to fade away
        found.settle()
        assert found.read(3.0) == b""
        with log.open("ab") as file:
            file.write(b"".join(line(n, time.time_ns()) for n in range(4)))
        sent = found.read(1.0)
        with capsys.disabled():
            print(f"\nfour new records at 120x40: {len(sent)} bytes in the first second")
        assert 0 < len(sent) < 8_000
        found.send(b"q")
        assert found.ended(5)
