"""`mcpwatch tail`: audit logs, live."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import click

from mcpwatch.cli.exits import Exit, Stop, UsageError, note
from mcpwatch.cli.options import (
    Show,
    enforce_option,
    fingerprint_key,
    log_options,
    policy_file,
    reading,
    rule_files,
    rules_option,
    show_of,
    show_options,
    since_option,
    state_dir,
    symlinks_option,
)
from mcpwatch.cli.output import Printer
from mcpwatch.monitor.live import Live, begin, day_start, wall_clock
from mcpwatch.monitor.monitor import Monitor, Settings
from mcpwatch.sources.block import Gap
from mcpwatch.sources.follow import Delivery, SourceStatus
from mcpwatch.sources.live import LiveSet
from mcpwatch.text import SafeText, safe

EPILOG: Final = """\b
Examples:
  mcpwatch tail /var/log/mcp/audit.jsonl             watch a log; rotation is followed
  mcpwatch tail '/var/log/mcp/*.jsonl' --since 15m   several, from a quarter of an hour ago
  journalctl -o cat -fu my-mcp | mcpwatch tail -     what another program prints
  mcpwatch tail /var/log/mcp/ --json --fail-on high  for a script
  mcpwatch tail audit.jsonl --plain --enforce        lock out whoever fails to log in too often
"""


_DIGITS: Final = re.compile(r"(?<![\w.])[\d,]+ ")


@click.command(epilog=EPILOG)
@click.argument("sources", nargs=-1, required=True)
@since_option
@symlinks_option
@enforce_option
@rules_option
@log_options
@show_options
def tail(
    sources: tuple[str, ...],
    since: int | None,
    follow_symlinks: bool,
    enforce: bool,
    rules: str | None,
    policy: str | None,
    state: str | None,
    format_name: str,
    formats: str | None,
    **shown: object,
) -> None:
    """Watch audit logs live.

    SOURCES are paths, globs, folders, or - for standard input. A file that is not there yet is waited for.
    """
    show = show_of(shown)
    stop = Stop() if show.headless else None
    file = policy_file(policy)
    how = reading(formats, format_name, show)
    now = wall_clock()
    since_ns = (
        show.from_ns if show.from_ns is not None else now - since if since is not None else day_start(now)
    )
    settings = Settings(state_dir(state), read_only=show.read_only, reveal=show.reveal, enforce=enforce)
    logs = tuple(str(Path(source).absolute()) for source in sources if source != "-")
    how = replace(how, logs=logs, fingerprint_key=fingerprint_key(settings.state_dir))
    monitor = Monitor(file, how, settings, wall_clock, rule_files(rules))
    starts = _Starts(monitor, since_ns, cap=since is None and show.from_ns is None)
    pipe = _free_the_keyboard() if "-" in sources and not show.headless else 0
    live_sources = LiveSet(sources, follow_symlinks=follow_symlinks, start=starts, stdin=pipe)
    starts.announce()
    if stop is not None:
        sys.exit(_headless(monitor, live_sources, show, starts.count_since, _Notices(monitor, sources), stop))
    sys.exit(_console(monitor, live_sources, show))


class _Starts:
    """Where reading began in each log, and what to say about it."""

    def __init__(self, monitor: Monitor, since_ns: int, *, cap: bool) -> None:
        self._monitor, self._since, self._cap = monitor, since_ns, cap
        self._skipped: list[tuple[Path, int]] = []
        self.count_since: int | None = None
        """Since when every log is complete, if anything was left out."""

    def __call__(self, path: Path, name: str) -> tuple[int, int | None]:
        """Where to begin in a log (see `sources.live.LiveSet`)."""
        begun = begin(self._monitor, path, name, self._since, cap=self._cap)
        if begun.offset or begun.since_ns > self._since:
            self._skipped.append((path, begun.offset))
            self.count_since = max(begun.since_ns, self.count_since or 0)
        return begun.offset, begun.line

    def announce(self) -> None:
        """Say on screen that older lines were left out."""
        for path, offset in self._skipped[:3]:
            note = safe(
                f"{path.name}: began at byte {offset:,}; older lines are left out (--since 7d reads more)",
                200,
            )
            self._monitor.settings = replace(
                self._monitor.settings, notices=(*self._monitor.settings.notices, SafeText(note))
            )


class _Notices:
    """Says on standard error what standard output has no line for: the banners, and sources that can't be read."""

    def __init__(self, monitor: Monitor, specs: Sequence[str]) -> None:
        self._monitor = monitor
        self._specs = specs
        self._banners: set[str] = set()
        self._notes: dict[str, str] = {}

    def __call__(self, delivered: Delivery, statuses: Sequence[SourceStatus]) -> None:
        """Say what is new (see `monitor.live.Look`)."""
        banners = [*self._monitor.settings.notices, *self._monitor.snapshot().notices]
        if not statuses:
            banners.append(safe(f"no log at {', '.join(self._specs)} yet: waiting for one"))
        # a banner whose count goes up is the same banner
        shown = {_DIGITS.sub("", banner): banner for banner in banners}
        for banner in shown.keys() - self._banners:
            note(shown[banner])
        self._banners = set(shown)
        for item in delivered:
            if isinstance(item, Gap):
                lost = f"{item.size:,} bytes lost" if item.size is not None else "lost bytes unknown"
                note(f"{item.source}: gap at byte {item.offset:,}: {item.reason} ({lost})")
        for status in statuses:
            before = self._notes.get(status.name, "")
            if status.note != before:
                self._notes[status.name] = status.note
                note(f"{status.name}: {status.note or status.state}")


def _headless(
    monitor: Monitor, sources: LiveSet, show: Show, count_since: int | None, notices: _Notices, stop: Stop
) -> Exit:
    printer = Printer(show, monitor.pipeline, count_since)
    live = Live(
        monitor,
        sources,
        printer.changes,
        printer.events if show.events else None,
        notices,
        printer.reports,
    )
    stop.then = live.stop
    if stop.received is not None:
        live.stop()
    live.run()
    printer.final()
    printer.summary(monitor.policy_file.policy, monitor.confirmations, held=monitor.snapshot().counters.held)
    return printer.exit_code()


def _console(monitor: Monitor, sources: LiveSet, show: Show) -> int:
    from mcpwatch.cli.screen import draw

    live = Live(monitor, sources)
    thread = threading.Thread(target=live.run, name="monitor", daemon=True)
    thread.start()
    try:
        code = draw(monitor, show)
    finally:
        live.stop()
        thread.join(5)
    if live.failure is not None:
        note(f"the monitor stopped: {safe(live.failure, 300)}")
        return Exit.UNUSABLE
    return code


def _free_the_keyboard() -> int:
    """Put the terminal back as standard input, for keys; the descriptor that now is the pipe."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        raise UsageError("no terminal for keys: add --plain or --json to read a pipe") from None
    pipe = os.dup(0)
    os.dup2(terminal, 0)
    return pipe


COMMANDS = {"tail": tail}
