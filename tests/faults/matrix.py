"""The fault matrix: what goes wrong, what must hold, and which tests show it.

A test is tied to a row by `@row("A1")`, and says what it measured by the fixture `figure`. `make faults` runs them
all at full size and prints the table; `make test` runs the quick ones, and those that have a small size at that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import pytest

FULL: Final = os.environ.get("MCPWATCH_FAULTS") == "full"
"""Whether the matrix runs at its full size (`make faults`)."""

FIGURES: Final = Path(__file__).with_name("figures.json")
"""What `make faults ARGS=--write` measured last, by row."""

Figure = Callable[[str], None]
"""The fixture `figure`: says what was measured, in a few words: `figure("lost 0, repeated 0 of 1,200,000")`."""


Test = TypeVar("Test", bound=Callable[..., Any])


class Row(NamedTuple):
    """A fault, and the promise about it."""

    fault: str
    promise: str


ROWS: Final[dict[str, Row]] = {
    "A1": Row(
        "logrotate with create and HUP every second, 20,000 lines/s, 60 rotations", "lost 0, repeated 0"
    ),
    "A2": Row("the writer goes on writing to the renamed file for 2 s", "lost 0"),
    "A4": Row("copytruncate at that rate", "lost against disk 0, one GAP for each rotation that loses"),
    "A5": Row("copytruncate and compress at once", "lost against disk 0"),
    "A7": Row("truncated and refilled beyond the old offset while stopped", "every new line seen, one GAP"),
    "A8": Row(
        "truncated and refilled exactly to the old offset while stopped", "every new line seen, one GAP"
    ),
    "A9": Row("deleted and created anew with the same inode, 100 times", "100 of 100 read from offset 0"),
    "A11": Row("five rotations while stopped", "lost 0, in order"),
    "A14": Row("the path becomes a FIFO, a folder, a device", "a message, no hang"),
    "A15": Row("a record written a byte at a time", "exactly one event"),
    "A16": Row("a partial line over kill -9 and restart", "exactly one event"),
    "A18": Row("a line of 100 MB", "one record, memory +8 MB at most"),
    "A19": Row("invalid UTF-8, NULs, CRLF, U+2028", "events = number of newlines"),
    "A24": Row("2,000 files by glob, 20 of them busy", "fair, at most 300 descriptors"),
    "A29": Row("kill -9 at random, 200 times, under load", "lost 0, repeated 0"),
    "A30": Row(
        "writes, rotations of all kinds, truncations, deletions, restarts, at random",
        "each line on disk once and in order; what is lost is a GAP",
    ),
    "A31": Row(
        "rubbish, parts of lines, NULs, lines over 1 MiB and rotations, at random",
        "lines = understood + not understood + blank + repeated + joined + held, everywhere, and = `wc -l`",
    ),
    "A32": Row("kill -9 at any moment while the watch file is written", "a whole file, never said to run"),
    "A33": Row("EIO, ESTALE, ENOENT at every third read, open and look", "goes on, lost 0, repeated 0"),
    "B1": Row("console stalled for 60 s, socket at 20,000 lines/s", "the sender never waits over 5 ms"),
    "B2": Row("the spool's disk is full", "the sender never waits, what is lost is a GAP, told"),
    "B3": Row(
        "a sender that says nothing, too many senders, a line without end",
        "closed or cut, told, others go on",
    ),
    "B4": Row("TLS without, with a foreign, with the right client certificate", "refused, refused, read"),
    "C1": Row("kill -9 at every system call of a policy write", "old or new file, complete"),
    "C2": Row(
        "ENOSPC, EIO at every system call of a policy write", "old or new file, complete; reported state true"
    ),
    "C4": Row(
        "four writers of 50 revocations each beside an editor",
        "200 of 200, no foreign edit lost, no torn read",
    ),
    "C11": Row("3,000 random policy documents", "0 impure, 0 wrong, at most 5 % refused"),
    "C13": Row("ids `yes`, `# x`, `a: b`, with a newline, U+2028, of 10 kB", "read back equal"),
    "E1": Row("ten families of escape sequences through every screen on a pty", "0 raw bytes"),
    "E2": Row("random text through every screen on a pty", "0 raw bytes"),
    "E3": Row("terminal queries in a log, in a real tmux", "no key event, title and clipboard unchanged"),
    "E7": Row("the terminal stalls for 60 s", "alerts go on"),
    "E8": Row("SSH dropped, with SIGHUP ignored too", "gone within 2 s"),
    "E9": Row("SIGTERM", "the terminal is restored"),
    "E10": Row("resize storms, down to nothing and back", "no crash, the screen is whole"),
    "E11": Row("TERM=dumb, NO_COLOR, no terminal", "plain lines or no colour, nothing painted into a pipe"),
    "E12": Row("1 MB pasted into a dialog", "0 policy writes"),
    "E16": Row("10,000 random keys and clicks on data", "0 policy writes"),
    "E17": Row(
        "a fault of the console, of the monitor; its message is a line of the log",
        "terminal restored, one line, a redacted report",
    ),
    "F1": Row("the clock steps an hour back, an hour on", "no line lost, no lockout or window wrong"),
    "F2": Row("stopped by SIGSTOP for a minute", "lost 0, goes on by itself"),
    "F3": Row(
        "one hour at 2,000 records/s with rotations (`make soak`)", "memory and descriptors level, lost 0"
    ),
    "F4": Row(
        "lines dated in the future: one after each real one; several in a row",
        "the real attacker is found; what a window can't count then is counted and told as late",
    ),
    "F6": Row("1,000,000 distinct clients", "at most 250 MB, the real attacker still on top"),
    "F7": Row("10,000 alerts/s of noise of one rule around a real one", "the real one is there"),
    "F8": Row(
        "10,000 alerts/s of noise, each of another subject, around a real one", "the real one is there"
    ),
    "F9": Row("lines of 1 MB made to be slow to judge", "the tick stays below 1 s, other sources are read"),
    "G1": Row(
        "standard output is a full disk, or a reader that leaves", "one line and exit 3; a quiet exit 0"
    ),
    "G2": Row("few descriptors, little memory", "works, or says in one line what is short"),
    "G5": Row(
        "the state folder is read-only, full, missing or no folder", "the console works, with a banner"
    ),
    "P1": Row(
        "numbers beyond 64 bits, NaN, 1e999, lone surrogates, 5,000 digits, depth 200,000, control characters, "
        "BOM, overlong UTF-8 in records, in every field",
        "understood as written, or visibly not understood; no crash, no silence",
    ),
    "P2": Row("a record that names its tool, outcome, key or parameters twice", "caught, both values told"),
    "P3": Row(
        "YAML and TOML bombs: nesting, aliases, merge keys, duplicate keys, values that do not exist",
        "refused in one line with file and line, no crash",
    ),
    "P4": Row("patterns made to be slow, in filters and rules", "no more than the text is long"),
    "P5": Row(
        "gzip and zstd that is broken, cut short, a bomb, or wants 2 GiB of memory",
        "what precedes the break is read, the break is told with its byte, memory bounded",
    ),
    "P6": Row(
        "records in the headers of the real logger, rsyslogd and systemd-journald",
        "every record read, none forged",
    ),
    "P7": Row(
        "any bytes as a log, a compressed file, a header, a mapping, rule or policy file (`make fuzz`)",
        "the counters add up, refusals are one line",
    ),
}


def row(name: str, *, slow: bool = False) -> Callable[[Test], Test]:
    """Tie a test to a row of the matrix; a slow one is left to `make faults`."""
    assert name in ROWS, name

    def mark(test: Test) -> Test:
        marked: Test = pytest.mark.fault(name)(test)
        return pytest.mark.slow(marked) if slow else marked

    return mark
