"""A log that attacks whoever looks at it, the real program on it, and what of the attack reached the terminal."""

from __future__ import annotations

import base64
import codecs
import json
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mcpwatch.times import SECOND, iso
from tests.terminal.console_pty import Terminal
from tests.terminal.tmux import MCPWATCH

FAMILIES = {
    "CSI": ("\x1b[77;77H", "\x1b[2J", "\x1b[?7777h", "\x1b[38;5;201;48;5;202m", "\x1b[?1049l", "\x1b[20t"),
    "title": ("\x1b]0;pwned\x07", "\x1b]2;pwned\x1b\\", "\x1bkpwned\x1b\\"),
    "link": ("\x1b]8;;http://pwned/\x1b\\x\x1b]8;;\x1b\\",),
    "clipboard": ("\x1b]52;c;cHduZWQ=\x07", "\x1b]52;p;cHduZWQ=\x1b\\"),
    "DCS": ("\x1bPtmux;\x1b\x1b]0;pwned\x07\x1b\\", "\x1bPq#0;2;0;0;0#0~~\x1b\\", "\x1bP$qm\x1b\\"),
    "APC PM SOS": ("\x1b_Gf=24,s=1,v=1;AAAA\x1b\\", "\x1b^pwned\x1b\\", "\x1bXpwned\x1b\\"),
    "C1": ("\x9b77;77H", "\x9d0;pwned\x9c", "\x90q\x9c", "\x85\x84\x8d\x9f"),
    "charsets": ("\x0e", "\x0f", "\x1b(0", "\x1b7", "\x1b8", "\x1bc", "\x1b#8"),
    "queries": (
        "\x1b[c", "\x1b[>c", "\x1b[6n", "\x1b[?7777$p", "\x1bP+q544e\x1b\\", "\x1b]10;?\x07", "\x1b]11;?\x07",
        "\x1b]4;1;?\x07", "\x05", "\x1b[?u",
    ),
    "odd text": (
        "\u202egnp.exe", "\u200b\u2066", "a" + "\u0301" * 9, "\x07\x08\r\n\x0b\x0c\x7f\x00", "\ufeff", "\U000e0041",
        "\ufe0f", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u4e16\u754c", "\ue000", "\u2028\u0085", "\ud800",
        "[/x]", "[@click=app.quit]x[/]", "[red]", "%s{0}${x}",
    ),
}  # fmt: skip
"""Ten families of text that somebody could want a terminal to obey."""
PAYLOADS = tuple(payload for family in FAMILIES.values() for payload in family)
MARK = "MaRk"
"""Stands beside every payload, to see that it was drawn at all."""
DISGUISED = re.compile(rb"\x1b\[77;77H|\x1b\[\?7777(?:h|\$p)|\x1b\[[0-9;]*48;5;202")
"""What would look like the console's own sequences, but is the log's."""
# What the program itself writes: colours, cursor moves, modes, the keyboard protocol, questions about modes, and line
# ends between the rows of a full repaint.
OWN = re.compile(
    r"\x1b\[[0-9;]*m|\x1b\[\d+;\d+H|\x1b\[\?\d+[hl]|\x1b\[[<>]\d*u|\x1b\[\?\d+\$p|\x1b\]52;c;([A-Za-z0-9+/=]*)\x07|\r\n"
)
FIRST_WALL_DOWN = Path(__file__).with_name("unwalled_program.py")


def poison(number: int) -> str:
    """A payload with its mark."""
    return f"{MARK}{PAYLOADS[number % len(PAYLOADS)]}{number}"


def noise(number: int) -> str:
    """Any text of any characters, the same for the same number."""
    chance = random.Random(number)
    pools = ((0, 0x20), (0x20, 0x7F), (0x7F, 0xA0), (0xA0, 0x3000), (0xD800, 0xE000), (0xE000, 0x110000))
    return MARK + "".join(chr(chance.randrange(*chance.choice(pools))) for _ in range(chance.randrange(24)))


def hostile_lines(
    now: int, count: int = 2 * len(PAYLOADS), text: Callable[[int], str] = poison
) -> list[bytes]:
    """Records with such a text in every place that a caller can fill, and lines that are no record."""
    lines = []
    for n in range(count):
        p = text(n)
        record = {
            "timestamp": iso(now - (200 - n % 190) * SECOND), "tool": p if n % 2 else "file_read",
            "status": "success", "params": {p: p, "path": f"/etc/{p}", "url": f"http://{p}/", "nested": [{p: p}]},
            "error": p, "session_id": p, "key_id": p if n % 3 else "k1", "client_id": p, "source_ip": p, "server": p,
            "call_id": p, "duration_ms": 3, "auth": {"method": "api_key", "subject": p}, "scopes": [p],
        }  # fmt: skip
        lines.append(json.dumps(record, ensure_ascii=n % 5 == 0).encode("utf-8", "surrogatepass") + b"\n")
        lines.append(f"not json {p}".encode("utf-8", "surrogatepass").replace(b"\n", b" ") + b"\x9b77;77H\n")
    return lines


def lay_out(
    folder: Path, text: Callable[[int], str] = poison, count: int = 2 * len(PAYLOADS)
) -> tuple[Path, Path]:
    """A log and a policy whose names are hostile, too."""
    log = folder / f"a{MARK}\x1b]0;pwned\x07\x1b[2J[@click=app.quit]x[_]\u202e\udc9b2J.jsonl"
    policy_folder = folder / f"{MARK}\x1b]52;c;cHduZWQ=\x07[bold]"
    policy_folder.mkdir()
    policy = policy_folder / "policy.yaml"
    name = json.dumps(f"k{MARK}[/x]\x1b]0;pwned\x07")
    policy.write_text(
        "version: 1\ntools:\n  file_read: {allowed_paths: [/app/data/]}\n"
        f"keys:\n  k1: {{client: {name}, owner: {name}}}\n  {name}: {{}}\n"
        f"revoked:\n  - {{key: {name}, at: '2026-01-01T00:00:00Z', by: {name}, reason: {name}}}\n"
    )
    log.write_bytes(b"".join(hostile_lines(time.time_ns(), count, text)))
    (folder / "home").mkdir(exist_ok=True)
    return log, policy


def foreign(output: bytes) -> set[str]:
    """Everything that a terminal could obey and that is not the console's own, with what is around it."""
    # a character whose last bytes are still to come is not looked at yet
    text = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode(output)
    copied = "".join(base64.b64decode(found).decode() for found in OWN.findall(text) if found).replace(
        "\n", " "
    )
    rest = OWN.sub("", text)
    found = {rest[max(0, at - 12) : at + 16] for at, char in enumerate(rest) if not char.isprintable()}
    found |= {own.decode() for own in DISGUISED.findall(output)}
    return found if copied.isprintable() else found | {copied}


@contextmanager
def at_work(
    folder: Path,
    *args: str,
    size: tuple[int, int] = (120, 40),
    walls: str = "both",
    env: Mapping[str, str] | None = None,
) -> Iterator[Terminal]:
    """The real program on a pseudo-terminal, behind "both" walls, behind the "second" alone, or behind "none"."""
    program = [str(MCPWATCH)] if walls == "both" else [sys.executable, str(FIRST_WALL_DOWN)]
    (folder / "home").mkdir(exist_ok=True)
    environment = {"HOME": str(folder / "home"), "TMPDIR": str(folder), "MCPWATCH_TEST_WALLS": walls}
    found = Terminal([*program, *args], size, cwd=folder, env=environment | dict(env or {}))
    try:
        found.read_until(b"\x1b[?1049h")
        found.read_until(b"Events")
        yield found
    finally:
        found.close()


def look_around(found: Terminal) -> None:
    """The shortest walk: every pane, a record, an alert, the dialog of a change."""
    for keys in (b"1", b"2", b"3", b"4", b"5", b"\x1b[A", b"\r", b"\x1b[6~"):
        found.send(keys, 0.1)
    found.send(b"r", 0.5)
    found.send(b"leaked [/x]", 0.3)
    for _ in range(2):
        found.send(b"\x1b", 0.25)
    for keys in (b"3", b"\r", b"y"):
        found.send(keys, 0.15)
    found.send(b"\x1b", 0.25)


def walk(found: Terminal, *, live: bool) -> int:
    """Every pane, drill-down, dialog and prompt; how many screens that were."""
    for keys in (b"1", b"2", b"3", b"4", b"5", b"\x1b[A", b"z", b"z"):
        found.send(keys)
    for pane in (b"1", b"3", b"5"):
        for keys in (pane, b"\x1b[B", b"\r", b"\x1b[6~", b"\x1b[6~", b"y"):
            found.send(keys)
        for dialog in (b"r", b"l", b"d", b"X") if live else ():
            found.send(dialog, 0.5)
            found.send(b"leaked [/x]\x1b[B", 0.2)
            found.send(b"\x1b", 0.25)
        found.send(b"\x1b", 0.25)
    for screen in (b"p", b"s", b"?"):
        found.send(screen)
        found.send(b"\x1b[6~")
        found.send(b"\x1b", 0.25)
    for keys in (b"o", b"a", b"/", b"tool:Ma\x1b[C [/x]", b"\r", b"\x1b", b"/", b"client:MaRk", b"\r", b"\\", b"T",
                 b":", b"sess", b"\x1b", b"e", b"f", b"f", b"t"):  # fmt: skip
        found.send(keys, 0.25 if keys in (b":", b"\x1b") else 0.1)
    for keys in (b" ", b" ", b"i", b"I", b"]", b"[", b"g", b"+1m\r") if not live else ():
        found.send(keys)
    return 5 + 3 + 3 + (12 if live else 0) + 3


def leave(found: Terminal) -> int:
    """Close whatever is open, and quit; the exit code."""
    for _ in range(20):  # what was sent before may still be worked on
        for _ in range(3):
            found.send(b"\x1b", 0.3)
        found.send(b"q", 0.2)
        if found.ended(3):
            break
    assert found.ended(10), found.picture((120, 40))
    assert found.status is not None
    return os.waitstatus_to_exitcode(found.status)
