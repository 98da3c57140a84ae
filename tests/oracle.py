"""A second engine for the window rules: plain, slow, and written from their definition alone.

It keeps every event for ever and looks at all of them for each new one. Where it and the real engine disagree, one
of them is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from mcpwatch.event import AuditEvent
from mcpwatch.formats.reader import Reader
from mcpwatch.policy.model import Alerts
from mcpwatch.sources.block import Block
from mcpwatch.times import iso

MINUTE = 60 * 10**9
Subject = tuple[tuple[str, str], ...]


def read(
    lines: Iterable[dict[str, Any] | bytes | str], source: str = "a.jsonl", live: bool = False
) -> list[AuditEvent]:
    """The events of a log's lines, as the reader gives them. Live, "now" is the start of 2026-11-20."""
    return Reader(source).read(block_of(lines, source), 1_795_132_800 * 10**9 if live else None)


def block_of(lines: Iterable[dict[str, Any] | bytes | str], source: str = "a.jsonl") -> Block:
    """Lines as the sources room hands them on."""
    raw = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    return Block(source, raw, 0, 1)


def stamp(time_ns: int) -> str:
    """A timestamp with all nine digits."""
    return f"{iso(time_ns)[:19]}.{time_ns % 10**9:09d}Z"


class Firing(NamedTuple):
    """What a window rule must say: at which event, which rule, about whom, and how full the window was."""

    at: int
    rule: str
    subject: Subject
    time_ns: int
    peak: int


class _Entry(NamedTuple):
    subject: Subject
    time: int
    session: str | None
    call: str | None


def late_events(times: list[int | None], lateness: int) -> set[int]:
    """Which records of one source are late: more than `lateness` behind its reference time.

    The reference is the largest "smaller of two consecutive times" so far, and is forgotten after ten late ones.
    """
    late = set()
    since = 0  # of the known times, the first that the reference rests on
    run = 0
    known: list[int] = []
    for index, time in enumerate(times):
        if time is None:
            continue
        known.append(time)
        pairs = list(zip(known[since:], known[since + 1 :], strict=False))
        if pairs and time < max(min(pair) for pair in pairs) - lateness:
            late.add(index)
            run += 1
            if run == 10:
                run, since = 0, len(known) - 1
        else:
            run = 0
    return late


def firings(
    events: list[AuditEvent], alerts: Alerts, known_keys: frozenset[str] = frozenset()
) -> list[Firing]:
    """Everything that the four window rules say about a log of one source."""
    late = late_events([event.time_ns for event in events], alerts.allowed_lateness)
    entries: dict[str, list[_Entry]] = {}
    found = []
    for index, event in enumerate(events):
        if event.time_ns is None or index in late:
            continue
        for rule, subject in _rules(event, known_keys):
            entry = _Entry(subject, event.time_ns, event.session_id, event.call_id)
            others = [other for other in entries.setdefault(rule, []) if other.subject == subject]
            entries[rule].append(entry)
            peak = _peak(rule, entry, others, alerts)
            if peak:
                found.append(Firing(index, rule, subject, event.time_ns, peak))
    return found


def _rules(event: AuditEvent, known_keys: frozenset[str]) -> list[tuple[str, Subject]]:
    """Which rules count an event, and for whom."""
    key, client, session, address = event.key_id, event.client_id, event.session_id, event.source_ip
    by_key = [("key", key)]
    by_key_and_client = [("key", key), ("client", client)]
    by_address = [("source_ip", address)]
    by_address_and_client = [("source_ip", address), ("client", client)]
    rules = []
    if event.event == "tool_call":
        ladder = [[("session", session)], by_key_and_client, by_key, by_address_and_client, by_address]
        rules.append(("session-rate", _first(ladder)))
        if session is not None:
            rules.append(("session-churn", _first([by_key_and_client, by_address])))
    if event.event in ("tool_call", "request"):
        rules.append(("key-rate", _first([by_key])))
    if event.status == "unauthenticated" or (event.event == "auth" and event.status in ("denied", "error")):
        by_known_key = [("key", key if key in known_keys else None), ("source_ip", address)]
        rules.append(("auth-lockout", _first([by_known_key, by_address])))
    return [(rule, subject) for rule, subject in rules if subject is not None]


def _first(ladder: list[list[tuple[str, str | None]]]) -> Subject | None:
    for step in ladder:
        if all(value is not None for _, value in step):
            return tuple((name, value) for name, value in step if value is not None)
    return None


def _peak(rule: str, entry: _Entry, others: list[_Entry], alerts: Alerts) -> int:
    """How full the fullest window around an event is, if that is over the limit, else 0."""
    need, width = {
        "session-rate": (alerts.session_calls_per_minute + 1, MINUTE),
        "session-churn": (alerts.session_calls_per_minute + 1, MINUTE),
        "key-rate": (alerts.key_requests_per_minute + 1, MINUTE),
        "auth-lockout": (alerts.auth_failures, alerts.auth_failures_within),
    }[rule]
    together = [*others, entry]
    if rule == "session-rate":
        memory = width + alerts.allowed_lateness
        if _again(entry, others, memory):
            return 0
        together = [event for at, event in enumerate(together) if not _again(event, together[:at], memory)]
    peak = 0
    for end in {event.time for event in together}:
        if not end - width < entry.time <= end:
            continue
        window = [event for event in together if end - width < event.time <= end]
        size = len({event.session for event in window}) if rule == "session-churn" else len(window)
        peak = max(peak, size)
    return peak if peak >= need else 0


def _again(entry: _Entry, before: list[_Entry], memory: int) -> bool:
    """Whether a call was logged before."""
    return entry.call is not None and any(
        other.call == entry.call and abs(other.time - entry.time) < memory for other in before
    )
