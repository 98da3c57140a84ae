"""Incidents, events and the summary as JSON lines and as plain lines (docs/json-output.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mcpwatch.detection.case import Found
from mcpwatch.detection.feeds import network_of
from mcpwatch.detection.principal import describe
from mcpwatch.detection.rule import CHECK_NAMES
from mcpwatch.event import AuditEvent, CallEnd, Flag
from mcpwatch.incidents.fold import Change
from mcpwatch.incidents.incident import Incident
from mcpwatch.policy.model import Alerts
from mcpwatch.text import mask_secrets, redact, redact_text, safe, safe_id
from mcpwatch.times import iso

SCHEMA: Final = "mcpwatch/1"
_MAX_DEPTH: Final = 100


def dump(record: Mapping[str, Any]) -> str:
    """One line of JSON in ASCII: nothing in it can be obeyed by a terminal, lone surrogates included."""
    return json.dumps(record, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def incident_record(incident: Incident, alerts: Alerts, *, change: str | None = None,
                    count_since: int | None = None) -> dict[str, Any]:  # fmt: skip
    """An incident as JSON.

    Args:
        change: What happened to it (live), or None.
        count_since: Where counting began, ns, if the incident's day was not read from its start.
    """
    record: dict[str, Any] = {
        "type": "incident",
        "schema": SCHEMA,
        "id": incident.id,
        "rule": incident.rule.id,
        "title": incident.rule.title,
        "severity": incident.severity.label,
        "subject": {kind: mask_secrets(name) for kind, name in incident.subject},
        "count": incident.count,
        "first_seen": iso(incident.first_ns),
        "last_seen": iso(incident.last_ns),
    }
    if incident.rule.correlation is not None:
        record["peak"] = incident.peak
    record |= {
        "limit": incident.limit(alerts),
        "reason": incident.why(alerts),
        "outcomes": dict(sorted(incident.outcomes.items())),
        "tags": list(incident.rule.tags),
        "evidence": [
            {"source": item.source, "line": item.line, "offset": item.offset, "time": iso(item.time_ns)}
            for item in incident.evidence
        ],
    }
    if count_since is not None:
        record["count_since"] = iso(count_since)
    if change is not None:
        record["change"] = change
    return record


def incident_line(change: Change, alerts: Alerts) -> str:
    """A change of an incident as one plain line."""
    incident = change.incident
    subject = describe(incident.subject, lambda value: safe_id(value, 60))
    return (
        f"{iso(incident.last_ns)} {incident.severity.label.upper():8} {change.kind:8} {incident.id} "
        f"{incident.rule.id} {subject} x{incident.count}: {safe(incident.why(alerts), 200)}"
    )


def checks_of(found: Iterable[Found]) -> list[str]:
    """What the checks found in an event: the checks' own names, sorted."""
    # a check with settings is called after the rule that has them
    names = {each.check.partition(" of ")[0] for each in found}
    return sorted(names & set(CHECK_NAMES))


def event_record(
    event: AuditEvent, tier: str | None, *, reveal: bool, checks: list[str] | None = None
) -> dict[str, Any]:
    """An event as JSON; parameters and error are redacted unless `reveal`. `checks` is left out where it is None.

    The end of a call that was given as an event when it began is an amendment: by `source`, `line` and `offset` it is
    the same as that event was.
    """
    params, error = event.params, event.error
    end = event if isinstance(event, CallEnd) else None

    def shown(name: str | None) -> str | None:
        return name if name is None or reveal else mask_secrets(name)

    if not reveal:
        params, error = redact(params), redact_text(error) if error is not None else None
    fields: dict[str, Any] = {
        "type": "amendment" if end is not None else "event",
        "schema": SCHEMA,
        "time": iso(event.time_ns) if event.time_ns is not None else None,
        "event": event.event,
        "tool": event.tool,
        "tier": tier,
        "params": _finite(params),
        "status": event.status,
        "error": error,
        "duration_ms": event.duration_ms,
        "key_id": shown(event.key_id),
        "client_id": shown(event.client_id),
        "session_id": shown(event.session_id),
        "source_ip": event.source_ip,
        "network": network_of(event.source_ip) if event.source_ip is not None else None,
        "subject": shown(event.subject),
        "server": event.server,
        "call_id": shown(event.call_id),
        "source": event.source,
        "line": event.line,
        "offset": event.offset,
        "end_line": end.end_line if end is not None else None,
        "end_offset": end.end_offset if end is not None else None,
        "by_order": True if event.flags & Flag.PAIRED_BY_ORDER else None,
        "checks": checks,
    }
    return {name: value for name, value in fields.items() if value is not None}


def event_line(event: AuditEvent, tier: str | None, *, reveal: bool) -> str:
    """An event as one plain line; the end of a call as one that says so."""
    params = event.params if reveal else redact(event.params)
    shown = json.dumps(_finite(params), ensure_ascii=False) if params else ""
    if isinstance(event, CallEnd):
        shown = f"ended, {event.duration_ms:g} ms" if event.duration_ms is not None else "ended"
    who = event.key_id or event.subject or event.client_id or event.source_ip or "-"
    return (
        f"{iso(event.time_ns) if event.time_ns is not None else '-'} {safe(event.status, 20)} "
        f"{safe_id(who, 60)} {safe_id(event.session_id or '-', 60)} {safe(event.tool or event.event, 80)} "
        f"{tier or '-'} {safe(shown, 300)}"
    ).rstrip()


def _finite(value: Any, depth: int = 0) -> Any:
    """JSON has no NaN and no infinity: they become text. Nor can it be written as deep as it can be read."""
    if depth > _MAX_DEPTH:
        return "[too deep]"
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, dict):
        return {name: _finite(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item, depth + 1) for item in value]
    return value
