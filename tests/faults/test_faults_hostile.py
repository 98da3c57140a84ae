"""What a log, a file name, a paste or a cat on the keyboard can make the console do: nothing."""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import pytest

from tests.faults.matrix import FULL, Figure, row
from tests.functional.program import attack_of_today
from tests.terminal.console_pty import Terminal
from tests.terminal.hostile import (
    FAMILIES,
    MARK,
    at_work,
    foreign,
    hostile_lines,
    lay_out,
    leave,
    look_around,
    noise,
    walk,
)
from tests.terminal.tmux import needs_tmux, terminal

SPY = Path(__file__).parents[1] / "terminal/spy_program.py"
PASTE = (1 << 20) if FULL else (1 << 14)
KEYS = 10_000 if FULL else 200


def unmoved(found: Terminal) -> None:
    """It still runs, it drew the payloads, nothing of theirs arrived, and nothing left the other screen."""
    assert found.status is None and not found.ended(0.2), "something but q ended it"
    assert found.output.count(MARK.encode()) > 50, "the payloads were not drawn at all"
    assert foreign(found.output) == set()
    assert b"\x1b[?1049l" not in found.output


@row("E1")
def test_no_payload_reaches_the_terminal_in_a_short_walk(tmp_path: Path, figure: Figure) -> None:
    """Ten families, in every field of a record, in the names of the log and the policy; panes, a record, a dialog."""
    log, policy = lay_out(tmp_path)
    before = policy.read_bytes()
    with at_work(tmp_path, "tail", str(log), "--policy", str(policy)) as found:
        found.read_until(MARK.encode())
        look_around(found)
        unmoved(found)
        assert leave(found) == 0
        assert foreign(found.output) == set()
        if not FULL:
            figure(f"0 raw bytes of {len(found.output):,}")
    assert policy.read_bytes() == before


@row("E1", slow=True)
@pytest.mark.parametrize("walls", ["both", "second"])
@pytest.mark.parametrize("command", ["tail", "replay"])
def test_no_payload_reaches_the_terminal_in_any_screen(
    tmp_path: Path, figure: Figure, command: str, walls: str
) -> None:
    """The same through every screen; and with the first wall taken down, to see that the second one holds alone."""
    log, policy = lay_out(tmp_path)
    before = policy.read_bytes()
    with at_work(tmp_path, command, str(log), "--policy", str(policy), walls=walls) as found:
        found.read_until(MARK.encode())
        screens = walk(found, live=command == "tail")
        if command == "tail":
            with log.open("ab") as file:
                file.write(b"".join(hostile_lines(time.time_ns())))
            found.read(1.0)
        unmoved(found)
        assert leave(found) == 0
        assert foreign(found.output) == set()
        behind = "both walls" if walls == "both" else "second wall alone"
        figure(f"{command}, {behind}: 0 raw bytes of {len(found.output):,} in {screens} views")
    assert policy.read_bytes() == before


@row("E1", slow=True)
def test_without_walls_the_payloads_would_arrive(tmp_path: Path, figure: Figure) -> None:
    """The walk itself can tell: with both walls down, payloads of nearly every family reach the terminal raw."""
    log, policy = lay_out(tmp_path)
    with at_work(tmp_path, "tail", str(log), "--policy", str(policy), walls="none") as found:
        found.read(1.0)
        look_around(found)
        arrived = found.output.decode("utf-8", "surrogateescape")
    raw = [name for name, payloads in FAMILIES.items() if any(each in arrived for each in payloads)]
    figure(f"without walls {len(raw)} of {len(FAMILIES)} families arrive raw")
    assert len(raw) >= 8


@row("E2", slow=True)
@pytest.mark.parametrize("walls", ["both", "second"])
def test_no_random_text_reaches_the_terminal_as_a_control(tmp_path: Path, figure: Figure, walls: str) -> None:
    """Any text of any characters, in every field and in lines that are no record."""
    log, policy = lay_out(tmp_path, noise, 2_000)
    with at_work(tmp_path, "tail", str(log), "--policy", str(policy), walls=walls) as found:
        found.read_until(MARK.encode())
        screens = walk(found, live=True)
        unmoved(found)
        assert leave(found) == 0
        assert foreign(found.output) == set()
        figure(f"4,000 lines, {walls}: 0 raw bytes of {len(found.output):,} in {screens} views")


@needs_tmux
@row("E3")
def test_queries_in_a_log_press_no_key_and_change_nothing_in_tmux(tmp_path: Path, figure: Figure) -> None:
    """With set-clipboard and allow-passthrough on, tmux answers queries as keys, and obeys titles and clipboards."""
    log, policy = lay_out(tmp_path)
    keys = tmp_path / "keys"
    keys.touch()
    with terminal(tmp_path, (120, 40)) as tmux:
        for option in (
            "-s set-clipboard on",
            "-g allow-passthrough on",
            "-g allow-rename on",
            "-g set-titles on",
        ):
            tmux.tmux("set", *option.split())
        tmux.tmux("set-buffer", "mine")
        names = tmux.tmux("display-message", "-p", "#{pane_title}|#{window_name}|#{window_flags}")
        tmux.run(sys.executable, SPY, keys, "tail", log, "--policy", policy)
        tmux.wait_for("Risk tiers")
        tmux.wait_for(MARK)
        pressed = (
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
            "Escape",
            "p",
            "s",
        )
        tmux.press(*pressed)
        with log.open("ab") as file:
            file.write(b"".join(hostile_lines(time.time_ns())))
        time.sleep(2)
        title = tmux.tmux("display-message", "-p", "#{pane_title}|#{window_name}|#{window_flags}")
        assert "pwned" not in title
        assert title.partition("|")[0] == names.partition("|")[0]
        assert tmux.tmux("show-buffer") == "mine"
        assert keys.read_text().split() == [key.lower() for key in pressed]
        tmux.press("Escape", "Escape", "q")
        tmux.left(0)
    figure(f"{len(pressed)} keys pressed, {len(pressed)} arrived; title and clipboard unchanged")


def the_scene(folder: Path) -> tuple[Path, Path]:
    """An attack of today with a policy that can be changed."""
    log, policy = folder / "audit.jsonl", folder / "policy.yaml"
    log.write_bytes(b"".join(attack_of_today()))
    policy.write_text(
        "version: 1\ntools:\n  file_read: {allowed_paths: [/app/data/, /app/public/], require_scope: read}\n"
        "  shell_execute: {enabled: false}\n"
    )
    return log, policy


def open_the_dialog(found: Terminal) -> None:
    """The dialog that revokes the key of the worst alert, with a reason, and the cursor where the code belongs."""
    found.read_until(b"CRIT")
    found.send(b"3", 0.3)
    found.send(b"r", 0.5)
    found.wait_shown("What is written to the policy file")
    time.sleep(0.4)  # what is typed at once was meant for the screen below
    found.send(b"stolen\t", 0.8)
    found.wait_shown('reason: "stolen"')  # in the diff: there is something to write
    found.wait_shown(" type ")


def code_of(found: Terminal) -> str:
    """The four letters that the dialog asks for."""
    line = next(line for line in found.picture((120, 40)) if " type " in line)
    return line.partition(" type ")[2].split()[0]


@row("E12", slow=True)
def test_a_paste_writes_nothing_even_where_it_holds_the_code(tmp_path: Path, figure: Figure) -> None:
    """Bracketed: a megabyte with the very code and a line end. What can be pasted can be pasted by accident."""
    log, policy = the_scene(tmp_path)
    before = policy.read_bytes()
    with at_work(tmp_path, "tail", str(log), "--policy", str(policy)) as found:
        open_the_dialog(found)
        code = code_of(found)
        found.send(b"\x1b[200~" + code.encode() + b"\x1b[201~\r", 0.5)
        assert policy.read_bytes() == before
        filler = ("curl http://[/x]/ | sh; rm -rf / \t" * (PASTE // 34)).encode()
        for tail in (code, f"{code}\r", f"\r{code}\r\n", f"\t{code}\r"):
            found.send(b"\x1b[200~" + filler[: PASTE // 4] + tail.encode() + b"\x1b[201~", 0.5)
        found.send(b"\r", 0.5)
        assert policy.read_bytes() == before
        # the same into the filter
        found.send(b"\x1b", 0.4)
        found.send(b"\x1b", 0.4)
        found.send(b"/", 0.3)
        found.send(b"\x1b[200~" + filler + b"\x1b[201~", 1.0)
        found.send(b"\r", 0.3)
        found.send(b"\x1b", 0.4)
        assert policy.read_bytes() == before
        # typed, it is taken: the dialog was no dead one
        open_the_dialog(found)
        found.send(code_of(found).encode() + b"\r", 0.5)
        found.wait_shown("written  ")
        assert b"stolen" in policy.read_bytes()
        assert leave(found) == 0
    figure(f"bracketed, {2 * PASTE:,} bytes with the code in them: 0 writes")


@row("E12", slow=True)
def test_keys_that_come_like_a_paste_can_t_try_codes(tmp_path: Path, figure: Figure) -> None:
    """Unbracketed, a paste is keys: one that tries all codes there are gets three, then the dialog takes no more."""
    log, policy = the_scene(tmp_path)
    before = policy.read_bytes()
    chance = random.Random(12)
    with at_work(tmp_path, "tail", str(log), "--policy", str(policy)) as found:
        open_the_dialog(found)
        tried = PASTE // (8 if FULL else 64)
        wrong = "".join(
            "".join(chance.choices("abcdefghjkmnpqrstuvwxyz", k=4)) + "\r" for _ in range(tried // 5)
        )
        found.send(wrong.encode(), 2.0)
        found.settle(seconds=120)
        found.send(f"{code_of(found)}\r".encode(), 1.0)
        assert policy.read_bytes() == before, "a code was taken after many wrong ones"
        found.send(b"\x1b", 0.4)
        found.send(b"/", 0.3)
        found.send(wrong.encode().replace(b"\r", b" ")[:2_000], 2.0)
        found.settle(seconds=120)
        assert leave(found) == 0
    assert policy.read_bytes() == before
    figure(f"unbracketed, {found.keys:,} bytes, {tried // 5:,} codes tried: 0 writes")


NAMED_KEYS = (
    b"\x1b[A", b"\x1b[B", b"\x1b[C", b"\x1b[D", b"\x1b[5~", b"\x1b[6~", b"\x1b[H", b"\x1b[F", b"\r", b"\r", b"\t",
    b"\x1b", b"\x7f", b"\x1b[Z", b"\x1bOP", b"\x1b[15~", b"\x0b", b"\x15", b"\x17",
)  # fmt: skip
FRAGMENTS = (
    b"\x1b[", b"\x1b]52;c;", b"\x1b[<0;1", b"\xc3", b"\xff\xfe", b"\x9b", b"\x1bP", b"\x1b[200~x\x1b[201~",
    b"\x1b[I", b"\x1b[O", b"\x1b[?1;2c", b"\x1b[1;1R", b"\x1b]11;rgb:0/0/0\x07", b"\x00", b"\x1b[?2026;2$y",
)  # fmt: skip
PRINTABLE = bytes(set(range(0x20, 0x7F)) - set(b"q"))


def random_key(chance: random.Random, size: tuple[int, int]) -> bytes:
    """Anything that a keyboard, a mouse, a terminal's answer or a cut connection sends, but the key that quits."""
    x, y = chance.randint(1, size[0]), chance.randint(1, size[1])
    kind = chance.random()
    if kind < 0.5:
        return bytes([chance.choice(PRINTABLE)])
    if kind < 0.72:
        return chance.choice(NAMED_KEYS)
    if kind < 0.84:
        return f"\x1b[<0;{x};{y}M\x1b[<0;{x};{y}m".encode()
    if kind < 0.9:
        return f"\x1b[<{chance.choice((64, 65))};{x};{y}M".encode()
    if kind < 0.94:
        return f"\x1b[<35;{x};{y}M".encode()
    return chance.choice(FRAGMENTS)


@row("E16", slow=True)
@pytest.mark.parametrize("data", ["hostile", "attack"])
def test_random_keys_and_clicks_write_nothing_and_break_nothing(
    tmp_path: Path, figure: Figure, data: str
) -> None:
    """Into dialogs, palette and prompts, on a policy that could be written. A fault would leave a report."""
    log, policy = lay_out(tmp_path) if data == "hostile" else the_scene(tmp_path)
    before = policy.read_bytes()
    state = tmp_path / "state"
    chance = random.Random(f"{data} 16")
    sent = starts = dialogs = 0
    while sent < KEYS:
        starts += 1
        with at_work(tmp_path, "tail", str(log), "--policy", str(policy), "--state", str(state)) as found:
            while sent < KEYS and not found.ended(0):
                found.send(b"".join(random_key(chance, (120, 40)) for _ in range(20)), 0.1)
                sent += 20
            dialogs += found.output.count(b"What is written to the policy file")
            found.read(0.5)
            if not found.ended(0):
                found.send(b"\x1b[201~", 0.2)
                for _ in range(40):
                    found.send(b"\x1b", 0.2)
                    found.send(b"q", 0.2)
                    if found.ended(0.3):
                        break
            assert found.ended(15), found.picture((120, 40))
            assert found.status == 0, found.output[-600:]
            assert foreign(found.output) == set()
    assert policy.read_bytes() == before
    assert not list(state.glob("crashes/*"))
    figure(
        f"{data}: {sent:,} keys and clicks, {starts} starts, dialog drawn {dialogs} times: 0 writes, 0 faults"
    )
