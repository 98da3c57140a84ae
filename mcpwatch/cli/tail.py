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

from mcpwatch.cli.exits import Exit, Stop, UsageError, faulted, note
from mcpwatch.cli.options import (
    LAST,
    Show,
    enforce_option,
    fingerprint_key,
    listening,
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
    tls_options,
)
from mcpwatch.cli.output import Printer
from mcpwatch.monitor.live import Live, day_start, wall_clock
from mcpwatch.monitor.monitor import Monitor, Settings
from mcpwatch.monitor.starts import Starts
from mcpwatch.monitor.watchfiles import Checkpoint, checkpoints, look
from mcpwatch.monitor.watching import Watching
from mcpwatch.sources.address import is_address, parse_address
from mcpwatch.sources.block import Gap
from mcpwatch.sources.follow import Delivery, SourceStatus
from mcpwatch.sources.listen import Listening
from mcpwatch.sources.live import LiveSet
from mcpwatch.text import safe

EPILOG: Final = """\b
Examples:
  mcpwatch tail /var/log/mcp/audit.jsonl             watch a log; rotation is followed
  mcpwatch tail '/var/log/mcp/*.jsonl' --since 15m   several, from a quarter of an hour ago
  mcpwatch tail audit.jsonl --since last             read on where the last watch stopped or died
  journalctl -o cat -fu my-mcp | mcpwatch tail -     what another program prints
  mcpwatch tail unix:/run/mcpwatch/audit.sock        what servers send
  mcpwatch tail /var/log/mcp/ --json --fail-on high  for a script
  mcpwatch tail audit.jsonl --plain --enforce        lock out whoever fails to log in too often
"""


_DIGITS: Final = re.compile(r"(?<![\w.])[\d,]+ ")


@click.command(epilog=EPILOG)
@click.argument("sources", nargs=-1, required=True)
@since_option
@symlinks_option
@tls_options
@enforce_option
@rules_option
@log_options
@show_options
def tail(
    sources: tuple[str, ...],
    since: int | None,
    follow_symlinks: bool,
    tls_cert: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
    enforce: bool,
    rules: str | None,
    policy: str | None,
    state: str | None,
    format_name: str,
    formats: str | None,
    **shown: object,
) -> None:
    """Watch audit logs live.

    SOURCES are paths, globs, folders, - for standard input, or addresses that others send to: unix:PATH,
    tcp://HOST:PORT, udp://HOST:PORT. A file that is not there yet is waited for.
    """
    show = show_of(shown)
    stop = Stop() if show.headless else None
    file = policy_file(policy)
    how = reading(formats, format_name, show)
    now = wall_clock()
    last = since == LAST and show.from_ns is None
    since_ns = now - since if since is not None and since != LAST else day_start(now)
    since_ns = show.from_ns if show.from_ns is not None else since_ns
    settings = Settings(state_dir(state), read_only=show.read_only, reveal=show.reveal, enforce=enforce)
    receiving = listening(settings.state_dir, tls_cert, tls_key, tls_client_ca)
    logs = tuple(str(_log_of(source, receiving).absolute()) for source in sources if source != "-")
    how = replace(how, logs=logs, fingerprint_key=fingerprint_key(settings.state_dir))
    monitor = Monitor(file, how, settings, wall_clock, rule_files(rules))
    starts = Starts(
        monitor,
        since_ns,
        _checkpoints(settings.state_dir),
        cap=(since is None or last) and show.from_ns is None,
        last=last,
    )
    pipe = _free_the_keyboard() if "-" in sources and not show.headless else 0
    live_sources = LiveSet(
        sources, follow_symlinks=follow_symlinks, start=starts, stdin=pipe, listening=receiving
    )
    starts.announce()
    if stop is not None:
        sys.exit(_headless(monitor, live_sources, show, starts, _Notices(monitor, sources), stop))
    sys.exit(_console(monitor, live_sources, show, starts))


def _log_of(source: str, receiving: Listening) -> Path:
    return receiving.spools / parse_address(source).spool_name if is_address(source) else Path(source)


def _checkpoints(state: Path) -> dict[str, Checkpoint]:
    """How far each log was read before; what can't be used is said."""
    try:
        found = look(state)
    except OSError as error:
        note(f"{error.filename or state}: {error.strerror}: not known how far logs were read before")
        return {}
    for ignored in found.ignored:
        note(ignored)
    return checkpoints(found)


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
    monitor: Monitor, sources: LiveSet, show: Show, starts: Starts, notices: _Notices, stop: Stop
) -> Exit:
    printer = Printer(show, monitor.pipeline, starts.count_since)
    live = Live(
        monitor,
        sources,
        printer.changes,
        printer.events if show.events else None,
        notices,
        printer.reports,
        gaps=starts.gaps,
        watching=Watching(monitor, monitor.settings.state_dir),
    )
    stop.then = live.stop
    if stop.received is not None:
        live.stop()
    live.run()
    printer.final()
    printer.summary(monitor.policy_file.policy, monitor.confirmations, held=monitor.snapshot().counters.held)
    return printer.exit_code()


def _console(monitor: Monitor, sources: LiveSet, show: Show, starts: Starts) -> int:
    from mcpwatch.cli.screen import draw

    watching = Watching(monitor, monitor.settings.state_dir)
    live = Live(monitor, sources, gaps=starts.gaps, watching=watching)
    thread = threading.Thread(target=live.run, name="monitor", daemon=True)
    thread.start()
    try:
        code = draw(monitor, show)
    finally:
        live.stop()
        thread.join(5)
    if live.failure is not None:
        return faulted(live.failure)
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
