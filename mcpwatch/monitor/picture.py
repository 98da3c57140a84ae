"""Draws the picture: what the monitor knows becomes the rows of a snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from mcpwatch.detection.checks import Restriction
from mcpwatch.detection.hit import Severity
from mcpwatch.incidents.incident import Incident
from mcpwatch.monitor.board import TIERS, SessionStats, session_key
from mcpwatch.monitor.known import Known
from mcpwatch.monitor.pipeline import NO_POLICY
from mcpwatch.monitor.rows import alert_row, event_row, session_label, short, targets_of
from mcpwatch.policy.edit import Change, Disable, Lock, Revoke
from mcpwatch.policy.model import Policy
from mcpwatch.response.confirm import ForceState
from mcpwatch.response.operator import Made
from mcpwatch.snapshot import (
    RATE_MINUTES,
    AlertRow,
    ChangeRow,
    Counters,
    EventRow,
    PolicyRow,
    RateRow,
    SessionRow,
    Snapshot,
    SourceRow,
    TierRow,
)
from mcpwatch.text import SafeText, safe
from mcpwatch.times import MINUTE, SECOND

SHOWN_SESSIONS: Final = 200
SHOWN_ALERTS: Final = 500
SHOWN_EVENTS: Final = 2_000
SHOWN_TOOLS: Final = 12
SHOWN_CHANGES: Final = 20

COUNTERS: Final = ("lines", "understood", "not_understood", "blank", "repeated", "joined", "events")
_SHORT_OUTCOMES: Final = {"success": "ok", "unauthenticated": "unauth", "rate_limited": "limited"}

Worst = Mapping[tuple[str, str], Severity]
"""The worst incident of every id that a subject names, by (kind, id)."""


def picture(known: Known, version: int) -> Snapshot:
    """Everything that the main screen shows, as it is now."""
    now = known.now_ns
    fold = known.pipeline.fold
    by_severity = fold.by_severity()
    return Snapshot(
        version=version,
        now_ns=now,
        per_second=round(known.board.per_second(now), 1),
        lag_s=known.lag_s if known.replay is None else None,
        counters=_counters(known),
        sources=tuple(_source_rows(known, now)),
        policy=policy_row(known),
        severities=(
            by_severity[Severity.CRITICAL],
            by_severity[Severity.HIGH],
            by_severity[Severity.MEDIUM],
            by_severity[Severity.LOW],
        ),
        sessions=_sessions(known, now),
        session_count=len(known.pipeline.engine.sessions),
        rates=_rates(known, now),
        tiers=_tiers(known),
        alerts=tuple(alert_rows(known, SHOWN_ALERTS)),
        alert_count=len(fold.incidents),
        events=tuple(
            row for r in known.board.newest(SHOWN_EVENTS) if (row := row_of(known, r.seq)) is not None
        ),
        changes=tuple(change_row(known, made) for made in reversed(known.operator.made[-SHOWN_CHANGES:])),
        notices=_notices(known),
        replay=known.replay,
    )


def row_of(known: Known, seq: int) -> EventRow | None:
    """The row of a record, made once; None when it is no longer kept."""
    row = known.rows.get(seq)
    if row is None:
        record = known.board.find(seq)
        if record is None:
            return None
        if len(known.rows) > 3 * SHOWN_EVENTS:
            known.rows.clear()
        row = known.rows[seq] = event_row(record)
    return row


def restriction_of(change: Change, policy: Policy) -> tuple[Restriction, int] | None:
    """The entry of the policy that a change wrote, and since when it holds; None once it is gone."""
    if isinstance(change, Revoke):
        for entry in policy.revoked:
            if (entry.kind, entry.id) == (change.kind, change.id) and abs(entry.at - change.at_ns) < SECOND:
                return entry, entry.at
    if isinstance(change, Lock):
        for lockout in policy.lockouts:
            same = (lockout.key, lockout.source_ip) == (change.key, change.source_ip)
            if same and abs(lockout.at - change.at_ns) < SECOND:
                return lockout, lockout.at
    if isinstance(change, Disable):
        tool = policy.tools.get(change.tool)
        if tool is not None and not tool.enabled:
            return change.tool, change.since_ns
    return None


def change_row(known: Known, made: Made) -> ChangeRow:
    """A change with what was seen of it in the log."""
    state: ForceState = "written"
    found = restriction_of(made.change, known.policy_file.policy)
    if found is not None:
        state, detail = known.confirmations.state(*found)
    else:
        detail = "taken back since" if isinstance(made.change, Revoke | Lock | Disable) else ""
    return ChangeRow(made.what, made.at_ns, safe(made.by, 60), state, SafeText(detail))


def note_of(known: Known, incident: Incident) -> str:
    """The most telling fact about an incident: whether its caller's revocation bites, else what came of it."""
    ids = dict(incident.subject)
    state = _state_of_caller(known, ids)
    if "gap" in ids:
        # the incident itself is a success that should not have been; only a later refusal takes that back
        return "in force" if state == "in force" else "NOT IN FORCE"
    if state is not None:
        return state
    shares = incident.outcomes.most_common(2)
    if len(shares) == 1:
        return shares[0][0]
    return ", ".join(f"{count:,} {_SHORT_OUTCOMES.get(outcome, outcome)}" for outcome, count in shares)


def _state_of_caller(known: Known, ids: Mapping[str, str]) -> ForceState | None:
    """Whether what the policy holds against a caller bites; None when it holds nothing against it now."""
    policy, now = known.policy_file.policy, known.now_ns
    entry: Restriction
    for entry in reversed(policy.revoked):
        if ids.get(entry.kind) == entry.id and (entry.until is None or now < entry.until):
            return known.confirmations.state(entry, entry.at)[0]
    for entry in reversed(policy.lockouts):
        same = entry.key == ids.get("key") and entry.source_ip == ids.get("source_ip")
        if same and entry.at <= now < entry.until:
            return known.confirmations.state(entry, entry.at)[0]
    return None


def alert_rows(known: Known, limit: int) -> list[AlertRow]:
    """The incidents, worst first, then newest."""
    fold = known.pipeline.fold
    newest = {(r.event.source, r.event.offset): r.event for r in known.board.newest(SHOWN_EVENTS) if r.worst}
    rows = []
    for incident in worst_first(fold.incidents.values())[:limit]:
        last = incident.evidence[-1]
        event = newest.get((last.source, last.offset))
        rows.append(
            alert_row(incident, note_of(known, incident), fold.is_quiet(incident, known.now_ns), event)
        )
    return rows


def worst_first(incidents: Iterator[Incident] | object) -> list[Incident]:
    """Incidents by severity, then the newest first."""
    return sorted(incidents, key=lambda i: (-i.severity, -i.last_ns, i.id))  # type: ignore[call-overload,no-any-return]
