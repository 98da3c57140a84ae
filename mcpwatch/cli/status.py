"""`mcpwatch status`: what runs with a state folder, how it goes, and what ended how."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from mcpwatch.cli.exits import note
from mcpwatch.cli.options import json_option, state_dir, state_option
from mcpwatch.incidents.export import SCHEMA, dump
from mcpwatch.monitor.watch import Counted, Watch, WatchedSource, WatchError
from mcpwatch.monitor.watchfiles import FOLDER, Found, look
from mcpwatch.monitor.watching import HEARTBEAT_S
from mcpwatch.text import safe
from mcpwatch.times import SECOND, format_duration, iso

WIDTH: Final = 79
UNHEARD_NS: Final = 3 * round(HEARTBEAT_S) * SECOND
"""A running process that said nothing for so long is stopped or stuck."""
_TIED: Final = "\u00a0"
"""A blank at which no line is broken; `safe` leaves none in any text."""
_SYSTEM: Final = Path("/var/lib/mcpwatch")

EPILOG: Final = """\b
Examples:
  mcpwatch status                        what is watched here, and does it add up?
  mcpwatch status --state /srv/mcpwatch  with another state folder
  mcpwatch status --json | jq -e 'select(.type=="status") | .died == 0 and .adds_up'

\b
Exit codes: 0, also when something died or nothing runs; 3 when the state folder can't be read.
"""


@click.command(epilog=EPILOG)
@state_option
@json_option
def status(state: str | None, as_json: bool) -> None:
    """Say what is being watched with a state folder, how it goes, and which watches ended or died.

    Every process and every log of it is shown with its counters: lines = understood + not understood + blank +
    repeated + joined + held.
    """
    folder = state_dir(state)
    if state is not None and not folder.exists():
        raise WatchError(f"{safe(folder)}: there is no such state folder: check --state")
    watches = look(folder)
    for ignored in watches.ignored:
        note(ignored)
    if state is None and folder != _SYSTEM and (_SYSTEM / FOLDER).is_dir():
        note(f"others watch with {_SYSTEM}: mcpwatch status --state {_SYSTEM}")
    now = time.time_ns()
    newer: set[str] = set()
    for found in watches.found:
        if as_json:
            click.echo(dump(_record(found, now, newer)))
        else:
            for line in _lines(found, now, newer):
                click.echo(line)
        newer |= {source.path for source in found.watch.sources}
    states = [found.state for found in watches.found]
    if as_json:
        counts = {name: states.count(name) for name in ("running", "stopped", "died")}
        adds_up = all(_adds_up(found.watch) for found in watches.found)
        record = {"type": "status", "schema": SCHEMA, "state_dir": safe(folder), **counts, "adds_up": adds_up}
        click.echo(dump(record | {"ignored": list(watches.ignored)}))
    elif "running" not in states:
        click.echo(f"nothing is watched with {safe(folder)} now")


def _adds_up(watch: Watch) -> bool:
    return watch.totals.add_up and all(source.counters.add_up for source in watch.sources)


def _unheard(found: Found, now: int) -> bool:
    return found.state == "running" and now - found.watch.updated_ns > UNHEARD_NS


def _record(found: Found, now: int, newer: set[str]) -> dict[str, Any]:
    watch = found.watch
    return {
        "type": "watch",
        "schema": SCHEMA,
        "state": found.state,
        "unheard": _unheard(found, now),
        "pid": watch.pid,
        "host": safe(watch.host),
        "user": safe(watch.user),
        "version": safe(watch.mcpwatch),
        "started": iso(watch.started_ns),
        "updated": iso(watch.updated_ns),
        "ended": _time(watch.ended_ns),
        "how": _text(watch.how),
        "policy": _text(watch.policy),
        "policy_sha256": _text(watch.policy_sha256),
        "rules": watch.rules,
        "rules_folder": _text(watch.rules_folder),
        "problems": watch.problems,
        "incidents": dict(watch.incidents),
        **_counters(watch.totals),
        "adds_up": _adds_up(watch),
        "late": watch.late,
        "gaps": watch.gaps,
        "sources": [
            _source_record(source, read_on=found.state != "running" and source.path in newer)
            for source in watch.sources
        ],
    }


def _source_record(source: WatchedSource, *, read_on: bool) -> dict[str, Any]:
    gap = source.last_gap
    return {
        "source": safe(source.name),
        "path": safe(source.path),
        "state": source.state,
        "note": safe(source.note),
        "format": safe(source.format),
        "filesystem": _text(source.filesystem),
        "offset": source.offset,
        "size": source.size,
        "behind": source.behind,
        **_counters(source.counters),
        "adds_up": source.counters.add_up,
        "oversize": source.oversize,
        "gaps": source.gaps,
        "lost": source.lost,
        "last_gap": {
            "seen": iso(gap.seen_ns),
            "offset": gap.offset,
            "size": gap.size,
            "reason": safe(gap.reason),
        }
        if gap is not None
        else None,
        "rotations": source.rotations,
        "truncations": source.truncations,
        "last_read": _time(source.last_read_ns),
        "last_record": _time(source.last_record_ns),
        "silent_since": _time(source.silent_since_ns),
        "checkpoint": source.place is not None,
        "read_on": read_on,
    }


def _counters(counted: Counted) -> dict[str, int]:
    return {"lines": counted.lines, **counted.parts, "events": counted.events}


def _time(ns: int | None) -> str | None:
    return iso(ns) if ns is not None else None


def _text(value: str | None) -> str | None:
    return safe(value) if value is not None else None


def _lines(found: Found, now: int, newer: set[str]) -> Iterator[str]:
    """A process, in lines of at most `WIDTH` characters."""
    watch = found.watch
    running = found.state == "running"
    yield from _wrapped(0, f"{_headline(found, now)}")
    if running:
        policy = safe(watch.policy) if watch.policy is not None else "none"
        digest = f" ({safe(watch.policy_sha256, 12)})" if watch.policy_sha256 is not None else ""
        broken = "; policy or rule files have problems" if watch.problems else ""
        yield from _wrapped(2, f"policy {policy}{digest}, {watch.rules} rules{broken}")
        incidents = ", ".join(f"{count:,} {level}" for level, count in watch.incidents.items())
        yield from _wrapped(2, f"incidents: {incidents or 'not known'}")
    shown = [source for source in watch.sources if running or source.path not in newer]
    for source in shown:
        yield from _source_lines(source, now, running=running)
    if len(watch.sources) > 1 and shown:
        yield from _wrapped(2, f"all {len(watch.sources):,} logs: {_sum(watch.totals)}")
    if not running and len(shown) < len(watch.sources):
        yield from _wrapped(2, f"logs that were watched again since: {len(watch.sources) - len(shown):,}")


def _headline(found: Found, now: int) -> str:
    watch = found.watch
    who = f"pid {watch.pid}, {safe(watch.user, 80)}"
    if found.state == "running":
        age = format_duration(_since(watch.started_ns, now))
        told = f"updated {format_duration(_since(watch.updated_ns, now))} ago"
        if _unheard(found, now):
            told = f"NOT HEARD OF since {_clock(watch.updated_ns)}: stopped or stuck"
        return f"RUNNING  {who}, for {age}, {told}"
    span = f"{_clock(watch.started_ns)} to {_clock(watch.updated_ns)}"
    if found.state == "died":
        return f"DIED     {who}, {span}: killed, or the machine went down"
    how = f": {safe(watch.how, 100)}" if watch.how not in (None, "stopped") else ""
    return f"STOPPED  {who}, {span}{how}"


def _source_lines(source: WatchedSource, now: int, *, running: bool) -> Iterator[str]:
    name = safe(source.name, 200)
    state = safe(f"{source.state}: {source.note}" if source.note else source.state, 300)
    behind = f", {source.behind:,} bytes behind" if source.behind else ""
    network = f", {safe(source.filesystem, 40)}: polled" if source.filesystem is not None else ""
    yield from _wrapped(2, f"{name}: {state}{behind}{network}" if running else name)
    yield from _wrapped(4, _sum(source.counters))
    if source.oversize:
        yield from _wrapped(4, f"lines over 1 MiB, not judged: {source.oversize:,}")
    if source.gaps:
        gap = source.last_gap
        last = f"; the last at {_clock(gap.seen_ns)}: {safe(gap.reason, 300)}" if gap is not None else ""
        lost = f"at least {source.lost:,} bytes lost" if source.lost else "lost bytes unknown"
        yield from _wrapped(4, f"gaps: {source.gaps:,}, {lost}{last}")
    if source.rotations or source.truncations:
        yield from _wrapped(4, f"rotations: {source.rotations:,}, truncations: {source.truncations:,}")
    if running and source.silent_since_ns is not None:
        silent = format_duration(_since(source.silent_since_ns, now))
        yield from _wrapped(4, f"SILENT for {silent}, against its habit")
    if source.last_record_ns is not None:
        yield from _wrapped(4, f"last record {_clock(source.last_record_ns)}")
    if not running and source.place is not None:
        yield from _wrapped(
            4, f"read to byte {source.offset:,} of {safe(source.path)}; tail --since last reads on"
        )


def _sum(counted: Counted) -> str:
    """The counters as the sum that they are."""
    parts = " ".join(
        f"{'+' if index else '='} {value:,} {name.replace('_', ' ')}".replace(" ", _TIED)
        for index, (name, value) in enumerate(counted.parts.items())
    )
    wrong = "" if counted.add_up else " DOES NOT ADD UP"
    return f"{counted.lines:,} lines {parts}{wrong}; {counted.events:,} events"


def _since(then_ns: int, now: int) -> int:
    return max(0, now - then_ns) // SECOND * SECOND


def _clock(ns: int) -> str:
    return f"{iso(ns)[:19]}Z"


def _wrapped(indent: int, text: str) -> list[str]:
    deeper = " " * (indent + 4)
    lines = textwrap.wrap(
        text, WIDTH, initial_indent=" " * indent, subsequent_indent=deeper, break_on_hyphens=False
    )
    return [line.replace(_TIED, " ") for line in lines]


COMMANDS = {"status": status}
