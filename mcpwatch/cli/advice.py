"""How `policy lint` prints what it finds: lines for people, JSON lines, or one SARIF log; and how far a scan is."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from mcpwatch.cli.exits import note
from mcpwatch.incidents.export import dump
from mcpwatch.policy.advice.subject import SEVERITIES, Advice
from mcpwatch.policy.sarif import sarif_log
from mcpwatch.text import SafeText, safe

_COLOURS: Final = {"high": "red", "medium": "yellow", "low": "cyan"}
_PATIENCE: Final = 1.0
_PAUSE_ON_TERMINAL: Final = 0.5
_PAUSE: Final = 10.0


@dataclass(frozen=True, slots=True)
class Linted:
    """A valid policy file, and the advice on it."""

    path: Path
    advice: Sequence[Advice]


def print_json(found: Sequence[Linted]) -> None:
    """One JSON line for each piece of advice."""
    for linted in found:
        for item in linted.advice:
            record = {"type": "advice", "file": safe(linted.path), "line": item.line, "severity": item.severity,
                      "code": item.code, "message": item.message}  # fmt: skip
            click.echo(dump(record))


def print_sarif(found: Sequence[Linted], unusable: Sequence[SafeText], folder: Path) -> None:
    """One SARIF log; files below the folder are named relative to it."""
    log = sarif_log([(linted.path, linted.advice) for linted in found], unusable, folder)
    click.echo(json.dumps(log, indent=2))


def print_plain(found: Sequence[Linted]) -> None:
    """One line for each piece of advice, aligned on a terminal and as compilers write them elsewhere."""
    terminal = sys.stdout.isatty()
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    rows = [(f"{safe(linted.path)}:{item.line}", item) for linted in found for item in linted.advice]
    width = max((len(where) for where, _ in rows), default=0)
    for where, item in rows:
        if not terminal:
            click.echo(f"{where}: {item.severity}: {item.message} [{item.code}]")
            continue
        severity = f"{item.severity:6}"
        shown = click.style(severity, fg=_COLOURS[item.severity], bold=item.severity == "high")
        # click would take the colours of what is piped, but not for NO_COLOR
        click.echo(f"{where:{width}}  {shown if colour else severity}  {item.message} [{item.code}]")
    for linted in found:
        click.echo(_summary(linted))
    if rows and terminal:
        click.echo(
            "for programs: --json (a line for each) or --sarif; exit code 1 from which level: --fail-on"
        )


def _summary(linted: Linted) -> str:
    count = len(linted.advice)
    if not count:
        return f"{safe(linted.path)}: valid"
    by_severity = Counter(item.severity for item in linted.advice)
    parts = ", ".join(f"{by_severity[name]} {name}" for name in SEVERITIES if by_severity[name])
    return f"{safe(linted.path)}: valid; {count} piece{'s' * (count != 1)} of advice: {parts}"


class Progress:
    """Says on standard error how far a scan is, once it takes longer than a second.

    On a terminal it is one line that changes and goes away at the end; elsewhere a line every ten seconds.

    Args:
        clock: Seconds, from any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._terminal = sys.stderr.isatty()
        self._clock = clock
        self._next = clock() + _PATIENCE
        self._shown = False

    def __call__(self, entries: int, folder: SafeText) -> None:
        """Take note of how many entries were looked at, and where the scan is."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + (_PAUSE_ON_TERMINAL if self._terminal else _PAUSE)
        if self._terminal:
            self._shown = True
            sys.stderr.write(f"\r\x1b[K{entries:,} entries, now in {folder[-50:]}")
            sys.stderr.flush()
        else:
            note(f"scanning for symbolic links: {entries:,} entries so far, now in {folder}")

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
