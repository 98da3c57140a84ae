"""Makes rows for the console: picks what matters of a record, redacts it and makes it safe."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from mcpwatch.detection.principal import describe, revocable
from mcpwatch.event import AuditEvent, Caller, Flag, OwnLines, is_open
from mcpwatch.formats.twice import said_twice
from mcpwatch.incidents.incident import Incident
from mcpwatch.monitor.board import Record, SessionStats
from mcpwatch.response.plan import Target
from mcpwatch.snapshot import AlertRow, EventRow
from mcpwatch.text import SafeText, is_secret_name, redact, redact_text, safe, safe_id
from mcpwatch.times import iso

TELLING: Final = (
    "path", "file_path", "filepath", "file", "filename", "url", "uri", "command", "cmd", "query", "sql", "host",
    "source", "destination", "directory", "name", "key",
)  # fmt: skip
"""Parameters that say most about a call, the most telling first."""

_FLAGS: Final = {
    Flag.NAIVE_TIME: "its time had no zone and was read as UTC",
    Flag.INFERRED_TIME: "no readable time: the arrival time stands in",
    Flag.FUTURE_TIME: "its time is in the future",
    Flag.UNTERMINATED: "last line, without a newline",
    Flag.PAIRED_BY_ORDER: "the log names no calls: its end is the one that came next",
    Flag.DUPLICATE_KEYS: "it says something twice, and parsers differ in which counts:",
}


@lru_cache(maxsize=8_192)
def short(text: str | None, limit: int = 40) -> SafeText:
    """An id or name, safe and short; `-` where there is none."""
    return SafeText("-") if text is None else safe_id(text, limit)


def targets_of(caller: Caller, tool: str | None = None) -> tuple[Target, ...]:
    """What of a call one can act on, the most specific first."""
    found: list[Target] = []
    if caller.key is not None:
        found.append(Target("key", caller.key))
    if caller.subject is not None:
        found.append(Target("subject", caller.subject))
    if caller.client is not None:
        found.append(Target("client", caller.client))
    if caller.session is not None:
        found.append(Target("session", caller.session))
    if caller.source_ip is not None:
        found.append(Target("source_ip", caller.source_ip))
    if tool is not None:
        found.append(Target("tool", tool))
    return tuple(found)


def incident_targets(incident: Incident, event: AuditEvent | None) -> tuple[Target, ...]:
    """What of an incident one can act on: its subject, then what its newest record still in memory names."""
    if not any(kind != "gap" for kind, _ in incident.subject):
        return ()  # it is about a log: whoever its newest record names did nothing
    found = [Target(kind, name) for kind, name in revocable(incident.subject)]
    ids = dict(incident.subject)
    if "source_ip" in ids:
        found.append(Target("source_ip", ids["source_ip"]))
    if event is not None:
        # An incident of an address is not one of whatever key was tried last from there: guesses name innocent keys.
        of_address = set(ids) <= {"source_ip", "gap"}
        found.extend(t for t in targets_of(event.caller, event.tool) if not of_address or t.kind == "tool")
    first: dict[str, Target] = {}
    for target in found:
        first.setdefault(target.kind, target)
    order = ("key", "subject", "client", "session", "source_ip", "tool")
    return tuple(first[kind] for kind in order if kind in first)


def detail_of(params: Mapping[str, Any] | None, error: str | None) -> SafeText:
    """The argument that says most about a call, redacted, in one line."""
    if not params:
        return safe(redact_text(error[:400]), 120) if error else SafeText("")
    name = next((name for name in TELLING if isinstance(params.get(name), str)), None)
    if name is None:
        name = next((name for name, value in params.items() if isinstance(value, str)), next(iter(params)))
    value = params[name]
    if is_secret_name(name):
        return safe(f"{name}=[redacted]", 120)
    text = (
        value if isinstance(value, str) else json.dumps(redact(value), ensure_ascii=False, default=str)[:400]
    )
    return safe(redact_text(text[:1_000]), 200)


def event_row(record: Record) -> EventRow:
    """A record as a row of the events pane."""
    event = record.event
    caller: Caller = event.caller
    return EventRow(
        seq=record.seq,
        time_ns=record.time_ns,
        key=short(caller.key or caller.subject),
        session=short(caller.session),
        client=short(caller.client),
        tool=short(event.tool or event.event),
        detail=detail_of(event.params, event.error),
        status=event.status or "unknown",
        duration_ms=event.duration_ms,
        tier=record.tier,
        worst=record.worst,
        note=safe(record.note, 120),
        facts=event,
        targets=targets_of(caller, event.tool),
        open=is_open(event),
    )


def alert_row(incident: Incident, note: str, quiet: bool, newest: AuditEvent | None) -> AlertRow:
    """An incident as a row of the alerts pane."""
    return AlertRow(
        id=incident.id,
        severity=incident.severity,
        first_ns=incident.first_ns,
        last_ns=incident.last_ns,
        rule=incident.rule.id,
        title=incident.rule.title,
        subject=safe(describe(incident.subject, lambda value: safe_id(value, 60)), 120),
        count=incident.count,
        note=safe(note, 80),
        quiet=quiet,
        targets=incident_targets(incident, newest),
    )


def session_label(stats: SessionStats) -> SafeText:
    """The name of a session row."""
    caller = stats.caller
    return short(caller.session or caller.subject or caller.source_ip)


def record_fields(record: Record) -> Iterator[tuple[str, SafeText]]:
    """The fields of a record, as far as it has them."""
    event = record.event
    caller: Caller = event.caller
    yield "time", SafeText(iso(record.time_ns))
    rows: tuple[tuple[str, object], ...] = (
        ("event", event.event),
        ("tool", event.tool),
        ("risk tier", record.tier),
        ("status", event.status),
        ("error", redact_text(event.error) if event.error else None),
        ("duration", None if event.duration_ms is None else f"{event.duration_ms:g} ms"),
        ("key", caller.key),
        ("client", caller.client),
        ("session", caller.session),
        ("subject", caller.subject),
        ("address", caller.source_ip),
        ("auth method", caller.method),
        ("scopes", None if event.scopes is None else " ".join(event.scopes) or "none"),
        ("server", event.server),
        ("call id", event.call_id),
    )
    for name, value in rows:
        if value is not None:
            yield name, safe_id(value, 300)
    if is_open(event):
        yield (
            "note",
            SafeText("the beginning of a call: its end was not read, or may be that of another call"),
        )
    for flag, meaning in _FLAGS.items():
        if event.flags & flag:
            yield "note", SafeText(meaning)
    if event.flags & Flag.DUPLICATE_KEYS:
        for name, values in said_twice(event):
            yield "said twice", safe(f"{name}: {' and '.join(map(repr, values))}", 600)


def raw_lines(event: AuditEvent, *, reveal: bool) -> tuple[SafeText, ...]:
    """The record as it was logged: indented JSON, redacted unless `reveal`; the line as it is where it is no JSON.

    Of a call that is logged in two lines both.
    """
    lines: list[bytes] = event.origin.lines
    own = lines if isinstance(event.origin, OwnLines) else lines[event.index : event.index + 1]
    return tuple(shown for raw in own for shown in _raw_line(raw, reveal=reveal))


def _raw_line(raw: bytes, *, reveal: bool) -> tuple[SafeText, ...]:
    try:
        value = json.loads(raw[:200_000].decode("utf-8", "backslashreplace"), strict=False)
    except (ValueError, RecursionError):
        text = raw[:20_000].decode("utf-8", "backslashreplace")
        return (safe(text if reveal else redact_text(text), 20_000),)
    shown = value if reveal else redact(value)
    text = json.dumps(shown, indent=2, ensure_ascii=False, default=str)
    return tuple(safe(line, 2_000) for line in text.splitlines()[:2_000])
