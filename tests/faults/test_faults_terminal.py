"""The terminal stalls, goes away, is stopped, shrinks to nothing or is none: and the way out restores it."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from mcpwatch.data import shipped
from mcpwatch.times import iso
from tests.faults.matrix import FULL, Figure, row
from tests.functional.program import Home, attack_of_today
from tests.terminal.console_pty import Terminal
from tests.terminal.hostile import at_work, leave
from tests.terminal.tmux import MCPWATCH

SAMPLES = shipped("sample_logs")
STALL_S = 60.0 if FULL else 3.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MODE = re.compile(rb"\x1b\[\?(\d+)([hl])")
DEFAULTS = {b"7": b"h", b"25": b"h"}
"""Modes that are on in a terminal that nobody changed; all others are off."""


def modes_left(output: bytes) -> dict[bytes, bytes]:
    """The modes that a terminal is left in which are not its usual ones."""
    last = dict(MODE.findall(output))
    return {mode: state for mode, state in last.items() if state != DEFAULTS.get(mode, b"l")}


def assert_restored(found: Terminal, before: list[object]) -> None:
    """The other screen, mouse, paste and cursor are as they were, and so is the line discipline."""
    assert modes_left(found.output) == {}
    assert found.output.count(b"\x1b[>") == min(found.output.count(b"\x1b[<u"), found.output.count(b"\x1b[>"))
    assert termios.tcgetattr(found.fd) == before


def log_of_today(folder: Path) -> tuple[Path, Path]:
    """A log with an attack in it, and a policy that can be written."""
    log, policy = folder / "audit.jsonl", folder / "policy.yaml"
    log.write_bytes(b"".join(attack_of_today()))
    policy.write_bytes((SAMPLES / "policy.yaml").read_bytes())
    return log, policy


def cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def call(n: int, **more: object) -> bytes:
    """A record of now."""
    record = {"timestamp": iso(time.time_ns()), "tool": "file_read", "params": {"path": f"/app/data/{n}"},
              "status": "success", "key_id": f"key_{n % 9:04}", "session_id": f"s{n % 9}"}  # fmt: skip
    return json.dumps(record | more).encode() + b"\n"


@row("E7", slow=True)
def test_alerts_go_on_while_nobody_reads_the_terminal(tmp_path: Path, figure: Figure) -> None:
    """A lockout is found and written while the terminal takes nothing; read again, the console shows it at once."""
    log, policy = tmp_path / "audit.jsonl", tmp_path / "policy.yaml"
    policy.write_text("version: 1\nlockout: {enforce: true}\n")
    log.write_bytes(b"".join(call(n) for n in range(50)))
    with at_work(tmp_path, "tail", str(log), "--policy", str(policy), "--state", str(tmp_path)) as found:
        found.settle(0.5, 6)
        began, n = time.monotonic(), 50
        written_after = None
        with log.open("ab", buffering=0) as file:
            while (stalled := time.monotonic() - began) < STALL_S:
                file.write(b"".join(call(n + i) for i in range(40)))
                n += 40
                if STALL_S / 2 < stalled < STALL_S / 2 + 0.2:
                    failed = {"event": "auth", "status": "unauthenticated", "source_ip": "203.0.113.66"}
                    file.write(b"".join(call(i, **failed, key_id=f"guess{i}") for i in range(4)))
                if written_after is None and b"203.0.113.66" in policy.read_bytes():
                    written_after = stalled - STALL_S / 2
                time.sleep(0.1)
        assert written_after is not None, "nothing was detected while the terminal was stalled"
        resumed, since = time.monotonic(), len(found.output)
        while b"203.0.113.66" not in found.output[since:]:
            assert time.monotonic() - resumed < 10, found.output[-300:]
            found.read(0.02)
        caught_up = time.monotonic() - resumed
        found.wait_shown("auth-lockout")
        assert leave(found) == 0
    figure(
        f"stalled {STALL_S:.0f} s, {n:,} records; lockout written {written_after:.1f} s after the third failure, "
        f"shown {caught_up:.1f} s after the stall"
    )
    assert caught_up < 1.0


@row("E8")
@pytest.mark.parametrize("how", ["hung up", "SIGHUP ignored", "stalled", "in a dialog"])
def test_it_is_gone_when_the_terminal_is(tmp_path: Path, figure: Figure, how: str) -> None:
    """Within two seconds, without turning in circles meanwhile, and without calling it a fault."""
    if not FULL and how != "SIGHUP ignored":
        pytest.skip("one way, in a quick run")
    log, policy = log_of_today(tmp_path)
    worst = spent = 0.0
    for _ in range(5 if FULL else 1):
        state = tmp_path / "state"
        deaf = how == "SIGHUP ignored"
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN) if deaf else None
        # the program takes an ignored signal back: blocked, as some supervisors leave it, it never comes
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP} if deaf else ())
        try:
            work = at_work(tmp_path, "tail", str(log), "--policy", str(policy), "--state", str(state))
            with work as found:
                found.read(1.0)
                if how == "in a dialog":
                    found.send(b"r", 0.8)
                elif how == "stalled":
                    with log.open("ab", buffering=0) as file:
                        for n in range(30):
                            file.write(call(n))
                            time.sleep(0.1)
                cpu = cpu_s(found.pid)
                gone = time.monotonic()
                found.hang_up()
                while not found.ended(0.02):
                    assert time.monotonic() - gone < 10, "it never leaves"
                    if Path(f"/proc/{found.pid}").exists() and time.monotonic() - gone < 1.9:
                        spent = max(spent, cpu_s(found.pid) - cpu)
                worst = max(worst, time.monotonic() - gone)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
            if before is not None:
                signal.signal(signal.SIGHUP, before)
        assert not list(state.glob("crashes/*"))
    figure(f"{how}: gone within {worst:.1f} s, {spent:.1f} s of processor time")
    assert worst < 2.0
    assert spent < 1.0


@row("E9")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_gives_the_terminal_back(tmp_path: Path, figure: Figure, number: signal.Signals) -> None:
    """Modes, cursor, mouse and both screens are as before: drawn, in a dialog, and with a stalled terminal."""
    places = ("drawn", "in a dialog", "stalled") if FULL else ("drawn",)
    if not FULL and number != signal.SIGTERM:
        pytest.skip("SIGTERM only, in a quick run")
    log, policy = log_of_today(tmp_path)
    for place in places:
        with at_work(tmp_path, "tail", str(log), "--policy", str(policy)) as found:
            found.read(1.0)
            before = terminal_before(found)
            if place == "in a dialog":
                found.send(b"3r", 0.8)
            elif place == "stalled":
                with log.open("ab", buffering=0) as file:
                    for n in range(40):
                        file.write(call(n))
                        time.sleep(0.1)
            os.kill(found.pid, number)
            if place == "stalled":
                time.sleep(2.6)  # it does not wait for a terminal that takes nothing
                assert os.waitpid(found.pid, os.WNOHANG)[0] or found.ended(1.5)
                found.status = found.status or 0
                found.read(0.3)
            else:
                assert found.ended(5)
            assert found.status is not None and os.waitstatus_to_exitcode(found.status) == 0
            if place != "stalled":
                assert_restored(found, before)
            else:
                assert termios.tcgetattr(found.fd) == before
    figure(f"{number.name}: restored {', '.join(places)}")


def terminal_before(_found: Terminal) -> list[object]:
    """What the line discipline of a new pseudo-terminal is."""
    leader, follower = os.openpty()
    attributes: list[object] = termios.tcgetattr(leader)
    os.close(leader)
    os.close(follower)
    return attributes


@row("E9", slow=True)
def test_a_signal_during_the_start_gives_the_terminal_back(tmp_path: Path, figure: Figure) -> None:
    """At any moment: before it has the terminal, while it takes it, and after."""
    log, policy = log_of_today(tmp_path)
    (tmp_path / "home").mkdir()
    command = [str(MCPWATCH), "tail", str(log), "--policy", str(policy)]
    home = {"HOME": str(tmp_path / "home")}
    began = time.monotonic()
    first = Terminal(command, (120, 40), cwd=tmp_path, env=home)
    first.read_until(b"\x1b[?1049h", 30)
    start = time.monotonic() - began
    first.close()
    taken = 0
    tries = 40 if FULL else 8
    for number in range(tries):
        found = Terminal(command, (120, 40), cwd=tmp_path, env=home)
        try:
            before = terminal_before(found)
            found.read(1.5 * start * number / tries)
            os.kill(found.pid, signal.SIGTERM)
            assert found.ended(6), found.output[-200:]
            found.read(0.1)
            taken += b"\x1b[?1049h" in found.output
            assert_restored(found, before)
            assert b"Traceback" not in found.output and b"fault" not in found.output
        finally:
            found.close()
    figure(f"SIGTERM at {tries} moments of the start, {taken} of them on the screen: restored each time")


@row("E9", slow=True)
@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
def test_a_stop_and_a_continuation_draw_it_again_and_leave_no_trace(
    tmp_path: Path, figure: Figure, number: signal.Signals
) -> None:
    """Also a stop without notice, after which a shell took the modes back."""
    log, policy = log_of_today(tmp_path)
    with at_work(tmp_path, "tail", str(log), "--policy", str(policy)) as found:
        found.read(1.0)
        before = terminal_before(found)
        for _ in range(3 if FULL else 1):
            os.kill(found.pid, number)
            end = time.monotonic() + 5
            while Path(f"/proc/{found.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
                assert time.monotonic() < end, "it does not stop"
                found.read(0.05)
            found.read(0.1)
            if number == signal.SIGTSTP:
                assert_restored(found, before)
            termios.tcsetattr(found.fd, termios.TCSANOW, before)  # type: ignore[arg-type]
            since = len(found.output)
            os.kill(found.pid, signal.SIGCONT)
            for title in ("Sessions", "Risk tiers", "Events", "CRIT"):
                found.wait_shown(title, since=since)
            assert not termios.tcgetattr(found.fd)[3] & termios.ECHO
            found.send(b"?", 0.3)
            found.wait_shown("Keys", since=since)
            found.send(b"\x1b", 0.3)
        assert leave(found) == 0
        assert_restored(found, before)
    figure(f"{number.name}: drawn again, keys work, restored at the end")


@row("E10", slow=True)
def test_a_storm_of_sizes_ends_in_a_whole_screen(tmp_path: Path, figure: Figure) -> None:
    """Between 1x1 and 500x200, on every screen; below 80x24 it says so."""
    log, policy = log_of_today(tmp_path)
    chance = random.Random(10)
    storms = 500 if FULL else 60
    with at_work(tmp_path, "tail", str(log), "--policy", str(policy)) as found:
        found.read(0.5)
        for number in range(storms):
            small = number % 3 == 0
            found.resize(chance.randint(1, 20 if small else 500), chance.randint(1, 8 if small else 200))
            if number % 25 == 0:
                found.send(
                    chance.choice((b"3\r", b"r", b"\x1b", b"?", b"p", b":", b"\x1b", b"/", b"z")), 0.05
                )
            found.read(0.02)
        for _ in range(8):
            found.send(b"\x1b", 0.4)
        found.settle(0.8, 60)
        found.send(b"3", 0.2)
        found.resize(79, 23)
        since = len(found.output)
        found.settle(0.8, 30)
        found.wait_shown("79x23: best from 80x24", (79, 23), since)
        found.resize(120, 40)
        since = len(found.output)
        found.settle(0.8, 30)
        rows = found.picture((120, 40), since)
        shown = "".join(rows)
        assert all(
            title in shown for title in ("Sessions", "Calls per minute", "Alerts", "Risk tiers", "Events")
        )
        assert "best from" not in shown
        frames = [line for line in rows if line.startswith(("╭", "│", "╰"))]
        assert len(frames) >= 36 and all(line.rstrip()[-1:] in "╮│╯" for line in frames), "\n".join(rows)
        assert leave(found) == 0
    figure(f"{storms} sizes between 1x1 and 500x200: whole at the end")


ENVIRONMENTS = {
    "TERM=linux": {"TERM": "linux", "COLORTERM": ""},
    "TERM=screen": {"TERM": "screen", "COLORTERM": ""},
    "TERM=vt100": {"TERM": "vt100", "COLORTERM": ""},
    "NO_COLOR": {"NO_COLOR": "1"},
    "LANG=C": {"LANG": "C", "LC_ALL": "C"},
    "latin-1": {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"},
    "ascii": {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
}
COLOUR = re.compile(rb"\x1b\[[0-9;]*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")


@row("E11", slow=True)
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_it_draws_on_any_terminal(tmp_path: Path, figure: Figure, name: str) -> None:
    """In 16 colours, in none, and in an encoding that lacks its lines."""
    log, policy = log_of_today(tmp_path)
    arguments = ("tail", str(log), "--policy", str(policy))
    with at_work(tmp_path, *arguments, env=ENVIRONMENTS[name]) as found:
        found.read_until(b"CRIT")
        found.send(b"3\r", 0.3)
        found.wait_shown("Evidence")
        assert leave(found) == 0
        if name == "NO_COLOR":
            assert not COLOUR.search(found.output)
        if name in ("ascii", "latin-1"):
            assert "╭".encode() not in found.output
    figure(name)


NO_SCREEN = {
    "TERM=dumb": ("TERM=dumb exec {0} tail {1}", 2, "--plain"),
    "TERM unset": ("unset TERM; exec {0} tail {1}", 2, "--plain"),
    "standard input closed": ("exec {0} tail {1} <&-", 2, "needs a terminal"),
    "standard error a file": ("exec {0} tail {1} 2>err", None, "CRIT"),
    "standard error closed": ("exec {0} tail {1} 2>&-", None, "CRIT"),
}


@row("E11")
@pytest.mark.parametrize("name", NO_SCREEN)
def test_on_a_terminal_with_something_missing_it_draws_or_says_why_not(
    tmp_path: Path, figure: Figure, name: str
) -> None:
    """One line and exit code 2, before anything is painted; where only messages have no place, it is drawn."""
    if not FULL and name != "standard error a file":
        pytest.skip("one of them, in a quick run")
    log, _ = log_of_today(tmp_path)
    (tmp_path / "home").mkdir()
    line, code, words = NO_SCREEN[name]
    env = {"HOME": str(tmp_path / "home")}
    found = Terminal(["/bin/sh", "-c", line.format(MCPWATCH, log)], (120, 40), cwd=tmp_path, env=env)
    try:
        found.read_until(words.encode())
        if code is None:
            assert leave(found) == 0
            errors = tmp_path / "err"
            assert not errors.exists() or b"\x1b" not in errors.read_bytes()
        else:
            assert found.ended(10) and found.status is not None
            assert os.waitstatus_to_exitcode(found.status) == code
            assert b"\x1b" not in found.output
    finally:
        found.close()
    figure(name)


@row("E11")
def test_nothing_is_painted_into_a_pipe_and_closed_streams_are_nobody_s_file(
    tmp_path: Path, figure: Figure
) -> None:
    """Plain lines; with streams closed, nothing that is meant for them lands in a file that is opened later."""
    log, policy = log_of_today(tmp_path)
    home = Home(tmp_path)
    done = home.run("replay", log, "--policy", policy)
    assert (
        done.returncode == 0 and "\x1b" not in done.stdout + done.stderr and "incident" in done.stdout.lower()
    )
    saved, kept = log.read_bytes(), policy.read_bytes()
    closings = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-")[0 if FULL else -1 :]
    for closing in closings:
        command = f"{MCPWATCH} replay {log} --policy {policy} --json {closing}"
        ended = subprocess.run(
            ["/bin/sh", "-c", command], cwd=tmp_path, env=home.environment(), capture_output=True, check=False,
            timeout=60,
        )  # fmt: skip
        assert ended.returncode == 0, (closing, ended)
        assert b"Traceback" not in ended.stderr + ended.stdout
        assert (log.read_bytes(), policy.read_bytes()) == (saved, kept)
    figure(f"pipe, {len(closings)} ways of closed streams")


@row("E17")
@pytest.mark.parametrize("where", ["console", "monitor"])
def test_a_fault_gives_the_terminal_back_and_leaves_a_report_without_secrets(
    tmp_path: Path, figure: Figure, where: str
) -> None:
    """Its message is a line of the log: no byte of it is obeyed, no secret of it is shown or kept."""
    if not FULL and where == "monitor":
        pytest.skip("the console's, in a quick run")
    log, policy = log_of_today(tmp_path)
    state = tmp_path / "state"
    program = [sys.executable, str(Path(__file__).parents[1] / "terminal/faulty_program.py"), where]
    (tmp_path / "home").mkdir()
    arguments = ["tail", str(log), "--policy", str(policy), "--state", str(state)]
    found = Terminal([*program, *arguments], (120, 40), cwd=tmp_path, env={"HOME": str(tmp_path / "home")})
    try:
        before = terminal_before(found)
        found.read_until(b"Events")
        found.read(1.0)
        found.send(b"?", 1.0)
        if where == "monitor":
            found.wait_shown("RuntimeError")  # a console that stands still does not look calm
            found.send(b"\x1b", 0.3)
            found.send(b"q", 0.3)
        assert found.ended(10) and found.status is not None
        assert os.waitstatus_to_exitcode(found.status) == 70
        assert_restored(found, before)
        (report,) = (state / "crashes").iterdir()
        assert report.stat().st_mode & 0o777 == 0o600
        text = report.read_text()
        told = found.output.rpartition(b"\x1b[?1006l")[2].decode()
        assert str(report) in told.replace("\r\n", "")
        assert len([line for line in told.splitlines() if line.strip()]) == 1
        assert "RuntimeError" in text and "[redacted]" in text
        for shown in (text, found.output.decode()):
            assert "ghp_" not in shown and "hunter2" not in shown
            assert "pwned\x07" not in shown and "sk-ant-api03-xx" not in shown
        assert all(line.isprintable() for line in text.splitlines())
    finally:
        found.close()
    figure(f"{where}: restored, exit 70, one line, report 0600 and redacted")
